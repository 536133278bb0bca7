"""One order from its creation to its close, and the facts that move it."""

from fallow.bidding.v1 import events_pb2 as bidding_events
from fallow.order.v1 import events_pb2, order_pb2, order_service_pb2
from fallow.settlement.v1 import charge_pb2
from fallow.settlement.v1 import events_pb2 as settlement_events
from fallow.type.v1 import lease_pb2, money_pb2
from fallow_order.consumers import ESCROWS_TOPIC, LEASES_TOPIC
from tests.component.order.conftest import House, new_name, small_order
from tests.component.order.facts import created, escrow_closed, key, running


async def test_an_order_goes_the_whole_way(house: House) -> None:
    """Goal: create, match, run, close, settle. Method: real calls, facts as bidding and settlement state them."""
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 10_000_000
    order = await tenant.create()
    order_id = order.name.removeprefix("orders/")
    assert order.state == order_pb2.ORDER_STATE_OPEN
    assert order.totals.held == money_pb2.Amount(asset="usdc", micros=3_600_000)
    assert not order.groups[0].HasField("workload")
    assert order.groups[0].replica_sets[0].public_ports == 1

    lease = new_name("leases")
    await house.deliver(LEASES_TOPIC, order_id, created(order.name, lease))
    assert (await tenant.get(order.name)).state == order_pb2.ORDER_STATE_MATCHED
    await house.deliver(LEASES_TOPIC, order_id, running(order.name, lease))
    ready = await tenant.get(order.name)
    assert ready.state == order_pb2.ORDER_STATE_RUNNING
    assert ready.groups[0].endpoints[0].uri == "http://127.0.0.1:31000"
    assert ready.ready_time.seconds == 1_800_000_000

    charge = charge_pb2.Charge(key=key(order.name), amount=money_pb2.Amount(asset="usdc", micros=1_500))
    await house.deliver(ESCROWS_TOPIC, order_id, settlement_events.ChargePosted(charge=charge))
    totals = (await tenant.get(order.name)).totals
    assert (totals.charged.micros, totals.held.micros) == (1_500, 3_598_500)

    stub = await tenant.orders()
    closing = await stub.CloseOrder(order_service_pb2.CloseOrderRequest(name=order.name, request_id="c1"))
    assert closing.state == order_pb2.ORDER_STATE_CLOSING
    await house.jobs.carry_ends()
    assert house.bidding.ended == [(order.name, lease_pb2.END_REASON_TENANT)]

    await house.deliver(
        LEASES_TOPIC,
        order_id,
        bidding_events.OrderEnded(order=order.name, reason=lease_pb2.END_REASON_TENANT),
    )
    await house.deliver(ESCROWS_TOPIC, order_id, escrow_closed(order.name, 1_500, 3_598_500))
    closed = await tenant.get(order.name)
    assert closed.state == order_pb2.ORDER_STATE_CLOSED
    assert closed.close_reason == lease_pb2.END_REASON_TENANT
    assert (closed.totals.charged.micros, closed.totals.refunded.micros) == (1_500, 3_598_500)

    kinds = [kind.rpartition(".")[2] for kind, _ in await house.outbox()]
    assert kinds == ["OrderOpened", "OrderCloseRequested", "OrderClosed"]
    last = events_pb2.OrderClosed.FromString((await house.outbox())[-1][1])
    assert last.totals.charged.micros == 1_500
    assert await house.count("workload") == 0


async def test_the_escrow_may_close_before_the_end_is_told(house: House) -> None:
    """Goal: facts of two topics in either order end the same. Method: EscrowClosed first, then OrderEnded."""
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 10_000_000
    order = await tenant.create()
    order_id = order.name.removeprefix("orders/")
    await house.deliver(ESCROWS_TOPIC, order_id, escrow_closed(order.name, 7, 3_599_993))
    assert (await tenant.get(order.name)).state == order_pb2.ORDER_STATE_OPEN
    await house.deliver(
        LEASES_TOPIC, order_id, bidding_events.OrderEnded(order=order.name, reason=lease_pb2.END_REASON_FUNDS)
    )
    closed = await tenant.get(order.name)
    assert closed.state == order_pb2.ORDER_STATE_CLOSED
    assert closed.close_reason == lease_pb2.END_REASON_FUNDS
    assert closed.totals.charged.micros == 7


async def test_a_lost_group_makes_the_order_degraded_and_a_new_lease_mends_it(house: House) -> None:
    """Goal: fail over within one order. Method: two groups run, one is lost and leased again."""
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 10_000_000
    order = await tenant.create(order=small_order(groups=2))
    order_id = order.name.removeprefix("orders/")
    first, second, third = (new_name("leases") for _ in range(3))
    for group, lease in enumerate((first, second)):
        await house.deliver(LEASES_TOPIC, order_id, created(order.name, lease, group=group))
        await house.deliver(LEASES_TOPIC, order_id, running(order.name, lease, group=group))
    assert (await tenant.get(order.name)).state == order_pb2.ORDER_STATE_RUNNING
    await house.deliver(
        LEASES_TOPIC, order_id, bidding_events.LeaseEnded(lease=first, key=key(order.name), releasing=True)
    )
    lost = await tenant.get(order.name)
    assert lost.state == order_pb2.ORDER_STATE_DEGRADED
    assert lost.groups[0].state == order_pb2.GROUP_STATE_LOST
    await house.deliver(LEASES_TOPIC, order_id, created(order.name, third, generation=2))
    # The old generation's late word changes nothing.
    await house.deliver(LEASES_TOPIC, order_id, running(order.name, first, generation=1))
    assert (await tenant.get(order.name)).state == order_pb2.ORDER_STATE_DEGRADED
    await house.deliver(LEASES_TOPIC, order_id, running(order.name, third, generation=2))
    mended = await tenant.get(order.name)
    assert mended.state == order_pb2.ORDER_STATE_RUNNING
    assert (mended.groups[0].lease, mended.groups[0].generation) == (third, 2)
