"""Holding another sum for an order that is open: filled up, given back, bounded, once, in order."""

import asyncio

import pytest

from fallow.settlement.v1 import charge_pb2, events_pb2, settlement_service_pb2
from fallow.type.v1 import money_pb2
from fallow_chassis.errors import DomainError
from fallow_settlement.domain.escrow import Escrow, EscrowState, Resize
from fallow_settlement.domain.rules import Rules
from fallow_settlement.queries import Reads
from tests.component.settlement.market import ASSET, OWNER, RULES, TENANT, Market, identifier

ORDER = identifier(1)
LEASES = (identifier(2), identifier(3))
PRICE = 3_600_000
"""One micro for each millisecond: sums are easy to read."""


def refused(reason: str) -> "pytest.RaisesExc[DomainError]":
    """A domain error of that reason."""
    return pytest.RaisesExc(DomainError, check=lambda error: error.reason.reason == reason)


async def resize(
    market: Market, amount: int, number: int = 1, *, budget: int = 0, auto_top_up: bool = False, order: str = ORDER
) -> Escrow:
    """ResizeEscrow as the order service asks for it."""
    request = settlement_service_pb2.ResizeEscrowRequest(
        name=f"escrows/{order}",
        amount=money_pb2.Amount(asset=ASSET, micros=amount),
        budget=money_pb2.Amount(asset=ASSET, micros=budget) if budget else None,
        auto_top_up=auto_top_up,
        number=number,
        request_id=f"update-{order}-{number}",
    )
    wanted = Resize(number, amount, budget, auto_top_up)
    return await market.commands.resize(
        order, ASSET, wanted, caller="services/order", request_id=request.request_id, request=request
    )


async def sums(market: Market) -> tuple[int, int, int]:
    """Free, held and charged of the tenant: the first two from the ledger and the escrows, the last from charges."""
    reads = Reads(market.database, RULES)
    money = await reads.money(TENANT, ASSET)
    charges = await reads.charges(TENANT, ORDER, None, 100)
    return money.free, money.held, sum(charge.amount for charge in charges)


async def told(market: Market) -> list[charge_pb2.Escrow]:
    """The escrow as each EscrowResized tells it."""
    async with market.database.read() as connection:
        rows = await connection.fetch(
            "SELECT payload FROM outbox WHERE type LIKE '%EscrowResized' AND key = $1 ORDER BY sequence", ORDER
        )
    return [events_pb2.EscrowResized.FromString(row["payload"]).escrow for row in rows]


async def running(market: Market, seconds: int = 4) -> None:
    """An order of 100,000 micros whose lease has run for some seconds, not charged yet."""
    await market.fund(TENANT, 1_000_000)
    await market.open(ORDER, 100_000)
    await market.state(market.lease_created(ORDER, LEASES[0], price=PRICE), market.lease_running(ORDER, LEASES[0]))
    await market.run_for(ORDER, LEASES[0], seconds)


async def test_more_is_held_once_however_often_it_is_asked(market: Market) -> None:
    """Goal: a resize is idempotent. Method: the same one four times at once, then other input under its id."""
    await running(market)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(resize(market, 200_000)) for _ in range(4)]
    assert {task.result().held for task in tasks} == {204_000}, "the new sum, and what is due"
    assert await sums(market) == (796_000, 204_000, 0)
    with refused("REQUEST_ID_REUSED"):
        await resize(market, 200_001)
    await market.charging.charge_due()
    assert await sums(market) == (796_000, 200_000, 4_000)
    (shown,) = await told(market)
    assert (shown.held.micros, shown.deposited.micros) == (204_000, 204_000)


async def test_an_old_change_never_undoes_a_newer_one(market: Market) -> None:
    """Goal: changes count in the order's order. Method: number 3, then a late number 2; it is answered and does nothing."""
    await running(market, 0)
    await resize(market, 300_000, 3)
    late = await resize(market, 1_000, 2, auto_top_up=True)
    assert (late.held, late.top_up, late.resizes) == (300_000, 0, 3)
    assert await sums(market) == (700_000, 300_000, 0)


async def test_less_is_held_and_what_is_due_is_charged_all_the_same(market: Market) -> None:
    """Goal: giving back never touches what is owed. Method: shrink to almost nothing with 4 s due, charge, close."""
    await running(market)
    after = await resize(market, 1)
    assert (after.held, after.refunded) == (4_001, 95_999)
    await market.charging.charge_due()
    assert await sums(market) == (995_999, 1, 4_000)
    await market.state(market.lease_ended(ORDER, LEASES[0], market.clock.now()), market.order_ended(ORDER))
    market.clock.advance(seconds=60)
    await market.charging.close_ended()
    assert await sums(market) == (996_000, 0, 4_000)


async def test_too_little_money_changes_nothing(market: Market) -> None:
    """Goal: a refusal says what is short and leaves all as it was, and the same change works after a deposit."""
    await running(market, 0)
    with refused("INSUFFICIENT_FUNDS") as caught:
        await resize(market, 1_200_000, auto_top_up=True)
    assert caught.value.metadata["short_micros"] == "200000"
    assert await sums(market) == (900_000, 100_000, 0)
    assert await told(market) == []
    await market.fund(TENANT, 200_000, "second")
    assert (await resize(market, 1_200_000, auto_top_up=True)).top_up == 1_200_000


