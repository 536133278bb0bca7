"""How long devices were online: what counts, whose word counts, and that each hour is told of once."""

import asyncio
from datetime import timedelta

from eth_account import Account

from fallow.bidding.v1 import events_pb2, provider_pb2
from fallow_bidding.commands.online import OnlineCommands
from fallow_bidding.topics import MARKET_TOPIC
from fallow_sdk.audits import sign_attributes
from fallow_sdk.wallet import Wallet
from tests.component.bidding.conftest import ON_BOTH_STREAMS, Agent, House, node

MINUTE = 60


async def vouch(house: House, agent: Agent, auditor: Wallet, number: str) -> None:
    """Let an auditor sign how many h100 a provider has."""
    owner = (await house.queries.provider(agent.name)).account
    attributes = {"devices/h100": number}
    wanted = provider_pb2.Provider(
        name=agent.name,
        attributes=attributes,
        auditor_signatures=[sign_attributes(auditor, agent.key.public_key().public_bytes_raw(), attributes)],
    )
    await house.registry.update_provider(wanted, ["attributes", "auditor_signatures"], owner)


async def minutes(house: House, count: int, *agents: Agent) -> None:
    """Let minutes pass in which some providers are heard, and count at the end of each."""
    for _ in range(count):
        house.clock.advance(seconds=MINUTE)
        await house.watching.beat()
        for agent in agents:
            await agent.beat()
        await OnlineCommands(house.database, house.policy).run_once()


async def told(house: House) -> list[events_pb2.OnlineTimeCounted]:
    """What was told of hours."""
    return [event for event in await house.events(MARKET_TOPIC) if isinstance(event, events_pb2.OnlineTimeCounted)]


def to_the_hour(house: House) -> None:
    """Begin an hour."""
    now = house.clock.now()
    begin = now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    house.clock.advance(seconds=(begin - now).total_seconds())


@ON_BOTH_STREAMS
async def test_an_hour_counts_healthy_devices_on_offer_of_who_is_heard(house: House) -> None:
    """Goal: device minutes, the auditor's number at most, told once. Method: three devices of which an auditor signed two; a
    silent neighbour; two counters at once; half an hour, then the next hour.
    """
    auditor = Wallet(Account.create())
    async with house.running(engine=False):
        agent = await house.add_agent(node(devices=3))
        silent = await house.add_agent(node(devices=1))
        await vouch(house, agent, auditor, "2")
        to_the_hour(house)
        await minutes(house, 1, agent, silent)
        await minutes(house, 30, agent)
        online = OnlineCommands(house.database, house.policy)
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(online.run_once())
        to_the_hour(house)
        await minutes(house, 3, agent)
        found = {event.provider: event for event in await told(house)}
    assert set(found) == {agent.name, silent.name}
    mine = found[agent.name]
    # The first count only begins: nothing is known of the time before it.
    assert mine.online_duration.ToSeconds() == 3 * 30 * MINUTE
    assert {one.auditor: one.online_duration.ToSeconds() for one in mine.audited} == {
        auditor.address.lower(): 2 * 30 * MINUTE
    }
    assert (mine.model, mine.asset, mine.ask_micros_per_hour) == ("h100", "usdc", 1_000_000)
    assert mine.account == (await house.queries.provider(agent.name)).account
    assert len(await told(house)) == 2


async def test_a_pause_of_the_market_counts_for_nobody(house: House) -> None:
    """Goal: unknown time is not verified. Method: ten minutes, half an hour in which nothing counts, ten minutes."""
    async with house.running(engine=False):
        agent = await house.add_agent(node(devices=1))
        to_the_hour(house)
        await minutes(house, 11, agent)
        house.clock.advance(seconds=30 * MINUTE)
        await minutes(house, 11, agent)
        to_the_hour(house)
        await minutes(house, 3, agent)
        (event,) = await told(house)
    assert event.online_duration.ToSeconds() == (10 + 10) * MINUTE
    assert not event.audited


async def test_a_draining_provider_and_a_number_that_is_none_count_for_nothing(house: House) -> None:
    """Goal: what takes no lease is not online; what nobody can read vouches for nothing. Method: one of each."""
    auditor = Wallet(Account.create())
    async with house.running(engine=False):
        agent, drained = await house.add_agent(node(devices=1)), await house.add_agent(node(devices=1))
        await vouch(house, agent, auditor, "²")
        async with house.database.transaction() as unit:
            await unit.connection.execute(
                "UPDATE provider SET draining = true WHERE provider_id = $1", drained.provider_id
            )
        to_the_hour(house)
        await minutes(house, 5, agent, drained)
        to_the_hour(house)
        await minutes(house, 3, agent)
        (event,) = await told(house)
    assert event.provider == agent.name
    assert not event.audited


async def test_an_hour_is_not_kept_longer_than_a_day(house: House) -> None:
    """Goal: hours are told of and then forgotten, even where their own market has no service any more. Method: an hour of a provider
    whose market is given up before the hour is over; a day passes for another market's service.
    """
    async with house.running(engine=False):
        agent = await house.add_agent(node(devices=1))
        to_the_hour(house)
        await minutes(house, 5, agent)
        async with house.database.transaction() as unit:
            await unit.connection.execute("UPDATE provider SET market = 'given-up'")
        to_the_hour(house)
        await minutes(house, 3)
        house.clock.advance(seconds=22 * 3_600)
        await minutes(house, 1)
        assert await house.value("SELECT count(*) FROM online_time") > 0, "its own market may still tell of it"
        assert await told(house) == []
        house.clock.advance(seconds=2 * 3_600)
        await minutes(house, 1)
        (event,) = await told(house)
        assert (event.provider, event.online_duration.ToSeconds()) == (agent.name, 4 * MINUTE)
        assert await house.value("SELECT count(*) FROM online_time") == 0
