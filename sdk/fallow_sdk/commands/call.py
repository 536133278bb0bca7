"""`fallow call`: any method of the API, JSON in and JSON out, as grpcurl does it, with the profile's addresses and token."""

import asyncio
import json
import re
from importlib import import_module
from typing import Annotated, Any

import grpc
import typer
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from fallow_sdk.client import CALL_SECONDS
from fallow_sdk.commands.connection import signed_in
from fallow_sdk.errors import FallowError
from fallow_sdk.profile import Profile

# Importing them puts their descriptors into the pool.
MODULES = (
    "fallow.bidding.v1.lease_service_pb2",
    "fallow.bidding.v1.market_service_pb2",
    "fallow.bidding.v1.provider_service_pb2",
    "fallow.order.v1.order_service_pb2",
    "fallow.order.v1.session_service_pb2",
    "fallow.settlement.v1.programme_service_pb2",
    "fallow.settlement.v1.settlement_service_pb2",
)

MASKS = frozenset({"update_mask", "updateMask"})
"""Fields that list other fields; our documents name those as the contract does."""


def find_method(name: str) -> MethodDescriptor:
    """The method `package.Service/Method`. Raises a usage error that says what there is."""
    for module in MODULES:
        import_module(module)
    service_name, _, method_name = name.partition("/")
    try:
        service = descriptor_pool.Default().FindServiceByName(service_name)
    except KeyError:
        known = sorted({service for module in MODULES for service in services_of(module)})
        raise typer.BadParameter(f"no service {service_name!r}; there are: {', '.join(known)}") from None
    if method_name not in service.methods_by_name:
        raise typer.BadParameter(f"{service_name} has no {method_name!r}; it has: {', '.join(service.methods_by_name)}")
    method: MethodDescriptor = service.methods_by_name[method_name]
    if method.client_streaming:
        raise typer.BadParameter(f"{name} takes a stream; use the SDK")
    return method


def services_of(module: str) -> list[str]:
    """Full names of the services of a module."""
    return [service.full_name for service in import_module(module).DESCRIPTOR.services_by_name.values()]


def parse_request(method: MethodDescriptor, text: str) -> Message:
    """The request of a method from JSON. Raises a usage error for unknown fields and wrong types."""
    request: Message = message_factory.GetMessageClass(method.input_type)()
    try:
        fields = json.loads(text, object_pairs_hook=_fields_once)
        if not isinstance(fields, dict):
            raise json_format.ParseError("a request is a JSON object")
        fields = {name: _as_json_mask(value) if name in MASKS else value for name, value in fields.items()}
        return json_format.ParseDict(fields, request)
    except (json_format.ParseError, json.JSONDecodeError, RecursionError) as error:
        raise typer.BadParameter(str(error)) from error


def _fields_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; ParseError where a field stands twice, for only one of them could be meant."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise json_format.ParseError(f"a field stands twice in {{{', '.join(name for name, _ in pairs)}}}")
    return fields


def _as_json_mask(mask: Any) -> Any:
    """A field mask as protobuf's JSON spells it, with `groups.price_limit` read like `groups.priceLimit`."""
    return re.sub(r"_([a-z])", lambda found: found[1].upper(), mask) if isinstance(mask, str) else mask


def address_of(profile: Profile, method: MethodDescriptor) -> str:
    """The service that answers a method: the second word of its package."""
    package = method.containing_service.file.package.split(".")[1]
    return str({"order": profile.order, "bidding": profile.bidding, "settlement": profile.settlement}[package])


def call(
    method: Annotated[str, typer.Argument(help="Method, such as fallow.order.v1.OrderService/ListOrders.")],
    request: Annotated[str, typer.Argument(help="Request as JSON.")] = "{}",
) -> None:
    """Call one method of the API; JSON in, JSON out."""
    descriptor = find_method(method)
    message = parse_request(descriptor, request)

    async def run() -> None:
        async with signed_in() as (client, profile):
            metadata = (("authorization", f"Bearer {client.token}"),)
            async with grpc.aio.insecure_channel(address_of(profile, descriptor)) as channel:
                try:
                    await print_answers(channel, descriptor, message, metadata)
                except grpc.aio.AioRpcError as error:
                    raise FallowError.from_rpc(error) from error

    asyncio.run(run())


async def print_answers(
    channel: grpc.aio.Channel, method: MethodDescriptor, request: Message, metadata: tuple[tuple[str, str], ...]
) -> None:
    """Make the call, print each answer."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    answer_type = message_factory.GetMessageClass(method.output_type)
    codec: dict[str, Any] = {
        "request_serializer": message_factory.GetMessageClass(method.input_type).SerializeToString,
        "response_deserializer": answer_type.FromString,
    }
    if method.server_streaming:
        async for answer in channel.unary_stream(path, **codec)(request, metadata=metadata):
            typer.echo(json.dumps(json_format.MessageToDict(answer)))
        return
    answer = await channel.unary_unary(path, **codec)(request, metadata=metadata, timeout=CALL_SECONDS)
    typer.echo(json.dumps(json_format.MessageToDict(answer), indent=2))
