"""An order that is paused for want of funds: its agents freeze it, nothing is matched for it, and it goes on or ends."""

import asyncio

import pytest

from fallow.bidding.v1 import events_pb2, lease_service_pb2, lease_service_pb2_grpc
from fallow.provider.v1 import market_link_pb2
from fallow.type.v1 import lease_pb2
from fallow_bidding.domain.leases import EndReason
from fallow_chassis.errors import DomainError
from fallow_chassis.grpc_client import channel
from tests.component.bidding.conftest import ON_BOTH_STREAMS, House, gpu_order, new_name, run_status

RUNNING = market_link_pb2.RUN_STATE_RUNNING
SUSPENDED = market_link_pb2.RUN_STATE_SUSPENDED
FAILED = market_link_pb2.RUN_STATE_FAILED


@ON_BOTH_STREAMS
async def test_a_pause_and_its_end(house: House) -> None:
    """Goal: the agent is told with each answer, the facts say what it did, and the lease stays. Method: pause twice, an
    answer that was lost, resume, and a late word of the pause.
    """
    async with house.running():
        agent = await house.add_agent()
        key = await house.open_order(gpu_order())
        command = await agent.command("run")
        assert not (await agent.beat(run_status(command, RUNNING))).suspended
        for _ in range(2):
            await house.orders.set_suspended(key, 1, suspended=True)
        for state in (RUNNING, RUNNING, SUSPENDED, SUSPENDED):
            answer = await agent.beat(run_status(command, state))
            assert list(answer.suspended) == [command.key]
            assert not answer.unwanted
        assert await house.value("SELECT state FROM lease") == "SUSPENDED"
        await house.orders.set_suspended(key, 2, suspended=False)
        await house.orders.set_suspended(key, 1, suspended=True)
        assert not (await agent.beat(run_status(command, SUSPENDED))).suspended
        assert not (await agent.beat(run_status(command, RUNNING))).suspended
        assert await house.value("SELECT state FROM lease") == "RUNNING"
        assert [type(event).__name__ for event in await house.events(key=key)] == [
            "LeaseCreated",
            "LeaseRunning",
            "LeaseSuspended",
            "LeaseRunning",
        ]
        assert await house.value("SELECT count(*) FROM lease") == 1


async def test_nothing_is_matched_for_a_paused_order(house: House) -> None:
    """Goal: who has no money gets no new machine. Method: a paused lease fails; the group waits for the end of the pause."""
    async with house.running():
        agent = await house.add_agent()
        other = await house.add_agent(gpu_micros=2_000_000)
        key = await house.open_order(gpu_order())
        command = await agent.command("run")
        await agent.beat(run_status(command, RUNNING))
        await house.orders.set_suspended(key, 1, suspended=True)
        await agent.beat(run_status(command, SUSPENDED))
        await agent.beat(run_status(command, FAILED, reason="DEVICE_FAILED"))
        ended = await house.until_event(key, events_pb2.LeaseEnded)
        assert ended.evidence.reason == lease_pb2.END_REASON_DEVICE
        bystander = await house.open_order(gpu_order())
        await house.until_event(bystander, events_pb2.LeaseCreated)
        await asyncio.sleep(0.2)
        assert await house.value("SELECT count(*) FROM lease WHERE order_id = $1", key) == 1
        await house.orders.end(bystander, EndReason.TENANT, "enough")
        await house.orders.set_suspended(key, 2, suspended=False)
        created = await house.until_event(key, events_pb2.LeaseCreated, 2)
        assert created.lease.key.generation == 2
        assert len(agent.commands) + len(other.commands) >= 2


async def test_a_paused_order_ends_in_order(house: House) -> None:
    """Goal: the end of the grace is an end as any other. Method: pause, end for funds; the agent stops; words that come
    after the end change nothing.
    """
    async with house.running():
        agent = await house.add_agent()
        key = await house.open_order(gpu_order())
        command = await agent.command("run")
        await agent.beat(run_status(command, RUNNING))
        await house.orders.set_suspended(key, 1, suspended=True)
        await agent.beat(run_status(command, SUSPENDED))
        await house.orders.end(key, EndReason.FUNDS, "the grace is over")
        await agent.command("stop")
        await house.orders.set_suspended(key, 2, suspended=False)
        answer = await agent.beat(run_status(command, SUSPENDED))
        assert list(answer.unwanted) == [command.key]
        assert not answer.suspended
        events = await house.events(key=key)
        assert [type(event).__name__ for event in events][-2:] == ["LeaseEnded", "OrderEnded"]


async def test_the_door_takes_settlements_word_alone(house: House) -> None:
    """Goal: nobody else pauses an order. Method: settlement, the order service, an unknown order, a bad number."""
    key = await house.open_order(gpu_order())
    request = lease_service_pb2.SetOrderSuspendedRequest(order=f"orders/{key}", suspended=True, number=1)
    async with house.served() as address:
        async with channel(address, house.identity.as_service("order")) as stranger:
            with pytest.raises(DomainError) as refusal:
                await lease_service_pb2_grpc.LeaseServiceStub(stranger).SetOrderSuspended(request)
            assert refusal.value.reason.reason == "PERMISSION_DENIED"
        async with channel(address, house.identity.as_service("settlement")) as settlement:
            stub = lease_service_pb2_grpc.LeaseServiceStub(settlement)
            await stub.SetOrderSuspended(request)
            assert await house.value("SELECT suspended FROM market_order WHERE order_id = $1", key)
            request.order = new_name("orders")
            with pytest.raises(DomainError) as unknown:
                await stub.SetOrderSuspended(request)
            assert unknown.value.reason.reason == "ORDER_NOT_FOUND"
            request.number = 0
            with pytest.raises(DomainError) as early:
                await stub.SetOrderSuspended(request)
            assert early.value.reason.reason == "INVALID_FIELD"
    with pytest.raises(DomainError):
        await house.orders.set_suspended("unknown", 1, suspended=True)
