"""A changed workload takes the place of the one that runs: never beside it, never without a match, nobody to blame."""

import asyncio
from typing import Any

from fallow.bidding.v1 import events_pb2
from fallow.order.v1 import events_pb2 as order_events
from fallow.order.v1 import order_pb2
from fallow.provider.v1 import market_link_pb2
from fallow.type.v1 import lease_pb2
from tests.component.bidding.conftest import Agent, House, gpu_order, node, run_status

RUNNING = market_link_pb2.RUN_STATE_RUNNING
STOPPED = market_link_pb2.RUN_STATE_STOPPED


async def change(house: House, order: order_pb2.Order, *, replicas: int = 0, limit: int = 0, revision: int = 0) -> None:
    """OrderUpdated as the order service states it."""
    group = order.groups[0]
    if replicas:
        group.replica_sets[0].replicas = replicas
    if limit:
        group.price_limit.micros_per_hour = limit
    if revision:
        group.revision = revision
    await house.hand(order_events.OrderUpdated(order=order), order.name.removeprefix("orders/"))


async def running(house: House, agent: Agent, **fields: Any) -> tuple[order_pb2.Order, str, market_link_pb2.Command]:
    """An order that runs at an agent."""
    order = gpu_order(**fields)
    key = await house.open_order(order)
    command = await agent.command("run")
    await agent.beat(run_status(command, RUNNING))
    await house.until_event(key, events_pb2.LeaseRunning)
    return order, key, command


async def kinds(house: House, key: str) -> list[str]:
    """The types of an order's events."""
    return [type(event).__name__ for event in await house.events(key=key)]


async def settle(house: House) -> None:
    """Two passes of the engine, driven by hand: whatever it would do now is done."""
    for _ in range(2):
        await house.matching.match_open_orders()


async def advice(house: House, order: order_pb2.Order) -> str:
    """What ExplainOrder tells of the first group."""
    return (await house.queries.explain(order.name)).groups[0].advice


async def test_scaling_up_and_down_runs_one_generation_at_a_time(house: House) -> None:
    """Goal: 1 to 2 replicas and back at the same provider, with the old generation's own device counted as free; the
    next lease is made only once the agent says that nothing of the old one runs. Method: a node of two devices.
    """
    async with house.running(engine=False):
        agent = await house.add_agent(node(devices=2))
        order = gpu_order()
        key = await house.open_order(order)
        await settle(house)
        first = await agent.command("run")
        await agent.beat(run_status(first, RUNNING))
        for number, (replicas, devices) in enumerate(((2, 2), (1, 1)), start=2):
            await change(house, order, replicas=replicas, revision=number)
            await settle(house)
            ended = await house.until_event(key, events_pb2.LeaseEnded, number - 1)
            assert (ended.evidence.reason, ended.releasing) == (lease_pb2.END_REASON_SUPERSEDED, True)
            assert f"revision {number}" in ended.evidence.detail
            assert ended.charge_through_time == ended.evidence.observe_time
            assert "Waits until generation" in await advice(house, order)
            stop = await agent.command("stop", number - 1)
            assert (stop.key.generation, stop.stop.reason) == (number - 1, lease_pb2.END_REASON_SUPERSEDED)
            house.clock.advance(seconds=1)
            await settle(house)
            assert (await kinds(house, key)).count("LeaseCreated") == number - 1, "the old one has not stopped"

            await agent.beat(run_status(stop, STOPPED))
            await settle(house)
            created = await house.until_event(key, events_pb2.LeaseCreated, number)
            assert (created.lease.key.generation, created.lease.group_revision) == (number, number)
            assert created.lease.price.micros_per_hour == devices * 1_000_000
            assert await house.value("SELECT sum(milli_used)::int FROM device_capacity") == devices * 1_000
            command = await agent.command("run", number)
            grant = house.identity.verifier.verify(command.run.workload_grant).grant
            assert grant is not None
            assert (grant.generation, grant.revision) == (number, number)
            assert len(command.run.replicas) == replicas
            await agent.beat(run_status(command, RUNNING))
        group = await house.value("SELECT row(failures, excluded_providers)::text FROM order_group")
        assert group == "(0,{})", "nobody is to blame"


