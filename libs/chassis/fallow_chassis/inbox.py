"""The inbox: takes a topic's events to handlers, each once in effect and in order per key.

A handler runs in one transaction with the inbox row of its event, so an event that comes again finds the row and is
dropped. Versioned events (``ce_sequence`` from 1) are held against the last version of their key: an older one is
dropped, one that comes too early is parked as GAP and handled in its turn once the missing one came. Types that the
service does not handle are passed over, but their versions count: where it is their turn, in one transaction for all that
come at once and without inbox rows, since the version tells a repeat. Handlers do no network: they write rows, and jobs
act on those.

What fails and would fail again is poison, and the service chooses what then happens:

* ``DEAD_LETTER``: it goes to ``<topic>.dlq``, and the key goes on without it;
* ``PARK_KEY``: it is parked, and so is all that follows of its key (BEHIND), in order, while other keys go on;
  ``retry_parked`` takes them up again after a fix.

A database or network that is away is not the event's fault: the stream retries it without end.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Final, TypeAlias, TypeVar

import asyncpg
from google.protobuf.message import DecodeError, Message

from fallow_chassis.context import deadline_in
from fallow_chassis.events import (
    DEAD_LETTER_SUFFIX,
    HEADER_TRACE,
    MalformedEventError,
    ReceivedEvent,
    Record,
    parse_event,
)
from fallow_chassis.group_commit import GroupCommit
from fallow_chassis.logging import get_logger
from fallow_chassis.postgres import Connection, Database, UnitOfWork
from fallow_chassis.retry import is_retryable
from fallow_chassis.sql import Queries
from fallow_chassis.stream import EventStream, PoisonOutcome, dead_letter_of
from fallow_chassis.telemetry import meter, span_from

HANDLER_SECONDS: Final = 30.0
"""The longest that handling one event may take before it is rolled back and tried again."""
KEEP_INBOX: Final = timedelta(days=35)
"""How long an event that comes again is recognised; longer than a stream keeps it."""
DELETE_BATCH_ROWS: Final = 5_000
MAX_ERROR_CHARACTERS: Final = 500

_QUERIES: Final = Queries.load("fallow_chassis")
_log = get_logger(__name__)

M = TypeVar("M", bound=Message)
Handler: TypeAlias = Callable[[UnitOfWork, ReceivedEvent, Any], Awaitable[None]]
"""``async (unit, event, message) -> None``, run in one transaction with the event's inbox row."""


class Poison(Enum):
    """What happens to an event that cannot be handled."""

    DEAD_LETTER = "dead_letter"
    PARK_KEY = "park_key"


@dataclass(frozen=True, slots=True)
class ParkedEvent:
    """An event that waits: ``reason`` is GAP, POISON or BEHIND."""

    event_id: str
    topic: str
    key: str
    version: int
    reason: str
    error: str
    parked_at: datetime


@dataclass(frozen=True, slots=True)
class HaltedKey:
    """A key that stands still behind an event that cannot be handled."""

    topic: str
    key: str
    parked_at: datetime
    events: int


