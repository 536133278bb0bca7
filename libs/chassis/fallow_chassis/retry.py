"""Which failures pass by themselves, and how long to wait before trying again.

A database that is restarting, a network that is cut, a peer that is draining: the same work may succeed later, so jobs,
the relay and consumers back off and try again, without end, and such a failure never counts against a message. Anything
else (an assertion, a constraint that does not hold) will fail again however often it is tried, and is not retried.
"""

from typing import Final

import asyncpg
import grpc
import nats.errors
import nats.js.errors

from fallow_chassis.errors import DomainError

FIRST_WAIT_SECONDS: Final = 0.1
LONGEST_WAIT_SECONDS: Final = 5.0

_RETRYABLE_CODES: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "RESOURCE_EXHAUSTED"})
_RETRYABLE_STATUS: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
_RETRYABLE_ERRORS: Final[tuple[type[BaseException], ...]] = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    nats.errors.NoRespondersError,
    nats.errors.NoServersError,
    nats.errors.TimeoutError,
    nats.errors.ConnectionClosedError,
    nats.errors.ConnectionReconnectingError,
    nats.errors.StaleConnectionError,
    nats.js.errors.NoStreamResponseError,
    nats.js.errors.ServiceUnavailableError,
    nats.js.errors.ServerError,
)


def is_retryable(error: BaseException) -> bool:
    """Whether the same work may succeed later with nothing changed: database, network, or a peer that asks to wait."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_retryable(inner) for inner in error.exceptions)
    if isinstance(error, DomainError):
        return error.code in _RETRYABLE_CODES
    if isinstance(error, grpc.aio.AioRpcError):
        return error.code() in _RETRYABLE_STATUS
    if isinstance(error, asyncpg.InterfaceError):
        return _is_lost_connection(error)
    # The Kafka client says of each of its errors whether it passes; it is not imported where it is not used.
    return isinstance(error, _RETRYABLE_ERRORS) or getattr(error, "retriable", False) is True


def _is_lost_connection(error: asyncpg.InterfaceError) -> bool:
    """Whether the driver speaks of a connection that closed under it; it uses one class for that and for misuse."""
    text = str(error)
    return "connection is closed" in text or "closed in the middle" in text or "released back to the pool" in text


def wait_seconds(attempt: int, *, first: float = FIRST_WAIT_SECONDS, longest: float = LONGEST_WAIT_SECONDS) -> float:
    """How long to wait after the failed attempt number ``attempt`` (from 1): doubles each time up to ``longest``."""
    assert attempt >= 1, "attempts count from 1"
    return float(min(longest, first * 2 ** min(attempt - 1, 16)))
