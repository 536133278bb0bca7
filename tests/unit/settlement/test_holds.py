"""Who is paid of a list of holds, and what each met."""

from hypothesis import given
from hypothesis import strategies as some

from fallow_settlement.domain.holds import decide_holds


def test_a_refused_hold_is_told_what_it_met() -> None:
    """Goal: the numbers of a refusal are those of its moment. Method: three accounts, a refusal between two holds."""
    decided = decide_holds(["a", "a", "b", "a", "c"], [60, 50, 5, 30, 1], {"a": 100, "b": 5})
    assert decided == [(True, 100), (False, 40), (True, 5), (True, 40), (False, 0)]


@given(some.lists(some.tuples(some.sampled_from("ab"), some.integers(1, 50))), some.integers(0, 200))
def test_no_balance_pays_more_than_it_has(holds: list[tuple[str, int]], start: int) -> None:
    """Goal: all that is paid was there, and nobody is refused who fits. Method: random holds on two accounts."""
    accounts, amounts = [account for account, _ in holds], [amount for _, amount in holds]
    decided = decide_holds(accounts, amounts, {"a": start})
    for name, had in (("a", start), ("b", 0)):
        own = [
            (amount, paid, met)
            for (account, amount), (paid, met) in zip(holds, decided, strict=True)
            if account == name
        ]
        spent = 0
        for amount, paid, met in own:
            assert met == had - spent
            assert paid == (spent + amount <= had)
            spent += amount if paid else 0
        assert spent <= had
