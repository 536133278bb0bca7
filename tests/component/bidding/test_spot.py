"""Spot leases give way with notice, to who pays as much and fits nowhere else; the room is kept, or the notice withdrawn."""

from datetime import timedelta
from typing import Any

from fallow.bidding.v1 import events_pb2, provider_pb2, provider_service_pb2
from fallow.order.v1 import order_pb2
from fallow.provider.v1 import market_link_pb2
from fallow.type.v1 import lease_pb2
from fallow_bidding.domain.leases import EndReason
from fallow_chassis.wire import from_timestamp, to_duration
from tests.component.bidding.conftest import ON_BOTH_STREAMS, Agent, House, gpu_order, node, run_status
from tests.component.bidding.test_auctions import kinds

RUNNING = market_link_pb2.RUN_STATE_RUNNING
STOPPED = market_link_pb2.RUN_STATE_STOPPED
SPOT = order_pb2.TERM_KIND_SPOT


def spot_order(**fields: Any) -> order_pb2.Order:
    """An order whose lease may be pre-empted."""
    return gpu_order(terms=order_pb2.Terms(kind=SPOT), **fields)


def id_of(order: order_pb2.Order) -> str:
    """The id in an order's name."""
    return order.name.removeprefix("orders/")


async def offer(house: House, agent: Agent, **prices: Any) -> None:
    """Publish another offer of an agent."""
    schedule = provider_pb2.PriceSchedule(asset="usdc", **prices)
    wanted = provider_pb2.Offer(provider=agent.name, prices=schedule)
    request = provider_service_pb2.CreateOfferRequest(offer=wanted, request_id=str(prices)[:128])
    await house.registry.create_offer(request, agent.owner)


async def report(house: House) -> None:
    """All agents have their commands, run what they were told to, and say so from now on."""

    async def accepted() -> bool:
        return bool(await house.value("SELECT count(*) = 0 FROM lease WHERE state = 'RESERVED'"))

    await house.until(accepted, "all commands are accepted")
    for agent in house.agents:
        stopped = {command.lease for command in agent.commands if command.HasField("stop")}
        runs = [command for command in agent.commands if command.HasField("run") and command.lease not in stopped]
        agent.runs = [run_status(command, RUNNING) for command in runs]
        await agent.beat(*agent.runs)


async def start(house: House, agent: Agent, number: int = 1, **fields: Any) -> order_pb2.Order:
    """A spot order that runs, as the ``number``-th of its agent, and has run for its minimum."""
    order = spot_order(**fields)
    key = await house.open_order(order)
    await house.matching.match_open_orders()
    await house.until_event(key, events_pb2.LeaseCreated)
    await agent.command("run", number)
    await report(house)
    await house.until_event(key, events_pb2.LeaseRunning)
    return order


async def stop(house: House, agent: Agent, number: int = 1) -> None:
    """The agent answers a command to stop, and says that nothing runs."""
    command = await agent.command("stop", number)
    agent.runs = [status for status in agent.runs if status.lease != command.lease]
    await agent.beat(run_status(command, STOPPED), *agent.runs)


async def pass_time(house: House, seconds: float) -> None:
    """Time passes; the watch and the engine look at its end."""
    await report(house)
    await house.pass_time(seconds)
    await house.watching.end_preempted()
    await house.matching.match_open_orders()


