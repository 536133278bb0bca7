"""The event stream on NATS JetStream, the embedded default.

A topic is one stream with the subjects ``<topic>.p0`` … ``<topic>.p7``; a record's subject is that of its key's
partition, its key travels in a header. A group has one durable pull consumer for each partition with one message in
flight, so the server hands out the next record of a partition only after the one before was acknowledged: that keeps
the order per key through restarts and redeliveries, with any number of members.

A member keeps one long pull open for each partition: the server pushes a record as soon as it may, with no request in
between. Pulls die with the server's memory, so they are asked for again when the link is back; a heartbeat of the
server watches over the case where that is not noticed. While a handler works, the member says so every second, and
the server redelivers ``ACK_WAIT_SECONDS`` after the last word of a member that died.

Publishing carries ``ce_id`` as ``Nats-Msg-Id``: the server drops what it stored within the last ten minutes already.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import nats.errors
import nats.js.errors
import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    PubAck,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)

from fallow_chassis.events import HEADER_ID, Record
from fallow_chassis.nats_link import NatsLink, heeding_cancellation
from fallow_chassis.retry import wait_seconds
from fallow_chassis.stream import (
    HEADER_POISON_GROUP,
    PARTITIONS,
    RETENTION_SECONDS,
    Handle,
    OnPoison,
    StreamUnavailableError,
    deliver,
    in_turns,
    partition_of,
)

PUBLISH_TIMEOUT_SECONDS: Final = 5.0
API_TIMEOUT_SECONDS: Final = 5.0
DUPLICATE_WINDOW_SECONDS: Final = 600
ACK_WAIT_SECONDS: Final = 5
"""After how long without a word of its member a record is handed out again."""
PROGRESS_SECONDS: Final = 1.0
"""How often a member says that it is still at work."""
PULL_RECORDS: Final = 1_024
"""How many records one pull asks for; only one of them is in flight at a time."""
PULL_SECONDS: Final = 60
HEARTBEAT_SECONDS: Final = 5
SILENCE_SECONDS: Final = 12.0
"""Without a record or a heartbeat for this long, the pull is taken for lost."""
MAX_MESSAGE_BYTES: Final = 1024 * 1024

HEADER_KEY: Final = "fallow-key"
HEADER_MESSAGE_ID: Final = "Nats-Msg-Id"
_STATUS: Final = "Status"
_STATUS_HEARTBEAT: Final = "100"
_NAME_IN_USE: Final = 10058
_REFUSALS: Final = frozenset(range(400, 500)) - {404}
_NANOSECONDS: Final = 1_000_000_000

_log = structlog.get_logger(__name__)


class JetStream:
    """The adapter; ``connect`` makes one."""

    def __init__(self, link: NatsLink) -> None:
        """Use ``connect``."""
        self._link = link
        self._context = link.client.jetstream(timeout=API_TIMEOUT_SECONDS)

    @classmethod
    async def connect(cls, url: str, credentials_file: str | Path = "", *, client: str = "fallow") -> "JetStream":
        """Connect by a link of its own, so that live traffic and events do not hold each other up."""
        return cls(await NatsLink.connect(url, credentials_file, name=f"{client}-stream"))

    async def ensure_topics(self, names: Sequence[str]) -> None:
        """Create the streams that are not there yet; ValueError where two topics' names make one stream's."""
        for name in names:
            config = StreamConfig(
                name=stream_name(name),
                subjects=[f"{name}.*"],
                storage=StorageType.FILE,
                retention=RetentionPolicy.LIMITS,
                discard=DiscardPolicy.OLD,
                max_age=RETENTION_SECONDS,
                max_msg_size=MAX_MESSAGE_BYTES,
                duplicate_window=DUPLICATE_WINDOW_SECONDS,
            )
            try:
                await self._context.add_stream(config)
            except nats.js.errors.BadRequestError as error:
                if error.err_code != _NAME_IN_USE:
                    raise
                # Another release made it with other limits; only its subjects matter to us.
                found = (await self._context.stream_info(stream_name(name))).config
                if found.subjects != config.subjects:
                    raise ValueError(f"the stream of {name} belongs to the subjects {found.subjects}") from error
            except (nats.js.errors.APIError, nats.errors.Error, OSError) as error:
                raise _unavailable(error) from error

    async def publish(self, records: Sequence[Record]) -> None:
        """Store the records; StreamUnavailableError if the server did not confirm one."""
        for turn in in_turns(records):
            await self._send(turn)

    async def _send(self, records: Sequence[Record]) -> None:
        """Store records of different keys side by side: all are sent, then all are waited for."""
        waiting: list[asyncio.Future[PubAck]] = []
        try:
            async with asyncio.timeout(PUBLISH_TIMEOUT_SECONDS):
                for record in records:
                    subject, headers = f"{record.topic}.p{partition_of(record.key)}", _headers_of(record)
                    with heeding_cancellation():
                        waiting.append(await self._context.publish_async(subject, record.value, headers=headers))
                for confirmed in waiting:
                    await confirmed
        except (nats.js.errors.APIError, nats.errors.Error, OSError) as error:
            raise _unavailable(error) from error
        finally:
            for confirmed in waiting:
                if not confirmed.cancel() and not confirmed.cancelled():
                    # One failure is told; the others are not, and nobody asks for them.
                    confirmed.exception()

    async def consume(
        self, group: str, topics: Sequence[str], handle: Handle, *, on_poison: OnPoison | None = None
    ) -> None:
        """Hand out records until cancelled; see the port."""
        member = _Member(self, self._link, group, handle, on_poison)
        remove_listener = self._link.on_reconnect(member.pull_again)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(member.keep_hold())
                for topic in topics:
                    for partition in range(PARTITIONS):
                        tasks.create_task(member.run(topic, partition))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        finally:
            remove_listener()

    async def store_dead_letter(self, record: Record) -> None:
        """Store a dead letter; its topic is made with the first one."""
        await self.ensure_topics([record.topic])
        await self._send([record])

    async def ensure_consumer(self, group: str, topic: str, partition: int) -> None:
        """Create the group's durable consumer of a partition, and its topic, unless they are there."""
        await self.ensure_topics([topic])
        try:
            await self._context.add_consumer(
                stream_name(topic),
                ConsumerConfig(
                    durable_name=consumer_name(group, partition),
                    filter_subject=f"{topic}.p{partition}",
                    deliver_policy=DeliverPolicy.ALL,
                    ack_policy=AckPolicy.EXPLICIT,
                    ack_wait=ACK_WAIT_SECONDS,
                    max_deliver=-1,
                    max_ack_pending=1,
                ),
            )
        except (nats.js.errors.APIError, nats.errors.Error, OSError) as error:
            raise _unavailable(error) from error

    async def close(self) -> None:
        """Disconnect."""
        await self._link.close()


