"""Watching an order: the present, then the changes, by signal and without."""

import asyncio

import pytest

from fallow.order.v1 import order_pb2, order_service_pb2
from tests.component.order.conftest import House, Tenant

OPEN, CLOSING = order_pb2.ORDER_STATE_OPEN, order_pb2.ORDER_STATE_CLOSING


async def take(tenant: Tenant, name: str, after: int, count: int) -> list[order_service_pb2.WatchOrderResponse]:
    """The first answers of a watch."""
    stub = await tenant.orders()
    call = stub.WatchOrder(order_service_pb2.WatchOrderRequest(name=name, after_sequence=after))
    answers = []
    async for answer in call:
        answers.append(answer)
        if len(answers) == count:
            break
    call.cancel()
    return answers


async def close_once_watched(house: House, tenant: Tenant, name: str) -> None:
    """Close an order when somebody watches it."""
    while not house.signals._bells:
        await asyncio.sleep(0.01)
    stub = await tenant.orders()
    await stub.CloseOrder(order_service_pb2.CloseOrderRequest(name=name, request_id="c"))


async def test_a_watch_starts_with_the_present_and_resumes(house: House) -> None:
    """Goal: a watcher misses nothing and sees nothing twice. Method: from the start, from the middle, from the end."""
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 10_000_000
    name = (await tenant.create()).name
    first = await take(tenant, name, 0, 3)
    assert not first[0].HasField("transition")
    assert first[0].order.state == OPEN
    assert [answer.transition.sequence for answer in first[1:]] == [1, 2]
    assert [answer.transition.sequence for answer in (await take(tenant, name, 1, 2))[1:]] == [2]


async def test_a_change_wakes_the_watch(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: changes show at once. Method: with the poll out of reach, close the order while it is watched."""
    monkeypatch.setattr("fallow_order.rpc.WATCH_POLL_SECONDS", 600)
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 10_000_000
    name = (await tenant.create()).name
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        listening = group.create_task(house.signals.run())
        watching = group.create_task(take(tenant, name, 2, 2))
        await close_once_watched(house, tenant, name)
        live = await watching
        listening.cancel()
    assert live[1].transition.target_state == CLOSING


async def test_a_lost_signal_delays_and_loses_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: signals are hints. Method: nobody listens; the watch looks again by itself."""
    monkeypatch.setattr("fallow_order.rpc.WATCH_POLL_SECONDS", 0.05)
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 10_000_000
    name = (await tenant.create()).name
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        watching = group.create_task(take(tenant, name, 2, 2))
        await close_once_watched(house, tenant, name)
        live = await watching
        # The cancelled calls reach the server a moment later; who has gone waits no more.
        while house.signals._bells:
            await asyncio.sleep(0.01)
    assert live[1].transition.target_state == CLOSING
