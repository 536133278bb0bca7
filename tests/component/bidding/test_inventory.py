"""Inventory reports: in full, by changes, with gaps; devices that fail, come back, or are left out under a lease."""

from datetime import timedelta

import pytest

from fallow.bidding.v1 import events_pb2
from fallow.provider.v1 import market_link_pb2
from fallow.type.v1 import lease_pb2, resources_pb2
from fallow_bidding.domain.leases import EndReason
from fallow_bidding.store.suppliers import load_suppliers
from tests.component.bidding.conftest import House, gpu_order, node, run_status

RUNNING = market_link_pb2.RUN_STATE_RUNNING
STOPPED = market_link_pb2.RUN_STATE_STOPPED


async def _devices(house: House) -> list[str]:
    """The devices that the market knows."""
    async with house.database.read() as connection:
        rows = await connection.fetch("SELECT node_id || '/' || device_id AS place FROM device ORDER BY 1")
    return [row["place"] for row in rows]


def _with_health(devices: int, health: "resources_pb2.DeviceHealth.ValueType", *places: int) -> resources_pb2.Node:
    """A node of which some devices have a health."""
    changed = node(devices=devices)
    for place in places:
        changed.devices[place].health = health
    return changed


async def test_changes_are_taken_in_their_order_only(house: House) -> None:
    """Goal: a report of changes takes effect if it follows the last report, and otherwise nothing happens but the wish for a
    full one, whose number may be any higher one. Method: changes in order, with one lost, repeated, late, and following nothing.
    """
    async with house.running(engine=False, courier=False):
        agent = await house.add_agent(node("a"), node("b"))
        taken = (await agent.report_inventory(node("b", devices=2), node("c"), sequence=2, base=1)).inventory
        assert (taken.sequence, taken.reason, taken.inventory_wanted) == (2, "", False)
        assert await _devices(house) == ["a/a-gpu-0", "b/b-gpu-0", "b/b-gpu-1", "c/c-gpu-0"]
        taken = (await agent.report_inventory(sequence=3, base=2, removed=("a", "nowhere"))).inventory
        assert (taken.sequence, taken.reason) == (3, "")
        assert await _devices(house) == ["b/b-gpu-0", "b/b-gpu-1", "c/c-gpu-0"]

        again = (await agent.report_inventory(sequence=3, base=2, removed=("b",))).inventory
        assert (again.sequence, again.reason) == (3, "")
        gap = (await agent.report_inventory(node("d"), sequence=5, base=4)).inventory
        assert (gap.sequence, gap.reason, gap.inventory_wanted) == (3, "INVENTORY_GAP", True)
        late = (await agent.report_inventory(node("d"), sequence=2, base=1)).inventory
        assert (late.sequence, late.reason, late.inventory_wanted) == (3, "INVENTORY_OLD", True)
        nonsense = await agent.report_inventory(node("d"), sequence=9, base=9)
        assert nonsense.error.reason == "INVENTORY_INVALID"
        assert await _devices(house) == ["b/b-gpu-0", "b/b-gpu-1", "c/c-gpu-0"]

        full = (await agent.report_inventory(node("d"), sequence=6)).inventory
        assert (full.sequence, full.reason) == (6, "")
        assert await _devices(house) == ["d/d-gpu-0"]
        assert (await agent.report_inventory(node("e"), sequence=7, base=6)).inventory.sequence == 7


async def test_changes_must_leave_a_whole_that_can_be_true(house: House) -> None:
    """Goal: a device stands at one node, whatever order reports come in. Method: a change that repeats another node's device, and
    one that moves it with both nodes.
    """
    async with house.running(engine=False, courier=False):
        agent = await house.add_agent(node("a"), node("b"))
        twice = await agent.report_inventory(node("b", prefix="a"), sequence=2, base=1)
        assert twice.error.reason == "INVENTORY_INVALID"
        assert await _devices(house) == ["a/a-gpu-0", "b/b-gpu-0"]
        moved = await agent.report_inventory(node("b", prefix="a"), node("a", prefix="b"), sequence=2, base=1)
        assert (moved.inventory.sequence, moved.inventory.reason) == (2, "")
        assert await _devices(house) == ["a/b-gpu-0", "b/a-gpu-0"]


async def test_a_device_left_out_under_a_lease_stays_held(house: House) -> None:
    """Goal: what a report does not name is neither free nor failed: the lease runs on, and the device, once named again, is still
    its own. Method: a full report without the node, one of changes that brings it back, and an order that would take it.
    """
    async with house.running(engine=False):
        agent = await house.add_agent()
        await house.open_order(gpu_order())
        assert await house.matching.match_open_orders() == 1
        command = await agent.command("run")
        await agent.beat(run_status(command, RUNNING))
        await agent.report_inventory(node("other"), sequence=2)
        await agent.beat(run_status(command, RUNNING))
        assert await house.value("SELECT state FROM lease") == "RUNNING"
        used = "SELECT milli_used FROM device_capacity WHERE device_id = 'node-1-gpu-0'"
        assert await house.value(used) == 1_000
        await agent.report_inventory(node(), sequence=3, base=2, removed=("other",))
        await house.open_order(gpu_order())
        assert await house.matching.match_open_orders() == 0
        await house.orders.end(command.key.order.removeprefix("orders/"), EndReason.TENANT, "over")
        await agent.beat(run_status(command, STOPPED))
        assert await house.matching.match_open_orders() == 1


