"""ExplainMatch tells what would match, on a real database; what it tells is done, and matches."""

from dataclasses import replace

from google.protobuf.duration_pb2 import Duration

from fallow.bidding.v1 import market_service_pb2, market_service_pb2_grpc
from fallow.order.v1 import order_pb2, order_service_pb2
from fallow.provider.v1 import market_link_pb2
from fallow_bidding.domain.leases import EndReason
from fallow_bidding.queries import Queries
from fallow_chassis.grpc_client import channel
from fallow_chassis.wire import from_timestamp
from tests.component.bidding.conftest import House, gpu_order, node, run_status

Explanation = order_service_pb2.ExplainOrderResponse.GroupExplanation


async def explained(house: House, order: order_pb2.Order) -> Explanation:
    """The story of an order's first group, as the order service gets it."""
    async with house.served() as address, channel(address, house.identity.as_service("order")) as connection:
        stub = market_service_pb2_grpc.MatchServiceStub(connection)
        answer = await stub.ExplainMatch(market_service_pb2.ExplainMatchRequest(order=order.name))
    return answer.groups[0]


async def test_a_told_change_matches(house: House) -> None:
    """Goal: a tenant who does what it is told gets a lease. Method: an order that is too cheap, of the wrong region, too
    large; each told change is made in an order of its own, and leased at the price told.
    """
    async with house.running(engine=False, courier=False):
        await house.add_agent(node(devices=2), gpu_micros=2_000_000)
        cheap = gpu_order(limit=1_500_000)
        await house.open_order(cheap)
        far = gpu_order(limit=2_000_000)
        far.groups[0].constraints.regions.append("us-east")
        await house.open_order(far)
        large = gpu_order(count=4, limit=100_000_000)
        await house.open_order(large)
        assert await house.matching.match_open_orders() == 0
        (price,) = (await explained(house, cheap)).relaxations
        assert (price.constraint, price.limit, price.price.micros_per_hour) == ("price_limit", 2_000_000, 2_000_000)
        assert price.advice == "Raise the price limit to 2.000000 usdc an hour."
        (region,) = (await explained(house, far)).relaxations
        assert (region.constraint, region.value, region.price.micros_per_hour) == ("region", "eu-west", 2_000_000)
        (count,) = (await explained(house, large)).relaxations
        assert (count.constraint, count.limit, count.price.micros_per_hour) == ("gpu_count", 2, 4_000_000)

        for order in (cheap, far, large):
            await house.orders.end(order.name.removeprefix("orders/"), EndReason.TENANT, "told")
        mended = gpu_order(limit=price.limit)
        mended_far = gpu_order(limit=2_000_000)
        mended_far.groups[0].constraints.regions.extend(["us-east", region.value])
        for order in (mended, mended_far):
            await house.open_order(order)
        assert await house.matching.match_open_orders() == 2
        story = await explained(house, mended)
        assert not story.relaxations
        assert not story.HasField("free_time")


async def test_an_order_is_explained_by_its_own_market(house: House) -> None:
    """Goal: a service that keeps one market explains orders of another. Method: ask for an order of the world as a service
    that keeps a market without providers.
    """
    async with house.running(engine=False, courier=False):
        await house.add_agent(gpu_micros=2_000_000)
        order = gpu_order(limit=1_000_000)
        await house.open_order(order)
        elsewhere = Queries(house.database, replace(house.policy, market="elsewhere"))
        (change,) = (await elsewhere.explain(order.name)).groups[0].relaxations
        assert (change.constraint, change.limit) == ("price_limit", 2_000_000)


async def test_a_fixed_term_says_when_devices_come_free(house: House) -> None:
    """Goal: who waits for leased devices learns until when. Method: a lease of an hour on the only device, once it is
    ready; an order that waits for it; a term without an end says nothing.
    """
    async with house.running(engine=False):
        agent = await house.add_agent()
        first = gpu_order(terms=order_pb2.Terms(duration=Duration(seconds=3_600)))
        await house.open_order(first)
        assert await house.matching.match_open_orders() == 1
        second = gpu_order()
        await house.open_order(second)
        assert await house.matching.match_open_orders() == 0
        assert not (await explained(house, second)).HasField("free_time")
        command = await agent.command("run")
        await agent.beat(run_status(command, market_link_pb2.RUN_STATE_RUNNING))
        ready = house.clock.now()
        house.clock.advance(seconds=10)
        await agent.beat(run_status(command, market_link_pb2.RUN_STATE_RUNNING))
        story = await explained(house, second)
        assert (from_timestamp(story.free_time) - ready).total_seconds() == 3_600
        assert not story.relaxations
