"""Domain errors on the wire: ``google.rpc.Status`` with details, in the trailing metadata ``grpc-status-details-bin``.

Every error carries ``ErrorInfo`` (reason, domain ``fallow``, metadata) and ``Help``, which says what to do. The
violations of an INVALID_ARGUMENT become ``BadRequest`` with field paths, those of any other code
``PreconditionFailure``; a wait becomes ``RetryInfo``. Sizes are bounded, because metadata has room for some kilobytes
only. The same module reads them back, so both ends agree.
"""

from collections.abc import Iterable
from typing import Final

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from fallow_chassis.errors import STATUS_CODES, DomainError, ErrorReason, FieldViolation
from fallow_chassis.wire import from_duration, to_duration

DETAILS_HEADER: Final = "grpc-status-details-bin"
ERROR_DOMAIN: Final = "fallow"
# Together, in base64, these stay below the 8 KiB of metadata that a gRPC client takes without being told otherwise.
MAX_MESSAGE_BYTES: Final = 400
MAX_TEXT_BYTES: Final = 200
"""The longest field path, description, or name or value of metadata."""
MAX_METADATA_BYTES: Final = 1_500
"""All metadata of one error; what comes after is left out."""
MAX_VIOLATION_BYTES: Final = 2_500
"""All violations of one error; what comes after is left out."""


class RemoteError(DomainError):
    """What another service answered: its code, reason, sentence, metadata, violations."""


def to_status(error: DomainError) -> status_pb2.Status:
    """The Status of an error, cut to what metadata has room for."""
    status = status_pb2.Status(code=code_pb2.Code.Value(error.code), message=_cut(error.message, MAX_MESSAGE_BYTES))
    metadata = _within(error.metadata.items(), MAX_METADATA_BYTES)
    _add(status, error_details_pb2.ErrorInfo(reason=error.reason.reason, domain=ERROR_DOMAIN, metadata=dict(metadata)))
    violations = _within(
        ((violation.field, violation.description) for violation in error.violations), MAX_VIOLATION_BYTES
    )
    if violations and error.code == "INVALID_ARGUMENT":
        request = error_details_pb2.BadRequest()
        for field, description in violations:
            request.field_violations.add(field=field, description=description)
        _add(status, request)
    elif violations:
        failure = error_details_pb2.PreconditionFailure()
        for subject, description in violations:
            failure.violations.add(type=error.reason.reason, subject=subject, description=description)
        _add(status, failure)
    if error.retry_after_ms is not None:
        _add(status, error_details_pb2.RetryInfo(retry_delay=to_duration(error.retry_after_ms)))
    advice = error_details_pb2.Help.Link(description=_cut(error.reason.action, MAX_TEXT_BYTES))
    _add(status, error_details_pb2.Help(links=[advice]))
    return status


def from_rpc_error(error: grpc.aio.AioRpcError) -> RemoteError:
    """Read an error of a call; without details (a proxy, a cut line) the code itself is the reason."""
    code = error.code().name
    assert code in STATUS_CODES, "an error has a code other than OK"
    return _read(code, _read_status(error), error.details() or code)


def from_status(status: status_pb2.Status) -> RemoteError:
    """Read an error that stands in an answer, as the results of a batch do; a code that is none reads as UNKNOWN."""
    known = status.code in code_pb2.Code.values() and status.code != code_pb2.OK
    code = code_pb2.Code.Name(status.code) if known else "UNKNOWN"
    return _read(code, status, code)


def _read(code: str, status: status_pb2.Status, message: str) -> RemoteError:
    """The error of a Status; ``message`` stands in for one that it lacks."""
    info, action = error_details_pb2.ErrorInfo(), error_details_pb2.Help()
    violations: list[FieldViolation] = []
    retry_after_ms: int | None = None
    for detail in status.details:
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(info) or detail.Unpack(action):
            continue
        if detail.Unpack(retry):
            retry_after_ms = max(0, from_duration(Duration.FromString(retry.retry_delay.SerializeToString())))
            continue
        violations.extend(_read_violations(detail))
    advice = action.links[0].description if action.links else "See that service's reasons."
    reason = ErrorReason(info.reason or code, code, "Another service answered so.", advice)
    return RemoteError(
        reason,
        status.message or message,
        metadata=dict(info.metadata),
        violations=violations,
        retry_after_ms=retry_after_ms,
    )


def _read_status(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """The Status in the trailing metadata; an empty one where there is none or it is malformed."""
    for name, value in error.trailing_metadata() or ():
        if name == DETAILS_HEADER and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                break
    return status_pb2.Status()


def _read_violations(detail: AnyMessage) -> list[FieldViolation]:
    """The violations in a BadRequest or a PreconditionFailure; none in any other detail."""
    request = error_details_pb2.BadRequest()
    if detail.Unpack(request):
        return [FieldViolation(violation.field, violation.description) for violation in request.field_violations]
    failure = error_details_pb2.PreconditionFailure()
    if detail.Unpack(failure):
        return [FieldViolation(violation.subject, violation.description) for violation in failure.violations]
    return []


def _add(status: status_pb2.Status, detail: Message) -> None:
    """Append one detail."""
    status.details.add().Pack(detail)


def _within(pairs: Iterable[tuple[str, str]], budget_bytes: int) -> list[tuple[str, str]]:
    """The first pairs that fit into a budget, each text cut to its own bound."""
    fitting: list[tuple[str, str]] = []
    for first, second in pairs:
        pair = (_cut(first, MAX_TEXT_BYTES), _cut(second, MAX_TEXT_BYTES))
        budget_bytes -= len(pair[0].encode()) + len(pair[1].encode())
        if budget_bytes < 0:
            break
        fitting.append(pair)
    return fitting


def _cut(text: str, bound_bytes: int) -> str:
    """A text that fits, with a mark where it was cut."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= bound_bytes:
        return encoded.decode()
    mark = "…"
    return encoded[: bound_bytes - len(mark.encode())].decode("utf-8", "ignore") + mark
