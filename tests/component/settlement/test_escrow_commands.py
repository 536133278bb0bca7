"""Opening, topping up and releasing escrows."""

import asyncio
from dataclasses import replace

import pytest

from fallow.settlement.v1 import settlement_service_pb2
from fallow.type.v1 import money_pb2
from fallow_chassis.errors import DomainError
from fallow_settlement import escrow_store
from fallow_settlement.domain.escrow import Escrow, EscrowState
from fallow_settlement.opening import Opening
from fallow_settlement.queries import Reads
from tests.component.settlement.market import ASSET, RULES, TENANT, Market, identifier

ORDER = identifier(1)
OPENING = Opening(ORDER, TENANT, ASSET, 600, 0, auto_top_up=False)


def refused(reason: str) -> "pytest.RaisesExc[DomainError]":
    """A domain error of that reason."""
    return pytest.RaisesExc(DomainError, check=lambda error: error.reason.reason == reason)


async def free(market: Market) -> int:
    """The tenant's free balance."""
    return (await Reads(market.database, RULES).money(TENANT, ASSET)).free


def top_up(micros: int, request_id: str = "more") -> settlement_service_pb2.TopUpEscrowRequest:
    """A request for more funds."""
    return settlement_service_pb2.TopUpEscrowRequest(
        name=f"escrows/{ORDER}", amount=money_pb2.Amount(asset=ASSET, micros=micros), request_id=request_id
    )


async def fill(market: Market, micros: int, request_id: str = "more") -> Escrow:
    """Top up as the tenant."""
    return await market.commands.top_up(
        ORDER,
        ASSET,
        micros,
        caller=f"accounts/{TENANT}",
        request_id=request_id,
        request=top_up(micros, request_id),
    )


async def test_opening_twice_holds_once(market: Market) -> None:
    """Goal: OpenEscrow is idempotent by order. Method: open four times at once, then with other input."""
    await market.fund(TENANT, 1_000)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(market.open_escrow(OPENING)) for _ in range(4)]
    assert len({task.result() for task in tasks}) == 1
    assert await free(market) == 400
    with refused("REQUEST_ID_REUSED"):
        await market.open_escrow(Opening(ORDER, TENANT, ASSET, 601, 0, auto_top_up=False))
    assert await free(market) == 400


async def test_too_little_money_says_how_much_is_short(market: Market) -> None:
    """Goal: the error tells what to deposit, and nothing is stored. Method: open with too little, fund, open again."""
    await market.fund(TENANT, 250)
    with refused("INSUFFICIENT_FUNDS") as refusal:
        await market.open_escrow(OPENING)
    assert refusal.value.metadata == {
        "asset": ASSET,
        "needed_micros": "600",
        "free_micros": "250",
        "short_micros": "350",
    }
    async with market.database.read() as connection:
        assert await escrow_store.load_escrow(connection, ORDER) is None
        assert await connection.fetchval("SELECT count(*) FROM outbox") == 0
    await market.fund(TENANT, 350, "second")
    await market.open_escrow(OPENING)
    assert await free(market) == 0


PRECEDENCE = [
    ("ASSET_UNKNOWN", Opening(ORDER, TENANT, "nope", 0, 0, auto_top_up=False)),
    ("AMOUNT_INVALID", Opening(ORDER, TENANT, ASSET, 0, 0, auto_top_up=False)),
    ("AMOUNT_INVALID", Opening(ORDER, TENANT, ASSET, 10**15 + 1, 0, auto_top_up=False)),
    ("ESCROW_RELEASED", Opening(ORDER, TENANT, ASSET, 1, 0, auto_top_up=False)),
]


@pytest.mark.parametrize(("reason", "opening"), PRECEDENCE)
async def test_checks_run_in_order(market: Market, reason: str, opening: Opening) -> None:
    """Goal: the first check that fails answers. Method: openings that break several, on a tombstone without funds."""
    await market.commands.release(ORDER)
    with refused(reason):
        await market.open_escrow(opening)
    async with market.database.read() as connection:
        assert await connection.fetchval("SELECT count(*) FROM transfer") == 0


