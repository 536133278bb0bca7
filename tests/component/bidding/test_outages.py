"""Unknown is not down: each of our own engines is away for a minute under a lease that runs, and nothing closes.

The minute is the market's clock's; the engines are really killed and started again.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from fallow.bidding.v1 import events_pb2
from fallow.order.v1 import events_pb2 as order_events
from fallow.order.v1 import order_pb2
from fallow.provider.v1 import market_link_pb2
from fallow_bidding.consumers import OrderHandlers
from fallow_bidding.domain.policy import Policy
from fallow_bidding.topics import LEASES_TOPIC, MARKET_TOPIC, ORDERS_TOPIC, PROOFS_TOPIC
from fallow_chassis.clock import SystemClock
from fallow_chassis.events import EventDraft, Record, event_headers
from fallow_chassis.ids import RandomIds
from fallow_chassis.inbox import Consumer
from fallow_chassis.outbox import OutboxRelay
from fallow_chassis.retry import is_retryable
from fallow_chassis.stream import EventStream, open_stream
from fallow_chassis.testing import DatabaseFactory
from fallow_stack.engines import Nats, Postgres
from tests.component.bidding.conftest import Agent, House, gpu_order, node, run_status
from tests.conftest import ADAPTERS, StreamAddress
from tests.engines import Engine, start_engine

_IDS = RandomIds(SystemClock())
RUNNING = market_link_pb2.RUN_STATE_RUNNING
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def durable_postgres(tmp_path: Path) -> AsyncIterator[Postgres]:
    """A Postgres that the test may kill, and that loses nothing then."""
    engine = Postgres(tmp_path / "postgres")
    await engine.start()
    yield engine
    await engine.wipe()


@pytest.fixture
async def database_factory(durable_postgres: Postgres) -> AsyncIterator[DatabaseFactory]:
    """Databases on that server."""
    factory = DatabaseFactory(durable_postgres.url)
    yield factory
    await factory.drop_all()


@pytest.fixture(params=ADAPTERS)
async def mortal_stream(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Engine, StreamAddress]]:
    """An engine for the event stream alone, by each adapter in turn, that the test may kill; and its address."""
    if request.param == "kafka":
        request.getfixturevalue("kafka_libraries")
    engine = await start_engine("kafka" if request.param == "kafka" else "nats", tmp_path / "stream")
    if isinstance(engine, Nats):
        yield engine, StreamAddress(engine.url, engine.url, str(engine.service_credentials_file("tests")))
    else:
        yield engine, StreamAddress(engine.url)
    await engine.wipe()


@asynccontextmanager
async def _beside(*loops: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run endless loops while the block runs."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_forever(loop)) for loop in loops]
        yield
        for task in tasks:
            task.cancel()


async def _forever(loop: Callable[[], Awaitable[None]]) -> None:
    """One of them."""
    await loop()


async def _is(house: House, sql: str, expected: int) -> bool:
    """Whether a count is as expected."""
    return int(await house.value(sql)) == expected


async def _until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait for a stream that was killed: clients of a broker take their time to come back."""
    try:
        async with asyncio.timeout(60):
            while not await condition():
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"not within 60 s: {what}") from None


async def _passes(step: Callable[[], Awaitable[object]]) -> bool:
    """Whether something works now; what would not pass by itself is raised."""
    try:
        await step()
    except Exception as error:
        if not is_retryable(error):
            raise
        return False
    return True


def _opened(order: order_pb2.Order, stated: datetime) -> Record:
    """The event that opens an order, as the order service publishes it."""
    draft = EventDraft(ORDERS_TOPIC, order.name.removeprefix("orders/"), 1, order_events.OrderOpened(order=order))
    headers = event_headers(draft, event_id=_IDS.new(), source="services/order", time=stated, trace="")
    return Record(ORDERS_TOPIC, draft.key, draft.message.SerializeToString(), headers)


async def _is_published(stream: EventStream, record: Record) -> bool:
    """Whether the stream took a record."""
    return await _passes(lambda: stream.publish([record]))


async def _a_minute(house: House, *steps: Callable[[], Awaitable[object]]) -> None:
    """A minute in which the watch looks again and again, as its timer would: what passes by itself is tried again."""
    for _ in range(20):
        house.clock.advance(seconds=3)
        for step in (*steps, house.watch.run_once):
            await _passes(step)


async def _running_lease(house: House) -> tuple[Agent, str, market_link_pb2.Command]:
    """A provider of two devices with a lease that runs on one of them."""
    agent = await house.add_agent(node(devices=2))
    key = await house.open_order(gpu_order())
    await house.matching.match_open_orders()
    command = await agent.command("run")
    await agent.beat(run_status(command, RUNNING))
    await house.watch.run_once()
    return agent, key, command


async def _goes_on(house: House, agent: Agent, key: str, command: market_link_pb2.Command) -> None:
    """The lease runs, nobody is blamed, and what comes next works."""
    await house.watch.run_once()
    assert not (await agent.beat(run_status(command, RUNNING))).unwanted
    for _ in range(3):
        house.clock.advance(seconds=4)
        await house.watch.run_once()
        await agent.beat(run_status(command, RUNNING))
    kinds = [type(event).__name__ for event in await house.events(key=key)]
    assert kinds == ["LeaseCreated", "LeaseRunning"]
    assert await house.value("SELECT state FROM lease") == "RUNNING"
    assert (await house.reputation.compute(agent.provider_id)).early_closes == 0
    await house.open_order(gpu_order())
    assert (await agent.command("run", 2)).key.generation == 1


