"""The service as a process: migrate, check, serve, on real Postgres and NATS, with events over JetStream."""

import asyncio
import os
from pathlib import Path

import pytest

from fallow.bidding.v1 import events_pb2 as bidding_events
from fallow.order.v1 import events_pb2, order_pb2, order_service_pb2, order_service_pb2_grpc
from fallow.settlement.v1 import charge_pb2
from fallow.settlement.v1 import events_pb2 as settlement_events
from fallow.type.v1 import lease_pb2, money_pb2
from fallow_chassis.clock import SystemClock
from fallow_chassis.errors import DomainError
from fallow_chassis.events import EventDraft, Record, event_headers
from fallow_chassis.grpc_client import channel
from fallow_chassis.ids import RandomIds
from fallow_chassis.stream import EventStream, open_stream
from fallow_chassis.testing import DatabaseFactory, TestIdentity
from fallow_order.commands import ORDERS_TOPIC
from fallow_order.consumers import ESCROWS_TOPIC, LEASES_TOPIC
from fallow_stack.engines import Nats
from tests.component.order.conftest import (
    KEYS,
    SCOPES,
    FakeBidding,
    FakeSettlement,
    new_name,
    serve_neighbours,
    small_order,
)
from tests.component.service_process import run_service, service_process
from tests.conftest import StreamAddress

PACKAGE = "fallow_order"

SECRET = "planted-s3cret-value"


async def _publish(
    stream: EventStream, topic: str, key: str, message: bidding_events.OrderEnded | settlement_events.EscrowClosed
) -> None:
    """State a fact as another service would."""
    clock = SystemClock()
    draft = EventDraft(topic, key, 1, message)
    headers = event_headers(draft, event_id=RandomIds(clock).new(), source="services/test", time=clock.now(), trace="")
    await stream.publish([Record(topic, key, message.SerializeToString(), headers)])


async def test_the_process_takes_an_order_to_its_close(
    database_factory: DatabaseFactory, identity: TestIdentity, private_nats: Nats, tmp_path: Path
) -> None:
    """Goal: the parts are wired as they must be, and no secret leaves. Method: one order against the real process,
    facts over JetStream, a watch from start to end; then the log and the stream are searched for a planted secret.
    """
    settlement = FakeSettlement()  # type: ignore[abstract]
    bidding = FakeBidding()  # type: ignore[abstract]
    tenant = new_name("accounts")
    settlement.free[tenant] = 10_000_000
    credentials = str(private_nats.service_credentials_file("order"))
    address = StreamAddress(private_nats.url, private_nats.url, credentials)
    async with serve_neighbours(settlement, bidding, identity) as neighbours:
        environment = os.environ | {
            "FALLOW_DATABASE_URL": await database_factory.empty(),
            "FALLOW_NATS_URL": private_nats.url,
            "FALLOW_NATS_CREDENTIALS_FILE": credentials,
            "FALLOW_IDENTITY_KEY_FILE": str(identity.key_file("order")),
            "FALLOW_JWKS": str(identity.jwks),
            "FALLOW_SETTLEMENT_ADDRESS": neighbours,
            "FALLOW_BIDDING_ADDRESS": neighbours,
            "FALLOW_WORKLOAD_KEYS": KEYS,
            "FALLOW_LOG_LEVEL": "debug",
        }
        status, output = await run_service(PACKAGE, "check", environment)
        assert status == 1, output
        status, output = await run_service(PACKAGE, "migrate", environment)
        assert status == 0, output
        status, output = await run_service(PACKAGE, "check", environment)
        assert status == 0, output

        stream = await open_stream(address, client="tests")
        async with service_process(PACKAGE, environment, tmp_path) as served:
            states = await _walk(served.address, identity.account_token(tenant, SCOPES), stream, bidding)
        seen: list[Record] = []

        async def keep(record: Record) -> None:
            seen.append(record)

        try:
            async with asyncio.timeout(20), asyncio.TaskGroup() as group:
                reading = group.create_task(stream.consume("reader", [ORDERS_TOPIC], keep))
                while len(seen) < 3:
                    await asyncio.sleep(0.05)
                reading.cancel()
        finally:
            await stream.close()
    expected = ["PENDING", "OPEN", "CLOSING", "CLOSED"]
    assert [order_pb2.OrderState.Name(state).removeprefix("ORDER_STATE_") for state in states] == expected
    kinds = [record.headers["ce_type"].rpartition(".")[2] for record in seen]
    assert kinds == ["OrderOpened", "OrderCloseRequested", "OrderClosed"]
    assert [record.headers["ce_sequence"] for record in seen] == ["1", "2", "3"]
    assert events_pb2.OrderOpened.FromString(seen[0].value).order.groups[0].replica_sets
    assert bidding.ended == [(seen[0].headers["ce_subject"], lease_pb2.END_REASON_TENANT)]
    assert SECRET not in (tmp_path / "log").read_text()
    assert all(SECRET.encode() not in record.value for record in seen)


