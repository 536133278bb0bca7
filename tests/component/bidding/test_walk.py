"""One order the whole way through bidding: match, command, heartbeats with proofs, end."""

from fallow.bidding.v1 import events_pb2, lease_pb2, lease_service_pb2, lease_service_pb2_grpc
from fallow.provider.v1 import market_link_pb2
from fallow.type.v1 import lease_pb2 as type_lease_pb2
from fallow.type.v1 import workload_pb2
from fallow_bidding.topics import PROOFS_TOPIC
from fallow_chassis.grpc_client import channel
from fallow_chassis.wire import from_duration, from_timestamp
from tests.component.bidding.conftest import ORDER_ADDRESS, TENANT_SCOPES, House, gpu_order, node, run_status

RUNNING = market_link_pb2.RUN_STATE_RUNNING
STARTING = market_link_pb2.RUN_STATE_STARTING
STOPPED = market_link_pb2.RUN_STATE_STOPPED


async def end_twice(house: House, address: str, order: str) -> None:
    """End an order as the order service, and again: the second answer is the first."""
    request = lease_service_pb2.EndOrderRequest(order=order, reason=type_lease_pb2.END_REASON_TENANT, request_id="end")
    async with channel(address, house.identity.as_service("order")) as connection:
        stub = lease_service_pb2_grpc.LeaseServiceStub(connection)
        first = await stub.EndOrder(request)
        again = await stub.EndOrder(request)
    assert [lease.state for lease in first.leases] == [lease_pb2.LEASE_STATE_STOPPING]
    assert again == first


async def test_an_order_goes_from_match_to_end(house: House) -> None:
    """Goal: every step of an order's life happens and states its facts. Method: two providers, the dearer one first;
    the order's event, the agent's answers and heartbeats over NATS, EndOrder over gRPC as the order service.
    """
    async with house.running(), house.served() as address:
        dear = await house.add_agent(gpu_micros=2_000_000)
        cheap = await house.add_agent(node(devices=2), gpu_micros=1_500_000)
        order = gpu_order()
        key = await house.open_order(order)

        created = await house.until_event(key, events_pb2.LeaseCreated)
        assert created.lease.provider == cheap.name
        assert created.lease.price.micros_per_hour == 1_500_000
        assert created.lease.tenant == order.account
        assert (created.lease.key.order, created.lease.key.generation) == (order.name, 1)
        assert created.provider_public_key == cheap.key.public_key().public_bytes_raw()
        assert from_duration(created.heartbeat_interval) == house.policy.heartbeat_interval_ms
        assert len(created.lease.placements[0].devices) == 1

        command = await cheap.command("run")
        assert command.lease == created.lease.name
        assert command.run.order_address == ORDER_ADDRESS
        grant = house.identity.verifier.verify(command.run.workload_grant).grant
        assert grant is not None
        assert (grant.subject, grant.lease, grant.rights) == (cheap.name, command.lease, frozenset({"workload.read"}))
        assert not dear.commands

        await cheap.beat(run_status(command, STARTING))
        endpoint = workload_pb2.Endpoint(service="web", container_port=80, uri="http://127.0.0.1:1", replica=0)
        house.clock.advance(seconds=3)
        await cheap.beat(run_status(command, RUNNING, endpoints=[endpoint]))
        running = await house.until_event(key, events_pb2.LeaseRunning)
        assert list(running.endpoints) == [endpoint]
        assert from_timestamp(running.ready_time) == house.clock.now()

        house.clock.advance(seconds=5)
        answer = await cheap.beat(
            run_status(command, RUNNING, endpoints=[endpoint]), proofs=(cheap.proof(command, 5_000),)
        )
        assert not answer.refusals
        (received,) = await house.events(PROOFS_TOPIC, cheap.provider_id)
        assert isinstance(received, events_pb2.ProofsReceived)
        assert [proof.running_ms for proof in received.proofs] == [5_000]
        assert from_timestamp(received.receive_time) == house.clock.now()

        await end_twice(house, address, order.name)
        ended = await house.until_event(key, events_pb2.LeaseEnded)
        assert from_timestamp(ended.charge_through_time) == house.clock.now()
        assert ended.evidence.reason == type_lease_pb2.END_REASON_TENANT
        assert not ended.releasing
        kinds = [type(event).__name__ for event in await house.events(key=key)]
        assert kinds == ["LeaseCreated", "LeaseRunning", "LeaseEnded", "OrderEnded"]
        assert await house.value("SELECT sum(milli_used)::int FROM device_capacity") == 1_000

        stop = await cheap.command("stop")
        assert stop.stop.reason == type_lease_pb2.END_REASON_TENANT
        final = cheap.proof(command, 5_500, final=True)
        answer = await cheap.beat(run_status(command, STOPPED), proofs=(final,))
        assert list(answer.forgotten) == [command.key]
        assert await house.value("SELECT sum(milli_used)::int FROM device_capacity") == 0
        async with channel(address, house.identity.as_account(order.account, TENANT_SCOPES)) as connection:
            stub = lease_service_pb2_grpc.LeaseServiceStub(connection)
            lease = await stub.GetLease(lease_service_pb2.GetLeaseRequest(name=command.lease))
        assert lease.state == lease_pb2.LEASE_STATE_ENDED
