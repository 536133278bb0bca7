"""The relay: nothing lost, order per key, repeats only where a crash made them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from fallow_chassis import outbox
from fallow_chassis.clock import SystemClock
from fallow_chassis.events import EventDraft
from fallow_chassis.ids import RandomIds
from fallow_chassis.outbox import BATCH_ROWS, KEEP_SENT, OutboxRelay
from fallow_chassis.postgres import Database
from fallow_chassis.signals import Signals
from tests.component.chassis.streams import MemoryStream
from tests.unit.chassis.sample import ThingHappened

TOPIC = "sample.things.v1"


def draft(key: str, version: int) -> EventDraft:
    return EventDraft(TOPIC, key, version, ThingHappened(thing=key, number=version))


async def emit(database: Database, *drafts: EventDraft) -> None:
    async with database.transaction() as unit:
        for each in drafts:
            unit.emit(each)


async def unsent(database: Database) -> int:
    async with database.read() as connection:
        return int(await connection.fetchval("SELECT count(*) FROM outbox WHERE sent_at IS NULL"))


@asynccontextmanager
async def relaying(database: Database, stream: MemoryStream) -> AsyncIterator[OutboxRelay]:
    """A relay that runs while the block does, and is cut off at its end."""
    signals = Signals(database)
    relay = OutboxRelay(database, signals, stream, SystemClock())
    async with asyncio.TaskGroup() as group, asyncio.timeout(20):
        tasks = [group.create_task(relay.run()), group.create_task(signals.run())]
        yield relay
        for task in tasks:
            task.cancel()


async def drained(database: Database, stream: MemoryStream) -> None:
    """Relay what is there and return."""
    relay = OutboxRelay(database, Signals(database), stream, SystemClock())
    relay.drain()
    async with asyncio.timeout(20):
        await relay.run()


async def test_events_go_out_in_order_and_are_marked(database: Database) -> None:
    """Goal: every committed event arrives, in order per key. Method: emit before and while the relay runs."""
    stream = MemoryStream()
    await emit(database, draft("a", 1), draft("b", 1))
    async with relaying(database, stream):
        await stream.wait_for(2)
        await emit(database, draft("a", 2))
        await emit(database, draft("a", 3), draft("b", 2))
        records = await stream.wait_for(5)
        async with asyncio.timeout(20):
            while await unsent(database):
                await asyncio.sleep(0.01)
    await drained(database, stream)
    assert len(stream.records) == 5
    for key, versions in {"a": ["1", "2", "3"], "b": ["1", "2"]}.items():
        assert [record.headers["ce_sequence"] for record in records if record.key == key] == versions


async def test_a_signal_wakes_the_relay(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: an event does not wait for the poll. Method: a poll of an hour, and an event after the relay slept."""
    monkeypatch.setattr("fallow_chassis.outbox.POLL_SECONDS", 3_600.0)
    stream = MemoryStream()
    async with relaying(database, stream):
        await emit(database, draft("a", 1))
        await stream.wait_for(1)
        await asyncio.sleep(0.2)
        await emit(database, draft("a", 2))
        assert len(await stream.wait_for(2)) == 2


async def test_a_row_that_commits_late_is_sent(database: Database) -> None:
    """Goal: no cursor passes over a row. Method: a transaction takes its sequence first and commits last."""
    stream = MemoryStream()
    async with database.transaction() as unit:
        await unit.connection.execute(
            "INSERT INTO outbox (event_id, topic, key, version, type, subject, payload, headers, created_at)"
            " VALUES ('late', $1, 'late', 1, 't', '', '', '{}', now())",
            TOPIC,
        )
        await emit(database, draft("early", 1))
        await drained(database, stream)
    await drained(database, stream)
    assert [record.key for record in stream.records] == ["early", "late"]


async def test_a_crash_between_publish_and_mark_repeats(database: Database) -> None:
    """Goal: nothing is lost. Method: kill the relay after the broker has the events, before they are marked."""
    stream = MemoryStream()
    published = asyncio.Event()

    async def hang() -> None:
        published.set()
        await asyncio.Event().wait()

    stream.after_publish = hang
    await emit(database, draft("a", 1), draft("a", 2))
    async with relaying(database, stream):
        await published.wait()
    assert await unsent(database) == 2
    stream.after_publish = None
    await drained(database, stream)
    assert await unsent(database) == 0
    assert [record.headers["ce_sequence"] for record in stream.records] == ["1", "2", "1", "2"]
    assert len({record.headers["ce_id"] for record in stream.records}) == 2


async def test_a_broker_that_is_away_is_waited_for(database: Database) -> None:
    """Goal: a failure that passes loses nothing and ends nothing. Method: two failed publishes, then a good one."""
    stream = MemoryStream()
    stream.fail_before = [ConnectionError("away"), TimeoutError("still away")]
    await emit(database, draft("a", 1))
    async with relaying(database, stream):
        assert len(await stream.wait_for(1)) == 1


