"""Orders that are created together: each is promised what an order alone is."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from fallow.order.v1 import order_pb2, order_service_pb2
from fallow_chassis.errors import UNAVAILABLE, DomainError
from fallow_chassis.grpc_client import RemoteError
from fallow_chassis.telemetry import Telemetry
from fallow_order import store
from tests.component.order.conftest import MAX_LIVE_ORDERS, House, Tenant, small_order

HOLD = 3_600_000


async def all_of(*calls: Any) -> list[Any]:
    """The answers of concurrent calls, errors among them."""
    return await asyncio.gather(*calls, return_exceptions=True)


async def states(house: House) -> Counter[str]:
    """How many orders are in which state."""
    async with house.database.read() as connection:
        rows = await connection.fetch("SELECT state, count(*) AS orders FROM orders GROUP BY state")
    return Counter({row["state"]: row["orders"] for row in rows})


def reason(outcome: Any) -> str:
    """The reason of a refused call."""
    assert isinstance(outcome, RemoteError), outcome
    return outcome.reason.reason


async def rich(house: House, orders: int = 100) -> Tenant:
    """A tenant with money for some orders."""
    tenant = house.tenant()
    house.settlement.free[tenant.name] = orders * HOLD
    return tenant


async def test_calls_that_come_together_share_transactions_and_one_call_to_settlement(house: House) -> None:
    """Goal: groups are made, and each order is whole. Method: 15 calls at once; count rows, events, calls."""
    Telemetry.start("order")
    tenant = await rich(house)
    stub = await tenant.orders()
    answers = await all_of(
        *(
            stub.CreateOrder(
                order_service_pb2.CreateOrderRequest(request_id=f"r{number}", order=small_order(groups=1 + number % 2))
            )
            for number in range(15)
        )
    )
    assert {answer.state for answer in answers} == {order_pb2.ORDER_STATE_OPEN}
    assert len({answer.name for answer in answers}) == 15
    assert [len(answer.groups) for answer in answers] == [1 + number % 2 for number in range(15)]
    assert await states(house) == {"OPEN": 15}
    assert await house.count("order_group") == await house.count("workload") == 22
    assert await house.count("order_transition") == 30
    assert sorted(kind for kind, _ in await house.outbox()) == ["fallow.order.v1.OrderOpened"] * 15
    assert sum(house.settlement.batches) == 15
    assert max(house.settlement.batches) > 1
    async with house.database.read() as connection:
        traces = await connection.fetch("SELECT headers ->> 'traceparent' AS trace FROM outbox")
    assert len({row["trace"] for row in traces}) == 15, "each event is in the trace of its own call"


async def test_good_and_bad_orders_of_one_group_do_not_touch_each_other(house: House) -> None:
    """Goal: short funds and other input refuse one call each. Method: a group with a poor tenant and a reused id."""
    tenant, poor = await rich(house), house.tenant()
    house.settlement.free[poor.name] = HOLD - 1
    await tenant.create("used")
    outcomes = await all_of(
        tenant.create("a"), poor.create("b"), tenant.create("used", small_order(micros=1)), tenant.create("c")
    )
    assert reason(outcomes[1]) == "INSUFFICIENT_FUNDS"
    assert outcomes[1].metadata["short_micros"] == "1"
    assert reason(outcomes[2]) == "REQUEST_ID_REUSED"
    assert await states(house) == {"OPEN": 3}
    assert await house.count("idempotency") == 3
    house.settlement.free[poor.name] += 1
    assert (await poor.create("b")).state == order_pb2.ORDER_STATE_OPEN


async def test_refused_orders_of_a_group_are_forgotten_together(house: House) -> None:
    """Goal: many refusals cost a group one transaction, leave nothing but the notes to release, and touch no neighbour.
    Method: 15 orders without money among 5 with; transactions are told apart by what they stamped on the notes.
    """
    tenant, poor = await rich(house), house.tenant()
    outcomes = await all_of(
        *(poor.create(f"p{number}") for number in range(15)), *(tenant.create(f"r{number}") for number in range(5))
    )
    assert [reason(outcome) for outcome in outcomes[:15]] == ["INSUFFICIENT_FUNDS"] * 15
    assert {outcome.state for outcome in outcomes[15:]} == {order_pb2.ORDER_STATE_OPEN}
    assert await states(house) == {"OPEN": 5}
    assert await house.count("idempotency") == await house.count("workload") == 5
    async with house.database.read() as connection:
        rows = await connection.fetch("SELECT order_id, xmin::text AS transaction FROM escrow_release")
    assert len({row["order_id"] for row in rows}) == 15
    assert max(house.settlement.batches) > 1
    assert len({row["transaction"] for row in rows}) <= len(house.settlement.batches)
    house.settlement.free[poor.name] = HOLD
    assert (await poor.create("p0")).state == order_pb2.ORDER_STATE_OPEN


async def test_one_request_sent_many_times_at_once_makes_one_order(house: House) -> None:
    """Goal: a request id is one order, inside a group and across groups. Method: six at once, one of other input."""
    tenant = await rich(house)
    outcomes = await all_of(*(tenant.create("same") for _ in range(5)), tenant.create("same", small_order(micros=7)))
    made = [outcome for outcome in outcomes if isinstance(outcome, order_pb2.Order)]
    refused = [reason(outcome) for outcome in outcomes if not isinstance(outcome, order_pb2.Order)]
    assert len({order.name for order in made}) == 1
    # Whichever input came first stands, and the other is refused.
    assert (len(made), refused) in [(5, ["REQUEST_ID_REUSED"]), (1, ["REQUEST_ID_REUSED"] * 5)]
    assert await house.count("orders") == await house.count("outbox") == 1
    assert (await tenant.get(made[0].name)).name == made[0].name
    assert house.settlement.free[tenant.name] == 100 * HOLD - next(iter(house.settlement.held.values()))


async def test_the_quota_counts_orders_of_the_same_group(house: House) -> None:
    """Goal: exactly as many as fit, and a refused one leaves nothing. Method: three more at once than fit; room; again."""
    tenant = await rich(house)
    outcomes = await all_of(*(tenant.create(f"r{number}") for number in range(MAX_LIVE_ORDERS + 3)))
    refused = [number for number, outcome in enumerate(outcomes) if not isinstance(outcome, order_pb2.Order)]
    assert [reason(outcomes[number]) for number in refused] == ["QUOTA_EXCEEDED"] * 3
    assert await states(house) == {"OPEN": MAX_LIVE_ORDERS}
    assert await house.count("idempotency") == MAX_LIVE_ORDERS
    assert (await (await rich(house)).create()).state == order_pb2.ORDER_STATE_OPEN
    # A repeat of what was made is answered at the limit too.
    made = next(number for number in range(MAX_LIVE_ORDERS + 3) if number not in refused)
    assert (await tenant.create(f"r{made}")).name == outcomes[made].name
    async with house.database.transaction() as unit:
        await unit.connection.execute(
            "UPDATE orders SET state = 'CLOSED', close_reason = 'TENANT', closed_at = now() WHERE account = $1",
            tenant.name.removeprefix("accounts/"),
        )
    assert (await tenant.create(f"r{refused[0]}")).state == order_pb2.ORDER_STATE_OPEN


@pytest.mark.parametrize("when", ["before settlement holds", "after settlement holds"])
async def test_settlement_away_in_the_middle_loses_and_doubles_nothing(house: House, when: str) -> None:
    """Goal: a group that stops between its steps is finished later. Method: settlement fails the call, before or after
    it held; then one order is repeated by its caller, and the sweeper finishes the rest.
    """
    tenant = await rich(house)
    away = DomainError(UNAVAILABLE, "settlement is away")
    if when.startswith("before"):
        house.settlement.failure = away
    else:
        house.settlement.fail_after_open = away
    outcomes = await all_of(*(tenant.create(f"r{number}") for number in range(6)))
    assert [reason(outcome) for outcome in outcomes] == ["UNAVAILABLE"] * 6
    assert await states(house) == {"PENDING": 6}
    assert await house.count("outbox") == 0
    house.settlement.failure = house.settlement.fail_after_open = None
    repeated = await tenant.create("r3")
    assert repeated.state == order_pb2.ORDER_STATE_OPEN
    async with house.database.read() as connection:
        waiting = [row["id"] for row in await connection.fetch("SELECT id FROM orders WHERE state = 'PENDING'")]
    for order_id in waiting:
        await house.make_due(f"orders/{order_id}")
    await house.jobs.sweep_pending()
    assert await states(house) == {"OPEN": 6}
    assert sorted(kind for kind, _ in await house.outbox()) == ["fallow.order.v1.OrderOpened"] * 6
    assert house.settlement.free[tenant.name] == 94 * HOLD


async def test_an_order_that_changed_meanwhile_is_looked_at_again(house: House) -> None:
    """Goal: opening a group heeds what happened to each order in between. Method: hold three orders PENDING; close one,
    withdraw one, leave one; then finish all three at once.
    """
    tenant = await rich(house)
    house.settlement.failure = DomainError(UNAVAILABLE, "settlement is away")
    await all_of(*(tenant.create(f"r{number}") for number in range(3)))
    async with house.database.read() as connection:
        ids = [row["id"] for row in await connection.fetch("SELECT id FROM orders ORDER BY id")]
        pending = await store.load_orders(connection, ids)
    house.settlement.failure = None
    stub = await tenant.orders()
    await stub.CloseOrder(order_service_pb2.CloseOrderRequest(name=f"orders/{ids[0]}", request_id="close"))
    await house.creation.withdraw(ids[1])
    closing, withdrawn, opened = await all_of(*(house.creation.finish(pending[order_id]) for order_id in ids))
    assert (closing.state, opened.state) == ("CLOSING", "OPEN")
    assert isinstance(withdrawn, DomainError)
    assert withdrawn.reason.reason == "ORDER_WITHDRAWN"
    assert [kind for kind, _ in await house.outbox()] == ["fallow.order.v1.OrderOpened"]
    assert await house.count("escrow_release") == 1
