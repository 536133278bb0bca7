"""How long an order waits for its first match, and when a provider that failed a group may have it again."""

from datetime import UTC, datetime, timedelta

import pytest

from fallow_bidding.domain.orders import GroupState, MarketGroup, MarketOrder, Wait, judge_wait
from fallow_bidding.domain.policy import Policy

OPENED = datetime(2026, 1, 1, tzinfo=UTC)
OPEN, LEASED, ENDED = GroupState.OPEN, GroupState.LEASED, GroupState.ENDED


def at(seconds: float) -> datetime:
    """An instant by its seconds after the opening."""
    return OPENED + timedelta(seconds=seconds)


def order(*, ended: bool = False) -> MarketOrder:
    """An order that waits at most ten seconds."""
    return MarketOrder(
        "o", "t", "world", b"", at(1), ended=ended, open_time=OPENED, match_timeout_ms=10_000, together=False
    )


def groups(*states: tuple[GroupState, int]) -> list[MarketGroup]:
    """Groups by their state and generation."""
    return [MarketGroup("o", index, f"g{index}", state, generation) for index, (state, generation) in enumerate(states)]


@pytest.mark.parametrize(
    ("states", "away_ms", "now", "over", "next_time"),
    [
        ([(OPEN, 0)], 0, 9.999, [], 10),
        ([(OPEN, 0)], 0, 10, [0], None),
        ([(OPEN, 0)], 5_000, 10, [], 15),
        ([(OPEN, 0)], 5_000, 15, [0], None),
        ([(OPEN, 0), (LEASED, 1)], 0, 11, [0], None),
        ([(LEASED, 1), (OPEN, 0), (OPEN, 0)], 0, 11, [1, 2], None),
        ([(ENDED, 0), (OPEN, 0)], 0, 11, [1], None),
        ([(LEASED, 1)], 0, 11, [], None),
        ([(OPEN, 1)], 0, 11, [], None),
        ([(OPEN, 1)], 0, 1, [], None),
    ],
)
def test_a_first_match_is_waited_for_so_long(
    states: list[tuple[GroupState, int]], away_ms: int, now: float, over: list[int], next_time: float | None
) -> None:
    """Goal: only groups that never had a lease run out, and the market's absence counts for none. Method: a table."""
    found = judge_wait(order(), groups(*states), away_ms, at(now))
    assert [group.group_index for group in found.over] == over
    assert found.next_time == (None if next_time is None else at(next_time))
    assert judge_wait(order(ended=True), groups(*states), away_ms, at(now)) == Wait()


def test_an_order_that_may_match_knows_how_long() -> None:
    """Goal: no order waits without end. Method: one that is open and was never opened, one without a length."""
    with pytest.raises(AssertionError):
        MarketOrder("o", "t", "world", b"", OPENED)
    with pytest.raises(AssertionError):
        MarketOrder("o", "t", "world", b"", OPENED, open_time=OPENED)


@pytest.mark.parametrize(
    ("lost", "seconds"), [(1, 60), (2, 120), (3, 240), (6, 1_920), (7, 3_600), (8, 3_600), (10_000, 3_600)]
)
def test_who_failed_comes_back_later_each_time(lost: int, seconds: int) -> None:
    """Goal: a provider that fails again and again is tried ever less often. Method: the waits by leases lost."""
    assert Policy().return_wait(lost) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("excluded", "return_time", "expected"),
    [(set(), None, False), ({"p"}, None, False), ({"p"}, 5, True), ({"p"}, 5.001, False), (set(), 5, False)],
)
def test_nobody_returns_before_time(excluded: set[str], return_time: float | None, *, expected: bool) -> None:
    """Goal: who failed is asked again from an instant on. Method: either side of it, and without one."""
    instant = None if return_time is None else at(return_time)
    group = MarketGroup("o", 0, "g", OPEN, 1, excluded_providers=frozenset(excluded), return_time=instant)
    assert group.may_return(at(5)) is expected
