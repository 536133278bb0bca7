"""Groups that are leased each on its own, groups that are lost, and the history that tells of both."""

from dataclasses import dataclass

from fallow.order.v1 import events_pb2, order_pb2, order_service_pb2
from fallow.type.v1 import lease_pb2
from fallow_order.consumers import ESCROWS_TOPIC, LEASES_TOPIC
from tests.component.order import facts
from tests.component.order.conftest import House, Tenant, new_name, small_order


@dataclass(frozen=True)
class Told:
    """One change as a person reads it."""

    order: str
    group: str
    lease: str
    provider: str
    generation: int
    reason: str
    seconds: int


async def history(tenant: Tenant, name: str, after: int = 0) -> list[order_pb2.OrderTransition]:
    """All changes of an order so far, from a watch that stops once it has caught up."""
    stub = await tenant.orders()
    call = stub.WatchOrder(order_service_pb2.WatchOrderRequest(name=name, after_sequence=after))
    found: list[order_pb2.OrderTransition] = []
    async for answer in call:
        if answer.HasField("transition"):
            found.append(answer.transition)
        if max(after, found[-1].sequence if found else 0) >= answer.latest_sequence:
            break
    call.cancel()
    return found


def told(transition: order_pb2.OrderTransition) -> Told:
    """A change without the words that all share."""
    order = f"{_state(transition.source_state)}>{_state(transition.target_state)}"
    group = ""
    if transition.group_id:
        source = order_pb2.GroupState.Name(transition.source_group_state).removeprefix("GROUP_STATE_")
        target = order_pb2.GroupState.Name(transition.target_group_state).removeprefix("GROUP_STATE_")
        group = f"{transition.group_id} {source}>{target}"
    return Told(
        order,
        group,
        transition.lease,
        transition.provider,
        transition.generation,
        transition.reason,
        transition.transition_time.seconds,
    )


def _state(number: "order_pb2.OrderState.ValueType") -> str:
    return order_pb2.OrderState.Name(number).removeprefix("ORDER_STATE_")


async def test_a_lost_group_is_leased_elsewhere_and_the_history_tells(house: House) -> None:
    """Goal: DEGRADED, leased again, RUNNING, and each lease with its provider, reason and time in the history, also
    after the close. Method: facts of a failover and an end; the watch from 0, and from the middle.
    """
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 10_000_000
    name = (await tenant.create()).name
    order_id, first, second = name.removeprefix("orders/"), new_name("leases"), new_name("leases")
    for fact in (
        facts.created(name, first, seconds=1_700_000_000),
        facts.running(name, first),
        facts.lost(name, first, seconds=1_900_000_000),
    ):
        await house.deliver(LEASES_TOPIC, order_id, fact)
    degraded = await tenant.get(name)
    assert (degraded.state, degraded.groups[0].state) == (
        order_pb2.ORDER_STATE_DEGRADED,
        order_pb2.GROUP_STATE_LOST,
    )
    for later in (
        facts.created(name, second, 2, provider="providers/q", seconds=1_900_000_007),
        # The old generation's late word changes nothing and is no history.
        facts.running(name, first),
        facts.running(name, second, 2),
        facts.order_ended(name, lease_pb2.END_REASON_FUNDS),
    ):
        await house.deliver(LEASES_TOPIC, order_id, later)
    await house.deliver(ESCROWS_TOPIC, order_id, facts.escrow_closed(name, 5, 3_599_995))
    closed = await tenant.get(name)
    assert (closed.state, closed.close_reason) == (order_pb2.ORDER_STATE_CLOSED, lease_pb2.END_REASON_FUNDS)
    assert closed.close_detail == "its funds are used up"
    everything = await history(tenant, name)
    assert [change.sequence for change in everything] == list(range(1, len(everything) + 1))
    seen = [told(change) for change in everything]
    lost, ready = "unreachable: no heartbeat for 60 s", facts.READY_SECONDS
    a, b = (first, "providers/p", 1), (second, "providers/q", 2)
    assert seen[2:-3] == [
        Told("OPEN>OPEN", "main OPEN>LEASED", *a, "leased; the workload is starting", 1_700_000_000),
        Told("OPEN>MATCHED", "", "", "", 0, "all groups are leased; workloads are starting", 1_700_000_000),
        Told("MATCHED>MATCHED", "main LEASED>RUNNING", *a, "ready", ready),
        Told("MATCHED>RUNNING", "", "", "", 0, "all groups are ready", ready),
        Told("RUNNING>RUNNING", "main RUNNING>LOST", *a, lost, 1_900_000_000),
        Told("RUNNING>DEGRADED", "", "", "", 0, lost, 1_900_000_000),
        Told("DEGRADED>DEGRADED", "main LOST>LEASED", *b, "leased; the workload is starting", 1_900_000_007),
        Told("DEGRADED>DEGRADED", "main LEASED>RUNNING", *b, "ready", ready),
        Told("DEGRADED>RUNNING", "", "", "", 0, "all groups are ready", ready),
    ]
    assert [(step.order, step.group, step.reason) for step in seen[-3:]] == [
        ("RUNNING>CLOSING", "", "funds: its funds are used up"),
        ("CLOSING>CLOSING", "main RUNNING>ENDED", "funds: its funds are used up"),
        ("CLOSING>CLOSED", "", "the money has returned"),
    ]
    assert all(step.seconds and step.reason for step in seen)
    assert await history(tenant, name, after=7) == everything[7:]


