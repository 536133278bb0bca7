"""The sample contract beside this file, compiled when it is first imported."""

import tempfile
from pathlib import Path
from typing import Any

import grpc
from google.api import field_behavior_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2, field_mask_pb2, timestamp_pb2
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_tools import protoc

from fallow.type.v1 import annotations_pb2

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parents[2]
_NEEDED = (annotations_pb2, duration_pb2, field_behavior_pb2, field_mask_pb2, timestamp_pb2)
PACKAGE = "fallow.sample.v1"
SERVICE = f"{PACKAGE}.SampleService"


def _compile() -> None:
    """Add the contract to the pool that the chassis reads."""
    pool = descriptor_pool.Default()
    try:
        pool.FindFileByName("sample.proto")
    except KeyError:
        pass
    else:
        return
    includes = [
        _HERE,
        _ROOT / "proto",
        Path(protoc.__file__).parent / "_proto",
        Path(field_behavior_pb2.__file__).parents[2],
    ]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "sample.bin"
        arguments = ["protoc", *(f"-I{path}" for path in includes), f"--descriptor_set_out={output}", "sample.proto"]
        assert protoc.main(arguments) == 0, "the sample contract does not compile"
        files = descriptor_pb2.FileDescriptorSet.FromString(output.read_bytes())
    for file in files.file:
        pool.AddSerializedFile(file.SerializeToString())


_compile()


def message(name: str) -> Any:
    """The class of a message of the sample contract."""
    return GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(f"{PACKAGE}.{name}"))


Request = message("Request")
Answer = message("Answer")
Order = message("Order")
ThingHappened = message("ThingHappened")
OtherHappened = message("OtherHappened")


def add_servicer(servicer: Any, server: Any) -> None:
    """What the generated adder would do for SampleService; a method that the servicer lacks is the base class's."""
    kinds = {
        "Watch": grpc.unary_stream_rpc_method_handler,
        "Gather": grpc.stream_unary_rpc_method_handler,
        "Chat": grpc.stream_stream_rpc_method_handler,
    }
    handlers = {}
    for name in ("Public", "Account", "Service", "Grant", "Watch", "Gather", "Chat"):
        make = kinds.get(name, grpc.unary_unary_rpc_method_handler)
        handlers[name] = make(
            getattr(servicer, name, _not_implemented),
            request_deserializer=Request.FromString,
            response_serializer=Answer.SerializeToString,
        )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_registered_method_handlers(SERVICE, handlers)


def _not_implemented(request: Message, context: Any) -> None:
    """As the generated base class."""
    context.set_code(grpc.StatusCode.UNIMPLEMENTED)
    raise NotImplementedError("Method not implemented!")


class Stub:
    """What the generated stub would be."""

    def __init__(self, channel: Any) -> None:
        self.Public = self._multi(channel.unary_unary, "Public")
        self.Account = self._multi(channel.unary_unary, "Account")
        self.Service = self._multi(channel.unary_unary, "Service")
        self.Grant = self._multi(channel.unary_unary, "Grant")
        self.Watch = self._multi(channel.unary_stream, "Watch")
        self.Gather = self._multi(channel.stream_unary, "Gather")
        self.Chat = self._multi(channel.stream_stream, "Chat")

    @staticmethod
    def _multi(make: Any, name: str) -> Any:
        return make(
            f"/{SERVICE}/{name}",
            request_serializer=Request.SerializeToString,
            response_deserializer=Answer.FromString,
        )
