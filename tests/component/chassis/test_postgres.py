"""The database wrapper: units of work, reads, deadlines, events."""

import asyncio
from datetime import UTC, datetime

import asyncpg
import pytest

from fallow_chassis.context import deadline_in
from fallow_chassis.events import EventDraft
from fallow_chassis.postgres import Database
from fallow_chassis.retry import is_retryable
from fallow_chassis.sql import Queries
from tests.unit.chassis.sample import ThingHappened


def draft(version: int = 1, key: str = "a") -> EventDraft:
    return EventDraft(
        "sample.things.v1", key, version, ThingHappened(thing=key, number=version), subject=f"things/{key}"
    )


async def answers(database: Database) -> None:
    """Fails unless a connection of the pool is free and works."""
    async with database.read() as connection:
        assert await connection.fetchval("SELECT 1") == 1


async def test_events_are_written_with_the_commit(database: Database) -> None:
    """Goal: an event is there if, and only if, its command committed. Method: one commit, one failure."""
    async with database.transaction() as unit:
        unit.emit(draft(1))
        unit.emit(draft(2))
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as unit:
            unit.emit(draft(3))
            raise ZeroDivisionError
    async with database.read() as connection:
        rows = await connection.fetch("SELECT * FROM outbox ORDER BY sequence")
    assert [row["version"] for row in rows] == [1, 2]
    assert ThingHappened.FromString(rows[0]["payload"]).number == 1
    headers = rows[0]["headers"]
    assert headers["ce_id"] == rows[0]["event_id"]
    assert headers["ce_type"] == "fallow.sample.v1.ThingHappened"
    assert headers["ce_source"] == "services/sample"
    assert headers["ce_subject"] == "things/a"
    assert headers["ce_sequence"] == "1"
    assert datetime.fromisoformat(headers["ce_time"]) == rows[0]["created_at"]


async def test_a_version_stands_once(database: Database) -> None:
    """Goal: two events of one key with one version never leave. Method: emit it twice, in two transactions."""
    async with database.transaction() as unit:
        unit.emit(draft(1))
    with pytest.raises(asyncpg.UniqueViolationError):
        async with database.transaction() as unit:
            unit.emit(draft(1))
    async with database.transaction() as unit:
        unit.emit(draft(0))
        unit.emit(draft(0))


async def test_a_read_cannot_write_and_sees_one_instant(database: Database) -> None:
    """Goal: a read is consistent. Method: commit between its two queries; then write in it."""
    async with database.read() as connection:
        before = await connection.fetchval("SELECT count(*) FROM outbox")
        async with database.transaction() as unit:
            unit.emit(draft(1))
        assert await connection.fetchval("SELECT count(*) FROM outbox") == before
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        async with database.read() as connection:
            await connection.execute("DELETE FROM outbox")


async def test_the_deadline_ends_a_transaction(database: Database) -> None:
    """Goal: a call's time bounds its queries, and the connection is good afterwards. Method: sleep past it."""
    with deadline_in(0.1), pytest.raises(TimeoutError):
        async with database.transaction() as unit:
            await unit.connection.execute("SELECT pg_sleep(20)")
    await answers(database)


async def test_a_free_connection_is_waited_for_no_longer_than_the_deadline(database: Database) -> None:
    """Goal: a full pool answers late calls with a timeout. Method: hold all connections and ask for one more."""
    held = asyncio.Event()
    release = asyncio.Event()
    count = 0

    async def hold() -> None:
        nonlocal count
        async with database.read():
            count += 1
            if count == 8:
                held.set()
            await release.wait()

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(hold())
        await held.wait()
        with deadline_in(0.1), pytest.raises(TimeoutError):
            await answers(database)
        release.set()
    await answers(database)


async def test_json_and_time_are_python_values(database: Database) -> None:
    """Goal: columns come as what they mean. Method: round trips."""
    async with database.read() as connection:
        value = await connection.fetchval("SELECT $1::jsonb", {"a": [1, "ü", None]})
        instant = await connection.fetchval("SELECT '2026-11-23T08:15:00.123+02:00'::timestamptz(3)")
    assert value == {"a": [1, "ü", None]}
    assert instant == datetime(2026, 11, 23, 6, 15, 0, 123_000, tzinfo=UTC)


async def test_a_killed_connection_is_retryable_and_replaced(database: Database) -> None:
    """Goal: a database that restarts is waited for. Method: end the backend under a transaction."""
    with pytest.raises(Exception) as caught:
        async with database.transaction() as unit:
            victim = await unit.connection.fetchval("SELECT pg_backend_pid()")
            async with database.transaction() as other:
                await other.connection.execute("SELECT pg_terminate_backend($1, 5000)", victim)
            await unit.connection.execute("SELECT 1")
    assert is_retryable(caught.value), repr(caught.value)
    await answers(database)


async def test_every_query_prepares(database: Database) -> None:
    """Goal: no query is malformed. Method: PREPARE each on the migrated database."""
    queries = Queries.load("fallow_chassis")
    assert len(queries.names()) > 15
    async with database.transaction() as unit:
        await unit.connection.execute(queries.get("create_migration_table"))
    async with database.session() as session:
        for name in queries.names():
            if name != "create_migration_table":
                await session.prepare(queries.get(name))
