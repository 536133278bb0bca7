"""What was free when each hold of a list was decided: a refused one is told the balance that it met."""

from collections.abc import Mapping, Sequence


def free_before(
    accounts: Sequence[str], amounts: Sequence[int], accepted: Sequence[bool], left: Mapping[str, int]
) -> list[int]:
    """For each hold the micros that its account had free just before; ``left`` is what each has after all of them."""
    assert len(accounts) == len(amounts) == len(accepted), "one of each for each hold"
    free = dict(left)
    found: list[int] = []
    for account, amount, was_accepted in zip(reversed(accounts), reversed(amounts), reversed(accepted), strict=True):
        if was_accepted:
            free[account] += amount
        found.append(free[account])
    assert min(free.values()) >= 0, "no balance was ever below nothing"
    return found[::-1]