class _Member:
    """One ``consume`` call: a task for each partition, the messages in hand, and who keeps hold of them."""

    def __init__(
        self, stream: JetStream, link: NatsLink, group: str, handle: Handle, on_poison: OnPoison | None
    ) -> None:
        """Take part in ``group``."""
        self._stream = stream
        self._link = link
        self._group = group
        self._handle = handle
        self._on_poison = on_poison
        self._in_hand: dict[tuple[str, int], Msg] = {}
        self._inboxes: dict[tuple[str, int], str] = {}

    async def run(self, topic: str, partition: int) -> None:
        """See to one partition until cancelled, whatever happens to the server."""
        failures = 0
        while True:
            try:
                with heeding_cancellation():
                    await self._stream.ensure_consumer(self._group, topic, partition)
                failures = 0
                await self._take_records(topic, partition)
            except (nats.errors.Error, OSError) as error:
                if not isinstance(_unavailable(error), StreamUnavailableError):
                    raise
                failures += 1
                _log.warning(
                    "stream_partition_away", topic=topic, partition=partition, group=self._group, error=repr(error)
                )
                await asyncio.sleep(wait_seconds(failures))

    async def _take_records(self, topic: str, partition: int) -> None:
        """Keep a pull open and see each record through; returns when the pull fell silent."""
        place = (topic, partition)
        inbox = self._link.client.new_inbox()
        # No more comes than was asked for, so the pull bounds what waits here.
        messages: asyncio.Queue[Msg] = asyncio.Queue()
        subscription = await self._link.client.subscribe(inbox, cb=messages.put)
        self._inboxes[place] = inbox
        try:
            await self._pull(place)
            due = PULL_RECORDS
            while True:
                try:
                    async with asyncio.timeout(SILENCE_SECONDS):
                        message = await messages.get()
                except TimeoutError:
                    return
                status = _status_of(message)
                if status == _STATUS_HEARTBEAT:
                    continue
                if status is None:
                    due -= 1
                    await self._see_through(place, message, subscription)
                if status is not None or due == 0:
                    if status is not None and status not in {"404", "408"}:
                        # 409 and 503: the consumer is gone or its server is; look at it anew.
                        raise StreamUnavailableError(f"the pull ended with status {status}")
                    await self._pull(place)
                    due = PULL_RECORDS
        finally:
            del self._inboxes[place]
            await _forget(subscription)

    async def _see_through(self, place: tuple[str, int], message: Msg, subscription: Subscription) -> None:
        """Handle one message and acknowledge it; a cancelled one is given back at once."""
        self._in_hand[place] = message
        try:
            await deliver(
                record_of(place[0], message),
                self._handle,
                group=self._group,
                on_poison=self._on_poison,
                dead_letter=self._stream.store_dead_letter,
            )
        except BaseException:
            # First the pull must end, or the server would hand the record to us again.
            await _forget(subscription)
            await _say(message, b"-NAK")
            raise
        finally:
            del self._in_hand[place]
        await _say(message, b"+ACK")

    async def keep_hold(self) -> None:
        """Tell the server now and then that the messages in hand are being worked on."""
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            for message in tuple(self._in_hand.values()):
                await _say(message, b"+WPI")

    async def pull_again(self) -> None:
        """Open all pulls again: the server that is back knows nothing of them."""
        for place in tuple(self._inboxes):
            await self._pull(place)

    async def _pull(self, place: tuple[str, int]) -> None:
        """Ask for the next records of a partition."""
        topic, partition = place
        request = {
            "batch": PULL_RECORDS,
            "expires": PULL_SECONDS * _NANOSECONDS,
            "idle_heartbeat": HEARTBEAT_SECONDS * _NANOSECONDS,
        }
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream_name(topic)}.{consumer_name(self._group, partition)}"
        await self._link.client.publish(subject, json.dumps(request).encode(), reply=self._inboxes[place])


