"""Orders that rest in the book, gangs over several providers, and reserved terms, on a real database."""

import pytest

from fallow.bidding.v1 import events_pb2, provider_pb2, provider_service_pb2
from fallow.order.v1 import order_pb2
from fallow.provider.v1 import market_link_pb2
from fallow.type.v1 import lease_pb2
from fallow_bidding.commands import matching
from fallow_bidding.domain.leases import EndReason
from fallow_chassis.wire import to_duration
from tests.component.bidding.conftest import House, gpu_order, run_status
from tests.component.bidding.test_auctions import kinds
from tests.component.bidding.test_spot import id_of, offer

DAY_MS = 86_400_000


@pytest.mark.parametrize("older", [2, 3, 7])
async def test_orders_that_fit_nowhere_keep_nobody_waiting(
    house: House, monkeypatch: pytest.MonkeyPatch, older: int
) -> None:
    """Goal: every open order has its turn, whatever is older. Method: as many that fit nowhere as a pass holds, and more,
    then one that fits.
    """
    monkeypatch.setattr(matching, "ORDER_BATCH", 3)
    async with house.running(engine=False, courier=False):
        await house.add_agent(gpu_micros=2_000_000)
        for _ in range(older):
            await house.open_order(gpu_order(limit=1_000_000))
        await house.open_order(gpu_order(limit=2_000_000))
        assert await house.matching.match_open_orders() == 1
        assert await house.value("SELECT count(*) FROM order_group WHERE state = 'OPEN'") == older


async def test_a_cheaper_offer_matches_the_oldest_resting_order_at_once(house: House) -> None:
    """Goal: limit orders rest, and the moment the book changes the oldest that fits is leased, by the engine that is woken.
    Method: three orders above which all offers ask; then a cheaper offer for one device.
    """
    async with house.running(courier=False):
        agent = await house.add_agent(gpu_micros=3_000_000)
        rested = [gpu_order(limit=limit) for limit in (1_000_000, 2_000_000, 2_500_000)]
        for order in rested:
            await house.open_order(order)

        async def all_rest() -> bool:
            stories = [(await house.queries.explain(order.name)).groups[0] for order in rested]
            return all(story.matching_price.micros_per_hour == 3_000_000 for story in stories)

        await house.until(all_rest, "the engine has looked at all three")
        await offer(house, agent, gpu_micros_per_hour_by_model={"h100": 1_900_000})
        created = await house.until_event(id_of(rested[1]), events_pb2.LeaseCreated)
    assert created.lease.price.micros_per_hour == 1_900_000
    assert [await kinds(house, id_of(order)) for order in (rested[0], rested[2])] == [[], []]


async def test_freed_capacity_matches_the_oldest_resting_order(house: House) -> None:
    """Goal: whoever waits longest gets what becomes free. Method: one device, three orders, ends one after the other."""
    async with house.running(engine=False):
        agent = await house.add_agent()
        queue = [gpu_order() for _ in range(3)]
        for order in queue:
            await house.open_order(order)
        for number, order in enumerate(queue, start=1):
            assert await house.matching.match_open_orders() == 1
            assert await kinds(house, id_of(order)) == ["LeaseCreated"]
            assert await house.matching.match_open_orders() == 0
            await agent.command("run", number)
            await house.orders.end(id_of(order), EndReason.TENANT, "done")
            stop = await agent.command("stop", number)
            await agent.beat(run_status(stop, market_link_pb2.RUN_STATE_STOPPED))


async def test_a_gang_is_leased_over_two_providers_or_not_at_all(house: House) -> None:
    """Goal: groups that fit only at two providers are leased at both in one decision; with one that fits nowhere none is.
    Method: two sites of one device; orders of two groups, and of two of which one asks for eight GPUs.
    """
    async with house.running(engine=False, courier=False):
        sites = [await house.add_agent() for _ in range(2)]
        half = gpu_order(groups=2)
        half.groups[1].replica_sets[0].resources.gpu.count = 8
        await house.open_order(half)
        whole = gpu_order(groups=2)
        await house.open_order(whole)
        assert await house.matching.match_open_orders() == 2
        created = [event.lease.provider for event in await house.events(key=id_of(whole))]  # type: ignore[attr-defined]
        assert sorted(created) == sorted(site.name for site in sites)
        assert await kinds(house, id_of(half)) == []


async def test_a_reserved_term_has_its_discount_and_ends_by_its_term(house: House) -> None:
    """Goal: the tier of the duration is taken off, no spot notice ever comes, and the term ends it. Method: tiers at a day
    and at a month; terms of a day; an order that would pay more waits beside it; time passes.
    """
    async with house.running(engine=False):
        agent = await house.add_agent()
        prices = provider_pb2.PriceSchedule(asset="usdc", gpu_micros_per_hour_by_model={"h100": 1_000_000})
        prices.reserved_tiers.add(duration_min=to_duration(DAY_MS), discount_milli=100)
        prices.reserved_tiers.add(duration_min=to_duration(30 * DAY_MS), discount_milli=400)
        wanted = provider_pb2.Offer(provider=agent.name, prices=prices)
        await house.registry.create_offer(
            provider_service_pb2.CreateOfferRequest(offer=wanted, request_id="tiers"), agent.owner
        )
        terms = order_pb2.Terms(kind=order_pb2.TERM_KIND_RESERVED, duration=to_duration(DAY_MS))
        order = gpu_order(terms=terms)
        key = await house.open_order(order)
        assert await house.matching.match_open_orders() == 1
        created = await house.until_event(key, events_pb2.LeaseCreated)
        assert created.lease.price.micros_per_hour == 900_000
        await agent.beat(run_status(await agent.command("run"), market_link_pb2.RUN_STATE_RUNNING))
        await house.until_event(key, events_pb2.LeaseRunning)
        house.clock.advance(seconds=DAY_MS // 1_000 - 1)
        await house.open_order(gpu_order())
        assert await house.matching.match_open_orders() == 0
        assert await house.orders.end_terms() == 0
        house.clock.advance(seconds=1)
        assert await house.orders.end_terms() == 1
        assert await kinds(house, key) == ["LeaseCreated", "LeaseRunning", "LeaseEnded", "OrderEnded"]
        ended = await house.until_event(key, events_pb2.OrderEnded)
        assert ended.reason == lease_pb2.END_REASON_TERM
