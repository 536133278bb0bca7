"""Errors of the API as a client sees them: a code, a reason, field paths, and what to do next."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """What was wrong: a field's path, such as `order.groups[0].price_limit`, or the resource that stands in the way."""

    path: str
    description: str


@dataclass(slots=True)
class FallowError(Exception):
    """A call that the service refused, or that did not arrive.

    `code` is the gRPC status name, `reason` the UPPER_SNAKE word of docs/errors.md (empty when the call never
    reached a service), `metadata` the dynamic facts, `violations` the fields that were wrong, `retry_after_ms` how long
    the service asks to wait, `action` what to do.
    """

    code: str
    reason: str
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[FieldViolation, ...] = ()
    retry_after_ms: int | None = None
    action: str = ""

    @property
    def is_worth_a_repeat(self) -> bool:
        """Whether the same call may succeed in a moment: the service is away, or let the caller in too often."""
        return self.code == "UNAVAILABLE" or self.reason == "RATE_LIMITED"

    def __str__(self) -> str:
        """One line for people, then one line a field, one a fact, then what to do."""
        head = f"{self.reason} ({self.code}): {self.message}" if self.reason else f"{self.code}: {self.message}"
        lines = [f"  {item.path}: {item.description}" for item in self.violations]
        lines += [f"  {name} = {value}" for name, value in self.metadata.items()]
        return "\n".join([head, *lines, *([f"  {self.action}"] if self.action else [])])

    @classmethod
    def from_rpc(cls, error: grpc.aio.AioRpcError) -> "FallowError":
        """The same error with its details unpacked."""
        reason, metadata, violations, action = "", {}, [], error_details_pb2.Help()
        retry_after_ms = None
        status = rpc_status.from_call(error)
        for detail in status.details if status is not None else ():
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                info = error_details_pb2.ErrorInfo()
                detail.Unpack(info)
                reason, metadata = info.reason, dict(info.metadata)
            elif detail.Is(error_details_pb2.Help.DESCRIPTOR):
                detail.Unpack(action)
            elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
                request = error_details_pb2.BadRequest()
                detail.Unpack(request)
                violations += [FieldViolation(item.field, item.description) for item in request.field_violations]
            elif detail.Is(error_details_pb2.PreconditionFailure.DESCRIPTOR):
                failure = error_details_pb2.PreconditionFailure()
                detail.Unpack(failure)
                violations += [FieldViolation(item.subject, item.description) for item in failure.violations]
            elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                retry = error_details_pb2.RetryInfo()
                detail.Unpack(retry)
                retry_after_ms = retry.retry_delay.ToMilliseconds()
        text = error.details() or "no detail"
        advice = action.links[0].description if action.links else ""
        return cls(error.code().name, reason, text, metadata, tuple(violations), retry_after_ms, advice)


class ChainError(Exception):
    """A node of the chain refused a call, or a transaction was mined and reverted; the text is the node's own."""
