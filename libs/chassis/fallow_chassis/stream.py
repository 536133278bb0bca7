"""The event stream as a port: what is common to its two adapters, JetStream and Kafka.

A topic is a log in partitions. Records of one key lie in one partition and keep their order; delivery is at least once;
a group's position is kept by the broker, so that a member that restarts goes on where the group was. ``publish``
answers once the broker has stored every record durably.

What happens to a record that fails is decided here, the same for both adapters (``deliver``). A retryable failure (see
``retry.is_retryable``: database, network, a peer that asks to wait) is retried for ever with growing waits and never
counts. Anything else is tried ``HANDLE_ATTEMPTS`` times, and then the record is poison: the caller's ``on_poison`` may
take it (settlement parks the key), or else it goes to the topic ``<topic>.dlq`` with headers that say why. Only then
does its partition go on. A record is never acknowledged before that, and never passed over.

At most ``PARTITIONS`` records of a topic are in hand at a time, one of each partition: a slow handler holds the broker
back, and the process's memory does not grow.
"""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from enum import Enum
from typing import Final, Protocol

import structlog

from fallow_chassis.events import DEAD_LETTER_SUFFIX, Record
from fallow_chassis.retry import is_retryable, wait_seconds

PARTITIONS: Final = 8
"""Partitions of a topic; fixed, because another number would give keys other partitions and lose their order."""
RETENTION_SECONDS: Final = 30 * 24 * 3600
"""How long a broker keeps a record at least; the outbox keeps sent rows for 7 days."""
PUBLISH_BATCH_RECORDS: Final = 1_000
"""The most records that one ``publish`` call hands to the broker at once."""
HANDLE_ATTEMPTS: Final = 3
"""How often a record is tried whose failure would not pass by itself, before it is poison."""
POISON_WAIT_SECONDS: Final = 0.05
"""The pause between those attempts."""
MAX_POISON_TEXT_CHARACTERS: Final = 500

HEADER_POISON_TOPIC: Final = "fallow-poison-topic"
HEADER_POISON_GROUP: Final = "fallow-poison-group"
HEADER_POISON_ERROR: Final = "fallow-poison-error"

_log = structlog.get_logger(__name__)


class PoisonOutcome(Enum):
    """What became of a record that cannot be handled."""

    DEAD_LETTER = "dead_letter"
    """Send it to the dead-letter topic."""
    TAKEN = "taken"
    """The caller keeps it (a parked key); the stream acknowledges it and goes on."""


Handle = Callable[[Record], Awaitable[None]]
OnPoison = Callable[[Record, Exception], Awaitable[PoisonOutcome]]


class StreamUnavailableError(ConnectionError):
    """The broker is away or not ready; the same call may succeed later (``retry.is_retryable`` says so)."""


class EventStream(Protocol):
    """The port. One instance a process; every method may be called by many tasks at once."""

    async def ensure_topics(self, names: Sequence[str]) -> None:
        """Create the topics that are not there yet; those that are stay as they are."""
        ...

    async def publish(self, records: Sequence[Record]) -> None:
        """Store the records durably, those of one key in the order given; the topics must exist.

        Raises if any was not confirmed, and then the caller sends all of them again: a record that was stored already
        is known by its ``ce_id`` (JetStream drops it within its window; the consumer's inbox drops it always).
        """
        ...

    async def consume(
        self, group: str, topics: Sequence[str], handle: Handle, *, on_poison: OnPoison | None = None
    ) -> None:
        """Hand the group's records to ``handle`` until cancelled; creates the topics that are not there yet.

        Starts with the oldest record for a group that is new. Records of one key come one after the other, those of
        several partitions side by side. Ends only by cancellation or by a failure of ``on_poison`` that does not pass;
        a broker that is away is waited for.
        """
        ...

    async def close(self) -> None:
        """Let go of the broker; consumers must have been cancelled before."""
        ...


class StreamSettings(Protocol):
    """The settings that ``open_stream`` reads (``ServiceSettings`` has them)."""

    @property
    def stream_url(self) -> str:
        """``nats://…``, ``kafka://host:port,host:port``, or empty for ``nats_url``."""
        ...

    @property
    def nats_url(self) -> str:
        """``nats://…``."""
        ...

    @property
    def nats_credentials_file(self) -> str:
        """A .creds file, or empty."""
        ...


async def open_stream(settings: StreamSettings, *, client: str = "fallow") -> EventStream:
    """Connect the adapter that the settings name; ``client`` is what the broker's own tools show for us."""
    url = settings.stream_url or settings.nats_url
    if url.startswith("kafka://"):
        from fallow_chassis.stream_kafka import KafkaStream  # noqa: PLC0415 - only one of the two is needed

        return await KafkaStream.connect(url, client=client)
    if url.startswith(("nats://", "tls://")):
        from fallow_chassis.stream_jetstream import JetStream  # noqa: PLC0415 - as above

        return await JetStream.connect(url, settings.nats_credentials_file, client=client)
    raise ValueError("the stream's address must start with nats://, tls:// or kafka://")


