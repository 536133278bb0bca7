"""The service as a process: check, migrate, serve; killed between a lease's commit and its command, and started again."""

import asyncio
import os
from pathlib import Path

import asyncpg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fallow.bidding.v1 import (
    lease_pb2,
    lease_service_pb2,
    lease_service_pb2_grpc,
    provider_pb2,
    provider_service_pb2,
    provider_service_pb2_grpc,
)
from fallow.order.v1 import events_pb2 as order_events
from fallow.order.v1 import order_pb2
from fallow.provider.v1 import market_link_pb2
from fallow.type.v1 import lease_pb2 as type_lease_pb2
from fallow_bidding.topics import LEASES_TOPIC, ORDERS_TOPIC
from fallow_chassis.clock import SystemClock
from fallow_chassis.events import EventDraft, Record, event_headers
from fallow_chassis.grpc_client import channel
from fallow_chassis.ids import RandomIds
from fallow_chassis.nats_link import NatsLink
from fallow_chassis.stream import EventStream, open_stream
from fallow_chassis.testing import DatabaseFactory, TestIdentity
from fallow_stack.engines import Nats
from tests.component.bidding.conftest import (
    OWNER_SCOPES,
    TENANT_SCOPES,
    Agent,
    gpu_order,
    new_name,
    node,
    run_status,
)
from tests.component.service_process import ServiceProcess, run_service, service_process
from tests.conftest import ADAPTERS, StreamAddress

PACKAGE = "fallow_bidding"


@pytest.fixture
def environment(identity: TestIdentity, private_nats: Nats) -> dict[str, str]:
    """The settings of the process, but for its database."""
    return os.environ | {
        "FALLOW_NATS_URL": private_nats.url,
        "FALLOW_NATS_CREDENTIALS_FILE": str(private_nats.service_credentials_file("bidding")),
        "FALLOW_NATS_ACCOUNT_SEED_FILE": str(private_nats.account_seed_file),
        "FALLOW_IDENTITY_KEY_FILE": str(identity.key_file("bidding")),
        "FALLOW_JWKS": str(identity.jwks),
        "FALLOW_ORDER_ADDRESS": "127.0.0.1:7001",
        "FALLOW_HEARTBEAT_INTERVAL_SECONDS": "1",
        "FALLOW_RESEND_SECONDS": "0.5",
        "FALLOW_ACCEPT_TIMEOUT_SECONDS": "60",
    }


@pytest.fixture(params=ADAPTERS)
def address(request: pytest.FixtureRequest, private_nats: Nats, environment: dict[str, str]) -> StreamAddress:
    """The event stream of the process, by each adapter in turn, with a broker of its own."""
    if request.param == "kafka":
        environment["FALLOW_STREAM_URL"] = request.getfixturevalue("private_kafka").url
        return StreamAddress(environment["FALLOW_STREAM_URL"])
    return StreamAddress(private_nats.url, private_nats.url, environment["FALLOW_NATS_CREDENTIALS_FILE"])


async def _register(process: ServiceProcess, identity: TestIdentity, folder: Path) -> Agent:
    """Register a provider with an offer over gRPC; an agent with the credentials that the service issued, unstarted."""
    key = Ed25519PrivateKey.generate()
    async with channel(process.address, identity.as_account(new_name("accounts"), OWNER_SCOPES)) as connection:
        stub = provider_service_pb2_grpc.ProviderRegistryServiceStub(connection)
        provider = await stub.CreateProvider(
            provider_service_pb2.CreateProviderRequest(
                provider=provider_pb2.Provider(public_key=key.public_key().public_bytes_raw(), region="eu-west"),
                request_id="create",
            )
        )
        prices = provider_pb2.PriceSchedule(asset="usdc", gpu_micros_per_hour_by_model={"h100": 1_250_000})
        await stub.CreateOffer(
            provider_service_pb2.CreateOfferRequest(
                offer=provider_pb2.Offer(provider=provider.name, prices=prices), request_id="offer"
            )
        )
        issued = await stub.IssueProviderCredentials(
            provider_service_pb2.IssueProviderCredentialsRequest(name=provider.name)
        )
    credentials = folder / "agent.creds"
    credentials.write_text(issued.nats_credentials, "ascii")
    provider_id = provider.name.removeprefix("providers/")
    link = await NatsLink.connect(issued.nats_url, str(credentials), name=provider_id)
    return Agent(provider_id, provider.account, key, link)