@ON_BOTH_STREAMS
async def test_a_spot_lease_gives_way_after_its_minimum_and_its_notice(house: House) -> None:
    """Goal: not before 10 min, then a notice of 30 s that the tenant can see, then an end as PREEMPTED charged to the end,
    and the room goes to who needed it, though the displaced group looks for a place too and is older. Method: one device.
    """
    async with house.running(engine=False):
        agent = await house.add_agent()
        await offer(house, agent, gpu_micros_per_hour_by_model={"h100": 1_000_000}, spot_discount_milli=250)
        spot = await start(house, agent)
        assert await house.value("SELECT price_micros FROM lease") == 750_000
        demand = gpu_order()
        await house.open_order(demand)
        await pass_time(house, 596)
        assert await kinds(house, id_of(spot)) == ["LeaseCreated", "LeaseRunning"]
        await pass_time(house, 4)
        notice = await house.until_event(id_of(spot), events_pb2.LeasePreemptionAnnounced)
        end = house.clock.now() + timedelta(seconds=30)
        assert (from_timestamp(notice.notice_time), from_timestamp(notice.preempt_time)) == (house.clock.now(), end)
        lease = await house.queries.lease(notice.lease, spot.account)
        assert lease.preemption is not None
        assert lease.preemption.time == end
        assert "Waits for the room of 1 spot leases" in (await house.queries.explain(demand.name)).groups[0].advice

        rival = gpu_order()
        await house.open_order(rival)
        await pass_time(house, 29)
        assert (await kinds(house, id_of(spot)))[2:] == ["LeasePreemptionAnnounced"]
        await pass_time(house, 1)
        ended = await house.until_event(id_of(spot), events_pb2.LeaseEnded)
        assert (ended.evidence.reason, ended.releasing) == (lease_pb2.END_REASON_PREEMPTED, True)
        assert from_timestamp(ended.charge_through_time) == end
        assert (await agent.command("stop")).stop.reason == lease_pb2.END_REASON_PREEMPTED
        assert await kinds(house, id_of(demand)) == [], "the agent has not stopped yet"
        await stop(house, agent)
        assert await house.matching.match_open_orders() == 1
        assert await kinds(house, id_of(demand)) == ["LeaseCreated"]
        assert await kinds(house, id_of(rival)) == []
        assert (await kinds(house, id_of(spot)))[-1] == "LeaseEnded"
        assert await house.value("SELECT count(*) FROM lease WHERE preempt_time IS NOT NULL") == 0
        await house.orders.end(id_of(demand), EndReason.TENANT, "done")
        await house.orders.end(id_of(rival), EndReason.TENANT, "done")
        await stop(house, agent, 2)
        assert await house.matching.match_open_orders() == 1
        assert (await kinds(house, id_of(spot)))[-1] == "LeaseCreated", "it found a place again"


async def test_nobody_gives_way_where_that_is_not_needed_or_not_paid(house: House) -> None:
    """Goal: no notice to a lease for a spot order, for an order that fits elsewhere, for one whose limit is below, or that
    pays less than the lease does, or of a lease that is not spot. Method: each of them against one old spot lease.
    """
    async with house.running(engine=False):
        agent = await house.add_agent()
        spot = await start(house, agent)
        await house.pass_time(700)
        await offer(house, agent, gpu_micros_per_hour_by_model={"h100": 999_999})
        for order in (spot_order(), gpu_order(limit=999_998), gpu_order()):
            await house.open_order(order)
            assert await house.matching.match_open_orders() == 0
            await house.orders.end(id_of(order), EndReason.TENANT, "done")
        await offer(house, agent, gpu_micros_per_hour_by_model={"h100": 1_000_000})
        other = await house.add_agent(gpu_micros=4_000_000)
        await house.open_order(gpu_order())
        assert await house.matching.match_open_orders() == 1
        assert await house.value("SELECT count(*) FROM lease WHERE provider_id = $1", other.provider_id) == 1
        await pass_time(house, 700)
        assert await kinds(house, id_of(spot)) == ["LeaseCreated", "LeaseRunning"]
        reserved = gpu_order(
            terms=order_pb2.Terms(kind=order_pb2.TERM_KIND_RESERVED, duration=to_duration(10**9)), limit=3_999_999
        )
        await house.open_order(reserved)
        assert await house.matching.match_open_orders() == 0
        assert (await kinds(house, id_of(spot)))[-1] == "LeasePreemptionAnnounced", "a reserved order may displace"


