"""The link to NATS: live traffic with providers. No fact lives in it alone.

A link reconnects without end, a fifth of a second between attempts, and subscribes anew by itself; while it is away
requests fail as UNAVAILABLE. ``serve`` and ``subscribe`` return only after the server has taken the subscription
(NATS does not acknowledge one, so a flush stands behind it): who is told afterwards that we listen finds us.

A responder's ``DomainError`` travels back in the headers of an empty answer and is raised again at the caller, so a
request over NATS fails the same way as a call over gRPC. The inbox prefix comes from the user's name in the
credentials, since a user may listen only to its own inbox (``nats_credentials``).
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import nats
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from fallow_chassis.errors import INTERNAL, UNAVAILABLE, DomainError, ErrorReason
from fallow_chassis.nats_credentials import inbox_prefix, user_name

RECONNECT_WAIT_SECONDS: Final = 0.2
CONNECT_TIMEOUT_SECONDS: Final = 30.0
FLUSH_TIMEOUT_SECONDS: Final = 5.0
PING_SECONDS: Final = 10
"""How often a silent connection is probed; two pings without an answer and it counts as lost."""
PENDING_BYTES: Final = 8 * 1024 * 1024
"""What is kept to be sent while the link is away; beyond it publishing fails."""
SUBSCRIPTION_PENDING_MESSAGES: Final = 4_096
"""Messages that wait in one subscription; beyond it the newest are dropped (requests then time out and come again)."""
SERVE_CONCURRENCY: Final = 16

HEADER_ERROR_REASON: Final = "fallow-error-reason"
HEADER_ERROR_CODE: Final = "fallow-error-code"
HEADER_ERROR_MESSAGE: Final = "fallow-error-message"
HEADER_ERROR_METADATA: Final = "fallow-error-metadata"

_AUTHORIZATION_REFUSED: Final = "authorization violation"
"""What the server says; while connecting, the client has no class of its own for it."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class NatsMessage:
    """One message as handlers get it."""

    subject: str
    payload: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


Responder = Callable[[NatsMessage], Awaitable[bytes]]
Listener = Callable[[NatsMessage], Awaitable[None]]


class NatsSubscription:
    """What ``serve`` and ``subscribe`` return: ``stop`` ends it."""

    def __init__(self, parts: list[Subscription]) -> None:
        """Hold the subscriptions that make up this one."""
        self._parts = parts

    async def stop(self) -> None:
        """Take no new message; those in hand are finished. Harmless on a link that is closed or away."""
        for part in self._parts:
            try:
                await part.drain()  # type: ignore[no-untyped-call]
            except (nats.errors.Error, OSError, TimeoutError):
                # The server forgets a subscription with its connection; there is nothing left to undo.
                _log.debug("nats_subscription_gone", subject=part.subject)
        self._parts = []