async def test_nats_is_away_for_a_minute(house: House) -> None:
    """Goal: with the way to all providers cut on our side no lease closes, and the time is told as our own outage. Method: kill
    NATS, let a minute pass, start it.
    """
    async with house.running():
        agent, key, command = await _running_lease(house)
        await house.nats.kill()

        async def is_cut() -> bool:
            return not house.link.is_connected

        await house.until(is_cut, "the link notices")
        await _a_minute(house)
        await house.nats.start()

        async def is_back() -> bool:
            return house.link.is_connected and agent.link.is_connected

        await house.until(is_back, "both links are back")
        await _goes_on(house, agent, key, command)
        away = await house.value("SELECT sum(end_time - start_time) FROM market_outage")
        assert away >= timedelta(seconds=60)


async def test_postgres_is_away_for_a_minute(house: House, durable_postgres: Postgres) -> None:
    """Goal: while nothing can be read or written nothing closes, agents are told to try again, and the engine takes up its work
    by itself. Method: kill Postgres, let a minute pass in which the agent beats, start it.
    """
    async with house.running():
        agent, key, command = await _running_lease(house)
        await durable_postgres.kill()

        async def is_gone() -> bool:
            return not await _passes(lambda: house.value("SELECT true"))

        # A backend may outlive its postmaster for a moment on a busy machine.
        await house.until(is_gone, "the database is gone")
        refusals: list[str] = []

        async def beat() -> None:
            message = market_link_pb2.Heartbeat(provider=agent.name, sequence=99).SerializeToString()
            subject = f"fallow.provider.{agent.provider_id}.heartbeat"
            reply = market_link_pb2.LinkReply.FromString(await agent.link.request(subject, message, 10.0))
            refusals.append(reply.error.reason)

        await _a_minute(house, beat)
        assert refusals == ["UNAVAILABLE"] * 20
        await durable_postgres.start()

        async def answers() -> bool:
            return await _passes(lambda: house.value("SELECT true"))

        await house.until(answers, "the database answers")
        await _goes_on(house, agent, key, command)
        assert await house.value("SELECT sum(end_time - start_time) FROM market_outage") >= timedelta(seconds=60)


async def test_the_event_stream_is_away_for_a_minute(house: House, mortal_stream: tuple[Engine, StreamAddress]) -> None:
    """Goal: while events neither come nor go leases run on, and an order that waited in the stream is not held to have waited
    for a match. Method: relay and consumer on an engine of their own, killed for a minute; an order with a wait of 20 s, opened
    before, arrives after; what was stated meanwhile leaves then.
    """
    engine, address = mortal_stream
    async with AsyncExitStack() as closing, house.running(engine=False):
        stream = await open_stream(address, client="bidding")
        closing.push_async_callback(stream.close)
        await stream.ensure_topics([LEASES_TOPIC, MARKET_TOPIC, PROOFS_TOPIC, ORDERS_TOPIC])
        relay = OutboxRelay(house.database, house.signals, stream, house.clock)
        consumer = Consumer("bidding", [ORDERS_TOPIC], house.database, stream, OrderHandlers(house.policy).by_type())
        async with _beside(relay.run, consumer.run):
            early = _opened(gpu_order(limit=1), house.clock.now())
            await _until(lambda: _is_published(stream, early), "an order's event leaves")
            await _until(lambda: _is(house, "SELECT count(*) FROM market_order", 1), "the consumer takes it")
            agent, key, command = await _running_lease(house)
            unsent = "SELECT count(*) FROM outbox WHERE sent_at IS NULL"
            await _until(lambda: _is(house, unsent, 0), "all events have left")
            await engine.kill()

            order = gpu_order()
            order.terms.match_timeout.seconds = 20
            opened = house.clock.now()

            async def beat() -> None:
                await agent.beat(run_status(command, RUNNING))

            await _a_minute(house, beat)
            assert await house.value("SELECT state FROM lease") == "RUNNING"
            assert await house.value("SELECT count(*) FROM market_outage") == 0
            await engine.start()
            record = _opened(order, opened)
            await _until(lambda: _is_published(stream, record), "the order's event leaves")
            await _until(lambda: _is(house, "SELECT count(*) FROM market_order", 3), "the order arrives")
            await house.watch.run_once()
            assert await house.matching.match_open_orders() == 1
            created = await house.until_event(order.name[7:], events_pb2.LeaseCreated)
            assert created.lease.provider == agent.name
            await _until(lambda: _is(house, unsent, 0), "what was stated meanwhile leaves")
            kinds = [type(event).__name__ for event in await house.events(key=key)]
            assert kinds == ["LeaseCreated", "LeaseRunning"]


def test_agents_outlast_a_minute_of_ours() -> None:
    """Goal: agents do not stop by themselves for a minute of our absence, with the heartbeats around it. Method: the defaults."""
    policy = Policy()
    assert policy.self_stop_ms >= 60_000 + 2 * policy.heartbeat_interval_ms + 15_000