@pytest.mark.parametrize("health", [resources_pb2.DEVICE_HEALTH_DEGRADED, resources_pb2.DEVICE_HEALTH_FAILED])
async def test_an_ill_device_takes_no_lease_until_it_is_well(
    house: House, health: "resources_pb2.DeviceHealth.ValueType"
) -> None:
    """Goal: a device that is not well drains itself at once, and counts again once it is. Method: an order that waits while
    the one device is ill, by a report of changes, and is matched when the next one says that it is well.
    """
    async with house.running(engine=False, courier=False):
        agent = await house.add_agent()
        await agent.report_inventory(_with_health(1, health, 0), sequence=2, base=1)
        order = gpu_order()
        await house.open_order(order)
        assert await house.matching.match_open_orders() == 0
        story = (await house.queries.explain(order.name)).groups[0]
        assert {offer.provider: offer.loss_reason for offer in story.offers}[agent.name] == "device_health"
        await agent.report_inventory(node(), sequence=3, base=2)
        assert await house.matching.match_open_orders() == 1


async def test_a_lease_outlives_a_degraded_device_and_not_a_failed_one(house: House) -> None:
    """Goal: warnings end nothing; a failure ends the leases of that device alone, with evidence DEVICE, and they move on. Method:
    two leases on two of three devices; one device degrades, then fails, by reports of changes.
    """
    async with house.running():
        agent = await house.add_agent(node(devices=3))
        keys = [await house.open_order(gpu_order()), await house.open_order(gpu_order())]
        first, second = await agent.command("run", 1), await agent.command("run", 2)
        await agent.beat(run_status(first, RUNNING), run_status(second, RUNNING))
        place = int(first.run.replicas[0].devices[0].device_id[-1])
        degraded = _with_health(3, resources_pb2.DEVICE_HEALTH_DEGRADED, place)
        await agent.report_inventory(degraded, sequence=2, base=1)
        assert await house.value("SELECT count(*) FROM lease WHERE state = 'RUNNING'") == 2
        failed = _with_health(3, resources_pb2.DEVICE_HEALTH_FAILED, place)
        await agent.report_inventory(failed, sequence=3, base=2)
        ended = await house.until_event(first.key.order.removeprefix("orders/"), events_pb2.LeaseEnded)
        assert (ended.lease, ended.evidence.reason) == (first.lease, lease_pb2.END_REASON_DEVICE)
        assert ended.evidence.observer == agent.name
        moved = await agent.command("run", 3)
        assert moved.key.order == first.key.order
        assert moved.run.replicas[0].devices[0].device_id != first.run.replicas[0].devices[0].device_id
        assert await house.value("SELECT state FROM lease WHERE lease_id = $1", second.lease[7:]) == "RUNNING"
        assert {f"orders/{key}" for key in keys} == {first.key.order, second.key.order}


@pytest.mark.parametrize(
    ("what", "nodes"),
    [
        ("a node of 65 devices", [node(devices=65)]),
        ("a model of other letters", [node(model="Evil Model")]),
        ("a model without a name", [node(model="")]),
        ("a model with a line break", [node(model="h100\n")]),
        ("a node id of other letters", [node("no de")]),
        ("more devices than one provider has", [node(f"n{number}", devices=64) for number in range(129)]),
    ],
)
async def test_what_the_contract_does_not_have_is_refused(
    house: House, what: str, nodes: list[resources_pb2.Node]
) -> None:
    """Goal: a stranger's report cannot slow or break the market. Method: one fault a row; nothing of the report is kept."""
    async with house.running(engine=False):
        agent = await house.add_agent(node("good"))
        reply = await agent.report_inventory(*nodes, sequence=2)
        assert reply.error.reason == "INVENTORY_INVALID", what
        assert await _devices(house) == ["good/good-gpu-0"]


async def test_changes_do_not_add_up_to_more_than_a_provider_has(house: House) -> None:
    """Goal: the bound holds for the whole, not for a report. Method: full nodes, by changes, up to the bound and beyond."""
    async with house.running(engine=False):
        agent = await house.add_agent(*(node(f"a{number}", devices=64) for number in range(64)))
        more = [node(f"b{number}", devices=64) for number in range(64)]
        assert (await agent.report_inventory(*more, sequence=2, base=1)).inventory.sequence == 2
        beyond = await agent.report_inventory(node("c"), sequence=3, base=2)
        assert beyond.error.reason == "INVENTORY_INVALID"
        assert len(await _devices(house)) == 8_192


async def test_nobody_looks_through_what_is_long_gone(house: House) -> None:
    """Goal: who left costs nothing. Method: the market as the engine loads it, before and after ten minutes of silence."""
    async with house.running(engine=False):
        await house.add_agent()
        async with house.database.read() as connection:
            ((_, supplier),) = await load_suppliers(connection, house.policy, house.clock.now())
            later = house.clock.now() + timedelta(minutes=11)
            ((_, gone),) = await load_suppliers(connection, house.policy, later)
    assert len(supplier.nodes) == 1
    assert (gone.nodes, gone.unavailable) == ((), "unreachable")