@ON_BOTH_STREAMS
async def test_the_notice_is_withdrawn_when_nobody_needs_the_room(house: House) -> None:
    """Goal: a spot lease stays where its displacer ends, or finds room elsewhere; also where that happens at the last
    moment, before the engine has looked. Method: both, and a second notice after the first.
    """
    async with house.running(engine=False):
        agent = await house.add_agent()
        spot = await start(house, agent)
        first = gpu_order()
        await house.open_order(first)
        await pass_time(house, 600)
        assert (await kinds(house, id_of(spot)))[-1] == "LeasePreemptionAnnounced"
        await house.orders.end(id_of(first), EndReason.TENANT, "changed its mind")
        await house.pass_time(30)
        assert await house.watching.end_preempted() == 0, "whoever wanted it is gone"
        assert await house.matching.match_open_orders() == 0
        assert (await kinds(house, id_of(spot)))[-1] == "LeasePreemptionWithdrawn"
        assert await house.value("SELECT preempt_time FROM lease") is None

        second = gpu_order()
        await house.open_order(second)
        await house.matching.match_open_orders()
        assert (await kinds(house, id_of(spot)))[-1] == "LeasePreemptionAnnounced"
        await house.add_agent()
        assert await house.matching.match_open_orders() == 1
        assert (await kinds(house, id_of(spot)))[-1] == "LeasePreemptionWithdrawn"
        await pass_time(house, 60)
        assert (await kinds(house, id_of(spot)))[-1] == "LeasePreemptionWithdrawn"
        assert await house.value("SELECT count(*) FROM lease WHERE state = 'RUNNING'") == 2


async def test_what_others_would_take_meanwhile_is_kept(house: House) -> None:
    """Goal: free room that the waiting order needs beside the spot lease's is not leased to others in the meantime.
    Method: a node of two devices, one of them leased as spot; an order of two devices, then a younger one of one.
    """
    async with house.running(engine=False):
        agent = await house.add_agent(node(devices=2))
        spot = await start(house, agent)
        await house.pass_time(600)
        big = gpu_order(count=2)
        await house.open_order(big)
        assert await house.matching.match_open_orders() == 0
        small = gpu_order()
        await house.open_order(small)
        for _ in range(3):
            assert await house.matching.match_open_orders() == 0
        await pass_time(house, 30)
        await stop(house, agent)
        assert await house.matching.match_open_orders() == 1
        assert await kinds(house, id_of(big)) == ["LeaseCreated"]
        assert await kinds(house, id_of(small)) == []
        assert await house.value("SELECT max(milli_used) FROM device_capacity") == 1_000
        assert (await kinds(house, id_of(spot)))[-1] == "LeaseEnded"


async def test_one_room_is_promised_once_and_engines_do_not_double_it(house: House) -> None:
    """Goal: two orders never wait for one lease, nor does one get two. Method: two orders, two spot leases of one device
    each, passes of several engines at once; then a third order.
    """
    async with house.running(engine=False):
        agent = await house.add_agent(node(devices=2))
        spots = [await start(house, agent, number) for number in (1, 2)]
        await house.pass_time(600)
        for _ in range(3):
            await house.open_order(gpu_order())
        for _ in range(3):
            await house.matching.match_open_orders()
        assert [(await kinds(house, id_of(spot))).count("LeasePreemptionAnnounced") for spot in spots] == [1, 1]
        assert await house.value("SELECT count(DISTINCT preempt_order_id) FROM lease") == 2


async def test_groups_leased_each_on_its_own_get_room_each(house: House) -> None:
    """Goal: a group alone gets room that another group of its order does not need. Method: three groups, a free device and
    one leased as spot.
    """
    async with house.running(engine=False):
        agent = await house.add_agent(node(devices=2))
        spot = await start(house, agent)
        await house.pass_time(600)
        order = gpu_order(groups=3, group_binding=order_pb2.GROUP_BINDING_EACH)
        await house.open_order(order)
        assert await house.matching.match_open_orders() == 1
        for _ in range(2):
            assert await house.matching.match_open_orders() == 0
        assert (await kinds(house, id_of(spot))).count("LeasePreemptionAnnounced") == 1
        await pass_time(house, 30)
        await stop(house, agent)
        assert await house.matching.match_open_orders() == 1
        assert (await kinds(house, id_of(order))).count("LeaseCreated") == 2
