"""Lists of orders: filters by state, label and time, pages under concurrent inserts, and the indexes behind them."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fallow.order.v1 import order_pb2, order_service_pb2
from fallow_chassis.errors import DomainError
from fallow_chassis.wire import to_timestamp
from fallow_order.domain.order import OrderState
from fallow_order.store import AFTER_ALL_IDS, QUERIES
from tests.component.order.conftest import House, Tenant, small_order

EARLY = datetime(2026, 1, 1, tzinfo=UTC)


async def _listed(tenant: Tenant, size: int = 0, **filters: Any) -> list[str]:
    """The names of all pages, in order."""
    stub = await tenant.orders()
    names: list[str] = []
    token = ""
    while True:
        request = order_service_pb2.ListOrdersRequest(page_size=size, page_token=token, **filters)
        page = await stub.ListOrders(request)
        names += [order.name for order in page.orders]
        if not (token := page.next_page_token):
            return names


async def _made_at(house: House, name: str, instant: datetime) -> None:
    """Let an order have been created at an instant."""
    async with house.database.transaction() as unit:
        await unit.connection.execute(
            "UPDATE orders SET created_at = $2 WHERE id = $1", name.removeprefix("orders/"), instant
        )


@pytest.mark.parametrize(
    ("earliest", "latest", "expected"),
    [
        (None, None, [2, 1, 0]),
        (0, None, [2, 1, 0]),
        (1, None, [2, 1]),
        (None, 1, [0]),
        (1, 2, [1]),
        (0.5, 1, []),
        (0.5, 1.001, [1]),
        (3, None, []),
        (None, 0, []),
    ],
)
async def test_a_list_by_time_is_half_open(
    house: House, earliest: float | None, latest: float | None, expected: list[int]
) -> None:
    """Goal: from an instant on, and before another. Method: three orders a second apart, and bounds on and beside them."""
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 100_000_000
    names = [(await tenant.create(f"r{number}")).name for number in range(3)]
    for number, name in enumerate(names):
        await _made_at(house, name, EARLY + timedelta(seconds=number))
    bounds: dict[str, Any] = {}
    for field, seconds in (("min_create_time", earliest), ("max_create_time", latest)):
        if seconds is not None:
            bounds[field] = to_timestamp(EARLY + timedelta(seconds=seconds))
    assert await _listed(tenant, **bounds) == [names[number] for number in expected]


async def test_filters_combine_and_a_token_is_good_for_its_own(house: House) -> None:
    """Goal: state, label and time together; a token for other filters is refused. Method: mixed orders, changed requests."""
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 100_000_000
    stub = await tenant.orders()
    names = []
    for number in range(4):
        order = small_order()
        order.labels["kind"] = "even" if number % 2 == 0 else "odd"
        names.append((await tenant.create(f"r{number}", order)).name)
    await stub.CloseOrder(order_service_pb2.CloseOrderRequest(name=names[2], request_id="c"))
    wanted = {"labels": {"kind": "even"}, "states": [order_pb2.ORDER_STATE_OPEN]}
    assert await _listed(tenant, 1, **wanted) == [names[0]]
    assert await _listed(tenant, 1, labels={"kind": "even"}) == [names[2], names[0]]
    page = await stub.ListOrders(order_service_pb2.ListOrdersRequest(page_size=1, labels={"kind": "even"}))
    others: tuple[dict[str, Any], ...] = (
        {"labels": {"kind": "odd"}},
        {"labels": {"kind": "even"}, "states": [order_pb2.ORDER_STATE_OPEN]},
        {"labels": {"kind": "even"}, "min_create_time": to_timestamp(EARLY)},
        {"labels": {"kind": "even"}, "max_create_time": to_timestamp(EARLY)},
    )
    for changed in others:
        with pytest.raises(DomainError) as refused:
            await stub.ListOrders(order_service_pb2.ListOrdersRequest(page_token=page.next_page_token, **changed))
        assert refused.value.reason.reason == "PAGE_TOKEN_INVALID"
    for low, high in ((EARLY, EARLY), (EARLY + timedelta(seconds=1), EARLY)):
        with pytest.raises(DomainError) as wrong:
            await stub.ListOrders(
                order_service_pb2.ListOrdersRequest(
                    min_create_time=to_timestamp(low), max_create_time=to_timestamp(high)
                )
            )
        assert [violation.field for violation in wrong.value.violations] == ["max_create_time"]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 7), st.integers(1, 3), st.lists(st.integers(0, 2), max_size=8))
async def test_pages_are_whole_while_others_order(house: House, at_first: int, size: int, inserts: list[int]) -> None:
    """Goal: no order twice, none missing that was there at the start. Method: random pages, with new orders made while
    each page is read.
    """
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 10**12
    there = {(await tenant.create(f"first{number}")).name for number in range(at_first)}
    stub = await tenant.orders()
    seen: list[str] = []
    token, page_number = "", 0
    while page_number == 0 or token:
        new = inserts[page_number] if page_number < len(inserts) else 0
        request = order_service_pb2.ListOrdersRequest(page_size=size, page_token=token)
        async with asyncio.TaskGroup() as group:
            for number in range(new):
                group.create_task(tenant.create(f"page{page_number}-{number}"))
            page = await stub.ListOrders(request)
        seen += [order.name for order in page.orders]
        token, page_number = page.next_page_token, page_number + 1
    assert len(seen) == len(set(seen)), "no order twice"
    assert there <= set(seen), "none missing that was there at the start"
    assert seen == sorted(seen, reverse=True), "newest first"


async def test_each_way_to_list_has_its_index(house: House) -> None:
    """Goal: no way to list reads all orders of an account. Method: 2,000 orders of it among 60,000; the plans of the query itself."""
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 10_000_000
    order = await tenant.create()
    async with house.database.transaction() as unit:
        await unit.connection.execute(
            """
            INSERT INTO orders
            SELECT (jsonb_populate_record(orders, jsonb_build_object(
                'id', lpad(number::text, 26, '0'), 'account', CASE WHEN number % 30 = 0 THEN account ELSE 'other' END,
                'created_at', now() - number * interval '1 minute',
                'state', CASE WHEN number % 15000 = 0 THEN 'RUNNING' ELSE 'OPEN' END,
                'labels', jsonb_build_object('run', number::text)
            ))).* FROM orders, generate_series(1, 60000) AS number WHERE orders.id = $1
            """,
            order.name.removeprefix("orders/"),
        )
    async with house.database.session() as session:
        await session.execute("ANALYZE orders")
        everything: tuple[str, list[str], dict[str, str], datetime | None, datetime | None] = (
            AFTER_ALL_IDS,
            [state.value for state in OrderState],
            {},
            None,
            None,
        )
        for expected, (before, states, labels, earliest, latest) in {
            "orders_account ": everything,
            "orders_account_state ": (AFTER_ALL_IDS, ["RUNNING"], {}, None, None),
            "orders_labels ": (AFTER_ALL_IDS, everything[1], {"run": "60"}, None, None),
            "orders_account_created ": (
                AFTER_ALL_IDS,
                everything[1],
                {},
                datetime.now(UTC) - timedelta(days=3, hours=3),
                datetime.now(UTC) - timedelta(days=3),
            ),
        }.items():
            rows = await session.fetch(
                f"EXPLAIN {QUERIES.get('list_orders')}",
                tenant.name.removeprefix("accounts/"), before, states, labels, earliest, latest, 51,
            )  # fmt: skip
            plan = "\n".join(row[0] for row in rows) + " "
            assert f"{expected}" in plan.replace("\n", " "), plan
            assert "Seq Scan" not in plan, plan
