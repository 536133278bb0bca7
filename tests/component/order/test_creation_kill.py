"""The order service ends with SIGKILL in the middle of a group of orders; the next process goes on with each of them."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from fallow.order.v1 import order_pb2, order_service_pb2, order_service_pb2_grpc
from fallow.settlement.v1 import settlement_service_pb2
from fallow_chassis.grpc_client import channel
from fallow_chassis.testing import DatabaseFactory, TestIdentity
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
from tests.component.service_process import ServiceProcess, service_process

PACKAGE = "fallow_order"
ORDERS = 24
HOLD = 3_600_000
WAIT_SECONDS = 60.0


class Gate(FakeSettlement):
    """Settlement that says when a group has come to the place where the service is to end."""

    def __init__(self, place: str, url: str) -> None:
        super().__init__()
        self._place = place
        self._url = url
        self._locking: asyncpg.Connection[asyncpg.Record] | None = None
        self.reached = asyncio.Event()
        self.group = 0

    async def BatchOpenEscrows(
        self, request: settlement_service_pb2.BatchOpenEscrowsRequest, context: Any
    ) -> settlement_service_pb2.BatchOpenEscrowsResponse:
        """Hold for each order; stay at the place with the first group that is more than one order."""
        if self._place == "store" and self._locking is None:
            # The group that is stored next finds the table locked.
            await self._lock("workload")
        is_group = len(request.requests) > 1 and not self.group
        if is_group:
            self.group = len(request.requests)
        if is_group and self._place == "hold":
            await self._stay()
        response = await super().BatchOpenEscrows(request, context)
        if is_group and self._place == "answer":
            await self._stay()
        if is_group and self._place == "open":
            await self._lock("outbox")
        return response

    async def _stay(self) -> None:
        """Never answer: the caller is about to be gone."""
        self.reached.set()
        await asyncio.Event().wait()

    async def _lock(self, table: str) -> None:
        """Let whoever writes to a table wait."""
        self._locking = await asyncpg.connect(self._url)
        await self._locking.execute(f"BEGIN; LOCK TABLE {table} IN SHARE MODE")

    async def wait(self) -> None:
        """Until the service is at the place: in the hands of this fake, or waiting for the lock."""
        async with asyncio.timeout(WAIT_SECONDS):
            if self._place in {"hold", "answer"}:
                await self.reached.wait()
                return
            while self._locking is None or not await self._locking.fetchval(
                "SELECT EXISTS (SELECT 1 FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database "
                "WHERE NOT granted AND datname = current_database())"
            ):
                await asyncio.sleep(0.02)

    async def open(self) -> None:
        """Let everything pass from now on."""
        self._place = ""
        if self._locking is not None:
            await self._locking.close()


@asynccontextmanager
async def stub_of(served: ServiceProcess, token: str) -> "AsyncIterator[order_service_pb2_grpc.OrderServiceAsyncStub]":
    """OrderService of a process."""
    opened = channel(served.address, lambda: token)
    try:
        yield order_service_pb2_grpc.OrderServiceStub(opened)
    finally:
        await opened.close()


async def create_all(stub: "order_service_pb2_grpc.OrderServiceAsyncStub") -> list[Any]:
    """The answers of all calls, made at once; errors among them."""
    calls = [
        stub.CreateOrder(
            order_service_pb2.CreateOrderRequest(request_id=f"r{number}", order=small_order()), timeout=WAIT_SECONDS
        )
        for number in range(ORDERS)
    ]
    return await asyncio.gather(*calls, return_exceptions=True)


async def create_until_known(stub: "order_service_pb2_grpc.OrderServiceAsyncStub") -> list[order_pb2.Order]:
    """The orders of all calls, repeated as callers do while the service says that it cannot answer yet."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            answers = await create_all(stub)
            orders = [answer for answer in answers if isinstance(answer, order_pb2.Order)]
            if len(orders) == ORDERS:
                return orders
            refusals = [answer for answer in answers if not isinstance(answer, order_pb2.Order)]
            assert {refusal.code for refusal in refusals} == {"UNAVAILABLE"}, refusals


@pytest.mark.parametrize("place", ["store", "hold", "answer", "open"])
async def test_a_kill_inside_a_group_loses_and_doubles_nothing(
    database_factory: DatabaseFactory, identity: TestIdentity, private_nats: Nats, tmp_path: Path, place: str
) -> None:
    """Goal: after a kill at any step of a group each request is one order, funded once and told once. Method: SIGKILL
    while a group is being stored, before its funds are held, after they are, and while it is being opened; a new
    process; every request again; then rows, events and funds are counted.
    """
    url = await database_factory(PACKAGE)
    gate = Gate(place, url)  # type: ignore[abstract]
    tenant = new_name("accounts")
    gate.free[tenant] = (ORDERS + 5) * HOLD
    token = identity.account_token(tenant, SCOPES)
    async with serve_neighbours(gate, FakeBidding(), identity) as neighbours:  # type: ignore[abstract]
        environment = os.environ | {
            "FALLOW_DATABASE_URL": url,
            "FALLOW_NATS_URL": private_nats.url,
            "FALLOW_NATS_CREDENTIALS_FILE": str(private_nats.service_credentials_file("order")),
            "FALLOW_IDENTITY_KEY_FILE": str(identity.key_file("order")),
            "FALLOW_JWKS": str(identity.jwks),
            "FALLOW_SETTLEMENT_ADDRESS": neighbours,
            "FALLOW_BIDDING_ADDRESS": neighbours,
            "FALLOW_WORKLOAD_KEYS": KEYS,
        }
        async with service_process(PACKAGE, environment, tmp_path / "first") as served, stub_of(served, token) as stub:
            async with asyncio.TaskGroup() as group:
                calls = group.create_task(create_all(stub))
                await gate.wait()
                await served.kill()
            answered = [answer for answer in calls.result() if isinstance(answer, order_pb2.Order)]
            assert len(answered) < ORDERS - 1, "a group was on its way"
        await gate.open()
        async with service_process(PACKAGE, environment, tmp_path / "second") as served, stub_of(served, token) as stub:
            orders = await create_until_known(stub)
            again = await create_until_known(stub)
    assert [order.state for order in orders] == [order_pb2.ORDER_STATE_OPEN] * ORDERS
    names = [order.name for order in orders]
    assert len(set(names)) == ORDERS
    assert [order.name for order in again] == names
    assert {order.name for order in answered} <= set(names)
    assert gate.held == {f"escrows/{name.removeprefix('orders/')}": HOLD for name in names}
    assert gate.free[tenant] == 5 * HOLD
    connection = await asyncpg.connect(url)
    try:
        kept = await connection.fetch("SELECT id FROM orders WHERE state = 'OPEN' AND held_micros = $1", HOLD)
        told = await connection.fetch("SELECT key FROM outbox WHERE type LIKE '%.OrderOpened'")
        claims = await connection.fetch("SELECT request_id, resource FROM idempotency")
        tables = ("orders", "workload", "order_transition", "outbox")
        counts = [await connection.fetchval(f"SELECT count(*) FROM {table}") for table in tables]
    finally:
        await connection.close()
    ids = sorted(name.removeprefix("orders/") for name in names)
    assert sorted(row["id"] for row in kept) == sorted(row["key"] for row in told) == ids
    assert {row["request_id"]: row["resource"] for row in claims} == {
        f"r{number}": name for number, name in enumerate(names)
    }
    assert counts == [ORDERS, ORDERS, 2 * ORDERS, ORDERS]
