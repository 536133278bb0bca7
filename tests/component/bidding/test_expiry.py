"""Waits for a first match that are over: the order ends, or its groups alone, and a group that is lost comes back."""

from dataclasses import replace
from datetime import timedelta

import pytest
from google.protobuf.message import Message

from fallow.bidding.v1 import events_pb2
from fallow.order.v1 import order_pb2
from fallow.provider.v1 import market_link_pb2
from fallow.type.v1 import lease_pb2
from fallow_bidding.domain.policy import Policy
from fallow_chassis.wire import from_timestamp, to_duration
from tests.component.bidding.conftest import ON_BOTH_STREAMS, House, gpu_order, node, run_status

RUNNING = market_link_pb2.RUN_STATE_RUNNING
FAILED = market_link_pb2.RUN_STATE_FAILED
EACH = order_pb2.GROUP_BINDING_EACH
EXPIRED, WORKLOAD = lease_pb2.END_REASON_EXPIRED, lease_pb2.END_REASON_WORKLOAD


@pytest.fixture
def policy() -> Policy:
    """Two failures of the workload end a group."""
    return replace(Policy(), failures_max=2)


def _patient(seconds: int, **order: object) -> order_pb2.Order:
    """An order that waits so long for a match."""
    made = gpu_order(**order)  # type: ignore[arg-type]
    made.terms.match_timeout.CopyFrom(to_duration(seconds * 1_000))
    return made


def _names(events: list[Message]) -> list[str]:
    return [type(event).__name__ for event in events]


async def test_an_order_expires_at_its_deadline_and_not_before(house: House) -> None:
    """Goal: no match in time ends the order whole, once. Method: either side of the deadline, and again."""
    async with house.running(engine=False, courier=False):
        key = await house.open_order(_patient(20, groups=2))
        await house.pass_time(19.999)
        assert await house.watching.find_unmatched() == 0
        await house.pass_time(0.001)
        assert await house.watching.find_unmatched() == 1
        assert await house.watching.find_unmatched() == 0
        (end,) = await house.events(key=key)
        assert isinstance(end, events_pb2.OrderEnded)
        assert (end.reason, end.detail) == (EXPIRED, "no match within 20 s")
        assert from_timestamp(end.end_time) == house.clock.now()
        await house.add_agent(node(devices=2))
        assert await house.matching.match_open_orders() == 0


async def test_the_default_wait_is_ten_minutes_from_the_opening(house: House) -> None:
    """Goal: the wait counts from when the order was opened, not from when bidding heard. Method: an event that took a while,
    and one whose sender's clock is ahead.
    """
    async with house.running(engine=False, courier=False):
        opened = house.clock.now()
        await house.pass_time(4)
        late = await house.open_order(gpu_order(), stated=opened)
        ahead = await house.open_order(gpu_order(), stated=opened + timedelta(hours=1))
        await house.pass_time(595.999)
        assert await house.watching.find_unmatched() == 0
        await house.pass_time(0.001)
        assert await house.watching.find_unmatched() == 1
        assert _names(await house.events(key=late)) == ["OrderEnded"]
        await house.pass_time(3.999)
        assert await house.watching.find_unmatched() == 0
        await house.pass_time(0.001)
        assert await house.watching.find_unmatched() == 1
        assert _names(await house.events(key=ahead)) == ["OrderEnded"]


async def test_time_in_which_the_market_was_away_does_not_count(house: House) -> None:
    """Goal: an outage of our own expires nobody. Method: no pulse for an hour, then the rest of the wait."""
    async with house.running(engine=False, courier=False):
        key = await house.open_order(_patient(20))
        house.clock.advance(seconds=4)
        await house.watch.run_once()
        house.clock.advance(seconds=3_600)
        await house.watch.run_once()
        assert await house.events(key=key) == []
        await house.pass_time(15.999)
        await house.watch.run_once()
        assert await house.events(key=key) == []
        await house.pass_time(0.001)
        await house.watch.run_once()
        assert _names(await house.events(key=key)) == ["OrderEnded"]