class NatsLink:
    """One connection, made by ``connect``."""

    def __init__(self, client: Client, name: str) -> None:
        """Use ``connect``."""
        self._client = client
        self._name = name
        self._has_connected = False
        self._is_closing = False
        self._last_error = ""
        self._reconnect_listeners: list[Callable[[], Awaitable[None]]] = []

    @classmethod
    async def connect(
        cls,
        url: str,
        credentials_file: str | Path = "",
        *,
        name: str = "fallow",
        timeout: float = CONNECT_TIMEOUT_SECONDS,
    ) -> "NatsLink":
        """Connect, waiting up to ``timeout`` seconds for a server that is not there yet.

        Raises TimeoutError then, nats.errors.Error (an authorization violation) at once where the credentials are
        refused, and OSError or ValueError where their file cannot be read.
        """
        options: dict[str, Any] = {}
        if credentials_file:
            owner = user_name(Path(credentials_file).read_text("ascii"))
            options = {"user_credentials": str(credentials_file), "inbox_prefix": inbox_prefix(owner)}
        link = cls(Client(), name)
        try:
            async with asyncio.timeout(timeout):
                with heeding_cancellation():
                    await link._client.connect(
                        url,
                        name=name,
                        error_cb=link._note_error,
                        disconnected_cb=link._note_disconnected,
                        reconnected_cb=link._note_reconnected,
                        closed_cb=link._note_closed,
                        reconnect_time_wait=RECONNECT_WAIT_SECONDS,  # type: ignore[arg-type]  # any number will do
                        max_reconnect_attempts=-1,
                        ping_interval=PING_SECONDS,
                        pending_size=PENDING_BYTES,
                        **options,
                    )
        except BaseException:
            await link._client.close()
            raise
        link._has_connected = True
        return link

    async def _note_error(self, error: Exception) -> None:
        """Log what went wrong; refused credentials end a first attempt, since waiting does not mend them."""
        if _AUTHORIZATION_REFUSED in str(error).lower() and not self._has_connected:
            raise error
        # Each attempt to connect fails in the same words while the server is away: they are said once.
        if not self._is_closing and repr(error) != self._last_error:
            self._last_error = repr(error)
            _log.warning("nats_error", link=self._name, error=repr(error))

    async def _note_disconnected(self) -> None:
        """Say that the server is away."""
        if not self._is_closing:
            _log.warning("nats_disconnected", link=self._name)

    async def _note_reconnected(self) -> None:
        """Say that the server is back, and tell who asked to know."""
        self._last_error = ""
        _log.info("nats_reconnected", link=self._name)
        for listener in tuple(self._reconnect_listeners):
            await listener()

    async def _note_closed(self) -> None:
        """A link that closes unasked was refused by the server for good."""
        if not self._is_closing:
            _log.error("nats_closed", link=self._name, error=repr(self._client.last_error))

    def on_reconnect(self, listener: Callable[[], Awaitable[None]]) -> Callable[[], None]:
        """Have ``listener`` called each time the server is back; returns what takes it off again."""
        self._reconnect_listeners.append(listener)
        return lambda: self._reconnect_listeners.remove(listener)

    @property
    def client(self) -> Client:
        """The client beneath, for JetStream."""
        return self._client

    @property
    def is_connected(self) -> bool:
        """Whether the server is there right now."""
        return self._client.is_connected

    async def request(
        self, subject: str, payload: bytes, timeout: float = 2.0, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """One request, one answer, within ``timeout`` seconds.

        Raises the responder's DomainError, or UNAVAILABLE where nobody listens, nobody answers in time or the link is
        away. After UNAVAILABLE the responder may have acted all the same: requests must be safe to repeat.
        """
        try:
            with heeding_cancellation():
                answer = await self._client.request(
                    subject, payload, timeout=timeout, headers=dict(headers) if headers else None
                )
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise DomainError(
                UNAVAILABLE, f"no answer on {subject}", metadata={"subject": subject, "cause": type(error).__name__}
            ) from error
        failure = _failure_of(answer)
        if failure is not None:
            raise failure
        return answer.data

    async def publish(self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Send a message and forget it; it is lost if nobody listens or the link is away too long."""
        await self._client.publish(subject, payload, headers=dict(headers) if headers else None)

    async def serve(
        self, subject: str, queue: str, handler: Responder, *, concurrency: int = SERVE_CONCURRENCY
    ) -> NatsSubscription:
        """Answer requests on ``subject`` with what ``handler`` returns, up to ``concurrency`` at a time.

        Members of one ``queue`` share the requests, each going to one of them. Two requests may be handled out of
        order; a caller who needs order waits for an answer before it sends the next.
        """
        assert queue, "who serves belongs to a queue group"
        assert concurrency >= 1, "somebody has to do the work"

        async def respond(message: Msg) -> None:
            await _answer(message, handler)

        # A subscription handles one message at a time; the server spreads requests over the members of a queue.
        return await self._listen(subject, queue, respond, members=concurrency)

    async def subscribe(self, subject: str, handler: Listener, *, queue: str = "") -> NatsSubscription:
        """Hand every message on ``subject`` to ``handler``, in order, one at a time; its failures are logged."""

        async def hear(message: Msg) -> None:
            try:
                await handler(_message_of(message))
            except Exception:  # noqa: BLE001 - nobody waits for an answer, and the next message stands on its own
                _log.exception("nats_listener_failed", subject=message.subject)

        return await self._listen(subject, queue, hear, members=1)

    async def _listen(
        self, subject: str, queue: str, callback: Callable[[Msg], Awaitable[None]], *, members: int
    ) -> NatsSubscription:
        """Subscribe ``members`` times and wait until the server knows."""
        parts = [
            await self._client.subscribe(
                subject, queue=queue, cb=callback, pending_msgs_limit=SUBSCRIPTION_PENDING_MESSAGES
            )
            for _ in range(members)
        ]
        await self.flush()
        return NatsSubscription(parts)

    async def flush(self) -> None:
        """Return once the server has taken everything that was sent; UNAVAILABLE if it does not in time."""
        try:
            # The client writes its ping past the commands that still wait to be written: the first answer only shows
            # that those are on their way, and the second ping comes behind them.
            for _ in range(2):
                with heeding_cancellation():
                    await self._client.flush(timeout=FLUSH_TIMEOUT_SECONDS)  # type: ignore[arg-type]  # any number will do
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise DomainError(UNAVAILABLE, "the NATS server did not answer") from error

    async def close(self) -> None:
        """Finish what is in hand and disconnect; a link that is away is simply closed."""
        self._is_closing = True
        if self._client.is_connected:
            try:
                await self._client.drain()
            except (nats.errors.Error, OSError, TimeoutError) as error:
                _log.warning("nats_drain_failed", error=repr(error))
        if not self._client.is_closed:
            await self._client.close()


@contextmanager
def heeding_cancellation() -> Iterator[None]:
    """Raise a cancellation that nats-py lost in the block: it waits by ``asyncio.wait_for``, which before Python 3.12
    returns an answer that comes at the same moment as the cancellation, and forgets the latter.
    """
    task = asyncio.current_task()
    assert task is not None, "only a task is cancelled"
    before = task.cancelling()
    try:
        yield
    finally:
        if task.cancelling() > before:
            raise asyncio.CancelledError


async def _answer(message: Msg, handler: Responder) -> None:
    """Run the handler and send what it returned or raised."""
    payload, headers = b"", None
    try:
        payload = await handler(_message_of(message))
    except DomainError as error:
        headers = _headers_of(error)
    except Exception:  # noqa: BLE001 - the caller is told, as a gRPC server would tell it
        _log.exception("nats_responder_failed", subject=message.subject)
        headers = _headers_of(DomainError(INTERNAL, "the request could not be handled"))
    if not message.reply:
        return
    try:
        await message._client.publish(message.reply, payload, headers=headers)  # noqa: SLF001 - respond() has no headers
    except (nats.errors.Error, OSError) as error:
        # The caller's time runs out, and it asks again.
        _log.warning("nats_answer_lost", subject=message.subject, error=repr(error))


def _message_of(message: Msg) -> NatsMessage:
    """Our form of a message."""
    return NatsMessage(message.subject, message.data, dict(message.headers or {}))


def _headers_of(error: DomainError) -> dict[str, str]:
    """A domain error as headers; JSON keeps any text on one line of ASCII."""
    return {
        HEADER_ERROR_REASON: error.reason.reason,
        HEADER_ERROR_CODE: error.code,
        HEADER_ERROR_MESSAGE: json.dumps(error.message),
        HEADER_ERROR_METADATA: json.dumps(dict(error.metadata)),
    }


def _failure_of(answer: Msg) -> DomainError | None:
    """The domain error that an answer carries, if it does; one that makes no sense is INTERNAL."""
    headers = answer.headers or {}
    if HEADER_ERROR_REASON not in headers:
        return None
    try:
        reason = ErrorReason(headers[HEADER_ERROR_REASON], headers[HEADER_ERROR_CODE], "", "")
        message = json.loads(headers[HEADER_ERROR_MESSAGE])
        metadata = json.loads(headers.get(HEADER_ERROR_METADATA, "{}"))
        return DomainError(reason, str(message), metadata={str(key): str(value) for key, value in metadata.items()})
    except (AssertionError, KeyError, ValueError, AttributeError):
        return DomainError(INTERNAL, "the answer carries an error that makes no sense")
