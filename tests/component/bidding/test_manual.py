"""The tenant picks among bids: only it, only what still fits, all groups or none, never twice."""

import asyncio
from typing import Any

import pytest

from fallow.bidding.v1 import events_pb2, market_service_pb2
from fallow.order.v1 import order_pb2
from fallow_bidding.domain.auctions import Bid
from fallow_bidding.store.auctions import AuctionOfOrder
from fallow_chassis.errors import DomainError
from fallow_chassis.wire import to_duration
from tests.component.bidding.conftest import Agent, House, gpu_order, new_name, node
from tests.component.bidding.test_auctions import auction_of, bid, kinds, refusal


def manual_order(**fields: Any) -> order_pb2.Order:
    """An order whose tenant picks."""
    order = gpu_order(match_mode=order_pb2.MATCH_MODE_MANUAL, **fields)
    order.terms.match_timeout.CopyFrom(to_duration(600_000))
    return order


async def accept(house: House, auction: str, bid_id: str, caller: str, request_id: str = "") -> AuctionOfOrder:
    """Pick a bid; the same pick has the same request id unless another is given."""
    name = f"{auction}/bids/{bid_id}"
    request = market_service_pb2.AcceptBidRequest(name=name, request_id=request_id or name)
    return await house.auctions.accept_bid(request, caller)


async def of(house: House, order: order_pb2.Order, auction: str, agent: Agent) -> Bid:
    """What the tenant sees of one provider."""
    shown = await house.auction_queries.bids(auction, order.account)
    return next(item for item in shown if item.provider_id == agent.provider_id)


async def test_the_tenant_sees_bids_and_standing_offers_and_picks_one(house: House) -> None:
    """Goal: the dearer bid is leased because the tenant wants it, at its price; the others learn that they were not chosen.
    Method: a bid, a standing offer, one above the limit; passes of the engine decide nothing.
    """
    async with house.running(engine=False, courier=False):
        cheap = await house.add_agent(gpu_micros=1_000_000)
        good = await house.add_agent(gpu_micros=9_000_000)
        dear = await house.add_agent(gpu_micros=6_000_000)
        order = manual_order()
        key = await house.open_order(order)
        name = await auction_of(house, order)
        placed = await bid(house, good, name, 3_000_000)
        assert await house.matching.match_open_orders() == 0
        shown = await house.auction_queries.bids(name, order.account)
        assert [(item.provider_id, item.price_micros, item.reason, item.from_offer) for item in shown] == [
            (cheap.provider_id, 1_000_000, "", True),
            (good.provider_id, 3_000_000, "", False),
            (dear.provider_id, 6_000_000, "price_limit", True),
        ]
        assert await house.auction_queries.bids(name, cheap.owner) == []
        done = await accept(house, name, placed.bid_id, order.account)
        assert (str(done.auction.state), done.auction.winning_bid_id) == ("WON", placed.bid_id)
        assert await kinds(house, key) == ["AuctionOpened", "AuctionClosed", "LeaseCreated"]
        created = await house.until_event(key, events_pb2.LeaseCreated)
        assert (created.lease.provider, created.lease.price.micros_per_hour) == (good.name, 3_000_000)
        assert await accept(house, name, placed.bid_id, order.account) == done, "a repeat answers the same"
        again = await refusal(accept(house, name, placed.bid_id, order.account, "another"))
        assert again.reason.reason == "AUCTION_CLOSED"
        assert await house.value("SELECT count(*) FROM lease") == 1


async def test_a_standing_offer_can_be_picked_and_leaves_its_bid(house: House) -> None:
    """Goal: a standing offer is leased at its schedule's price and shows as the bid that won. Method: pick it by its id."""
    async with house.running(engine=False, courier=False):
        await house.add_agent(gpu_micros=1_000_000)
        agent = await house.add_agent(gpu_micros=2_000_000)
        order = manual_order()
        await house.open_order(order)
        name = await auction_of(house, order)
        standing = await of(house, order, name, agent)
        await accept(house, name, standing.bid_id, order.account)
        assert await house.value("SELECT price_micros FROM lease") == 2_000_000
        (won,) = await house.auction_queries.bids(name, agent.owner)
        assert (str(won.state), won.price_micros, won.from_offer) == ("WON", 2_000_000, True)


async def test_what_cannot_be_picked_is_refused_and_all_stays_open(house: House) -> None:
    """Goal: nobody but the tenant picks, a bid that fits no more is refused with its constraint, one that is gone is not
    found; the order stays open and another pick works. Method: each of them in turn.
    """
    async with house.running(engine=False, courier=False):
        agent = await house.add_agent(gpu_micros=1_000_000)
        other = await house.add_agent(gpu_micros=1_500_000)
        order = manual_order()
        key = await house.open_order(order)
        name = await auction_of(house, order)
        placed = await bid(house, agent, name, 900_000)
        for stranger in (agent.owner, new_name("accounts")):
            refused = await refusal(accept(house, name, placed.bid_id, stranger))
            assert refused.reason.reason == "AUCTION_NOT_FOUND"
        unknown = await refusal(accept(house, name, "nothing", order.account))
        assert unknown.reason.reason == "BID_NOT_FOUND"
        replaced = await bid(house, agent, name, 5_000_001)
        assert (await refusal(accept(house, name, placed.bid_id, order.account))).reason.reason == "BID_NOT_FOUND"
        dear = await refusal(accept(house, name, replaced.bid_id, order.account))
        assert (dear.reason.reason, dear.metadata["constraint"]) == ("BID_DOES_NOT_FIT", "price_limit")
        good = await bid(house, agent, name, 800_000)
        instant = await house.open_order(gpu_order())
        assert await house.matching.match_open_orders() == 1
        assert (await house.until_event(instant, events_pb2.LeaseCreated)).lease.provider == agent.name
        full = await refusal(accept(house, name, good.bid_id, order.account))
        assert (full.reason.reason, full.metadata["constraint"]) == ("BID_DOES_NOT_FIT", "device_free")
        assert await kinds(house, key) == ["AuctionOpened"]
        assert (await of(house, order, name, agent)).reason == "device_free"
        await accept(house, name, (await of(house, order, name, other)).bid_id, order.account)
        assert (await kinds(house, key))[-1] == "LeaseCreated"


