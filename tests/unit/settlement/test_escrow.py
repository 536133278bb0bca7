"""Escrows: their states, their sums, when they are short."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow_chassis.errors import DomainError
from fallow_settlement.domain import escrow as escrows
from fallow_settlement.domain.escrow import Escrow, EscrowState

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def opened(amount: int = 1_000, *, budget: int = 0, auto_top_up: bool = True) -> Escrow:
    """An escrow with its first funds."""
    return escrows.opened("order", "tenant", "usdc", amount, budget=budget, auto_top_up=auto_top_up, now=NOW)


SHORT = [
    ("long runway", 900, 600_001, False),
    ("short runway, but most is left", 100, 1_000, False),
    ("short runway, a quarter is left", 750, 1_000, False),
    ("short runway, less than a quarter", 751, 599_999, True),
    ("little left, but it lasts", 999, 600_000, False),
    ("nothing runs", 999, None, False),
]


@pytest.mark.parametrize(("charged", "runway", "short"), [row[1:] for row in SHORT], ids=[row[0] for row in SHORT])
def test_an_escrow_is_short_by_time_and_by_share(charged: int, runway: int | None, *, short: bool) -> None:
    """Goal: warn in time and not at the start of a short order. Method: a row for each side of both bounds."""
    assert escrows.is_short(escrows.charged(opened(), charged), runway, 600_000) is short


TOP_UPS = [
    ("what was put in, again", 0, 5_000, 1_000),
    ("what is free", 0, 400, 400),
    ("nothing is free", 0, 0, 0),
    ("what the budget leaves", 1_300, 5_000, 300),
    ("the budget is reached", 1_000, 5_000, 0),
]


@pytest.mark.parametrize(("budget", "free", "amount"), [row[1:] for row in TOP_UPS], ids=[row[0] for row in TOP_UPS])
def test_a_top_up_stays_within_budget_and_balance(budget: int, free: int, amount: int) -> None:
    """Goal: a tenant's own bounds hold. Method: a row for each bound."""
    assert escrows.next_top_up(opened(budget=budget), free) == amount
    assert escrows.next_top_up(opened(budget=budget, auto_top_up=False), free) == 0


def test_a_used_up_escrow_takes_no_funds() -> None:
    """Goal: no money into what is ending. Method: use it up, then top up by hand and by itself."""
    ended = escrows.used_up(escrows.charged(opened(), 1_000))
    assert escrows.next_top_up(ended, 5_000) == 0
    with pytest.raises(DomainError) as refusal:
        escrows.topped_up(ended, 1)
    assert refusal.value.metadata == {"state": "SUSPENDED"}


def test_charging_beyond_what_is_held_is_a_programmers_error() -> None:
    """Goal: the last line of defence asserts. Method: charge one micro too much."""
    with pytest.raises(AssertionError, match="never beyond"):
        escrows.charged(opened(), 1_001)


@given(st.lists(st.integers(1, 500), max_size=8), st.lists(st.integers(1, 500), max_size=4))
def test_what_came_in_goes_out(charges: list[int], top_ups: list[int]) -> None:
    """Goal: deposited is charged plus refunded at the close. Method: random charges and top-ups, then close."""
    escrow = opened()
    for amount in top_ups:
        escrow = escrows.topped_up(escrow, amount)
    for amount in charges:
        escrow = escrows.charged(escrow, min(amount, escrow.held))
    closed = escrows.closed(escrows.ended(escrow, NOW), NOW)
    assert closed.state is EscrowState.CLOSED
    assert closed.charged + closed.refunded == 1_000 + sum(top_ups)
    assert closed.held == 0
    assert escrows.ended(closed, NOW) is closed
    assert escrows.released(closed, has_leases=False, now=NOW) is closed
