"""Which failures pass by themselves, and how long to wait before trying again.

A database that is restarting, a network that is cut, a peer that is draining: the same work may succeed later, so jobs,
the relay and consumers back off and try again, without end, and such a failure never counts against a message. Anything
else (an assertion, a constraint that does not hold) will fail again however often it is tried, and is not retried.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import asyncpg
import grpc
import nats.errors
import nats.js.errors

from fallow_chassis.errors import DomainError
from fallow_chassis.logging import get_logger, mask_text

FIRST_WAIT_SECONDS: Final = 0.1
LONGEST_WAIT_SECONDS: Final = 5.0
STEADY_SECONDS: Final = 30.0
"""Work that went well for this long and then fails is waited for as at its first failure."""

_RETRYABLE_CODES: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "RESOURCE_EXHAUSTED"})
_RETRYABLE_STATUS: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
_LOST_CONNECTION: Final = (
    "connection is closed",
    "closed in the middle",
    "released back to the pool",
    # Operation 2 is the server's last word on a connection, said while it was idle: it is about to be closed.
    "another operation (2) is in progress",
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

T = TypeVar("T")

_log = get_logger(__name__)


def is_retryable(error: BaseException) -> bool:
    """Whether the same work may succeed later with nothing changed: database, network, or a peer that asks to wait."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_retryable(inner) for inner in error.exceptions)
    if isinstance(error, DomainError):
        return error.code in _RETRYABLE_CODES
    if isinstance(error, grpc.aio.AioRpcError):
        return error.code() in _RETRYABLE_STATUS
    if isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError):
        return _is_lost_connection(error)
    # The Kafka client says of each of its errors whether it passes; it is not imported where it is not used.
    return isinstance(error, _RETRYABLE_ERRORS) or getattr(error, "retriable", False) is True


def _is_lost_connection(error: Exception) -> bool:
    """Whether the driver speaks of a connection that closed under it; it uses one class for that and for misuse."""
    text = str(error)
    return any(phrase in text for phrase in _LOST_CONNECTION)


def wait_seconds(attempt: int, *, first: float = FIRST_WAIT_SECONDS, longest: float = LONGEST_WAIT_SECONDS) -> float:
    """How long to wait after the failed attempt number ``attempt`` (from 1): doubles each time up to ``longest``."""
    assert attempt >= 1, "attempts count from 1"
    return float(min(longest, first * 2 ** min(attempt - 1, 16)))


async def keep_trying(
    name: str, work: Callable[[], Awaitable[T]], *, pause: Callable[[float], Awaitable[object]] = asyncio.sleep
) -> T:
    """Do work until it is done: a failure that passes by itself is waited out, by ``pause``, and any other is raised.

    The work may be endless; then only its failures, or a cancellation, end it.
    """
    failures = 0
    loop = asyncio.get_running_loop()
    while True:
        started = loop.time()
        try:
            return await work()
        except Exception as error:
            if not is_retryable(error):
                raise
            failures = 1 if loop.time() - started > STEADY_SECONDS else failures + 1
            seconds = wait_seconds(failures)
            _log.warning("work_waits", work=name, attempt=failures, wait_seconds=seconds, error=mask_text(repr(error)))
        await pause(seconds)
