"""What can go wrong in operation, in words that a program can act on.

A programmer's error asserts and crashes. Everything else is a ``DomainError``: it carries a declared ``ErrorReason``
(an UPPER_SNAKE word with one gRPC code), a sentence for people, and the changing parts as metadata. Servicers raise it;
one interceptor of the server turns it into a ``google.rpc.Status``, and one of the client turns that back. This module
knows neither gRPC nor protobuf, so a pure domain may import it.

Each package declares its reasons as constants and lists them in ``REASONS``; the entry point group
``fallow.error_reasons`` names that tuple, and ``docs/errors.md`` is generated from all of them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

STATUS_CODES: Final = frozenset(
    {
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    }
)
"""The names of gRPC's codes, but OK."""

_REASON_SHAPE: Final = re.compile(r"[A-Z][A-Z0-9_]{2,62}")


@dataclass(frozen=True, slots=True)
class ErrorReason:
    """One way to fail: the word, its gRPC code, what it means, and what the caller can do about it."""

    reason: str
    code: str
    summary: str
    action: str

    def __post_init__(self) -> None:
        """Hold the shape of the word and the name of the code."""
        assert _REASON_SHAPE.fullmatch(self.reason), f"{self.reason!r} is not UPPER_SNAKE"
        assert self.code in STATUS_CODES, f"{self.code!r} is no gRPC code"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of a request that is wrong: its path (``order.groups[0].price_limit``) and what is wrong with it."""

    field: str
    description: str


_NO_METADATA: Final[Mapping[str, str]] = MappingProxyType({})


class DomainError(Exception):
    """An operating error with a declared reason.

    ``message`` is a sentence for people, ``metadata`` the changing parts for programs, ``violations`` the fields at
    fault (INVALID_ARGUMENT) or the preconditions that do not hold (FAILED_PRECONDITION), ``retry_after_ms`` the time
    after which the same call may succeed.
    """

    def __init__(
        self,
        reason: ErrorReason,
        message: str,
        *,
        metadata: Mapping[str, str] = _NO_METADATA,
        violations: Sequence[FieldViolation] = (),
        retry_after_ms: int | None = None,
    ) -> None:
        """Keep the parts; see the class for their meaning."""
        super().__init__(message)
        assert retry_after_ms is None or retry_after_ms >= 0, "a wait is never negative"
        self.reason = reason
        self.message = message
        self.metadata: Mapping[str, str] = dict(metadata)
        self.violations: tuple[FieldViolation, ...] = tuple(violations)
        self.retry_after_ms = retry_after_ms

    @property
    def code(self) -> str:
        """The name of the gRPC code, such as ``FAILED_PRECONDITION``."""
        return self.reason.code

    def has_reason(self, reason: ErrorReason) -> bool:
        """Whether this error has that reason; compares the word, so it holds for remote errors too."""
        return self.reason.reason == reason.reason

    def __str__(self) -> str:
        """The reason and the sentence, for logs."""
        return f"{self.reason.reason}: {self.message}"


INVALID_FIELD: Final = ErrorReason(
    "INVALID_FIELD",
    "INVALID_ARGUMENT",
    "A field of the request is missing, malformed or out of its bounds.",
    "Correct the fields that the violations name and send the request again.",
)
UNKNOWN_FIELD: Final = ErrorReason(
    "UNKNOWN_FIELD",
    "INVALID_ARGUMENT",
    "The request carries a field that this server does not know.",
    "Drop the field, or call a server of the release that has it; nothing was done.",
)
REQUEST_ID_REUSED: Final = ErrorReason(
    "REQUEST_ID_REUSED",
    "INVALID_ARGUMENT",
    "The request_id was used before by this caller with other input.",
    "Use a new request_id for a new request, or repeat the first input to get its answer again.",
)
UNAUTHENTICATED: Final = ErrorReason(
    "UNAUTHENTICATED",
    "UNAUTHENTICATED",
    "No token came with the call, or it does not verify.",
    "Sign in and send the access token as 'authorization: Bearer <token>'.",
)
TOKEN_EXPIRED: Final = ErrorReason(
    "TOKEN_EXPIRED",
    "UNAUTHENTICATED",
    "The token verifies but its time is over.",
    "Get a fresh token and call again.",
)
PERMISSION_DENIED: Final = ErrorReason(
    "PERMISSION_DENIED",
    "PERMISSION_DENIED",
    "The caller is known but may not do this.",
    "Use a token with the scope or right that the metadata names.",
)
DEADLINE_EXCEEDED: Final = ErrorReason(
    "DEADLINE_EXCEEDED",
    "DEADLINE_EXCEEDED",
    "The call's time ran out before it was done.",
    "Repeat it with the same request_id and a longer deadline; a repeat is safe.",
)
NOT_YET_AVAILABLE: Final = ErrorReason(
    "NOT_YET_AVAILABLE",
    "UNIMPLEMENTED",
    "The method or option stands in the contract but is not built yet.",
    "Use what the service's README lists as working, or a later release.",
)
INTERNAL: Final = ErrorReason(
    "INTERNAL",
    "INTERNAL",
    "The server failed in a way it did not foresee.",
    "Report it with the trace id; a repeat with the same request_id is safe.",
)
UNAVAILABLE: Final = ErrorReason(
    "UNAVAILABLE",
    "UNAVAILABLE",
    "Something that the call needs (database, stream, another service) cannot be reached now.",
    "Wait as RetryInfo says and repeat with the same request_id.",
)
RATE_LIMITED: Final = ErrorReason(
    "RATE_LIMITED",
    "RESOURCE_EXHAUSTED",
    "The caller calls this service more often than it may; nothing was done.",
    "Wait as RetryInfo says and repeat; the metadata holds the limit.",
)
PAGE_TOKEN_INVALID: Final = ErrorReason(
    "PAGE_TOKEN_INVALID",
    "INVALID_ARGUMENT",
    "The page token was not made by this method for these arguments.",
    "Start the list again without a page token.",
)

REASONS: Final[tuple[ErrorReason, ...]] = (
    INVALID_FIELD,
    UNKNOWN_FIELD,
    REQUEST_ID_REUSED,
    UNAUTHENTICATED,
    TOKEN_EXPIRED,
    PERMISSION_DENIED,
    DEADLINE_EXCEEDED,
    NOT_YET_AVAILABLE,
    INTERNAL,
    UNAVAILABLE,
    RATE_LIMITED,
    PAGE_TOKEN_INVALID,
)
"""The reasons that any service may answer with."""


def invalid_field(field: str, description: str) -> DomainError:
    """The error for one bad field of a request."""
    return DomainError(INVALID_FIELD, f"{field}: {description}", violations=(FieldViolation(field, description),))


def not_yet_available(what: str) -> DomainError:
    """The error for a method or option of the contract that is not built yet."""
    return DomainError(NOT_YET_AVAILABLE, f"not available yet: {what}", metadata={"feature": what})