async def test_each_group_goes_its_own_way(house: House) -> None:
    """Goal: with EACH a group without a match ends alone, the others run, and the order closes after the last. Method:
    three groups: one runs, one expires while the other starts; then the end.
    """
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 20_000_000
    wanted = small_order(groups=3)
    wanted.group_binding = order_pb2.GROUP_BINDING_EACH
    name = (await tenant.create(order=wanted)).name
    opened = events_pb2.OrderOpened.FromString((await house.outbox())[0][1])
    assert opened.order.group_binding == order_pb2.GROUP_BINDING_EACH
    order_id, first, second = name.removeprefix("orders/"), new_name("leases"), new_name("leases")
    states = []
    for fact in (
        facts.created(name, first, group=2),
        facts.running(name, first, group=2),
        facts.created(name, second),
        facts.group_ended(name, 1),
        facts.running(name, second),
    ):
        await house.deliver(LEASES_TOPIC, order_id, fact)
        states.append(_state((await tenant.get(name)).state))
    assert states == ["OPEN", "OPEN", "OPEN", "MATCHED", "RUNNING"]
    runs = await tenant.get(name)
    assert [order_pb2.GroupState.Name(group.state) for group in runs.groups] == [
        "GROUP_STATE_RUNNING",
        "GROUP_STATE_ENDED",
        "GROUP_STATE_RUNNING",
    ]
    assert runs.ready_time.seconds == facts.READY_SECONDS
    seen = [told(change) for change in await history(tenant, name)]
    expired = next(step for step in seen if step.group == "main-1 OPEN>ENDED")
    assert (expired.lease, expired.provider, expired.generation) == ("", "", 0)
    assert expired.reason == "expired: no match within 20 s"


async def test_what_was_held_for_a_group_that_ended_returns(house: House) -> None:
    """Goal: an independent group's money does not wait for the others. Method: two of three groups end, each told twice; the
    sweeper asks settlement once for each, and never for nothing; a change on its way is left alone.
    """
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 20_000_000
    wanted = small_order(groups=3)
    wanted.group_binding = order_pb2.GROUP_BINDING_EACH
    name = (await tenant.create(order=wanted)).name
    order_id = name.removeprefix("orders/")
    for group in (1, 1, 2, 0):
        await house.deliver(LEASES_TOPIC, order_id, facts.group_ended(name, group))
        await house.updates.sweep()
    asked = [(request.amount.micros, request.number) for request in house.settlement.resizes]
    assert asked == [(7_200_000, 1), (3_600_000, 2)]


async def test_an_order_whose_every_group_expired_closes_and_its_money_returns(house: House) -> None:
    """Goal: nothing hangs where nobody was found. Method: both groups end, the order ends, the escrow closes."""
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 10_000_000
    wanted = small_order(groups=2)
    wanted.group_binding = order_pb2.GROUP_BINDING_EACH
    name = (await tenant.create(order=wanted)).name
    order_id = name.removeprefix("orders/")
    for fact in (
        facts.group_ended(name, 0),
        facts.group_ended(name, 1),
        facts.order_ended(name, lease_pb2.END_REASON_EXPIRED),
    ):
        await house.deliver(LEASES_TOPIC, order_id, fact)
    await house.deliver(ESCROWS_TOPIC, order_id, facts.escrow_closed(name, 0, 7_200_000))
    closed = await tenant.get(name)
    assert (closed.state, closed.close_reason) == (order_pb2.ORDER_STATE_CLOSED, lease_pb2.END_REASON_EXPIRED)
    assert closed.close_detail == "it found no match in time"
    assert (closed.totals.charged.micros, closed.totals.refunded.micros) == (0, 7_200_000)
    assert {group.state for group in closed.groups} == {order_pb2.GROUP_STATE_ENDED}
