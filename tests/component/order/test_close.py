"""Closing an order in each of its states, and the bounds of its labels."""

from collections.abc import Callable

import pytest
from google.protobuf import field_mask_pb2
from google.protobuf.message import Message

from fallow.bidding.v1 import events_pb2 as bidding_events
from fallow.order.v1 import order_pb2, order_service_pb2
from fallow.type.v1 import lease_pb2
from fallow_chassis.errors import UNAVAILABLE, DomainError
from fallow_order.consumers import ESCROWS_TOPIC, LEASES_TOPIC
from tests.component.order import facts
from tests.component.order.conftest import House, Tenant, new_name, small_order

LEASE = new_name("leases")


def _created(name: str) -> Message:
    return facts.created(name, LEASE)


def _running(name: str) -> Message:
    return facts.running(name, LEASE)


def _lost(name: str) -> Message:
    return facts.lost(name, LEASE)


def _suspended(name: str) -> Message:
    return bidding_events.LeaseSuspended(lease=LEASE, key=facts.key(name))


WAYS: dict[str, list[Callable[[str], Message]]] = {
    "OPEN": [],
    "MATCHED": [_created],
    "RUNNING": [_created, _running],
    "DEGRADED": [_created, _running, _lost],
    "SUSPENDED": [_created, _running, _suspended],
}


async def _close(tenant: Tenant, name: str, reason: str = "enough", request_id: str = "c") -> order_pb2.Order:
    stub = await tenant.orders()
    return await stub.CloseOrder(order_service_pb2.CloseOrderRequest(name=name, reason=reason, request_id=request_id))


@pytest.mark.parametrize(("state", "way"), WAYS.items(), ids=WAYS.keys())
@pytest.mark.parametrize(("said", "detail"), [("enough", "enough"), ("", "the tenant closed it")])
async def test_an_open_order_closes_from_any_state(
    house: House, state: str, way: list[Callable[[str], Message]], said: str, detail: str
) -> None:
    """Goal: CloseOrder works in each state, says why, and is idempotent. Method: facts up to the state, close twice,
    the market's end and the money's return.
    """
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 10_000_000
    name = (await tenant.create()).name
    order_id = name.removeprefix("orders/")
    for fact in way:
        await house.deliver(LEASES_TOPIC, order_id, fact(name))
    assert order_pb2.OrderState.Name((await tenant.get(name)).state) == f"ORDER_STATE_{state}"
    closing = await _close(tenant, name, said)
    assert (closing.state, closing.close_reason) == (order_pb2.ORDER_STATE_CLOSING, lease_pb2.END_REASON_TENANT)
    assert closing.close_detail == detail
    assert await _close(tenant, name, said) == closing
    assert await _close(tenant, name, "another word", "c2") == closing, "an end that is under way stays as it is"
    await house.jobs.carry_ends()
    assert house.bidding.ended == [(name, lease_pb2.END_REASON_TENANT)]
    await house.deliver(LEASES_TOPIC, order_id, facts.order_ended(name))
    await house.deliver(ESCROWS_TOPIC, order_id, facts.escrow_closed(name, 1, 2))
    closed = await _close(tenant, name, "too late", "c3")
    assert (closed.state, closed.close_detail) == (order_pb2.ORDER_STATE_CLOSED, detail)
    assert closed == await tenant.get(name)
    kinds = [kind.rpartition(".")[2] for kind, _ in await house.outbox()]
    assert kinds == ["OrderOpened", "OrderCloseRequested", "OrderClosed"]


async def test_an_order_that_is_not_funded_yet_closes_without_cost(house: House) -> None:
    """Goal: PENDING closes too, and its money is given back. Method: settlement holds and its answer is lost."""
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 10_000_000
    house.settlement.fail_after_open = DomainError(UNAVAILABLE, "cut")
    with pytest.raises(DomainError):
        await tenant.create()
    stub = await tenant.orders()
    (pending,) = (await stub.ListOrders(order_service_pb2.ListOrdersRequest())).orders
    assert pending.state == order_pb2.ORDER_STATE_PENDING
    assert (await _close(tenant, pending.name)).state == order_pb2.ORDER_STATE_CLOSING
    await house.jobs.carry_ends()
    closed = await tenant.get(pending.name)
    assert (closed.state, closed.close_reason, closed.close_detail) == (
        order_pb2.ORDER_STATE_CLOSED,
        lease_pb2.END_REASON_TENANT,
        "enough",
    )
    assert f"escrows/{pending.name.removeprefix('orders/')}" in house.settlement.released
    assert not house.bidding.ended, "the market never knew of it"


async def test_a_request_id_is_good_for_one_close(house: House) -> None:
    """Goal: the same id with other input is refused and changes nothing. Method: another reason, another order."""
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 10_000_000
    first, second = (await tenant.create("a")).name, (await tenant.create("b")).name
    closing = await _close(tenant, first)
    for name, reason in ((first, "other"), (second, "enough")):
        with pytest.raises(DomainError) as reused:
            await _close(tenant, name, reason)
        assert reused.value.reason.reason == "REQUEST_ID_REUSED"
    assert await tenant.get(first) == closing
    assert (await tenant.get(second)).state == order_pb2.ORDER_STATE_OPEN


LABELS: dict[str, tuple[dict[str, str], bool]] = {
    "none": ({}, True),
    "a key of 63": ({"k" * 63: "v"}, True),
    "a key of 64": ({"k" * 64: "v"}, False),
    "no key": ({"": "v"}, False),
    "a value of 255": ({"k": "v" * 255}, True),
    "a value of 256": ({"k": "v" * 256}, False),
    "no value": ({"k": ""}, True),
    "letters of any language": ({"équipe": "青"}, True),
    "64": ({f"k{number}": "v" for number in range(64)}, True),
    "65": ({f"k{number}": "v" for number in range(65)}, False),
    "NUL in a key": ({"a\x00": "v"}, False),
    "NUL in a value": ({"k": "\x00"}, False),
}


@pytest.mark.parametrize(("labels", "good"), LABELS.values(), ids=LABELS.keys())
async def test_labels_have_bounds(house: House, labels: dict[str, str], *, good: bool) -> None:
    """Goal: the same bounds at create and at update; what is refused stores nothing. Method: either side of each."""
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 20_000_000
    wanted = small_order()
    wanted.labels.clear()
    wanted.labels.update(labels)
    plain = (await tenant.create("plain")).name
    update = order_service_pb2.UpdateOrderRequest(
        order=order_pb2.Order(name=plain, labels=labels),
        update_mask=field_mask_pb2.FieldMask(paths=["labels"]),
        request_id="u",
    )
    stub = await tenant.orders()
    if good:
        assert dict((await tenant.create("r", wanted)).labels) == labels
        assert dict((await stub.UpdateOrder(update)).labels) == labels
        assert dict((await tenant.get(plain)).labels) == labels
        return
    with pytest.raises(DomainError) as at_create:
        await tenant.create("r", wanted)
    with pytest.raises(DomainError) as at_update:
        await stub.UpdateOrder(update)
    for caught in (at_create, at_update):
        assert caught.value.reason.reason == "INVALID_FIELD"
        assert all(violation.field.startswith("order.labels") for violation in caught.value.violations)
    assert await house.count("orders") == 1
    assert dict((await tenant.get(plain)).labels) == {"team": "blue"}