async def test_groups_that_belong_together_are_leased_with_the_last_pick(house: House) -> None:
    """Goal: all or none also by hand. Method: two groups, two sites of one device; the first pick alone makes no lease; two
    picks of one device make none either; a better second pick makes both.
    """
    async with house.running(engine=False, courier=False):
        one, two = [await house.add_agent() for _ in range(2)]
        order = manual_order(groups=2)
        key = await house.open_order(order)
        names = [await auction_of(house, order, index) for index in range(2)]
        first = await accept(house, names[0], (await of(house, order, names[0], one)).bid_id, order.account)
        assert str(first.auction.state) == "OPEN"
        assert await house.value("SELECT count(*) FROM lease") == 0
        same = (await of(house, order, names[1], one)).bid_id
        refused = await refusal(accept(house, names[1], same, order.account))
        assert refused.reason.reason == "BID_DOES_NOT_FIT"
        assert await house.value("SELECT count(*) FROM lease") == 0
        await accept(house, names[1], (await of(house, order, names[1], two)).bid_id, order.account)
        assert await house.value("SELECT count(DISTINCT provider_id) FROM lease") == 2
        assert (await kinds(house, key))[2:] == ["AuctionClosed"] * 2 + ["LeaseCreated"] * 2
        each = manual_order(groups=2, group_binding=order_pb2.GROUP_BINDING_EACH)
        await house.add_agent(node(devices=2), gpu_micros=1)
        await house.open_order(each)
        name = await auction_of(house, each, 1)
        await accept(house, name, (await house.auction_queries.bids(name, each.account))[0].bid_id, each.account)
        assert await house.value("SELECT count(*) FROM lease WHERE order_id = $1", each.name[7:]) == 1


async def test_two_picks_at_once_make_one_lease(house: House) -> None:
    """Goal: a tenant that picks twice at the same time gets one. Method: two bids, two calls at once, a pass beside them."""
    async with house.running(engine=False, courier=False):
        agents = [await house.add_agent() for _ in range(2)]
        order = manual_order()
        await house.open_order(order)
        name = await auction_of(house, order)
        placed = [await bid(house, agent, name, 1_000 + number) for number, agent in enumerate(agents)]
        outcomes: list[str] = []

        async def pick(item: Bid) -> None:
            try:
                await accept(house, name, item.bid_id, order.account, item.bid_id)
            except DomainError as error:
                outcomes.append(error.reason.reason)
            else:
                outcomes.append("OK")

        async with asyncio.TaskGroup() as group:
            for item in placed:
                group.create_task(pick(item))
            group.create_task(house.matching.match_open_orders())
        assert sorted(outcomes) == ["AUCTION_CLOSED", "OK"]
        assert await house.value("SELECT count(*) FROM lease") == 1


@pytest.mark.parametrize("binding", [order_pb2.GROUP_BINDING_ALL_OR_NONE, order_pb2.GROUP_BINDING_EACH])
async def test_who_never_picks_gets_the_money_back(house: House, binding: Any) -> None:
    """Goal: a manual auction ends with the order's wait. Method: nobody picks for 10 min; a pick afterwards is too late."""
    async with house.running(engine=False, courier=False):
        agent = await house.add_agent()
        order = manual_order(group_binding=binding)
        key = await house.open_order(order)
        name = await auction_of(house, order)
        placed = await bid(house, agent, name, 5)
        await house.pass_time(600)
        assert await house.watching.find_unmatched() == 1
        assert (await kinds(house, key))[-1] == "OrderEnded"
        assert (await refusal(accept(house, name, placed.bid_id, order.account))).reason.reason == "AUCTION_CLOSED"
        assert await house.value("SELECT reason FROM bid") == "order_ended"


async def test_an_explanation_tells_what_an_order_with_bids_waits_for(house: House) -> None:
    """Goal: no order is without a story. Method: explain a manual order and an auction before anything is decided; one provider is
    too dear, one would do.
    """
    async with house.running(engine=False, courier=False):
        await house.add_agent(gpu_micros=1_000_000)
        await house.add_agent(gpu_micros=9_000_000)
        for order, told in (
            (manual_order(), "It waits for your choice"),
            (gpu_order(match_mode=order_pb2.MATCH_MODE_AUCTION), "Sealed bids are taken"),
        ):
            await house.open_order(order)
            assert await house.matching.match_open_orders() == 0
            (story,) = (await house.queries.explain(order.name)).groups
            assert story.advice.startswith(told)
            assert story.funnel[-1].providers_after == 1
            assert [offer.won for offer in story.offers] == [False, False]
