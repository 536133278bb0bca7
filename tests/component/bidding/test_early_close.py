"""A reserved order that its tenant closes before its term is over owes more than what ran; every other end does not."""

import pytest

from fallow.bidding.v1 import events_pb2
from fallow.order.v1 import order_pb2
from fallow_bidding.domain.leases import EndReason
from fallow_chassis.wire import from_duration, to_duration
from tests.component.bidding.conftest import House, gpu_order
from tests.component.bidding.test_spot import id_of, report

HOUR_MS = 3_600_000
MINUTE_MS = 60_000


async def owed_at_the_end(
    house: House,
    kind: order_pb2.TermKind.ValueType,
    *,
    reason: EndReason = EndReason.TENANT,
    runs: bool = True,
    late_ms: int = 10 * MINUTE_MS,
    term_ms: int = 24 * HOUR_MS,
) -> int:
    """What the lease of an order owes beyond what ran, which ends ``late_ms`` after it was ready."""
    agent = await house.add_agent()
    order = gpu_order(terms=order_pb2.Terms(kind=kind, duration=to_duration(term_ms)))
    key = await house.open_order(order)
    await house.matching.match_open_orders()
    await house.until_event(key, events_pb2.LeaseCreated)
    if runs:
        await agent.command("run")
        await report(house)
        await house.until_event(key, events_pb2.LeaseRunning)
        house.clock.advance(milliseconds=late_ms)
    await house.orders.end(id_of(order), reason, "told to")
    ended = await house.until_event(key, events_pb2.LeaseEnded)
    return from_duration(ended.early_close)


@pytest.mark.parametrize(
    ("late_ms", "term_ms", "owed_ms"),
    [
        (10 * MINUTE_MS, 24 * HOUR_MS, HOUR_MS),
        (23 * HOUR_MS, 24 * HOUR_MS, HOUR_MS),
        (23 * HOUR_MS + 45 * MINUTE_MS, 24 * HOUR_MS, 15 * MINUTE_MS),
        (24 * HOUR_MS, 24 * HOUR_MS, 0),
        (24 * HOUR_MS + 1, 24 * HOUR_MS, 0),
        (10 * MINUTE_MS, 30 * MINUTE_MS, 20 * MINUTE_MS),
    ],
)
async def test_a_reserved_term_owes_the_rest_at_most_an_hour(
    house: House, late_ms: int, term_ms: int, owed_ms: int
) -> None:
    """Goal: what was told beforehand is what is owed. Method: tenants that close early, at the end, and after it."""
    async with house.running(engine=False):
        kind = order_pb2.TERM_KIND_RESERVED
        assert await owed_at_the_end(house, kind, late_ms=late_ms, term_ms=term_ms) == owed_ms


async def test_no_other_end_owes_anything(house: House) -> None:
    """Goal: only a tenant's own close of a fixed term that runs costs more. Method: other terms, other reasons, and a
    lease that never ran.
    """
    reserved = order_pb2.TERM_KIND_RESERVED
    async with house.running(engine=False):
        assert await owed_at_the_end(house, order_pb2.TERM_KIND_ON_DEMAND) == 0
        assert await owed_at_the_end(house, order_pb2.TERM_KIND_SPOT) == 0
        assert await owed_at_the_end(house, reserved, reason=EndReason.FUNDS) == 0
        assert await owed_at_the_end(house, reserved, reason=EndReason.TERM) == 0
        assert await owed_at_the_end(house, reserved, runs=False) == 0
