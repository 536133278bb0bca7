"""The inbox: each event once in effect and in order, whatever the stream does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from google.protobuf.message import Message

from fallow_chassis.clock import SystemClock
from fallow_chassis.events import EventDraft, MalformedEventError, ReceivedEvent, Record, event_headers
from fallow_chassis.ids import RandomIds
from fallow_chassis.inbox import KEEP_INBOX, Consumer, Handler, Poison, halted_keys, parked, sweep_inbox
from fallow_chassis.outbox import OutboxRelay
from fallow_chassis.postgres import Database, UnitOfWork
from fallow_chassis.signals import Signals
from fallow_chassis.telemetry import Telemetry, current_trace_id, tracer
from tests.component.chassis.streams import MemoryStream
from tests.unit.chassis.sample import OtherHappened, ThingHappened

TOPIC = "sample.things.v1"
_ids = RandomIds(SystemClock())


def record(key: str, version: int, *, message: Message | None = None, event_id: str = "") -> Record:
    """A record as the relay would publish it."""
    draft = EventDraft(TOPIC, key, version, message or ThingHappened(thing=key, number=version))
    headers = event_headers(
        draft, event_id=event_id or _ids.new(), source="services/sample", time=SystemClock().now(), trace=""
    )
    return Record(TOPIC, key, draft.message.SerializeToString(), headers)


class Effects:
    """Handlers that leave rows, and fail where they are told to."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.failures: dict[tuple[str, int], list[Exception]] = {}

    async def prepare(self) -> "Effects":
        async with self.database.transaction() as unit:
            await unit.connection.execute("CREATE TABLE effect (n bigserial, key text, number bigint)")
        return self

    async def thing(self, unit: UnitOfWork, event: ReceivedEvent, message: ThingHappened) -> None:
        await unit.connection.execute("INSERT INTO effect (key, number) VALUES ($1, $2)", event.key, message.number)
        waiting = self.failures.get((event.key, message.number))
        if waiting:
            raise waiting.pop(0)

    async def numbers(self, key: str) -> list[int]:
        async with self.database.read() as connection:
            rows = await connection.fetch("SELECT number FROM effect WHERE key = $1 ORDER BY n", key)
        return [row["number"] for row in rows]

    def handlers(self) -> dict[type[Message], Handler]:
        return {ThingHappened: self.thing}


@pytest.fixture
async def effects(database: Database) -> Effects:
    """Handlers whose effects are rows."""
    return await Effects(database).prepare()


def consumer(effects: Effects, stream: MemoryStream, poison: Poison = Poison.DEAD_LETTER) -> Consumer:
    return Consumer("sample", [TOPIC], effects.database, stream, effects.handlers(), poison)


@asynccontextmanager
async def consuming(reader: Consumer) -> AsyncIterator[None]:
    """The consumer runs while the block does."""
    async with asyncio.TaskGroup() as group, asyncio.timeout(20):
        task = group.create_task(reader.run())
        yield
        task.cancel()


async def until(effects: Effects, key: str, numbers: list[int]) -> None:
    """Wait until a key's effects are these."""
    while await effects.numbers(key) != numbers:
        await asyncio.sleep(0.01)


async def reasons(database: Database, key: str) -> list[tuple[int, str]]:
    async with database.read() as connection:
        return [(event.version, event.reason) for event in await parked(connection, "sample", TOPIC, key)]


async def test_a_repeat_has_no_second_effect(effects: Effects) -> None:
    """Goal: once in effect. Method: the same record three times, at once and later."""
    reader = consumer(effects, MemoryStream())
    first = record("a", 1)
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(reader.handle(first))
    await reader.handle(first)
    assert await effects.numbers("a") == [1]


async def test_an_older_version_is_dropped(effects: Effects) -> None:
    """Goal: the past does not overwrite. Method: version 1 again, under another id."""
    reader = consumer(effects, MemoryStream())
    for version in (1, 2, 1):
        await reader.handle(record("a", version))
    assert await effects.numbers("a") == [1, 2]


async def test_a_gap_is_parked_and_closed(effects: Effects) -> None:
    """Goal: order per key. Method: 1, 4, 3, then 2; another key goes on meanwhile; a parked one may come again."""
    reader = consumer(effects, MemoryStream())
    fourth = record("a", 4)
    for each in (record("a", 1), fourth, record("a", 3), fourth, record("b", 1)):
        await reader.handle(each)
    assert await effects.numbers("a") == [1]
    assert await effects.numbers("b") == [1]
    assert await reasons(effects.database, "a") == [(3, "GAP"), (4, "GAP")]
    await reader.handle(record("a", 2))
    assert await effects.numbers("a") == [1, 2, 3, 4]
    assert await reasons(effects.database, "a") == []
    await reader.handle(fourth)
    assert await effects.numbers("a") == [1, 2, 3, 4]