@ON_BOTH_STREAMS
async def test_groups_that_are_leased_each_expire_each(house: House) -> None:
    """Goal: what found no match ends alone, and the others run on, ready without it. Method: room for one of three."""
    async with house.running(engine=False, courier=False):
        agent = await house.add_agent()
        order = _patient(20, groups=3, group_binding=EACH)
        order.terms.duration.CopyFrom(to_duration(60_000))
        key = await house.open_order(order)
        assert await house.matching.match_open_orders() == 1
        (created,) = await house.events(key=key)
        assert isinstance(created, events_pb2.LeaseCreated)
        await house.delivery.take_due()
        await agent.beat(market_link_pb2.RunStatus(lease=created.lease.name, key=created.lease.key, state=RUNNING))
        assert await house.value("SELECT ready_time FROM market_order") is None
        await house.pass_time(20)
        assert await house.watching.find_unmatched() == 2
        events = await house.events(key=key)
        assert _names(events) == ["LeaseCreated", "LeaseRunning", "GroupEnded", "GroupEnded"]
        ended = [event for event in events if isinstance(event, events_pb2.GroupEnded)]
        taken = created.lease.key.group
        assert [event.group for event in ended] == [index for index in range(3) if index != taken]
        assert {(event.reason, event.detail, event.order) for event in ended} == {
            (EXPIRED, "no match within 20 s", order.name)
        }
        assert [event.group_id for event in ended] == [f"group-{event.group}" for event in ended]
        assert await house.value("SELECT ready_time FROM market_order") == house.clock.now()
        house.clock.advance(seconds=60)
        assert await house.orders.end_terms() == 1


async def test_an_order_without_groups_left_ends(house: House) -> None:
    """Goal: where each group ran out, the order ends and its money may return. Method: no provider at all."""
    async with house.running(engine=False, courier=False):
        key = await house.open_order(_patient(20, groups=2, group_binding=EACH))
        await house.pass_time(20)
        assert await house.watching.find_unmatched() == 2
        events = await house.events(key=key)
        assert _names(events) == ["GroupEnded", "GroupEnded", "OrderEnded"]
        assert isinstance(events[2], events_pb2.OrderEnded)
        assert events[2].reason == EXPIRED


async def test_a_group_that_fails_too_often_ends_alone(house: House) -> None:
    """Goal: with EACH a bad workload takes no other group along. Method: one group fails twice, the other runs."""
    async with house.running():
        agents = [await house.add_agent(node(devices=2)) for _ in range(2)]
        key = await house.open_order(gpu_order(groups=2, group_binding=EACH))
        by_name = {agent.name: agent for agent in agents}
        for number in (1, 2):
            created = await _newest(house, key, group=0, generation=number)
            agent = by_name[created.lease.provider]
            status = market_link_pb2.RunStatus(lease=created.lease.name, key=created.lease.key, state=FAILED)
            await agent.beat(status)
        ended = await house.until_event(key, events_pb2.GroupEnded)
        assert (ended.group, ended.reason) == (0, WORKLOAD)
        assert "failed 2 times" in ended.detail
        other = await _newest(house, key, group=1, generation=1)
        command = await by_name[other.lease.provider].command("run")
        assert command is not None
        await by_name[other.lease.provider].beat(
            market_link_pb2.RunStatus(lease=other.lease.name, key=other.lease.key, state=RUNNING)
        )
        assert await house.value("SELECT ready_time FROM market_order") == house.clock.now()
        assert "OrderEnded" not in _names(await house.events(key=key))


async def _newest(house: House, key: str, *, group: int, generation: int) -> events_pb2.LeaseCreated:
    """The lease of a group's generation, waited for."""
    found: list[events_pb2.LeaseCreated] = []

    async def made() -> bool:
        found[:] = [
            event
            for event in await house.events(key=key)
            if isinstance(event, events_pb2.LeaseCreated)
            and (event.lease.key.group, event.lease.key.generation) == (group, generation)
        ]
        return bool(found)

    await house.until(made, f"generation {generation} of group {group}")
    return found[0]