def partition_of(key: str) -> int:
    """The partition of a key on JetStream: CRC-32 of its UTF-8 bytes, modulo the number of partitions."""
    return zlib.crc32(key.encode()) % PARTITIONS


def batches(records: Sequence[Record]) -> Iterable[Sequence[Record]]:
    """The records in portions of ``PUBLISH_BATCH_RECORDS``, in order."""
    for start in range(0, len(records), PUBLISH_BATCH_RECORDS):
        yield records[start : start + PUBLISH_BATCH_RECORDS]


def in_turns(records: Sequence[Record]) -> Iterable[Sequence[Record]]:
    """The records in portions of different keys, those of one key in their order, each in a later portion than the last.

    A broker that confirmed a portion before the next is sent has no later record of a key before an earlier one.
    """
    for batch in batches(records):
        turns: list[list[Record]] = []
        seen: dict[tuple[str, str], int] = {}
        for record in batch:
            turn = seen[record.topic, record.key] = seen.get((record.topic, record.key), -1) + 1
            if turn == len(turns):
                turns.append([])
            turns[turn].append(record)
        yield from turns


async def publish_in_lanes(records: Sequence[Record], send: Callable[[Record], Awaitable[None]]) -> None:
    """Send the records of each key one after the other and those of different keys side by side.

    A record is sent only after the broker confirmed the one before it of its key, so that a failure in the middle
    leaves no later record stored before an earlier one. One failure stops all lanes and is raised as it is.
    """
    for batch in batches(records):
        lanes: dict[tuple[str, str], list[Record]] = {}
        for record in batch:
            lanes.setdefault((record.topic, record.key), []).append(record)
        try:
            async with asyncio.TaskGroup() as group:
                for lane in lanes.values():
                    group.create_task(_send_lane(lane, send))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None


async def _send_lane(records: Sequence[Record], send: Callable[[Record], Awaitable[None]]) -> None:
    """Send one key's records in order."""
    for record in records:
        await send(record)


async def deliver(
    record: Record,
    handle: Handle,
    *,
    group: str,
    on_poison: OnPoison | None,
    dead_letter: Callable[[Record], Awaitable[None]],
) -> None:
    """See one record through: returns once it was handled, taken by ``on_poison`` or stored as a dead letter."""
    failures = 0
    waits = 0
    while True:
        try:
            await handle(record)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is judged here
            if is_retryable(error):
                waits += 1
                await _wait_out(record, group, error, waits)
                continue
            failures += 1
            if failures < HANDLE_ATTEMPTS:
                await asyncio.sleep(POISON_WAIT_SECONDS)
                continue
            poison = error
            break
        else:
            return
    waits = 0
    while True:
        try:
            await _settle_poison(record, poison, group, on_poison, dead_letter)
        except Exception as error:
            if not is_retryable(error):
                raise
            waits += 1
            await _wait_out(record, group, error, waits)
        else:
            return


async def _settle_poison(
    record: Record,
    error: Exception,
    group: str,
    on_poison: OnPoison | None,
    dead_letter: Callable[[Record], Awaitable[None]],
) -> None:
    """Let the caller take a poison record, or store it as a dead letter."""
    outcome = PoisonOutcome.DEAD_LETTER if on_poison is None else await on_poison(record, error)
    if outcome is PoisonOutcome.DEAD_LETTER:
        await dead_letter(dead_letter_of(record, group, error))
    _log.error(
        "stream_record_poison", topic=record.topic, key=record.key, group=group, outcome=outcome.value, exc_info=error
    )


async def _wait_out(record: Record, group: str, error: Exception, waits: int) -> None:
    """Pause after a failure that passes by itself."""
    seconds = wait_seconds(waits)
    _log.warning(
        "stream_record_retried",
        topic=record.topic,
        key=record.key,
        group=group,
        attempt=waits,
        wait_seconds=seconds,
        error=repr(error),
    )
    await asyncio.sleep(seconds)


def dead_letter_of(record: Record, group: str, error: Exception) -> Record:
    """The record as its dead-letter topic keeps it: the same key, value and headers, and why it came there."""
    text = f"{type(error).__name__}: {error}"[:MAX_POISON_TEXT_CHARACTERS]
    headers = {
        **record.headers,
        HEADER_POISON_TOPIC: record.topic,
        HEADER_POISON_GROUP: group,
        # A header is one line of text: whatever an error says must not end it.
        HEADER_POISON_ERROR: text.encode("ascii", "backslashreplace").decode().replace("\r", " ").replace("\n", " "),
    }
    return Record(record.topic + DEAD_LETTER_SUFFIX, record.key, record.value, headers)
