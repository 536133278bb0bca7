"""Escrows that are opened together."""

import asyncio
from typing import Any

from fallow_chassis.errors import DomainError
from fallow_settlement.domain.escrow import Escrow, EscrowState
from fallow_settlement.opening import Opening
from fallow_settlement.queries import Reads
from tests.component.settlement.market import ASSET, RULES, TENANT, Market, identifier

OTHER = identifier(105)


def opening(number: int, amount: int, account: str = TENANT, **values: Any) -> Opening:
    """What opens the escrow of an order."""
    return Opening(identifier(number), account, ASSET, amount, values.pop("budget", 0), auto_top_up=False, **values)


def told(outcome: Escrow | Exception) -> str:
    """An outcome in a word."""
    if isinstance(outcome, DomainError):
        return outcome.reason.reason
    assert isinstance(outcome, Escrow), outcome
    return f"{outcome.state.value} {outcome.held}"


async def free(market: Market, account: str = TENANT) -> int:
    """An account's free balance."""
    return (await Reads(market.database, RULES).money(account, ASSET)).free


async def count(market: Market, table: str) -> int:
    """Rows of a table."""
    async with market.database.read() as connection:
        return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))


async def test_each_opening_of_a_group_has_its_own_outcome(market: Market) -> None:
    """Goal: a refusal leaves the others as they are. Method: every kind of outcome in one group, and a repeat of it."""
    await market.fund(TENANT, 1_000)
    await market.fund(OTHER, 50)
    await market.commands.release(identifier(4))
    await market.open_escrow(opening(5, 10))
    group = [
        opening(1, 100),
        Opening(identifier(2), TENANT, "nope", 1, 0, auto_top_up=False),
        opening(3, 0),
        opening(4, 1),
        opening(5, 11),
        opening(5, 10),
        opening(6, 51, OTHER),
        opening(7, 200),
    ]
    expected = [
        "OPEN 100",
        "ASSET_UNKNOWN",
        "AMOUNT_INVALID",
        "ESCROW_RELEASED",
        "REQUEST_ID_REUSED",
        "OPEN 10",
        "INSUFFICIENT_FUNDS",
        "OPEN 200",
    ]
    for _ in range(2):
        assert [told(outcome) for outcome in await market.opening.open_escrows(group)] == expected
    assert (await free(market), await free(market, OTHER)) == (690, 50)
    assert await count(market, "transfer WHERE reason = 'HOLD'") == 3


async def test_too_little_money_goes_to_who_came_first(market: Market) -> None:
    """Goal: the order of a group decides, and each refusal has the numbers of its moment. Method: five compete."""
    await market.fund(TENANT, 100)
    outcomes = await market.opening.open_escrows(
        [opening(9, 60), opening(2, 50), opening(7, 30), opening(4, 20), opening(1, 10)]
    )
    assert [told(outcome) for outcome in outcomes] == [
        "OPEN 60",
        "INSUFFICIENT_FUNDS",
        "OPEN 30",
        "INSUFFICIENT_FUNDS",
        "OPEN 10",
    ]
    numbers = [
        (outcome.metadata["free_micros"], outcome.metadata["short_micros"])
        for outcome in outcomes
        if isinstance(outcome, DomainError)
    ]
    assert numbers == [("40", "10"), ("10", "10")]
    assert await free(market) == 0


async def test_a_refused_opening_leaves_nothing(market: Market) -> None:
    """Goal: whoever has no money makes no rows. Method: an account with too little, and one that nobody knows."""
    await market.fund(TENANT, 100)
    before = await count(market, "ledger_account")
    outcomes = await market.opening.open_escrows([opening(1, 101), opening(2, 1, OTHER)])
    assert [told(outcome) for outcome in outcomes] == ["INSUFFICIENT_FUNDS", "INSUFFICIENT_FUNDS"]
    assert await count(market, "ledger_account") == before


async def test_one_order_twice_in_a_group_is_held_once(market: Market) -> None:
    """Goal: a repeat inside a group finds the first of it. Method: the same, other input, a refused one with a smaller."""
    await market.fund(TENANT, 100)
    outcomes = await market.opening.open_escrows(
        [opening(1, 60), opening(1, 60), opening(1, 61), opening(2, 41), opening(2, 40)]
    )
    assert [told(outcome) for outcome in outcomes] == [
        "OPEN 60",
        "OPEN 60",
        "REQUEST_ID_REUSED",
        "INSUFFICIENT_FUNDS",
        "OPEN 40",
    ]
    assert await count(market, "escrow") == 2
    assert await free(market) == 0


async def test_groups_that_share_orders_and_releases_never_lock_each_other_out(market: Market) -> None:
    """Goal: any mixture ends, and no money is lost or doubled. Method: groups of the same orders in several orders at
    once, with releases between them; then the sums.
    """
    await market.fund(TENANT, 10_000)
    numbers = list(range(1, 13))
    groups = [numbers, numbers[::-1], numbers[6:] + numbers[:6], numbers[::2]]
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        for group in groups:
            tasks.create_task(market.opening.open_escrows([opening(number, 10) for number in group]))
        for number in (3, 6, 9):
            tasks.create_task(market.commands.release(identifier(number)))
    async with market.database.read() as connection:
        rows = await connection.fetch("SELECT state, count(*) AS escrows FROM escrow GROUP BY state")
    by_state = {row["state"]: row["escrows"] for row in rows}
    assert by_state.pop(EscrowState.OPEN) == 9
    assert sum(by_state.values()) == 3
    assert await free(market) == 10_000 - 9 * 10