class Consumer:
    """One service's reader of some topics; ``name`` is its consumer group and the owner of its inbox rows."""

    def __init__(
        self,
        name: str,
        topics: Sequence[str],
        database: Database,
        stream: EventStream,
        handlers: Mapping[type[M], Handler],
        poison: Poison = Poison.DEAD_LETTER,
    ) -> None:
        """Handlers are found by message type; ``name`` must not change, or all events come again."""
        self.name = name
        self._topics = tuple(topics)
        self._database = database
        self._stream = stream
        self._handlers: dict[str, tuple[type[Message], Handler]] = {
            kind.DESCRIPTOR.full_name: (kind, handler) for kind, handler in handlers.items()
        }
        self._poison = poison
        self._passing = GroupCommit[ReceivedEvent, bool | None]("pass_over", self._count_passed)
        self._outcomes = meter().create_counter("fallow.inbox.events", unit="{event}")

    async def run(self) -> None:
        """Consume until cancelled."""
        await self._stream.ensure_topics([*self._topics, *(topic + DEAD_LETTER_SUFFIX for topic in self._topics)])
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._passing.run())
            tasks.create_task(self._stream.consume(self.name, self._topics, self.handle, on_poison=self.take_poison))

    async def handle(self, record: Record) -> None:
        """Bring one record to its effect: handled, dropped or parked; raises what its handler raises."""
        event = parse_event(record)
        passed = await self._pass_over(event)
        if passed is False:
            return
        with span_from(
            record.headers.get(HEADER_TRACE, ""), f"handle {event.type}", attributes={"messaging.topic": event.topic}
        ):
            more = passed is not None
            if passed is None:
                with deadline_in(HANDLER_SECONDS):
                    outcome, more = await self._receive(event, record)
                self._count(event, outcome)
            if more:
                await self._release(event.topic, event.key)

    async def take_poison(self, record: Record, error: Exception) -> PoisonOutcome:
        """Deal with a record that cannot be handled, as this consumer's ``poison`` says."""
        try:
            event = parse_event(record)
        except MalformedEventError:
            # Without an id and a version it can neither be recognised again nor take its place in a key.
            return PoisonOutcome.DEAD_LETTER
        if self._poison is Poison.DEAD_LETTER:
            # First the dead letter, then the mark: a crash between the two repeats the letter and loses nothing.
            await self._stream.publish([dead_letter_of(record, self.name, error)])
        async with self._database.transaction() as unit:
            await self._lock(unit, (event.topic, event.key))
            if not await self._insert_inbox(unit, event):
                return PoisonOutcome.TAKEN
            if self._poison is Poison.PARK_KEY:
                await self._park(unit, event, record, "POISON", _error_text(error))
            else:
                await self._save_version(unit, event)
        self._count(event, self._poison.value)
        _log.error(
            "event_poison", consumer=self.name, event_id=event.id, type=event.type, key=event.key, exc_info=error
        )
        await self._release(event.topic, event.key)
        return PoisonOutcome.TAKEN

    async def retry_parked(self, topic: str, key: str) -> int:
        """Handle what is parked for a key, in order, until it is done or fails again; returns how many were handled.

        Call it after the cause of a POISON was mended. What fails again stays parked, with the new error.
        """
        return await self._release(topic, key, even_if_halted=True)

    async def _pass_over(self, event: ReceivedEvent) -> bool | None:
        """Count the version of an event that nobody handles; whether parked ones may follow.

        None where that is not enough: it has a handler or no version, or it is not its turn.
        """
        if event.type in self._handlers or event.version == 0:
            return None
        passed = await self._passing.submit(event)
        if passed is not None:
            self._count(event, "passed_over")
        return passed

    async def _count_passed(self, events: Sequence[ReceivedEvent]) -> list[bool | Exception | None]:
        """Count the versions of events that nobody handles, in one transaction."""
        # Of two events of one key (a partition has two members for a moment) the second is looked at by itself.
        firsts = {(event.topic, event.key): event for event in reversed(events)}
        async with self._database.transaction() as unit:
            # Else one that comes too early at this moment could park itself after we had looked for such.
            await self._lock(unit, *firsts)
            rows = await unit.connection.fetch(
                _QUERIES.get("pass_over"),
                self.name,
                [topic for topic, _ in firsts],
                [key for _, key in firsts],
                [event.version for event in firsts.values()],
            )
        parked = {(row["topic"], row["key"]): bool(row["parked"]) for row in rows}
        return [
            parked.get((event.topic, event.key)) if firsts[event.topic, event.key] is event else None
            for event in events
        ]

    async def _receive(self, event: ReceivedEvent, record: Record) -> tuple[str, bool]:
        """Handle, drop or park a record in one transaction; the outcome, and whether parked ones may follow."""
        async with self._database.transaction() as unit:
            await self._lock(unit, (event.topic, event.key))
            fresh = await self._insert_inbox(unit, event)
            state = await self._key_state(unit, event.topic, event.key)
            may_follow = bool(state["parked"]) and not state["halted"]
            if not fresh:
                return "duplicate", may_follow
            if state["halted"]:
                await self._park(unit, event, record, "BEHIND", "")
                return "parked_behind", False
            if 0 < event.version <= state["version"]:
                return "older", may_follow
            if event.version > state["version"] + 1:
                await self._park(unit, event, record, "GAP", "")
                return "parked_gap", False
            await self._apply(unit, event, record.value)
            return "handled", may_follow

    async def _release(self, topic: str, key: str, *, even_if_halted: bool = False) -> int:
        """Handle a key's parked events whose turn has come, each in a transaction of its own; returns how many."""
        handled = 0
        while True:
            try:
                with deadline_in(HANDLER_SECONDS):
                    went_on = await self._release_first(topic, key, even_if_halted=even_if_halted)
            except Exception as error:
                if is_retryable(error):
                    raise
                if not await self._fail_first(topic, key, error):
                    return handled
                continue
            if not went_on:
                return handled
            handled += 1

    async def _release_first(self, topic: str, key: str, *, even_if_halted: bool) -> bool:
        """Handle the first parked event of a key if it is its turn; False if it is not, or none is there."""
        async with self._database.transaction() as unit:
            await self._lock(unit, (topic, key))
            row = await self._first_parked(unit, topic, key)
            state = await self._key_state(unit, topic, key)
            if row is None or (state["halted"] and not even_if_halted):
                return False
            record = Record(topic, key, row["payload"], row["headers"])
            event = parse_event(record)
            if event.version > state["version"] + 1:
                return False
            if event.version == 0 or event.version > state["version"]:
                with span_from(record.headers.get(HEADER_TRACE, ""), f"handle parked {event.type}"):
                    await self._apply(unit, event, record.value)
            await unit.connection.execute(_QUERIES.get("delete_parked"), self.name, event.id)
        self._count(event, "released")
        return True

    async def _fail_first(self, topic: str, key: str, error: Exception) -> bool:
        """Treat a key's first parked event as poison; True if the key goes on without it."""
        async with self._database.read() as connection:
            row = await connection.fetchrow(_QUERIES.get("load_first_parked"), self.name, topic, key)
        assert row is not None, "what failed is still parked"
        record = Record(topic, key, row["payload"], row["headers"])
        event = parse_event(record)
        _log.error(
            "event_poison", consumer=self.name, event_id=event.id, type=event.type, key=event.key, exc_info=error
        )
        if self._poison is Poison.DEAD_LETTER:
            await self._stream.publish([dead_letter_of(record, self.name, error)])
        async with self._database.transaction() as unit:
            await self._lock(unit, (topic, key))
            if self._poison is Poison.PARK_KEY:
                await self._park(unit, event, record, "POISON", _error_text(error))
                return False
            await self._save_version(unit, event)
            await unit.connection.execute(_QUERIES.get("delete_parked"), self.name, event.id)
            return True

    async def _apply(self, unit: UnitOfWork, event: ReceivedEvent, value: bytes) -> None:
        """Run the handler of an event, if there is one, and count its version."""
        found = self._handlers.get(event.type)
        if found is not None:
            kind, handler = found
            try:
                message = kind.FromString(value)
            except DecodeError as error:
                raise MalformedEventError(f"the value is no {event.type}") from error
            await handler(unit, event, message)
        await self._save_version(unit, event)

    async def _lock(self, unit: UnitOfWork, *places: tuple[str, str]) -> None:
        """Let nobody else touch these keys of topics until the transaction ends (two members may hold a partition for a
        moment); taken in one order by all, so that nobody waits for each other.
        """
        names = sorted(f"{self.name}\x1f{topic}\x1f{key}" for topic, key in places)
        await unit.connection.execute(_QUERIES.get("lock_keys"), names)

    async def _insert_inbox(self, unit: UnitOfWork, event: ReceivedEvent) -> bool:
        """Note that an event came; False if it came before."""
        inserted = await unit.connection.fetchval(
            _QUERIES.get("insert_inbox"), self.name, event.id, event.topic, unit.clock.now()
        )
        return inserted is not None

    async def _key_state(self, unit: UnitOfWork, topic: str, key: str) -> asyncpg.Record:
        """The last version of a key, whether anything of it is parked, and whether it stands still."""
        row = await unit.connection.fetchrow(_QUERIES.get("load_key_state"), self.name, topic, key)
        assert row is not None, "the query has always one row"
        return row

    async def _first_parked(self, unit: UnitOfWork, topic: str, key: str) -> asyncpg.Record | None:
        """The parked event of a key that is next."""
        return await unit.connection.fetchrow(_QUERIES.get("load_first_parked"), self.name, topic, key)

    async def _save_version(self, unit: UnitOfWork, event: ReceivedEvent) -> None:
        """Count an event's version as seen."""
        if event.version > 0:
            await unit.connection.execute(
                _QUERIES.get("save_version"), self.name, event.topic, event.key, event.version
            )

    async def _park(self, unit: UnitOfWork, event: ReceivedEvent, record: Record, reason: str, error: str) -> None:
        """Keep an event for later."""
        await unit.connection.execute(
            _QUERIES.get("insert_parked"),
            self.name,
            event.id,
            event.topic,
            event.key,
            event.version,
            reason,
            error,
            record.value,
            dict(record.headers),
            unit.clock.now(),
        )
        _log.warning("event_parked", consumer=self.name, event_id=event.id, key=event.key, reason=reason)

    def _count(self, event: ReceivedEvent, outcome: str) -> None:
        """Count what became of an event."""
        self._outcomes.add(1, {"consumer": self.name, "topic": event.topic, "outcome": outcome})