async def test_a_change_that_nobody_could_take_waits_and_the_old_lease_runs_on(house: House) -> None:
    """Goal: no service is stopped for a wish that cannot be met, and the tenant learns why. Method: two replicas on a
    market of one device; then room comes; the same for a limit that is too low.
    """
    async with house.running(engine=False):
        agent = await house.add_agent(node(devices=1))
        order = gpu_order()
        key = await house.open_order(order)
        await settle(house)
        await agent.beat(run_status(await agent.command("run"), RUNNING))
        await change(house, order, replicas=2, revision=2)
        await settle(house)
        assert await kinds(house, key) == ["LeaseCreated", "LeaseRunning"]
        told = await advice(house, order)
        assert told.startswith("Revision 2 of the workload waits, and revision 1 runs on.")
        assert "placement" in [step.constraint for step in (await house.queries.explain(order.name)).groups[0].funnel]

        await agent.report_inventory(node(devices=2), sequence=2)
        await change(house, order, limit=1_999_999)
        await settle(house)
        assert (await kinds(house, key))[-1] == "LeaseRunning"
        assert "price limit" in await advice(house, order)
        assert (await house.queries.explain(order.name)).groups[0].matching_price.micros_per_hour == 2_000_000
        await change(house, order, limit=2_000_000)
        await settle(house)
        assert (await kinds(house, key))[-1] == "LeaseEnded"


async def test_a_limit_alone_restarts_nothing(house: House) -> None:
    """Goal: price is fixed within a generation. Method: raise and lower the limit of what runs; look at all events."""
    async with house.running(engine=False):
        agent = await house.add_agent(node(devices=2))
        order = gpu_order()
        key = await house.open_order(order)
        await settle(house)
        await agent.beat(run_status(await agent.command("run"), RUNNING))
        for limit in (9_000_000, 1_000_000):
            await change(house, order, limit=limit)
            await settle(house)
        assert await kinds(house, key) == ["LeaseCreated", "LeaseRunning"]


async def test_a_group_that_still_looks_takes_the_new_wish_and_old_failures_count_no_more(house: House) -> None:
    """Goal: nobody is matched by what is not wanted any more. Method: an image that the only provider refuses; then a
    new workload, which it takes.
    """
    async with house.running(engine=False):
        agent = await house.add_agent(node(devices=2))
        agent.refuses = "IMAGE_UNSUPPORTED"
        order = gpu_order()
        key = await house.open_order(order)
        await settle(house)
        await house.until_event(key, events_pb2.LeaseEnded)
        await settle(house)
        assert await kinds(house, key) == ["LeaseCreated", "LeaseEnded"], "it has refused once"
        agent.refuses = ""
        await change(house, order, replicas=2, revision=2)
        await settle(house)
        created = await house.until_event(key, events_pb2.LeaseCreated, 2)
        assert (created.lease.group_revision, len(created.lease.placements)) == (2, 2)


async def test_what_a_successor_needs_is_kept_from_others(house: House) -> None:
    """Goal: an order that gave up its lease for a change gets the change. Method: a node of two devices; while one order
    stops to scale to two, another, older one asks for a device; it gets none until the change runs and shrinks again.
    """
    async with house.running(engine=False):
        agent = await house.add_agent(node(devices=2))
        older = gpu_order()
        order = gpu_order()
        key = await house.open_order(order)
        await settle(house)
        first = await agent.command("run")
        await agent.beat(run_status(first, RUNNING))
        await change(house, order, replicas=2, revision=2)
        other = await house.open_order(older)
        await settle(house)
        await house.until_event(key, events_pb2.LeaseEnded)
        assert await house.events(key=other) == []
        await agent.beat(run_status(first, STOPPED))
        await settle(house)
        created = await house.until_event(key, events_pb2.LeaseCreated, 2)
        assert len(created.lease.placements) == 2
        assert await house.events(key=other) == []