async def test_a_watch_goes_on_after_a_restart(
    database_factory: DatabaseFactory, identity: TestIdentity, private_nats: Nats, tmp_path: Path
) -> None:
    """Goal: who watches misses nothing and sees nothing twice across a restart of the service. Method: kill the process
    under a watch, let the order be closed by the next one, and go on after the last number seen.
    """
    settlement = FakeSettlement()  # type: ignore[abstract]
    tenant = new_name("accounts")
    settlement.free[tenant] = 10_000_000
    token = identity.account_token(tenant, SCOPES)
    async with serve_neighbours(settlement, FakeBidding(), identity) as neighbours:  # type: ignore[abstract]
        environment = os.environ | {
            "FALLOW_DATABASE_URL": await database_factory(PACKAGE),
            "FALLOW_NATS_URL": private_nats.url,
            "FALLOW_NATS_CREDENTIALS_FILE": str(private_nats.service_credentials_file("order")),
            "FALLOW_IDENTITY_KEY_FILE": str(identity.key_file("order")),
            "FALLOW_JWKS": str(identity.jwks),
            "FALLOW_SETTLEMENT_ADDRESS": neighbours,
            "FALLOW_BIDDING_ADDRESS": neighbours,
            "FALLOW_WORKLOAD_KEYS": KEYS,
        }
        seen: list[int] = []
        async with (
            service_process(PACKAGE, environment, tmp_path / "first") as first,
            asyncio.timeout(60),
            channel(first.address, lambda: token) as connection,
        ):
            stub = order_service_pb2_grpc.OrderServiceStub(connection)
            request = order_service_pb2.CreateOrderRequest(request_id="r", order=small_order())
            name = (await stub.CreateOrder(request)).name
            with pytest.raises(DomainError) as cut:
                async for answer in stub.WatchOrder(order_service_pb2.WatchOrderRequest(name=name)):
                    seen.append(answer.transition.sequence)
                    if seen[-1] == answer.latest_sequence:
                        await first.kill()
            assert cut.value.code == "UNAVAILABLE"
        assert seen == [0, 1, 2], "the present, stored, open"
        async with (
            service_process(PACKAGE, environment, tmp_path / "second") as second,
            asyncio.timeout(60),
            channel(second.address, lambda: token) as connection,
        ):
            stub = order_service_pb2_grpc.OrderServiceStub(connection)
            async for answer in stub.WatchOrder(order_service_pb2.WatchOrderRequest(name=name, after_sequence=2)):
                if not answer.HasField("transition"):
                    assert answer.latest_sequence == 2
                    await stub.CloseOrder(order_service_pb2.CloseOrderRequest(name=name, request_id="c"))
                    continue
                assert (answer.transition.sequence, answer.order.state) == (3, order_pb2.ORDER_STATE_CLOSING)
                break


async def _walk(
    address: str, token: str, stream: EventStream, bidding: FakeBidding
) -> list["order_pb2.OrderState.ValueType"]:
    """Create, watch, close, and state the facts that follow; the states that the watch showed."""
    states: list[order_pb2.OrderState.ValueType] = []
    async with channel(address, lambda: token) as connection, asyncio.timeout(60):
        stub = order_service_pb2_grpc.OrderServiceStub(connection)
        order = await stub.CreateOrder(
            order_service_pb2.CreateOrderRequest(request_id="r", order=small_order(secret=SECRET))
        )
        key = order.name.removeprefix("orders/")
        async for answer in stub.WatchOrder(order_service_pb2.WatchOrderRequest(name=order.name)):
            if not answer.HasField("transition"):
                assert answer.order.state == order_pb2.ORDER_STATE_OPEN
                continue
            if answer.transition.group_id:
                continue
            states.append(answer.transition.target_state)
            if states[-1] == order_pb2.ORDER_STATE_OPEN:
                await stub.CloseOrder(order_service_pb2.CloseOrderRequest(name=order.name, request_id="c"))
            if states[-1] == order_pb2.ORDER_STATE_CLOSING:
                while not bidding.ended:
                    await asyncio.sleep(0.05)
                await stream.ensure_topics([LEASES_TOPIC, ESCROWS_TOPIC])
                await _publish(
                    stream,
                    LEASES_TOPIC,
                    key,
                    bidding_events.OrderEnded(order=order.name, reason=lease_pb2.END_REASON_TENANT),
                )
                escrow = charge_pb2.Escrow(
                    name=f"escrows/{key}", refunded=money_pb2.Amount(asset="usdc", micros=3_600_000)
                )
                await _publish(stream, ESCROWS_TOPIC, key, settlement_events.EscrowClosed(escrow=escrow))
    return states