async def parked(connection: Connection, consumer: str, topic: str, key: str) -> list[ParkedEvent]:
    """What is parked for a key, in the order in which it would be handled."""
    rows = await connection.fetch(_QUERIES.get("load_parked"), consumer, topic, key)
    return [
        ParkedEvent(
            row["event_id"], row["topic"], row["key"], row["version"], row["reason"], row["error"], row["parked_at"]
        )
        for row in rows
    ]


async def halted_keys(connection: Connection, consumer: str) -> list[HaltedKey]:
    """The keys that stand still, the longest first."""
    rows = await connection.fetch(_QUERIES.get("list_halted_keys"), consumer)
    return [HaltedKey(row["topic"], row["key"], row["parked_at"], row["events"]) for row in rows]


async def sweep_inbox(database: Database) -> int:
    """Forget events that came more than ``KEEP_INBOX`` ago; returns how many."""
    forgotten = 0
    while True:
        async with database.transaction() as unit:
            status = await unit.connection.execute(
                _QUERIES.get("delete_inbox"), database.clock.now() - KEEP_INBOX, DELETE_BATCH_ROWS
            )
        count = int(status.rpartition(" ")[2])
        forgotten += count
        if count < DELETE_BATCH_ROWS:
            return forgotten


def _error_text(error: Exception) -> str:
    """An error as a short text for a row."""
    return f"{type(error).__name__}: {error}".replace("\x00", "")[:MAX_ERROR_CHARACTERS]
