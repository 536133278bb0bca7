"""Escrows: their states, their sums, when they are short."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow_chassis.errors import DomainError
from fallow_settlement.domain import escrow as escrows
from fallow_settlement.domain.escrow import Escrow, EscrowState, Resize

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


def test_a_used_up_escrow_takes_funds_until_its_end_is_decided() -> None:
    """Goal: no money into what is ending. Method: use it up; before and after the grace, by hand and by itself."""
    paused = escrows.used_up(escrows.charged(opened(), 1_000), NOW)
    assert escrows.end_decided(paused, NOW - timedelta(milliseconds=1)) is paused
    assert escrows.next_top_up(paused, 5_000) == 1_000
    resumed = escrows.topped_up(paused, 300, 300)
    assert (resumed.state, resumed.pauses, resumed.grace_end_time) == (EscrowState.OPEN, 2, None)
    ended = escrows.end_decided(paused, NOW)
    assert escrows.end_decided(ended, NOW) is ended
    assert escrows.next_top_up(ended, 5_000) == 0
    with pytest.raises(DomainError) as refusal:
        escrows.topped_up(ended, 300, 300)
    assert refusal.value.metadata == {"state": "SUSPENDED"}


def test_to_resume_takes_what_is_owed_and_a_minute() -> None:
    """Goal: nothing is resumed for a moment. Method: prices on both sides of a whole micro, and one micro too little."""
    assert escrows.needed_to_resume(0, 0) == 1
    assert escrows.needed_to_resume(5, 60) == 6
    assert escrows.needed_to_resume(5, 61) == 7
    paused = escrows.used_up(escrows.charged(opened(), 1_000), NOW)
    with pytest.raises(DomainError) as refusal:
        escrows.topped_up(paused, 299, 300)
    assert refusal.value.metadata["least_micros"] == "300"


def test_what_bidding_was_told_only_grows() -> None:
    """Goal: a late answer takes nothing back. Method: answers in the wrong order."""
    turned = escrows.topped_up(escrows.used_up(opened(), NOW), 1, 0)
    told = escrows.pause_told(turned, 2)
    assert escrows.pause_told(told, 1).pauses_told == 2
    with pytest.raises(AssertionError):
        escrows.pause_told(turned, 3)


def test_charging_beyond_what_is_held_is_a_programmers_error() -> None:
    """Goal: the last line of defence asserts. Method: charge one micro too much."""
    with pytest.raises(AssertionError, match="never beyond"):
        escrows.charged(opened(), 1_001)


@given(st.lists(st.integers(1, 500), max_size=8), st.lists(st.integers(1, 500), max_size=4))
def test_what_came_in_goes_out(charges: list[int], top_ups: list[int]) -> None:
    """Goal: deposited is charged plus refunded at the close. Method: random charges and top-ups, then close."""
    escrow = opened()
    for amount in top_ups:
        escrow = escrows.topped_up(escrow, amount, 0)
    for amount in charges:
        escrow = escrows.charged(escrow, min(amount, escrow.held))
    closed = escrows.closed(escrows.ended(escrow, NOW), NOW)
    assert closed.state is EscrowState.CLOSED
    assert closed.charged + closed.refunded == 1_000 + sum(top_ups)
    assert closed.held == 0
    assert escrows.ended(closed, NOW) is closed
    assert escrows.released(closed, has_leases=False, now=NOW) is closed


RESIZES = [
    ("rose: filled up to the new sum", 1_000, 0, 0, 2_000, 0, 2_000, 0),
    ("rose: what is due comes on top", 1_000, 300, 100, 2_000, 0, 2_400, 0),
    ("rose within what is held", 1_000, 0, 0, 1_001, 0, 1_001, 0),
    ("rose, and the budget bounds it", 1_000, 400, 100, 2_000, 1_500, 1_500, 0),
    ("fell: the difference returns", 1_000, 0, 0, 400, 0, 1_000, 600),
    ("fell: only what is above the new sum returns", 1_000, 500, 0, 400, 0, 1_000, 100),
    ("fell: what is due stays", 1_000, 0, 700, 400, 0, 1_000, 0),
    ("fell: less is held than wanted, nothing moves", 1_000, 800, 0, 400, 0, 1_000, 0),
    ("stays: nothing moves, though less is held", 1_000, 700, 0, 1_000, 0, 1_000, 0),
    ("stays, and a smaller budget gives back", 1_000, 200, 100, 1_000, 600, 1_000, 400),
    ("a budget that is spent keeps what is due", 1_000, 200, 100, 1_000, 300, 1_000, 700),
]


@pytest.mark.parametrize(
    ("held", "charged", "due", "amount", "budget", "deposited", "refunded"),
    [row[1:] for row in RESIZES],
    ids=[row[0] for row in RESIZES],
)
def test_a_resize_moves_only_the_difference(
    held: int, charged: int, due: int, amount: int, budget: int, deposited: int, refunded: int
) -> None:
    """Goal: each way in which the wanted sum changes has its movement. Method: a row each."""
    before = escrows.charged(opened(held), charged)
    after = escrows.resized(before, Resize(1, amount, budget, auto_top_up=True), due)
    assert (after.deposited, after.refunded, after.charged) == (deposited, refunded, charged)
    assert (after.hold, after.top_up, after.budget, after.resizes) == (amount, amount, budget, 1)
    assert escrows.resized(before, Resize(1, amount, budget, auto_top_up=False), due).top_up == 0


def test_what_was_put_in_by_hand_stays_when_the_sum_falls() -> None:
    """Goal: a tenant's own top-up is not taken out of the order. Method: top up by hand, then ask for less."""
    after = escrows.resized(escrows.topped_up(opened(1_000), 5_000, 0), Resize(1, 400, 0, auto_top_up=False), 0)
    assert after.held == 5_400