def _headers_of(record: Record) -> dict[str, str]:
    """The headers with what only the transport needs."""
    assert record.key.isprintable(), "a key is one line of text"
    headers = {**record.headers, HEADER_KEY: record.key}
    if HEADER_ID in record.headers:
        # One event may be a dead letter of several groups, and none of them must hide the others.
        group = record.headers.get(HEADER_POISON_GROUP)
        headers[HEADER_MESSAGE_ID] = record.headers[HEADER_ID] + (f":{group}" if group else "")
    return headers


def stream_name(topic: str) -> str:
    """A topic's stream: a stream's name holds no dots."""
    return topic.replace(".", "-")


def consumer_name(group: str, partition: int) -> str:
    """A group's consumer of one partition."""
    return f"{group.replace('.', '-')}-p{partition}"


def record_of(topic: str, message: Msg) -> Record:
    """The record that a message carries, without what only the transport needs."""
    headers: Mapping[str, str] = message.headers or {}
    kept = {name: value for name, value in headers.items() if name not in {HEADER_KEY, HEADER_MESSAGE_ID}}
    return Record(topic, headers.get(HEADER_KEY, ""), message.data, kept)


def _status_of(message: Msg) -> str | None:
    """The status that the server sends in place of a record, or None for a record."""
    if message.data or not message.headers:
        return None
    return message.headers.get(_STATUS)


async def _say(message: Msg, word: bytes) -> None:
    """Answer for a message; a word that is lost means that it comes again, which every handler expects."""
    try:
        await message._client.publish(message.reply, word)  # noqa: SLF001 - ack() refuses a second word
    except (nats.errors.Error, OSError) as error:
        _log.warning("stream_acknowledgement_lost", subject=message.subject, error=repr(error))


async def _forget(subscription: Subscription) -> None:
    """End a subscription; one that is gone already is as good."""
    try:
        await subscription.unsubscribe()
    except (nats.errors.Error, OSError) as error:
        _log.debug("stream_subscription_gone", error=repr(error))


def _unavailable(error: Exception) -> Exception:
    """StreamUnavailableError for what may pass; what the server refuses (4xx, but 404) stays as it is."""
    if isinstance(error, nats.js.errors.APIError) and error.code in _REFUSALS:
        return error
    return StreamUnavailableError(f"JetStream does not answer: {error!r}")
