"""Watching an order: the present, then the changes, by signal and without."""

import asyncio

import pytest
from google.protobuf.message import Message

from fallow.order.v1 import order_pb2, order_service_pb2
from fallow_chassis.retry import is_retryable
from fallow_chassis.testing import in_background
from fallow_order.consumers import ESCROWS_TOPIC, LEASES_TOPIC
from tests.component.order import facts
from tests.component.order.conftest import House, Tenant, new_name, small_order

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


async def _whole(tenant: Tenant, name: str, after: int = 0) -> list[int]:
    """The numbers of all changes that a watch shows until the order is closed, and the server ends it."""
    stub = await tenant.orders()
    call = stub.WatchOrder(order_service_pb2.WatchOrderRequest(name=name, after_sequence=after))
    return [answer.transition.sequence async for answer in call if answer.HasField("transition")]


async def _end(house: House, name: str) -> None:
    """Let an order end and its money return."""
    order_id = name.removeprefix("orders/")
    await house.deliver(LEASES_TOPIC, order_id, facts.order_ended(name))
    await house.deliver(ESCROWS_TOPIC, order_id, facts.escrow_closed(name, 0, 3_600_000))


async def _lose_again_and_again(house: House, name: str, times: int) -> None:
    """Lease and lose the first group of an order so often."""
    order_id = name.removeprefix("orders/")
    for generation in range(1, times + 1):
        lease = new_name("leases")
        await house.deliver(LEASES_TOPIC, order_id, facts.created(name, lease, generation))
        await house.deliver(LEASES_TOPIC, order_id, facts.lost(name, lease, generation))


async def test_two_hundred_watch_one_order(house: House) -> None:
    """Goal: each of many watchers sees each change once, and the server ends all at the close. Method: 200 streams on
    a pool of four connections, while a group is lost and leased again.
    """
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 10_000_000
    name = (await tenant.create()).name
    async with asyncio.timeout(50), in_background(house.signals.run), asyncio.TaskGroup() as group:
        watching = [group.create_task(_whole(tenant, name)) for _ in range(200)]
        while sum(len(bells) for bells in house.signals._bells.values()) < 200:
            await asyncio.sleep(0.01)
        await _lose_again_and_again(house, name, 3)
        await _end(house, name)
    seen = watching[0].result()
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) == 2 + 3 * 2 + 2 + 3, "opened; leased and lost; matched, degraded; closing, ended, closed"
    assert all(watch.result() == seen for watch in watching)


async def test_a_slow_reader_holds_up_nobody_and_misses_nothing(house: House) -> None:
    """Goal: who does not read costs its own stream only. Method: more streams than the pool has connections, which are
    not read while much happens; others are served meanwhile; then they are read to the end.
    """
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 10_000_000
    wanted = small_order()
    wanted.groups[0].constraints.regions.extend(f"{'region-' * 8}{number}" for number in range(60))
    name = (await tenant.create(order=wanted)).name
    await _lose_again_and_again(house, name, 60)
    stub = await tenant.orders()
    slow = [stub.WatchOrder(order_service_pb2.WatchOrderRequest(name=name)) for _ in range(8)]
    async with asyncio.timeout(50):
        for call in slow:
            present = await call.read()
            assert isinstance(present, order_service_pb2.WatchOrderResponse)
            assert present.order.name == name
        while len(next(iter(house.signals._bells.values()))) < 8:
            await asyncio.sleep(0.01)
        await asyncio.gather(*(tenant.get(name) for _ in range(50)))
        await _end(house, name)
        for call in slow:
            numbers = [answer.transition.sequence async for answer in call]
            assert numbers == list(range(1, numbers[-1] + 1))
            assert numbers[-1] > 120


async def test_a_cut_database_interrupts_no_watch(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a watch outlives the connections that it reads by. Method: cut all of them twice, with a change between."""
    monkeypatch.setattr("fallow_order.rpc.WATCH_POLL_SECONDS", 0.02)
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 10_000_000
    name = (await tenant.create()).name
    async with asyncio.timeout(50), in_background(house.signals.run), asyncio.TaskGroup() as group:
        watching = [group.create_task(_whole(tenant, name)) for _ in range(20)]
        while sum(len(bells) for bells in house.signals._bells.values()) < 20:
            await asyncio.sleep(0.01)
        for generation in (1, 2):
            async with house.database.session() as session:
                cut = await session.fetchval(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            assert cut >= 2
            await _eventually(
                house, facts.created(name, new_name("leases"), generation), name.removeprefix("orders/"), generation
            )
        await _eventually(house, facts.order_ended(name), name.removeprefix("orders/"), 3)
        await house.deliver(
            ESCROWS_TOPIC, name.removeprefix("orders/"), facts.escrow_closed(name, 0, 3_600_000), version=1
        )
    seen = watching[0].result()
    assert seen == list(range(1, len(seen) + 1))
    assert all(watch.result() == seen for watch in watching)


async def _eventually(house: House, fact: Message, order_id: str, version: int) -> None:
    """State a fact by a database whose connections were just cut, as a consumer does: again until it is taken."""
    while True:
        try:
            await house.deliver(LEASES_TOPIC, order_id, fact, version=version)
        except Exception as error:
            if not is_retryable(error):
                raise
            await asyncio.sleep(0.01)
        else:
            return


async def test_a_number_beyond_the_newest_change_shows_what_comes(house: House) -> None:
    """Goal: a watcher that names a number that never was is not left waiting. Method: 99 of an order with two changes."""
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 10_000_000
    name = (await tenant.create()).name
    async with asyncio.timeout(20), in_background(house.signals.run), asyncio.TaskGroup() as group:
        watching = group.create_task(_whole(tenant, name, 99))
        while not any(place[1] for place in house.signals._bells):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        await _end(house, name)
    assert watching.result() == [3, 4, 5]