async def test_a_failure_that_does_not_pass_ends_the_relay(database: Database) -> None:
    """Goal: no log-and-go-on. Method: a publish that fails as a bug would."""
    stream = MemoryStream()
    stream.fail_before = [ZeroDivisionError()]
    await emit(database, draft("a", 1))
    with pytest.raises(ZeroDivisionError):
        await OutboxRelay(database, Signals(database), stream, SystemClock()).run()
    assert await unsent(database) == 1


async def test_a_relay_without_the_lock_sends_nothing(database: Database) -> None:
    """Goal: one sender per database. Method: a second relay while the first has the rows in hand."""
    first, second = MemoryStream(), MemoryStream()
    published = asyncio.Event()

    async def hang() -> None:
        published.set()
        await asyncio.Event().wait()

    first.after_publish = hang
    await emit(database, draft("a", 1))
    async with relaying(database, first):
        await published.wait()
        await drained(database, second)
        assert second.records == []
    await drained(database, second)
    assert len(second.records) == 1


async def test_one_relay_works_and_the_other_takes_over(database: Database) -> None:
    """Goal: one sender per database, and no pause when it dies. Method: two relays; end the one that has the lock."""
    first, second = MemoryStream(), MemoryStream()
    async with relaying(database, first):
        await emit(database, draft("a", 1))
        await first.wait_for(1)
        async with asyncio.TaskGroup() as group:
            standby = OutboxRelay(database, Signals(database), second, SystemClock())
            task = group.create_task(standby.run())
            await emit(database, draft("a", 2))
            await first.wait_for(2)
            assert second.records == []
            async with database.transaction() as unit:
                # End the session that holds the lock, as a failing server would.
                await unit.connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
                )
            await emit(database, draft("a", 3))
            async with asyncio.timeout(20):
                while len(first.records) + len(second.records) < 3:
                    await asyncio.sleep(0.01)
            task.cancel()
    assert {record.headers["ce_sequence"] for record in [*first.records, *second.records]} == {"1", "2", "3"}


async def test_more_than_a_batch_keeps_its_order(database: Database) -> None:
    """Goal: the bound of a batch loses no order. Method: two and a half batches of one key."""
    count = BATCH_ROWS * 5 // 2
    await emit(database, *(draft("a", version) for version in range(1, count + 1)))
    stream = MemoryStream()
    await drained(database, stream)
    assert [int(record.headers["ce_sequence"]) for record in stream.records] == list(range(1, count + 1))


async def test_rival_commands_on_one_key_keep_their_order(database: Database) -> None:
    """Goal: the order of versions is the order on the stream. Method: rivals that lock the key, as commands do."""
    stream = MemoryStream()
    version = 0

    async def command() -> None:
        nonlocal version
        async with database.transaction() as unit:
            await unit.connection.execute("SELECT pg_advisory_xact_lock(7)")
            version += 1
            unit.emit(draft("a", version))

    async with relaying(database, stream), asyncio.TaskGroup() as group:
        for _ in range(40):
            group.create_task(command())
    await drained(database, stream)
    seen = list(dict.fromkeys(int(record.headers["ce_sequence"]) for record in stream.records))
    assert seen == list(range(1, 41))


async def test_old_sent_rows_go(database: Database) -> None:
    """Goal: the table keeps a week. Method: age a sent row, and one that is not sent."""
    clock = SystemClock()
    await emit(database, draft("a", 1))
    await drained(database, MemoryStream())
    await emit(database, draft("a", 2))
    async with database.transaction() as unit:
        await unit.connection.execute(
            "UPDATE outbox SET sent_at = sent_at - $1::interval - interval '1 minute'", KEEP_SENT
        )
    other = await Database.connect(database._url, ids=RandomIds(clock), clock=clock)
    stream = MemoryStream()
    async with relaying(other, stream):
        await stream.wait_for(1)
        async with asyncio.timeout(10):
            while True:
                async with other.read() as connection:
                    versions = [row["version"] for row in await connection.fetch("SELECT version FROM outbox")]
                if versions == [2]:
                    break
                await asyncio.sleep(0.02)
    await other.close()
    assert versions == [2]


async def test_a_relay_whose_process_is_stopped_gives_way(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: events go on within seconds although the relay that holds the lock does nothing for ever. Method: a session that holds it and
    is silent, as that of a stopped process; another relay beside it; and one that waits long for its stream keeps its session.
    """
    monkeypatch.setattr(outbox, "SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(outbox, "PING_SECONDS", 0.1)
    stream = MemoryStream()
    await emit(database, draft("a", 1))
    async with database.session(silence_seconds=outbox.SILENCE_SECONDS) as stopped:
        assert await stopped.fetchval("SELECT pg_try_advisory_lock($1)", outbox.LOCK_KEY)

        async def slowly() -> None:
            await asyncio.sleep(1.5)

        stream.after_publish = slowly
        async with relaying(database, stream):
            await stream.wait_for(1)
            async with asyncio.timeout(20):
                while await unsent(database):
                    await asyncio.sleep(0.01)
    assert len(stream.records) == 1, "the wait for the stream cost the relay its session"
