"""What rests is not decided again until the market has more, and then it is."""

import pytest

from fallow.bidding.v1 import provider_pb2, provider_service_pb2
from fallow.provider.v1 import market_link_pb2
from fallow_bidding.domain.demand import OrderDemand
from fallow_bidding.domain.leases import EndReason
from fallow_bidding.domain.matching import Decision, Market
from fallow_bidding.domain.matching import decide as decide_order
from tests.component.bidding.conftest import House, gpu_order, node, run_status


@pytest.fixture
def decided(house: House, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The orders that are decided, one after the other."""
    found: list[str] = []

    def decide(order: OrderDemand, market: Market) -> Decision:
        found.append(order.order_id)
        return decide_order(order, market)

    monkeypatch.setattr(house.matching, "decide", decide)
    return found


async def test_resting_orders_cost_a_new_one_nothing(house: House, decided: list[str]) -> None:
    """Goal: a pass decides what is new. Method: two orders below the price rest; a third comes and takes the device; a fourth rests."""
    async with house.running(engine=False):
        await house.add_agent(gpu_micros=1_000_000)
        low = [await house.open_order(gpu_order(limit=500_000)) for _ in range(2)]
        assert await house.matching.match_open_orders() == 0
        assert sorted(decided) == sorted(low)
        decided.clear()
        taker = await house.open_order(gpu_order())
        assert await house.matching.match_open_orders() == 1
        last = await house.open_order(gpu_order())
        assert await house.matching.match_open_orders() == 0
        assert decided == [taker, last]


async def test_more_on_the_market_wakes_what_rests(house: House, decided: list[str]) -> None:
    """Goal: nobody waits beside what would fit. Method: rest for the device that another has; it ends; rest for the price; an offer comes
    that is cheap enough; rest for the room; a node comes.
    """
    async with house.running(engine=False):
        agent = await house.add_agent(gpu_micros=1_000_000)
        await house.open_order(gpu_order())
        assert await house.matching.match_open_orders() == 1
        waiting = await house.open_order(gpu_order())
        assert await house.matching.match_open_orders() == 0
        assert await house.matching.match_open_orders() == 0
        command = await agent.command("run")
        await house.orders.end(command.key.order.removeprefix("orders/"), EndReason.TENANT, "")
        await agent.beat(run_status(command, market_link_pb2.RUN_STATE_STOPPED))
        assert await house.matching.match_open_orders() == 1
        assert decided.count(waiting) == 2
        await house.open_order(gpu_order(limit=500_000))
        await agent.report_inventory(node(devices=2), sequence=2)
        assert await house.matching.match_open_orders() == 0
        owner = (await house.queries.provider(agent.name)).account
        prices = provider_pb2.PriceSchedule(asset="usdc", gpu_micros_per_hour_by_model={"h100": 400_000})
        offer = provider_pb2.Offer(provider=agent.name, prices=prices)
        await house.registry.create_offer(
            provider_service_pb2.CreateOfferRequest(offer=offer, request_id="cheap"), owner
        )
        assert await house.matching.match_open_orders() == 1
