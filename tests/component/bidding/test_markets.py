"""Markets by region: providers and orders of one are out of the other's sight."""

import asyncio
from dataclasses import replace

import pytest

from fallow_bidding.app import lock_key
from fallow_bidding.commands.matching import MatchingCommands
from fallow_bidding.domain.markets import Markets
from fallow_bidding.domain.policy import Policy
from tests.component.bidding.conftest import House, gpu_order
from tests.component.bidding.test_auctions import auction_of, bid, refusal
from tests.component.bidding.test_manual import accept, manual_order


@pytest.fixture
def policy() -> Policy:
    """A world of which eu-west is a market of its own; the agents of these tests stand there."""
    return replace(Policy(), markets=Markets.parse("world", "eu-west=eu"))


async def test_each_market_matches_its_own(house: House) -> None:
    """Goal: an engine leases out its own market's providers to its own market's orders. Method: a provider in eu-west; an order
    that names no region, one that names it; passes of the world's engine and of eu's.
    """
    async with house.running(engine=False, courier=False):
        agent = await house.add_agent()
        assert (await house.queries.provider(agent.name)).market == "eu"
        anywhere = gpu_order()
        await house.open_order(anywhere)
        assert (await house.queries.estimate(anywhere)).fitting_providers == 0
        local = gpu_order()
        local.groups[0].constraints.regions.append("eu-west")
        key = await house.open_order(local)
        assert (await house.queries.estimate(local)).fitting_providers == 1
        assert await house.matching.match_open_orders() == 0
        eu = MatchingCommands(house.database, replace(house.policy, market="eu"), lock_key("decisions", "eu"))
        assert await eu.match_open_orders() == 1
        assert await house.value("SELECT order_id FROM lease") == key


async def move(house: House, market: str) -> None:
    """Put all providers into a market."""
    async with house.database.transaction() as unit:
        await unit.connection.execute("UPDATE provider SET market = $1", market)


async def test_a_bid_and_a_choice_are_of_the_orders_own_market(house: House) -> None:
    """Goal: whichever service is asked, only providers of the order's market bid, and its own lock is held for the decision.
    Method: a manual order of eu at the world's service; a bid from eu, one from the world, a pick.
    """
    async with house.running(engine=False, courier=False):
        local = await house.add_agent(gpu_micros=2_000_000)
        order = manual_order()
        order.groups[0].constraints.regions.append("eu-west")
        await house.open_order(order)
        name = await auction_of(house, order)
        placed = await bid(house, local, name, 1_000_000)
        await move(house, "world")
        refused = await refusal(bid(house, local, name, 2))
        assert refused.reason.reason == "BID_DOES_NOT_FIT"
        await move(house, "eu")
        assert [item.bid_id for item in await house.auction_queries.bids(name, order.account)] == [placed.bid_id]
        async with asyncio.TaskGroup() as group, house.database.transaction() as unit:
            await unit.connection.execute("SELECT pg_advisory_xact_lock($1)", lock_key("decisions", "eu"))
            pick = group.create_task(accept(house, name, placed.bid_id, order.account))

            async def waits() -> bool:
                return bool(await house.value("SELECT count(*) FROM pg_locks WHERE NOT granted"))

            await house.until(waits, "the pick waits for the lock of its market")
            assert await house.value("SELECT count(*) FROM lease") == 0
        assert str(pick.result().auction.state) == "WON"
