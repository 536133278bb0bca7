"""Incentive programmes: the gap, the budget, sums to date."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from fallow_settlement.domain.programme import Programme, Sums, due_micros, shares

START = datetime(2026, 11, 2, 10, tzinfo=UTC)
PROGRAMME = Programme(
    id="p",
    model="h100",
    asset="usdc",
    target_milli=950,
    reference_micros_per_hour=2_000_000,
    budget=100_000_000,
    auditors=("0xa",),
    creator="c",
    create_time=START,
    end_time=START + timedelta(days=10),
    next_day=START.date(),
)
HOUR_MS = 3_600_000


def sums(provider: str = "a", *, online: int = 0, related: int = 0, earned: int = 0, paid: int = 0) -> Sums:
    """What is counted of a provider; times in hours."""
    return Sums(provider, f"owner-{provider}", online * HOUR_MS, related * HOUR_MS, earned, paid)


def test_the_gap_is_what_the_reference_rate_gives_beyond_what_was_earned() -> None:
    """Goal: the rule as documented. Method: by hand: idle, half leased, leased for more, leased to oneself."""
    assert due_micros(PROGRAMME, sums(online=10)) == 19_000_000
    assert due_micros(PROGRAMME, sums(online=10, earned=7_000_000)) == 12_000_000
    assert due_micros(PROGRAMME, sums(online=10, earned=20_000_000)) == 0
    assert due_micros(PROGRAMME, sums(online=10, related=10)) == 0
    assert due_micros(PROGRAMME, sums(online=10, related=11)) == 0


def test_a_small_budget_is_shared_pro_rata_and_nothing_is_paid_twice() -> None:
    """Goal: what is short is told. Method: two providers are due 190 and 95 of 100; then again with what each got."""
    paid = shares(PROGRAMME, [sums("a", online=100), sums("b", online=50)])
    assert [share.paid for share in paid] == [66_666_667, 33_333_333]
    assert [share.short for share in paid] == [190_000_000 - 66_666_667, 95_000_000 - 33_333_333]
    used_up = replace(PROGRAMME, paid=100_000_000)
    again = shares(used_up, [sums("a", online=100, paid=66_666_667), sums("b", online=50, paid=33_333_333)])
    assert [share.paid for share in again] == [0, 0]


def test_a_charge_that_comes_late_makes_the_next_payment_smaller() -> None:
    """Goal: what was paid is never taken back, and counts. Method: the second day's sums have earned what the first paid for."""
    (first,) = shares(PROGRAMME, [sums(online=10)])
    assert first.paid == 19_000_000
    after = replace(PROGRAMME, paid=first.paid)
    (second,) = shares(after, [sums(online=11, earned=10_000_000, paid=first.paid)])
    assert (second.due, second.paid) == (10_900_000, 0)


@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(0, 48 * HOUR_MS), st.integers(0, 10 * HOUR_MS), st.integers(0, 50_000_000)),
            min_size=3,
            max_size=3,
        ),
        min_size=1,
        max_size=6,
    ),
    st.integers(1, 300_000_000),
)
def test_over_any_days_no_more_is_paid_than_due_nor_than_the_budget(
    days: list[list[tuple[int, int, int]]], budget: int
) -> None:
    """Goal: never beyond the budget, no time paid twice. Method: days of random growth, against one payment at the end.

    Where the budget reaches, each provider has got the most that was ever due to it, however the days were cut.
    """
    programme = replace(PROGRAMME, budget=budget)
    state = [Sums(name, name, 0, 0, 0, 0) for name in "abc"]
    most = [0, 0, 0]
    for day in days:
        grown = [
            replace(
                one,
                online_ms=one.online_ms + online,
                related_ms=one.related_ms + related,
                earned=one.earned + earned,
            )
            for one, (online, related, earned) in zip(state, day, strict=True)
        ]
        paid = shares(programme, grown)
        most = [max(before, share.due) for before, share in zip(most, paid, strict=True)]
        state = [replace(share.sums, paid=share.sums.paid + share.paid) for share in paid]
        programme = replace(programme, paid=programme.paid + sum(share.paid for share in paid))
        assert all(one.paid <= top for one, top in zip(state, most, strict=True))
    assert programme.paid == sum(one.paid for one in state) <= budget
    if sum(most) <= budget:
        assert [one.paid for one in state] == most