async def test_two_changes_of_one_pass_do_not_count_on_the_same_room(house: House) -> None:
    """Goal: two orders are not both stopped for one free device. Method: three devices, two orders that both scale to two."""
    async with house.running(engine=False):
        agent = await house.add_agent(node(devices=3))
        wanted = [gpu_order(), gpu_order()]
        keys = [await house.open_order(order) for order in wanted]
        await settle(house)
        for number in (1, 2):
            await agent.beat(
                *[run_status(await agent.command("run", index), RUNNING) for index in range(1, number + 1)]
            )
        for order in wanted:
            await change(house, order, replicas=2, revision=2)
        await settle(house)
        ended = [(await kinds(house, key)).count("LeaseEnded") for key in keys]
        assert ended == [1, 0], "the older one changes, the younger one runs on"


async def test_a_silent_provider_does_not_hold_up_a_change_for_ever(house: House) -> None:
    """Goal: an old generation that nobody tells the end of has stopped by itself after a while; only then the next one is
    leased, elsewhere. Method: the agent falls silent right after the stop.
    """
    async with house.running(engine=False):
        silent = await house.add_agent(node(devices=2))
        other = await house.add_agent(node(devices=2, prefix="other"), gpu_micros=2_000_000)
        order = gpu_order()
        key = await house.open_order(order)
        await settle(house)
        await silent.beat(run_status(await silent.command("run"), RUNNING))
        await change(house, order, replicas=2, revision=2)
        await settle(house)
        await house.until_event(key, events_pb2.LeaseEnded)
        waited_ms = 0
        while waited_ms < house.policy.self_stop_ms + house.policy.overlap_margin_ms:
            assert (await kinds(house, key)).count("LeaseCreated") == 1, "the old one may still run"
            house.clock.advance(seconds=5)
            waited_ms += 5_000
            await other.beat()
            await house.watch.run_once()
            await settle(house)
        created = await house.until_event(key, events_pb2.LeaseCreated, 2)
        assert (created.lease.provider, created.lease.group_revision) == (other.name, 2)


async def test_the_engine_succeeds_by_itself_and_a_repeat_of_the_event_changes_nothing(house: House) -> None:
    """Goal: the background loop does all this unasked, once. Method: the running engine; the same event's content twice."""
    async with house.running():
        agent = await house.add_agent(node(devices=2))
        order, key, first = await running(house, agent)
        await change(house, order, replicas=2, revision=2)
        await change(house, order, replicas=2, revision=2)
        stop = await agent.command("stop")
        assert stop.key == first.key
        await agent.beat(run_status(stop, STOPPED))
        command = await agent.command("run", 2)
        await agent.beat(run_status(command, RUNNING))
        await house.until_event(key, events_pb2.LeaseRunning, 2)
        await asyncio.sleep(0)
        await settle(house)
        assert await kinds(house, key) == ["LeaseCreated", "LeaseRunning", "LeaseEnded", "LeaseCreated", "LeaseRunning"]


async def test_an_end_while_a_change_waits_for_the_stop_ends_all(house: House) -> None:
    """Goal: a close wins over a change. Method: close between the old generation's stop and its word that it stopped."""
    async with house.running(engine=False):
        agent = await house.add_agent(node(devices=2))
        order = gpu_order()
        key = await house.open_order(order)
        await settle(house)
        first = await agent.command("run")
        await agent.beat(run_status(first, RUNNING))
        await change(house, order, replicas=2, revision=2)
        await settle(house)
        closing = order_events.OrderCloseRequested(order=order.name, reason=lease_pb2.END_REASON_TENANT)
        await house.hand(closing, key)
        await agent.beat(run_status(first, STOPPED))
        await settle(house)
        assert await kinds(house, key) == ["LeaseCreated", "LeaseRunning", "LeaseEnded", "OrderEnded"]
        assert await house.value("SELECT sum(milli_used)::int FROM device_capacity") == 0
