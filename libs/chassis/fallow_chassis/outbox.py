"""The relay: takes outbox rows to the event stream, in order per key, at least once.

One relay works per database, the holder of an advisory lock on a connection of its own; others stand by. It reads the
rows that are not sent, oldest first, publishes them, and marks them on the connection that holds the lock: who lost
the lock cannot mark. The server ends the session of a relay that says nothing for some seconds (its process is
stopped), and another one takes its place. A crash between publishing and marking sends rows twice, which inboxes drop. It keeps no cursor:
sequences are taken before commit, so a row may appear behind one that was sent already, and is found all the same. The
order of one key is safe, because its commands hold a lock on the aggregate until they commit.

A signal at commit wakes the relay; a slow poll finds what a lost signal would leave. Sent rows stay for a week,
so that a broker which lost its data can be filled again.
"""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Final

import asyncpg

from fallow_chassis.clock import Clock
from fallow_chassis.events import Record
from fallow_chassis.logging import get_logger
from fallow_chassis.postgres import OUTBOX_CHANNEL, Database
from fallow_chassis.retry import is_retryable, keep_trying
from fallow_chassis.signals import Signals
from fallow_chassis.sql import Queries
from fallow_chassis.stream import EventStream
from fallow_chassis.telemetry import meter

BATCH_ROWS: Final = 500
"""Rows that are read, published and marked at a time."""
POLL_SECONDS: Final = 1.0
"""How long a row waits at most if its signal is lost."""
STANDBY_SECONDS: Final = 0.5
"""How often a relay that stands by asks for the lock."""
QUERY_SECONDS: Final = 30.0
PUBLISH_SECONDS: Final = 60.0
SILENCE_SECONDS: Final = 5.0
"""How long the server lets a relay be silent before it ends its session: a process that is stopped holds no lock for ever."""
PING_SECONDS: Final = 1.0
"""How often a relay says something while it waits for the stream."""
KEEP_SENT: Final = timedelta(days=7)
SWEEP_INTERVAL_MS: Final = 3_600_000
DELETE_BATCH_ROWS: Final = 5_000
LOCK_KEY: Final = 0x0FA1_1033_0000_0002
"""The advisory lock that the working relay of a database holds."""

_QUERIES: Final = Queries.load("fallow_chassis")
_log = get_logger(__name__)


class OutboxRelay:
    """Publishes the outbox of one database; ``run`` until cancelled or drained."""

    def __init__(self, database: Database, signals: Signals, stream: EventStream, clock: Clock) -> None:
        """Take the database whose outbox to send, the signals of its commits, and where to send to."""
        self._database = database
        self._stream = stream
        self._clock = clock
        self._bell = signals.bell(OUTBOX_CHANNEL)
        self._draining = False
        self._next_sweep_ms = 0
        self._topics: set[str] = set()
        self._sent = meter().create_counter("fallow.outbox.events_sent", unit="{event}")
        self._delay = meter().create_histogram("fallow.outbox.delay", unit="ms")

    async def run(self) -> None:
        """Relay until cancelled, or, once ``drain`` was called, until nothing is left to send.

        A database or stream that is away is waited for; any other failure is raised.
        """
        with self._bell:
            await keep_trying("outbox relay", self._relay, pause=self._bell.wait)

    def drain(self) -> None:
        """Send what is there and then end ``run``; returns at once."""
        self._draining = True
        self._bell.ring()

    async def _relay(self) -> None:
        """Wait for the lock and send rows as they come; a relay that drains gives up at the first failure."""
        try:
            async with self._database.session(silence_seconds=SILENCE_SECONDS) as session:
                if await self._win_lock(session):
                    await self._send(session)
        except Exception as error:
            if not self._draining or not is_retryable(error):
                raise
            _log.warning("outbox_drain_given_up", error=repr(error))

    async def _win_lock(self, session: "asyncpg.Connection[asyncpg.Record]") -> bool:
        """Wait for the lock; False if the relay drains before it has it (then another one relays)."""
        while True:
            async with asyncio.timeout(QUERY_SECONDS):
                if await session.fetchval(_QUERIES.get("lock_outbox"), LOCK_KEY):
                    return True
            if self._draining:
                return False
            await self._bell.wait(STANDBY_SECONDS)

    async def _send(self, session: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Send rows as they come, holding the lock; returns when drained."""
        while True:
            count = await self._send_batch(session)
            if count == BATCH_ROWS:
                continue
            if self._draining:
                return
            await self._sweep(session)
            await self._bell.wait(POLL_SECONDS)

    async def _send_batch(self, session: "asyncpg.Connection[asyncpg.Record]") -> int:
        """Publish and mark the oldest rows that are not sent; returns how many."""
        async with asyncio.timeout(QUERY_SECONDS):
            rows = await session.fetch(_QUERIES.get("load_unsent"), BATCH_ROWS)
        if not rows:
            return 0
        records = [Record(row["topic"], row["key"], row["payload"], row["headers"]) for row in rows]
        try:
            async with asyncio.timeout(PUBLISH_SECONDS), asyncio.TaskGroup() as group:
                published = asyncio.Event()
                group.create_task(_speak_until(published, session))
                await self._ensure_topics({record.topic for record in records})
                await self._stream.publish(records)
                published.set()
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        now = self._clock.now()
        async with asyncio.timeout(QUERY_SECONDS):
            await session.execute(_QUERIES.get("mark_sent"), [row["sequence"] for row in rows], now)
        for topic, count in Counter(record.topic for record in records).items():
            self._sent.add(count, {"topic": topic})
        for row in rows:
            self._delay.record((now - row["created_at"]) / timedelta(milliseconds=1), {"topic": row["topic"]})
        return len(rows)

    async def _ensure_topics(self, names: set[str]) -> None:
        """Create the topics that this relay meets for the first time."""
        unknown = sorted(names - self._topics)
        if unknown:
            await self._stream.ensure_topics(unknown)
            self._topics.update(unknown)

    async def _sweep(self, session: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Delete, once an hour, what was sent more than a week ago."""
        if self._clock.monotonic_ms() < self._next_sweep_ms:
            return
        self._next_sweep_ms = self._clock.monotonic_ms() + SWEEP_INTERVAL_MS
        async with asyncio.timeout(QUERY_SECONDS):
            await session.execute(_QUERIES.get("delete_sent"), self._clock.now() - KEEP_SENT, DELETE_BATCH_ROWS)


async def _speak_until(done: asyncio.Event, session: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Say something on a session now and then, until an event."""
    while not done.is_set():
        try:
            async with asyncio.timeout(PING_SECONDS):
                await done.wait()
        except TimeoutError:
            async with asyncio.timeout(QUERY_SECONDS):
                await session.fetchval("SELECT 1")
