"""A provider's owner gives a lease up."""

import asyncpg
import pytest

from fallow.bidding.v1 import events_pb2, lease_pb2, lease_service_pb2, lease_service_pb2_grpc
from fallow.provider.v1 import market_link_pb2
from fallow.type.v1 import lease_pb2 as type_lease_pb2
from fallow_chassis.errors import DomainError
from fallow_chassis.grpc_client import channel
from tests.component.bidding.conftest import OWNER_SCOPES, TENANT_SCOPES, House, gpu_order, new_name, run_status

RELINQUISH = lease_service_pb2.RelinquishLeaseRequest


async def test_a_lease_is_given_up_once_and_its_group_moves_on(house: House) -> None:
    """Goal: the owner, and nobody else, ends a live lease with evidence PROVIDER, the group runs elsewhere, the devices are
    held until nothing runs, and a repeat changes nothing. Method: two providers; the tenant, a stranger and the other
    owner try, the owner does it, repeats it, and tries again under a new id.
    """
    async with house.running(), house.served() as address:
        first = await house.add_agent(gpu_micros=1_000_000)
        second = await house.add_agent(gpu_micros=2_000_000)
        order = gpu_order()
        key = await house.open_order(order)
        command = await first.command("run")
        await first.beat(run_status(command, market_link_pb2.RUN_STATE_RUNNING))
        owner = (await house.queries.provider(first.name)).account
        rival = (await house.queries.provider(second.name)).account
        request = RELINQUISH(name=command.lease, reason="power cut at ten", request_id="one")
        for stranger in (order.account, rival, new_name("accounts")):
            identity = house.identity.as_account(stranger, (*OWNER_SCOPES, *TENANT_SCOPES))
            async with channel(address, identity) as connection:
                stub = lease_service_pb2_grpc.LeaseServiceStub(connection)
                with pytest.raises(DomainError) as refused:
                    await stub.RelinquishLease(request)
                assert refused.value.reason.reason == "LEASE_NOT_FOUND"
        async with channel(address, house.identity.as_account(owner, OWNER_SCOPES)) as connection:
            stub = lease_service_pb2_grpc.LeaseServiceStub(connection)
            with pytest.raises(DomainError) as refused:
                await stub.RelinquishLease(RELINQUISH(name=new_name("leases"), request_id="two"))
            assert refused.value.reason.reason == "LEASE_NOT_FOUND"
            house.clock.advance(seconds=3)
            given_up = await stub.RelinquishLease(request)
            assert given_up.state == lease_pb2.LEASE_STATE_LOST
            assert given_up.evidence.reason == type_lease_pb2.END_REASON_PROVIDER
            assert given_up.evidence.detail == "given up by the provider: power cut at ten"
            assert given_up.evidence.observer == first.name
            moved = await second.command("run")
            assert (moved.key.order, moved.key.generation) == (f"orders/{key}", 2)
            used = "SELECT milli_used FROM device_capacity WHERE provider_id = $1"
            assert await house.value(used, first.provider_id) == 1_000
            assert await stub.RelinquishLease(request) == given_up
            with pytest.raises(DomainError) as refused:
                await stub.RelinquishLease(RELINQUISH(name=command.lease, request_id="one"))
            assert refused.value.reason.reason == "REQUEST_ID_REUSED"
            with pytest.raises(DomainError) as refused:
                await stub.RelinquishLease(RELINQUISH(name=command.lease, request_id="three"))
            assert refused.value.reason.reason == "LEASE_ENDED"
            stop = await first.command("stop")
            assert stop.stop.reason == type_lease_pb2.END_REASON_PROVIDER
            await first.beat(run_status(command, market_link_pb2.RUN_STATE_STOPPED))
            assert await house.value(used, first.provider_id) == 0
            assert (await stub.RelinquishLease(request)).state == lease_pb2.LEASE_STATE_ENDED
        ended = [event for event in await house.events(key=key) if isinstance(event, events_pb2.LeaseEnded)]
        assert [event.evidence.reason for event in ended] == [type_lease_pb2.END_REASON_PROVIDER]
        assert ended[0].releasing


async def test_no_lease_ends_without_evidence(house: House) -> None:
    """Goal: the database refuses an end of which nobody says why. Method: write one past the code."""
    async with house.running():
        agent = await house.add_agent()
        await house.open_order(gpu_order())
        await agent.command("run")
        with pytest.raises(asyncpg.CheckViolationError, match="lease_evidence"):
            async with house.database.transaction() as unit:
                await unit.connection.execute(
                    "UPDATE lease SET state = 'LOST', end_time = create_time, charge_through_time = create_time"
                )