async def _open(stream: EventStream, order: order_pb2.Order) -> None:
    """State that an order was opened, as the order service would."""
    clock = SystemClock()
    key = order.name.removeprefix("orders/")
    message = order_events.OrderOpened(order=order)
    draft = EventDraft(ORDERS_TOPIC, key, 1, message)
    headers = event_headers(draft, event_id=RandomIds(clock).new(), source="services/order", time=clock.now(), trace="")
    await stream.publish([Record(ORDERS_TOPIC, key, message.SerializeToString(), headers)])


async def _value(database_url: str, sql: str) -> object:
    """One value of the process's database."""
    connection = await asyncpg.connect(database_url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def _until_lease(database_url: str) -> None:
    """Wait until a lease is committed."""
    connection = await asyncpg.connect(database_url)
    try:
        async with asyncio.timeout(30):
            while not await connection.fetchval("SELECT count(*) FROM lease"):
                await asyncio.sleep(0.02)
    finally:
        await connection.close()


async def test_a_killed_process_loses_no_command(
    database_factory: DatabaseFactory,
    identity: TestIdentity,
    address: StreamAddress,
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    """Goal: a lease whose process died before its command was heard runs after the next start, and the order goes its
    whole way to the stream. Method: SIGKILL once the lease is committed, while its agent does not listen yet.
    """
    database_url = await database_factory.empty()
    environment["FALLOW_DATABASE_URL"] = database_url
    assert (await run_service(PACKAGE, "check", environment))[0] == 1
    status, output = await run_service(PACKAGE, "migrate", environment)
    assert status == 0, output
    status, output = await run_service(PACKAGE, "check", environment)
    assert status == 0, output

    stream = await open_stream(address, client="tests")
    order = gpu_order()
    async with service_process(PACKAGE, environment, tmp_path / "first") as process:
        agent = await _register(process, identity, tmp_path)
        await agent.report_inventory(node())
        await agent.beat()
        await _open(stream, order)
        await _until_lease(database_url)
        await process.kill()

    async with service_process(PACKAGE, environment, tmp_path / "second") as process:
        await agent.start()
        command = await agent.command("run")
        assert identity.verifier.verify(command.run.workload_grant).grant is not None
        await agent.beat(run_status(command, market_link_pb2.RUN_STATE_RUNNING))
        states = await _watch_to_the_end(process, identity, order, agent, command)
    assert states[0] == lease_pb2.LEASE_STATE_RUNNING
    assert states[-1] == lease_pb2.LEASE_STATE_ENDED
    assert await _value(database_url, "SELECT reputation_time IS NOT NULL FROM provider"), "reputation is computed"
    kinds = await _read(stream, order, 4)
    assert kinds == ["LeaseCreated", "LeaseRunning", "LeaseEnded", "OrderEnded"]
    await agent.link.close()
    await stream.close()


async def _watch_to_the_end(
    process: ServiceProcess,
    identity: TestIdentity,
    order: order_pb2.Order,
    agent: Agent,
    command: market_link_pb2.Command,
) -> list["lease_pb2.LeaseState.ValueType"]:
    """Watch the lease as its tenant while the order service ends the order; the states that the watch showed."""
    states: list[lease_pb2.LeaseState.ValueType] = []
    async with (
        asyncio.timeout(30),
        channel(process.address, identity.as_account(order.account, TENANT_SCOPES)) as tenant,
        channel(process.address, identity.as_service("order")) as service,
    ):
        watching = lease_service_pb2_grpc.LeaseServiceStub(tenant)
        ending = lease_service_pb2_grpc.LeaseServiceStub(service)
        async for answer in watching.WatchLease(lease_service_pb2.WatchLeaseRequest(name=command.lease)):
            states.append(answer.lease.state)
            if answer.lease.state == lease_pb2.LEASE_STATE_RUNNING:
                request = lease_service_pb2.EndOrderRequest(
                    order=order.name, reason=type_lease_pb2.END_REASON_TENANT, request_id="end"
                )
                await ending.EndOrder(request)
                await agent.command("stop")
                await agent.beat(run_status(command, market_link_pb2.RUN_STATE_STOPPED))
    return states


async def _read(stream: EventStream, order: order_pb2.Order, number: int) -> list[str]:
    """The first events about an order that the stream holds."""
    kinds: list[str] = []

    async def keep(record: Record) -> None:
        if record.key == order.name.removeprefix("orders/"):
            kinds.append(record.headers["ce_type"].rpartition(".")[2])

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        reading = group.create_task(stream.consume("reader", [LEASES_TOPIC], keep))
        while len(kinds) < number:
            await asyncio.sleep(0.05)
        reading.cancel()
    return kinds
