"""The database: a pool, units of work that carry their events with them, and reads.

A unit of work is one transaction. Events that it emits become outbox rows in that transaction, written just before
commit, when every lock on the aggregates is held: the sequence of two commands on one aggregate is then the order in
which they committed. Nothing is published here; the relay does that from the rows.

Every transaction and read takes what is left of the present call's deadline, at most ``TRANSACTION_SECONDS``; the
server itself cuts a statement off a little later, in case this process is gone. No network call belongs inside.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from fallow_chassis.clock import Clock
from fallow_chassis.context import bounded_seconds
from fallow_chassis.events import MAX_EVENT_BYTES, EventDraft, event_headers
from fallow_chassis.ids import Ids
from fallow_chassis.sql import Queries
from fallow_chassis.telemetry import current_traceparent

TRANSACTION_SECONDS: Final = 30.0
"""The longest a transaction or a read may take where no deadline is shorter."""
ACQUIRE_SECONDS: Final = 5.0
"""The longest wait for a free connection of the pool."""
CONNECT_SECONDS: Final = 10.0
CLOSE_SECONDS: Final = 5.0
MAX_EVENTS_PER_TRANSACTION: Final = 10_000
OUTBOX_CHANNEL: Final = "fallow_outbox"
"""Notified when a transaction with events committed."""

_STATEMENT_TIMEOUT_MS: Final = 35_000
_IDLE_IN_TRANSACTION_TIMEOUT_MS: Final = 60_000
_QUERIES: Final = Queries.load("fallow_chassis")

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"
"""What stores run their queries on, inside or outside a pool."""
Isolation: TypeAlias = Literal["read_committed", "repeatable_read", "serializable"]


class UnitOfWork:
    """One transaction: its connection, the clock and ids to use in it, and the events that leave with it."""

    def __init__(self, connection: Connection, clock: Clock, ids: Ids) -> None:
        """Made by ``Database.transaction``."""
        self.connection = connection
        self.clock = clock
        self.ids = ids
        self._drafts: list[EventDraft] = []

    def emit(self, draft: EventDraft) -> None:
        """State a fact: it is written to the outbox just before commit, and published if, and only if, that succeeds."""
        assert len(self._drafts) < MAX_EVENTS_PER_TRANSACTION, "a transaction with this many events should be several"
        self._drafts.append(draft)

    def take_drafts(self) -> list[EventDraft]:
        """Hand over the facts that are to be written now; for ``Database`` alone."""
        drafts, self._drafts = self._drafts, []
        return drafts


class Database:
    """A pool of connections to one service's database."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", url: str, clock: Clock, ids: Ids, source: str) -> None:
        """Use ``connect``."""
        self._pool = pool
        self._url = url
        self._source = source
        self.clock = clock
        self.ids = ids

    @classmethod
    async def connect(cls, url: str, *, pool_size: int = 10, ids: Ids, clock: Clock, source: str = "") -> "Database":
        """Open the pool; ``source`` (``services/order``) is what its events name as theirs."""
        async with asyncio.timeout(CONNECT_SECONDS):
            pool = await asyncpg.create_pool(
                url,
                min_size=1,
                max_size=pool_size,
                init=prepare_connection,
                reset=_keep_as_it_is,
                server_settings={
                    "application_name": source or "fallow",
                    "timezone": "UTC",
                    "statement_timeout": str(_STATEMENT_TIMEOUT_MS),
                    "idle_in_transaction_session_timeout": str(_IDLE_IN_TRANSACTION_TIMEOUT_MS),
                },
            )
        return cls(pool, url, clock, ids, source)

    async def close(self) -> None:
        """Wait shortly for connections in use, then close all."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    @asynccontextmanager
    async def transaction(self, *, isolation: Isolation = "read_committed") -> AsyncIterator[UnitOfWork]:
        """A unit of work: commits with its events when the block ends, rolls back when it raises.

        Raises TimeoutError past the deadline; errors of the database pass through as the driver's.
        """
        async with (
            asyncio.timeout(bounded_seconds(TRANSACTION_SECONDS)),
            self._acquired() as connection,
            connection.transaction(isolation=isolation),
        ):
            unit = UnitOfWork(connection, self.clock, self.ids)
            yield unit
            await self._write_events(unit)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Connection]:
        """A consistent view (read-only, repeatable read): all queries inside see one instant, and a write fails."""
        async with (
            asyncio.timeout(bounded_seconds(TRANSACTION_SECONDS)),
            self._acquired() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield connection

    @asynccontextmanager
    async def session(self, *, silence_seconds: float = 0) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
        """A connection of one's own, outside the pool and without time limits: for signals and advisory locks.

        With ``silence_seconds`` the server ends the session, and frees its locks, once it has said nothing for so long: a process
        that is stopped, or whose host is dead, holds none for ever.
        """
        connection = await self._connect_alone(silence_seconds)
        try:
            yield connection
        finally:
            await close_gently(connection)

    async def _connect_alone(self, silence_seconds: float) -> "asyncpg.Connection[asyncpg.Record]":
        """A new connection outside the pool; 0 bounds no silence."""
        async with asyncio.timeout(CONNECT_SECONDS):
            connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
                self._url,
                server_settings={
                    "application_name": f"{self._source or 'fallow'} session",
                    "timezone": "UTC",
                    "idle_session_timeout": str(round(silence_seconds * 1_000)),
                },
            )
            await prepare_connection(connection)
        return connection

    @asynccontextmanager
    async def _acquired(self) -> AsyncIterator[Connection]:
        """A connection of the pool."""
        connection = await self._pool.acquire(timeout=bounded_seconds(ACQUIRE_SECONDS))
        try:
            yield connection
        finally:
            await self._pool.release(connection)

    async def _write_events(self, unit: UnitOfWork) -> None:
        """Make outbox rows of what the unit emitted, and wake the relay at commit."""
        drafts = unit.take_drafts()
        if not drafts:
            return
        now = self.clock.now()
        trace = current_traceparent()
        event_ids = [self.ids.new() for _ in drafts]
        payloads = [draft.message.SerializeToString(deterministic=True) for draft in drafts]
        largest = max(map(len, payloads))
        assert largest <= MAX_EVENT_BYTES, f"an event of {largest} bytes is too large for the stream"
        await unit.connection.execute(
            _QUERIES.get("insert_outbox"),
            event_ids,
            [draft.topic for draft in drafts],
            [draft.key for draft in drafts],
            [draft.version for draft in drafts],
            [draft.message.DESCRIPTOR.full_name for draft in drafts],
            [draft.subject for draft in drafts],
            payloads,
            [
                encode_json(
                    event_headers(draft, event_id=event_id, source=self._source, time=now, trace=draft.trace or trace)
                )
                for draft, event_id in zip(drafts, event_ids, strict=True)
            ],
            now,
            OUTBOX_CHANNEL,
        )


async def notify(connection: Connection, channel: str, *keys: str) -> None:
    """Ring the bells of a channel, those of the keys and those of all keys, once this transaction commits."""
    await connection.execute(_QUERIES.get("notify"), channel, keys or ("",))


async def _keep_as_it_is(_connection: Connection) -> None:
    """Give a connection back to the pool without asking the server to forget what we never set.

    Everything in the pool ends with its transaction; LISTEN and locks of a session have connections of their own.
    """


async def close_gently(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Say goodbye to the server, so that its locks are free at once; cut the line if it does not listen."""
    try:
        await connection.close(timeout=CLOSE_SECONDS)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()


async def prepare_connection(connection: Connection) -> None:
    """Make JSON columns Python objects in both directions."""
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, encoder=encode_json, decoder=json.loads, schema="pg_catalog")


def encode_json(value: Any) -> str:
    """JSON text of a value; NaN and infinities are refused, as the database would."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
