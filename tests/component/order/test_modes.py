"""Orders that take bids, and terms other than on demand: what the market hears of them, and what their history tells."""

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from fallow.order.v1 import events_pb2, order_pb2, order_service_pb2
from fallow_chassis.grpc_client import RemoteError
from fallow_chassis.wire import from_duration, to_duration
from fallow_order.consumers import LEASES_TOPIC
from tests.component.order import facts
from tests.component.order.conftest import House, new_name, small_order
from tests.component.order.test_groups import history, told

SDL = """\
version: "2.0"
services: {web: {image: "exec:host"}}
profiles:
  compute: {web: {resources: {cpu: {units: 1}, memory: {size: 1Gi}, storage: {size: 1Gi}}}}
  placement: {here: {pricing: {web: {denom: uact, amount: 100}}}}
deployment: {web: {here: {profile: web, count: 1}}}
"""


async def opened(house: House) -> list[order_pb2.Order]:
    """The orders that the market heard of, in their own order."""
    facts_stated = [payload for kind, payload in await house.outbox() if kind.endswith("OrderOpened")]
    return [events_pb2.OrderOpened.FromString(payload).order for payload in facts_stated]


async def test_the_market_hears_mode_and_terms(house: House) -> None:
    """Goal: rule, window, kind and duration arrive as they were asked for, with the defaults said. Method: one order of
    each mode and kind, as a message and as text.
    """
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 100_000_000
    auction = small_order()
    auction.match_mode = order_pb2.MATCH_MODE_AUCTION
    auction.auction_window.CopyFrom(to_duration(250))
    await tenant.create(order=auction, request_id="a")
    reserved = small_order()
    reserved.terms.kind = order_pb2.TERM_KIND_RESERVED
    reserved.terms.duration.CopyFrom(to_duration(86_400_000))
    await tenant.create(order=reserved, request_id="b")
    stub = await tenant.orders()
    request = order_service_pb2.CreateOrderRequest(
        request_id="c",
        sdl=SDL,
        match_mode=order_pb2.MATCH_MODE_AUCTION,
        auction_rule=order_pb2.AUCTION_RULE_SECOND_PRICE,
        auction_window=to_duration(30_000),
        terms=order_pb2.Terms(kind=order_pb2.TERM_KIND_SPOT),
    )
    await stub.CreateOrder(request)
    manual = order_service_pb2.CreateOrderRequest(request_id="d", sdl=SDL, match_mode=order_pb2.MATCH_MODE_MANUAL)
    shown = await stub.CreateOrder(manual)
    assert shown.match_mode == order_pb2.MATCH_MODE_MANUAL
    heard = [
        (order.match_mode, order.auction_rule, from_duration(order.auction_window), order.terms.kind)
        for order in await opened(house)
    ]
    instant, on_demand = order_pb2.MATCH_MODE_INSTANT, order_pb2.TERM_KIND_ON_DEMAND
    assert heard == [
        (order_pb2.MATCH_MODE_AUCTION, order_pb2.AUCTION_RULE_FIRST_PRICE, 250, on_demand),
        (instant, order_pb2.AUCTION_RULE_UNSPECIFIED, 0, order_pb2.TERM_KIND_RESERVED),
        (order_pb2.MATCH_MODE_AUCTION, order_pb2.AUCTION_RULE_SECOND_PRICE, 30_000, order_pb2.TERM_KIND_SPOT),
        (order_pb2.MATCH_MODE_MANUAL, order_pb2.AUCTION_RULE_UNSPECIFIED, 0, on_demand),
    ]


async def test_a_reserved_term_is_fixed(house: House) -> None:
    """Goal: nobody gets a long term's discount for a short one by a change. Method: try to change and to drop it."""
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 100_000_000
    order = small_order()
    order.terms.kind = order_pb2.TERM_KIND_RESERVED
    order.terms.duration.CopyFrom(to_duration(86_400_000))
    made = await tenant.create(order=order)
    stub = await tenant.orders()
    for terms in (order_pb2.Terms(), order_pb2.Terms(duration=Duration(seconds=60))):
        request = order_service_pb2.UpdateOrderRequest(
            order=order_pb2.Order(name=made.name, terms=terms),
            update_mask=FieldMask(paths=["terms.duration"]),
            request_id="u",
        )
        with pytest.raises(RemoteError) as caught:
            await stub.UpdateOrder(request)
        assert [item.field for item in caught.value.violations] == ["order.terms.duration"]


async def test_the_history_tells_every_round(house: House) -> None:
    """Goal: a tenant sees when rounds opened and closed, how many bids took part and who won, while the order stays OPEN;
    nothing is noted once it has ended. Method: the market's facts of two rounds, a lease, and one that comes too late.
    """
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 10_000_000
    name = (await tenant.create()).name
    order_id = name.removeprefix("orders/")
    rounds: list[Any] = [
        facts.auction_opened(name, seconds=facts.READY_SECONDS),
        facts.auction_closed(name, detail="no bid that fits"),
        facts.auction_opened(name, number=2),
        facts.auction_closed(name, number=2, winner="auctions/a2/bids/b"),
    ]
    for fact in rounds:
        await house.deliver(LEASES_TOPIC, order_id, fact)
    lines = [told(change) for change in await history(tenant, name)][2:]
    assert [line.reason for line in lines] == [
        "main: round 1 of sealed bids until 2027-01-15T08:00:00Z (auctions/a1)",
        "main: round 1 closed with 3 bids, nobody won: no bid that fits",
        "main: round 2 of sealed bids until 2027-01-15T08:00:00Z (auctions/a2)",
        "main: round 2 closed with 3 bids, won by auctions/a2/bids/b",
    ]
    assert {line.order for line in lines} == {"OPEN>OPEN"}
    assert lines[0].seconds == facts.READY_SECONDS
    await house.deliver(LEASES_TOPIC, order_id, facts.created(name, new_name("leases")))
    await house.deliver(LEASES_TOPIC, order_id, facts.order_ended(name))
    seen = len(await history(tenant, name))
    await house.deliver(LEASES_TOPIC, order_id, facts.auction_opened(name, number=3))
    assert len(await history(tenant, name)) == seen


async def test_the_history_tells_of_notices(house: House) -> None:
    """Goal: the tenant of a spot order sees when its lease gives way, that it may stay after all, and the end with its
    reason. Method: the market's facts of a notice, a withdrawal, a second notice and the end.
    """
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 10_000_000
    name = (await tenant.create()).name
    order_id, lease = name.removeprefix("orders/"), new_name("leases")
    for fact in (
        facts.created(name, lease),
        facts.running(name, lease),
        facts.preempting(name, lease),
        facts.preemption_withdrawn(name, lease),
        facts.preempting(name, lease),
        facts.preempted(name, lease),
    ):
        await house.deliver(LEASES_TOPIC, order_id, fact)
    reasons = [change.reason for change in await history(tenant, name)]
    notice = f"main: {lease} gives way at 2027-01-15T08:00:00Z to an order that pays as much"
    assert [reason for reason in reasons if "main: " in reason] == [
        notice,
        f"main: {lease} runs on: nobody needs its room",
        notice,
    ]
    assert (await tenant.get(name)).state == order_pb2.ORDER_STATE_DEGRADED
    assert sum(reason == "preempted: another order took its devices" for reason in reasons) == 2