async def test_what_is_not_there_or_ends_is_refused(market: Market) -> None:
    """Goal: no money into what is not open. Method: an unknown order, a tombstone, a closing escrow, a spent budget."""
    with refused("ESCROW_NOT_FOUND"):
        await resize(market, 1, order=identifier(9))
    await market.commands.release(identifier(8))
    with refused("ESCROW_NOT_FOUND"):
        await resize(market, 1, order=identifier(8))
    await running(market)
    with refused("BUDGET_TOO_LOW") as low:
        await resize(market, 1_000, budget=3_999)
    assert low.value.metadata == {"asset": ASSET, "spent_micros": "4000"}
    with refused("AMOUNT_INVALID"):
        await resize(market, 0)
    await market.state(market.order_ended(ORDER))
    with refused("ESCROW_CLOSED"):
        await resize(market, 200_000)
    assert (await sums(market))[:2] == (900_000, 100_000)


async def test_generations_at_two_prices_are_charged_exactly(market: Market) -> None:
    """Goal: a re-priced group is charged to the old one's end at the old price, then at the new. Method: two generations
    of one group with a resize between them, then the close; the ledger adds up.
    """
    await running(market, 4)
    await resize(market, 150_000)
    await market.state(market.lease_ended(ORDER, LEASES[0], market.clock.now()))
    await market.state(market.received(market.proof(ORDER, LEASES[0], 5, 4_700, final=True)))
    created = market.lease_created(ORDER, LEASES[1], price=PRICE + 1_800_000, generation=2)
    await market.state(created, market.lease_running(ORDER, LEASES[1]))
    for number in range(1, 4):
        market.clock.advance(seconds=1)
        proof = market.proof(ORDER, LEASES[1], number, number * 1_000, final=number == 3, generation=2)
        await market.state(market.received(proof))
    await market.charging.charge_due()
    await market.state(market.lease_ended(ORDER, LEASES[1], market.clock.now()), market.order_ended(ORDER))
    await market.charging.close_ended()
    reads = Reads(market.database, RULES)
    charges = await reads.charges(TENANT, ORDER, None, 100)
    spent = {
        charge.generation: sum(item.amount for item in charges if item.generation == charge.generation)
        for charge in charges
    }
    assert spent == {1: 4_000, 2: 4_500}, "nothing after the old one's end, and each at its own price"
    assert await sums(market) == (991_500, 0, 8_500)
    assert (await reads.money(OWNER, ASSET)).earned == 8_500 - 2 * 8_500 // 10


async def test_auto_top_up_is_turned_on_and_off_within_the_budget(market: Market) -> None:
    """Goal: a running order may be told to top itself up, and to stop, with the budget as the bound. Method: an escrow
    that is short of runway; off: no top-up; on: as much as the hold, at most the budget; off again: none.
    """
    eager = Market(
        market.database, market.clock, Rules(RULES.take_basis_points, 1_000, 60_000, low_runway_ms=10**9, grace_ms=0)
    )
    eager.key = market.key
    await eager.fund(TENANT, 1_000_000)
    await eager.open(ORDER, 10_000)
    await eager.state(eager.lease_created(ORDER, LEASES[0], price=PRICE), eager.lease_running(ORDER, LEASES[0]))
    await eager.run_for(ORDER, LEASES[0], 8)
    await eager.charging.charge_due()
    assert await sums(eager) == (990_000, 2_000, 8_000)

    await resize(eager, 10_000, 1, budget=15_000, auto_top_up=True)
    await eager.charging.charge_due()
    assert await sums(eager) == (990_000, 2_000, 8_000), "nothing was proven meanwhile"
    await eager.run_for(ORDER, LEASES[0], 1, first=9, start_ms=8_000)
    await eager.charging.charge_due()
    assert await sums(eager) == (985_000, 6_000, 9_000), "the budget of 15,000 is put in, and no more"

    await resize(eager, 10_000, 2, auto_top_up=True)
    await eager.run_for(ORDER, LEASES[0], 4, first=10, start_ms=9_000)
    await eager.charging.charge_due()
    assert await sums(eager) == (975_000, 12_000, 13_000), "without a budget, as much as the hold"

    await resize(eager, 10_000, 3)
    await eager.run_for(ORDER, LEASES[0], 11, first=14, start_ms=13_000)
    await eager.charging.charge_due()
    assert await sums(eager) == (975_000, 1_000, 24_000), "turned off: no further top-up"


async def test_the_state_follows_what_is_held(market: Market) -> None:
    """Goal: more funds end LOW. Method: a low escrow is resized up."""
    eager = Market(
        market.database, market.clock, Rules(RULES.take_basis_points, 1_000, 60_000, low_runway_ms=10**9, grace_ms=0)
    )
    eager.key = market.key
    await running(eager, 0)
    await eager.run_for(ORDER, LEASES[0], 80)
    await eager.charging.charge_due()
    low = await resize(eager, 100_000)
    assert low.state is EscrowState.LOW
    assert (await resize(eager, 150_000, 2)).state is EscrowState.OPEN