def test_a_resize_is_refused_where_it_makes_no_sense() -> None:
    """Goal: nothing changes on an escrow that ends or has cost more. Method: a budget below what is due; a used-up one."""
    spent = escrows.charged(opened(), 500)
    with pytest.raises(DomainError) as low:
        escrows.resized(spent, Resize(1, 100, 599, auto_top_up=False), 100)
    assert (low.value.reason.reason, low.value.metadata["spent_micros"]) == ("BUDGET_TOO_LOW", "600")
    with pytest.raises(DomainError) as late:
        escrows.resized(escrows.used_up(spent, NOW), Resize(1, 100, 0, auto_top_up=False), 0)
    assert late.value.reason.reason == "ESCROW_CLOSED"


def test_more_funds_end_a_low_state_and_less_do_not() -> None:
    """Goal: LOW says that the runway is short. Method: resize a low escrow up and down."""
    low = escrows.low(opened())
    assert escrows.resized(low, Resize(1, 2_000, 0, auto_top_up=False), 0).state is EscrowState.OPEN
    assert escrows.resized(low, Resize(1, 500, 0, auto_top_up=False), 0).state is EscrowState.LOW


@given(
    st.integers(1, 3_000),
    st.integers(0, 3_000),
    st.integers(0, 3_000),
    st.integers(1, 5_000),
    st.integers(0, 5_000),
)
def test_a_resize_loses_and_invents_nothing(held: int, charged: int, due: int, amount: int, budget: int) -> None:
    """Goal: sums hold for any resize. Method: random escrows; what is due stays, the budget bounds what may be charged."""
    before = escrows.charged(opened(held), min(charged, held))
    try:
        after = escrows.resized(before, Resize(1, amount, budget, auto_top_up=True), due)
    except DomainError:
        assert budget < before.charged + due
        return
    assert after.deposited == after.charged + after.refunded + after.held
    assert after.held >= min(due, before.held)
    assert not budget or after.charged + after.held <= budget
    assert escrows.next_top_up(after, 10**6) <= (10**6 if not budget else budget - after.charged - after.held)
