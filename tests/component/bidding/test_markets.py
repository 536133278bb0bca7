"""Markets by region: providers and orders of one are out of the other's sight."""

from dataclasses import replace

import pytest

from fallow_bidding.app import lock_key
from fallow_bidding.commands.matching import MatchingCommands
from fallow_bidding.domain.markets import Markets
from fallow_bidding.domain.policy import Policy
from tests.component.bidding.conftest import House, gpu_order


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