async def test_a_crash_before_a_parked_event_is_made_up_for(effects: Effects) -> None:
    """Goal: a parked event is not forgotten. Method: its handler's database goes away; the record comes again."""
    reader = consumer(effects, MemoryStream())
    await reader.handle(record("a", 2))
    effects.failures[("a", 2)] = [ConnectionError("database away")]
    first = record("a", 1)
    with pytest.raises(ConnectionError):
        await reader.handle(first)
    assert await effects.numbers("a") == [1]
    await reader.handle(first)
    assert await effects.numbers("a") == [1, 2]


async def test_what_nobody_handles_is_passed_over_in_its_turn(effects: Effects) -> None:
    """Goal: types that are not ours leave a count and nothing else. Method: others before, between, twice, too early and
    on a key that stands still; those of several keys at once.
    """
    reader = consumer(effects, MemoryStream(), Poison.PARK_KEY)

    def other(key: str, version: int) -> Record:
        return record(key, version, message=OtherHappened())

    second = other("a", 2)
    for each in (record("a", 1), other("a", 4), record("a", 3), second, second, record("a", 5)):
        await reader.handle(each)
    assert await effects.numbers("a") == [1, 3, 5]
    assert await reasons(effects.database, "a") == []
    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(reader.handle(other(f"k{number % 10}", 1 + number // 10)))
    for number in range(10):
        await reader.handle(record(f"k{number}", 3))
        assert await effects.numbers(f"k{number}") == [3]
    await reader.take_poison(record("halted", 1), ValueError("bad"))
    await reader.handle(other("halted", 2))
    assert await reasons(effects.database, "halted") == [(1, "POISON"), (2, "BEHIND")]


async def test_unversioned_events_have_no_gaps(effects: Effects) -> None:
    """Goal: version 0 is handled as it comes. Method: two of one key."""
    reader = consumer(effects, MemoryStream())
    for number in (7, 5):
        await reader.handle(record("a", 0, message=ThingHappened(thing="a", number=number)))
    assert await effects.numbers("a") == [7, 5]


async def test_types_without_a_handler_count(effects: Effects) -> None:
    """Goal: a fact for others makes no gap. Method: an unhandled type takes version 2, an unknown one version 3."""
    reader = consumer(effects, MemoryStream())
    await reader.handle(record("a", 1))
    await reader.handle(record("a", 2, message=OtherHappened(thing="a")))
    unknown = record("a", 3)
    headers = {**unknown.headers, "ce_type": "fallow.sample.v9.NotYetThoughtOf"}
    await reader.handle(Record(TOPIC, "a", b"\xff", headers))
    await reader.handle(record("a", 4))
    assert await effects.numbers("a") == [1, 4]


async def test_a_failed_handler_leaves_nothing(effects: Effects) -> None:
    """Goal: effect and inbox row are one. Method: fail once as a database does; the next try has one effect."""
    reader = consumer(effects, MemoryStream())
    effects.failures[("a", 1)] = [ConnectionError("away")]
    first = record("a", 1)
    with pytest.raises(ConnectionError):
        await reader.handle(first)
    assert await effects.numbers("a") == []
    await reader.handle(first)
    assert await effects.numbers("a") == [1]


async def test_poison_goes_to_the_dead_letters_and_the_key_goes_on(effects: Effects) -> None:
    """Goal: one bad event stops nothing. Method: version 2 fails for good; 3 follows; the letter says why."""
    stream = MemoryStream()
    effects.failures[("a", 2)] = [ZeroDivisionError("bad\nnews")] * 3
    async with consuming(consumer(effects, stream)):
        await stream.ensure_topics([TOPIC])
        await stream.publish([record("a", version) for version in (1, 2, 3)])
        letters = await stream.wait_for(1, f"{TOPIC}.dlq")
        await until(effects, "a", [1, 3])
    assert ThingHappened.FromString(letters[0].value).number == 2
    assert "ZeroDivisionError" in letters[0].headers["fallow-poison-error"]


async def test_poison_among_parked_events(effects: Effects) -> None:
    """Goal: a parked event that fails in its turn is treated alike. Method: 2 waits for 1 and then fails."""
    stream = MemoryStream()
    await stream.ensure_topics([f"{TOPIC}.dlq"])
    reader = consumer(effects, stream)
    await reader.handle(record("a", 3))
    await reader.handle(record("a", 2))
    effects.failures[("a", 2)] = [ZeroDivisionError()]
    await reader.handle(record("a", 1))
    assert await effects.numbers("a") == [1, 3]
    assert len(stream.records) == 1


async def test_a_parked_key_stands_still_and_others_go_on(effects: Effects) -> None:
    """Goal: PARK_KEY keeps a key's order. Method: 2 fails for good; 3 waits behind it; after a fix all are handled."""
    stream = MemoryStream()
    reader = consumer(effects, stream, Poison.PARK_KEY)
    effects.failures[("a", 2)] = [ZeroDivisionError("twist")] * 4
    async with consuming(reader):
        await stream.ensure_topics([TOPIC])
        await stream.publish([record("a", 1), record("a", 2), record("a", 3), record("b", 1), record("a", 5)])
        await until(effects, "b", [1])
        while len(await reasons(effects.database, "a")) < 3:
            await asyncio.sleep(0.01)
    assert await effects.numbers("a") == [1]
    assert await reasons(effects.database, "a") == [(2, "POISON"), (3, "BEHIND"), (5, "BEHIND")]
    async with effects.database.read() as connection:
        halted = await halted_keys(connection, "sample")
    assert [(each.key, each.events) for each in halted] == [("a", 3)]
    assert await reader.retry_parked(TOPIC, "a") == 0
    assert await reasons(effects.database, "a") == [(2, "POISON"), (3, "BEHIND"), (5, "BEHIND")]
    assert await reader.retry_parked(TOPIC, "a") == 2
    assert await effects.numbers("a") == [1, 2, 3]
    await reader.handle(record("a", 4))
    assert await effects.numbers("a") == [1, 2, 3, 4, 5]


async def test_a_poison_that_comes_again_is_dropped(effects: Effects) -> None:
    """Goal: a crash after poison was dealt with repeats nothing. Method: the same record again."""
    stream = MemoryStream()
    reader = consumer(effects, stream, Poison.PARK_KEY)
    bad = record("a", 1)
    await reader.take_poison(bad, ZeroDivisionError())
    await reader.take_poison(bad, ZeroDivisionError())
    await reader.handle(bad)
    assert await reasons(effects.database, "a") == [(1, "POISON")]


@pytest.mark.parametrize("poison", list(Poison))
async def test_a_record_that_is_no_event_is_a_dead_letter(effects: Effects, poison: Poison) -> None:
    """Goal: what has no id cannot halt a key. Method: a record without headers, and good ones after it."""
    stream = MemoryStream()
    async with consuming(consumer(effects, stream, poison)):
        await stream.ensure_topics([TOPIC])
        await stream.publish([Record(TOPIC, "a", b"?", {}), record("a", 1)])
        await until(effects, "a", [1])
        assert len(await stream.wait_for(1, f"{TOPIC}.dlq")) == 1


async def test_bytes_that_are_no_message_are_poison(effects: Effects) -> None:
    """Goal: an undecodable value is named as such. Method: good headers over bad bytes."""
    bad = record("a", 1)
    with pytest.raises(MalformedEventError, match=r"no fallow\.sample\.v1\.ThingHappened"):
        await consumer(effects, MemoryStream()).handle(Record(TOPIC, "a", b"\xff\xff", bad.headers))


async def test_relay_that_dies_after_publishing_has_one_effect(effects: Effects) -> None:
    """Goal: from emit to effect exactly once over a crash. Method: the relay dies between publish and mark."""
    stream = MemoryStream()
    async with effects.database.transaction() as unit:
        for version in (1, 2):
            unit.emit(EventDraft(TOPIC, "a", version, ThingHappened(thing="a", number=version)))
    stream.fail_after = [ZeroDivisionError("the process dies here")]
    with pytest.raises(ZeroDivisionError):
        await OutboxRelay(effects.database, Signals(effects.database), stream, SystemClock()).run()
    relay = OutboxRelay(effects.database, Signals(effects.database), stream, SystemClock())
    relay.drain()
    await relay.run()
    assert len(stream.records) == 4
    async with consuming(consumer(effects, stream)):
        await until(effects, "a", [1, 2])
        async with asyncio.timeout(5):
            await stream.publish([record("z", 1)])
            await until(effects, "z", [1])
    assert await effects.numbers("a") == [1, 2]


async def test_the_trace_goes_from_the_command_to_the_handler(effects: Effects) -> None:
    """Goal: one trace over the outbox and the stream. Method: compare the ids where the event is made and handled."""
    Telemetry.start("sample")
    seen: list[str] = []

    async def note(unit: UnitOfWork, event: ReceivedEvent, message: ThingHappened) -> None:
        seen.append(current_trace_id())

    stream = MemoryStream()
    with tracer().start_as_current_span("command"):
        made = current_trace_id()
        async with effects.database.transaction() as unit:
            unit.emit(EventDraft(TOPIC, "a", 1, ThingHappened(thing="a", number=1)))
    relay = OutboxRelay(effects.database, Signals(effects.database), stream, SystemClock())
    relay.drain()
    await relay.run()
    await Consumer("sample", [TOPIC], effects.database, stream, {ThingHappened: note}).handle(stream.records[0])
    assert len(made) == 32
    assert seen == [made]


async def test_old_inbox_rows_go(effects: Effects) -> None:
    """Goal: the table does not grow for ever. Method: age one of two rows."""
    reader = consumer(effects, MemoryStream())
    await reader.handle(record("a", 1, event_id="old"))
    await reader.handle(record("a", 2, event_id="new"))
    async with effects.database.transaction() as unit:
        await unit.connection.execute(
            "UPDATE inbox SET handled_at = handled_at - $1::interval - interval '1 minute' WHERE event_id = 'old'",
            KEEP_INBOX,
        )
    assert await sweep_inbox(effects.database) == 1
