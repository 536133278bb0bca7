"""Watching a lease: the present first, then each change until its end, by signal and without."""

import asyncio

import pytest

from fallow.bidding.v1 import lease_pb2, lease_service_pb2, lease_service_pb2_grpc
from fallow.provider.v1 import market_link_pb2
from fallow_bidding.domain.leases import EndReason
from fallow_chassis.errors import DomainError
from fallow_chassis.grpc_client import channel
from tests.component.bidding.conftest import TENANT_SCOPES, House, gpu_order, new_name, run_status


async def watch_a_life(house: House) -> list["lease_pb2.LeaseState.ValueType"]:
    """The states that a tenant sees of a lease, each next step being taken only when the one before was shown."""
    agent = await house.add_agent()
    order = gpu_order()
    order_id = await house.open_order(order)
    command = await agent.command("run")

    async def is_accepted() -> bool:
        return bool(await house.value("SELECT bool_and(state = 'STARTING') FROM lease"))

    await house.until(is_accepted, "the command is accepted")
    states: list[lease_pb2.LeaseState.ValueType] = []
    async with (
        asyncio.timeout(20),
        house.served() as address,
        channel(address, house.identity.as_account(order.account, TENANT_SCOPES)) as connection,
    ):
        stub = lease_service_pb2_grpc.LeaseServiceStub(connection)
        async for answer in stub.WatchLease(lease_service_pb2.WatchLeaseRequest(name=command.lease)):
            states.append(answer.lease.state)
            match len(states):
                case 1:
                    await agent.beat(run_status(command, market_link_pb2.RUN_STATE_RUNNING))
                case 2:
                    await house.orders.end(order_id, EndReason.TENANT, "asked")
                case 3:
                    await agent.command("stop")
                    await agent.beat(run_status(command, market_link_pb2.RUN_STATE_STOPPED))
    return states


LIFE = [
    lease_pb2.LEASE_STATE_STARTING,
    lease_pb2.LEASE_STATE_RUNNING,
    lease_pb2.LEASE_STATE_STOPPING,
    lease_pb2.LEASE_STATE_ENDED,
]


async def test_a_change_wakes_the_watch(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: changes show at once, each once. Method: with the poll out of reach, watch a lease to its end."""
    monkeypatch.setattr("fallow_bidding.rpc.leases.WATCH_POLL_SECONDS", 600)
    async with house.running():
        assert await watch_a_life(house) == LIFE


async def test_a_lost_signal_delays_and_loses_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: signals are hints. Method: no bell is rung by the database; the watch looks again by itself."""
    monkeypatch.setattr("fallow_bidding.rpc.leases.WATCH_POLL_SECONDS", 0.05)
    monkeypatch.setattr(house.signals, "_notified", lambda *_: None)
    async with house.running():
        assert await watch_a_life(house) == LIFE


async def test_a_stranger_sees_nothing(house: House) -> None:
    """Goal: a lease is hidden from others. Method: watch another's lease, and one that is not there."""
    async with house.running():
        agent = await house.add_agent()
        await house.open_order(gpu_order())
        lease = (await agent.command("run")).lease
        async with (
            house.served() as address,
            channel(address, house.identity.as_account(new_name("accounts"), TENANT_SCOPES)) as connection,
        ):
            stub = lease_service_pb2_grpc.LeaseServiceStub(connection)
            for name in (lease, new_name("leases")):
                with pytest.raises(DomainError) as refused:
                    await stub.WatchLease(lease_service_pb2.WatchLeaseRequest(name=name)).read()
                assert refused.value.reason.reason == "LEASE_NOT_FOUND"
