"""How much an order holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow_chassis.errors import INVALID_FIELD, DomainError
from fallow_order.domain.hold import MAX_HOLD_MICROS, MILLISECONDS_PER_HOUR, hold_micros


@pytest.mark.parametrize(
    ("limits", "term_ms", "budget", "hold"),
    [
        ([3_600_000], None, None, 3_600_000),
        ([3_600_000, 400_000], None, None, 4_000_000),
        ([3_600_000], 1_000, None, 1_000),
        ([1], 1_000, None, 1),
        ([3_600_001], 1_000, None, 1_001),
        ([3_600_000], 7_200_000, None, 3_600_000),
        ([3_600_000], None, 5, 5),
        ([3_600_000], 1_000, 5_000, 1_000),
    ],
)
def test_the_hold_is_the_limit_for_the_term_or_an_hour(
    limits: list[int], term_ms: int | None, budget: int | None, hold: int
) -> None:
    """Goal: limits × min(term, 1 h), rounded up, at most the budget. Method: a table of edges."""
    assert hold_micros(limits, term_ms, budget) == hold


@pytest.mark.parametrize("limits", [[0], [0, 0], [MAX_HOLD_MICROS, 1]])
def test_no_hold_and_too_large_a_hold_are_refused(limits: list[int]) -> None:
    """Goal: an order is never free nor beyond the ledger. Method: the sums just outside."""
    with pytest.raises(DomainError) as caught:
        hold_micros(limits, None, None)
    assert caught.value.has_reason(INVALID_FIELD)


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=8), st.integers(1, 10**8))
def test_the_hold_covers_what_the_window_may_cost(limits: list[int], term_ms: int) -> None:
    """Goal: rounding never starts an order short. Method: compare with the exact product, in integers."""
    if sum(limits) == 0:
        limits[0] = 1
    hold = hold_micros(limits, term_ms, None)
    exact = sum(limits) * min(term_ms, MILLISECONDS_PER_HOUR)
    assert exact <= hold * MILLISECONDS_PER_HOUR < exact + MILLISECONDS_PER_HOUR
