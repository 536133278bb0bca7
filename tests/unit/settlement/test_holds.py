"""What each hold of a list met."""

from hypothesis import given
from hypothesis import strategies as some

from fallow_settlement.domain.holds import free_before


def test_a_refused_hold_is_told_what_it_met() -> None:
    """Goal: the numbers of a refusal are those of its moment. Method: two accounts, a refusal between two holds."""
    accounts = ["a", "a", "b", "a"]
    free = free_before(accounts, [60, 50, 5, 30], [True, False, True, True], {"a": 10, "b": 0})
    assert free == [100, 40, 5, 40]


@given(some.lists(some.tuples(some.sampled_from("ab"), some.integers(1, 50))), some.integers(0, 200))
def test_it_agrees_with_deciding_one_by_one(holds: list[tuple[str, int]], start: int) -> None:
    """Goal: walking backwards gives what walking forwards met. Method: decide random holds in turn, and compare."""
    free = {"a": start, "b": start}
    met, accepted = [], []
    for account, amount in holds:
        met.append(free[account])
        accepted.append(amount <= free[account])
        free[account] -= amount if accepted[-1] else 0
    assert free_before([account for account, _ in holds], [amount for _, amount in holds], accepted, free) == met
