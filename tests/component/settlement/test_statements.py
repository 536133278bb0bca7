"""Statements: they add up, to the ledger and from month to month."""

from datetime import UTC, datetime

import pytest

from fallow_chassis.errors import INVALID_FIELD, DomainError
from fallow_settlement.domain import moves
from fallow_settlement.ledger_store import must_post
from fallow_settlement.queries import Reads
from fallow_settlement.statements import Parts, Statement, Statements
from tests.component.settlement.market import ASSET, OWNER, RULES, TENANT, Market
from tests.component.settlement.test_chain import charge_again, charged

MONTHS = ("2025-12", "2026-01", "2026-02", "2026-03")


def added(statement: Statement, part: str) -> int:
    """What the movements come to in one part."""
    total: int = sum(getattr(movement.change, part) for movement in statement.movements)
    return total


def of_asset(sums: tuple[Parts, ...]) -> Parts:
    """The sums in the one asset, or none."""
    return sums[0] if sums else Parts(ASSET)


async def busy(market: Market) -> None:
    """Two months with deposits, a hold, charges and a withdrawal."""
    await charged(market, seconds=3)
    market.clock.advance(seconds=(datetime(2026, 2, 1, tzinfo=UTC) - market.clock.now()).total_seconds())
    await market.fund(TENANT, 7, deposit="second")
    await charge_again(market, 4)
    earned = (await Reads(market.database, RULES).money(OWNER, ASSET)).earned
    async with market.database.transaction() as unit:
        move = moves.withdrawal("w", OWNER, ASSET, from_earned=earned - 1, amount=earned - 1)
        await must_post(unit.connection, move.accounts, move.transfers, market.clock.now())
        move = moves.claimed(OWNER, ASSET, total=1, amount=1)
        await must_post(unit.connection, move.accounts, move.transfers, market.clock.now())


@pytest.mark.parametrize("account", [TENANT, OWNER])
async def test_statements_add_up(market: Market, account: str) -> None:
    """Goal: opening plus movements is closing, months join, and the last is the ledger. Method: four months, two of them busy."""
    await busy(market)
    months = [await Statements(market.database).of(account, month, None, 100) for month in MONTHS]
    for part in ("free", "held", "earned", "owed"):
        closing = 0
        for month in months:
            opening = getattr(of_asset(month.opening), part)
            assert opening == closing
            closing = getattr(of_asset(month.closing), part)
            assert opening + added(month, part) == closing
    assert months[0].movements == months[3].movements == []
    assert months[1].movements
    assert months[2].movements
    money = await Reads(market.database, RULES).money(account, ASSET)
    last = of_asset(months[3].closing)
    assert (last.free, last.held, last.earned) == (money.free, money.held, money.earned)


async def test_movements_come_by_pages_in_order(market: Market) -> None:
    """Goal: a page goes on where the last one stopped. Method: one movement at a time against all at once."""
    await busy(market)
    statements = Statements(market.database)
    whole = await statements.of(TENANT, "2026-01", None, 100)
    read = []
    after = None
    while page := (await statements.of(TENANT, "2026-01", after, 1)).movements:
        read += page
        after = (page[0].time, page[0].transfer_id)
    assert read == whole.movements
    assert [movement.time for movement in read] == sorted(movement.time for movement in read)


async def test_another_account_has_nothing(market: Market) -> None:
    """Goal: a statement is its account's. Method: an account that never had money."""
    await busy(market)
    empty = await Statements(market.database).of("01k9v3d6h4m8p2q5r7s9t1aaaa", "2026-01", None, 100)
    assert empty == Statement()


@pytest.mark.parametrize("month", ["2026-00", "2026-13", "0000-01", "9999-12"])
async def test_what_is_no_month_is_refused(market: Market, month: str) -> None:
    """Goal: a clear error. Method: months that are none, and one without an end."""
    with pytest.raises(DomainError) as refusal:
        await Statements(market.database).of(TENANT, month, None, 1)
    assert refusal.value.has_reason(INVALID_FIELD)