async def test_a_release_before_the_opening_leaves_a_tombstone(market: Market) -> None:
    """Goal: a late open after a release is refused for ever. Method: release an unknown order twice, then open."""
    await market.fund(TENANT, 1_000)
    for _ in range(2):
        assert (await market.commands.release(ORDER)).state is EscrowState.TOMBSTONE
    with refused("ESCROW_RELEASED"):
        await market.open_escrow(OPENING)
    assert await free(market) == 1_000


async def test_tombstones_are_forgotten(market: Market) -> None:
    """Goal: refused orders leave nothing for ever. Method: a tombstone and an escrow, looked at as time goes by."""
    await market.fund(TENANT, 1_000)
    await market.open_escrow(replace(OPENING, order_id=identifier(2)))
    await market.commands.release(identifier(2))
    await market.commands.release(ORDER)
    market.clock.advance(seconds=23 * 3_600)
    await market.charging.forget()
    with refused("ESCROW_RELEASED"):
        await market.open_escrow(OPENING)
    market.clock.advance(seconds=2 * 3_600)
    await market.charging.forget()
    async with market.database.read() as connection:
        rows = await connection.fetch("SELECT order_id, state FROM escrow")
    assert [tuple(row) for row in rows] == [(identifier(2), "CLOSED")]


async def test_a_closing_escrow_is_not_released(market: Market) -> None:
    """Goal: an order that ended in the ordinary way is closed by its charges alone. Method: end it unleased, release."""
    await market.fund(TENANT, 1_000)
    await market.open_escrow(OPENING)
    await market.state(market.order_ended(ORDER))
    with refused("ESCROW_IN_USE"):
        await market.commands.release(ORDER)
    async with market.database.read() as connection:
        escrow = await escrow_store.load_escrow(connection, ORDER)
    assert escrow is not None
    assert escrow.state is EscrowState.CLOSING
    assert await free(market) == 400


async def test_a_release_returns_everything_once(market: Market) -> None:
    """Goal: an order that never opened gets its money back, and cannot open again. Method: open, release twice, open."""
    await market.fund(TENANT, 1_000)
    await market.open_escrow(OPENING)
    for _ in range(2):
        assert (await market.commands.release(ORDER)).state is EscrowState.CLOSED
    assert await free(market) == 1_000
    with refused("ESCROW_RELEASED"):
        await market.open_escrow(OPENING)


async def test_an_escrow_with_leases_is_not_released(market: Market) -> None:
    """Goal: funds that leases count on stay. Method: make a lease, release."""
    await market.fund(TENANT, 1_000)
    await market.open_escrow(OPENING)
    await market.state(market.lease_created(ORDER, identifier(2), price=1))
    with refused("ESCROW_IN_USE"):
        await market.commands.release(ORDER)
    assert await free(market) == 400


async def test_a_top_up_counts_once_by_its_request(market: Market) -> None:
    """Goal: TopUpEscrow is idempotent by request_id. Method: repeat it, reuse it with other input, use a new one."""
    await market.fund(TENANT, 1_000)
    await market.open_escrow(OPENING)
    for _ in range(2):
        assert (await fill(market, 100)).deposited == 700
    with refused("REQUEST_ID_REUSED"):
        await fill(market, 101)
    with refused("INSUFFICIENT_FUNDS"):
        await fill(market, 301, "too much")
    assert (await fill(market, 300, "rest")).deposited == 1_000


async def test_a_top_up_of_another_account_finds_nothing(market: Market) -> None:
    """Goal: nobody learns of another's escrow. Method: top up as a stranger, and one that is not there."""
    await market.fund(TENANT, 1_000)
    await market.open_escrow(OPENING)
    with refused("ESCROW_NOT_FOUND"):
        await market.commands.top_up(
            ORDER, ASSET, 1, caller=f"accounts/{identifier(9)}", request_id="more", request=top_up(1)
        )
    with refused("ESCROW_NOT_FOUND"):
        await market.commands.top_up(
            identifier(8), ASSET, 1, caller="services/order", request_id="more", request=top_up(1)
        )
    assert await free(market) == 400


async def test_a_closing_escrow_takes_no_more_funds(market: Market) -> None:
    """Goal: money is not put where nothing runs. Method: end the order, top up."""
    await market.fund(TENANT, 1_000)
    await market.open_escrow(OPENING)
    await market.state(market.order_ended(ORDER))
    with refused("ESCROW_CLOSED"):
        await fill(market, 1)
    assert await free(market) == 400