async def test_the_only_provider_gets_a_lost_group_back(house: House) -> None:
    """Goal: where nobody else fits, who lost a group may have it again, later each time, and who fits comes first.
    Method: one provider fails twice; then another one comes.
    """
    async with house.running(engine=False):
        only = await house.add_agent(node(devices=4))
        await house.open_order(gpu_order())
        for lost, wait in ((1, 60), (2, 120)):
            assert await house.matching.match_open_orders() == 1
            command = await only.command("run", lost)
            await only.beat(run_status(command, market_link_pb2.RUN_STATE_STARTING))
            if lost == 2:
                break
            await only.beat(run_status(command, FAILED))
            house.clock.advance(milliseconds=wait * 1_000 - 1)
            await only.beat()
            assert await house.matching.match_open_orders() == 0
            house.clock.advance(milliseconds=1)
            await only.beat()
        assert await house.value("SELECT max(generation) FROM lease") == 2
        assert await house.value("SELECT count(DISTINCT provider_id) FROM lease") == 1


async def test_who_did_not_fail_comes_before_who_did(house: House) -> None:
    """Goal: a provider that failed a group gets it back only where nobody else fits. Method: a dearer one is there."""
    async with house.running(engine=False):
        cheap = await house.add_agent(node(devices=4), gpu_micros=1_000_000)
        await house.open_order(gpu_order())
        assert await house.matching.match_open_orders() == 1
        await cheap.beat(run_status(await cheap.command("run"), FAILED))
        house.clock.advance(seconds=61)
        await cheap.beat()
        dear = await house.add_agent(node(devices=4), gpu_micros=2_000_000)
        assert await house.matching.match_open_orders() == 1
        assert (await dear.command("run")).key.generation == 2


@ON_BOTH_STREAMS
async def test_an_order_that_nobody_can_read_ends(house: House) -> None:
    """Goal: an order that the engine could never read returns its money and stops no other. Method: a share of several
    devices, which the contract forbids, twice; then a good order.
    """
    async with house.running(engine=False, courier=False):
        await house.add_agent()
        bad = gpu_order()
        bad.groups[0].replica_sets[0].resources.gpu.count = 2
        bad.groups[0].replica_sets[0].resources.gpu.milli_per_device = 500
        key = await house.open_order(bad)
        await house.open_order(bad)
        (end,) = await house.events(key=key)
        assert isinstance(end, events_pb2.OrderEnded)
        assert end.reason == EXPIRED
        assert "cannot read the order: a share lives on one device" in end.detail
        await house.open_order(gpu_order())
        assert await house.matching.match_open_orders() == 1


async def test_the_usual_time_to_a_match_comes_from_history(house: House) -> None:
    """Goal: the median of the same models, else of all, of seven days, or nothing. Method: waits of 1 to 9 s of orders
    for any model, then for one; estimates for either; eight days later none.
    """
    async with house.running(engine=False, courier=False):
        await house.add_agent(node(devices=64))
        other = gpu_order()
        other.groups[0].replica_sets[0].resources.gpu.ClearField("models")
        for wanted, waits in ((gpu_order(), (9, 1, 8, 2)), (other, (20,))):
            for seconds in waits:
                copy = order_pb2.Order()
                copy.CopyFrom(wanted)
                copy.name = gpu_order().name
                assert not (await house.queries.estimate(wanted)).HasField("time_to_match")
                await house.open_order(copy)
                await house.pass_time(seconds)
                assert await house.matching.match_open_orders() == 1
        # Five of all: 1 2 8 9 20; four of the same models are too few.
        assert (await house.queries.estimate(gpu_order())).time_to_match.seconds == 8
        await house.open_order(gpu_order())
        await house.pass_time(3)
        assert await house.matching.match_open_orders() == 1
        # Five of the same models: 1 2 3 8 9; six of all: 1 2 3 8 9 20.
        assert (await house.queries.estimate(gpu_order())).time_to_match.seconds == 3
        assert (await house.queries.estimate(other)).time_to_match.seconds == 3
        house.clock.advance(seconds=8 * 86_400)
        assert not (await house.queries.estimate(gpu_order())).HasField("time_to_match")
