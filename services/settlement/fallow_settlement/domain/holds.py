"""Which holds of a list a balance can pay, first come first served, and what each met."""

from collections.abc import Mapping, Sequence


def decide_holds(accounts: Sequence[str], amounts: Sequence[int], free: Mapping[str, int]) -> list[tuple[bool, int]]:
    """For each hold whether it is paid, and the micros that its account had free just before it.

    ``free`` is what accounts have before all of them; one that is missing has nothing.
    """
    left = dict(free)
    decided: list[tuple[bool, int]] = []
    for account, amount in zip(accounts, amounts, strict=True):
        before = left.get(account, 0)
        is_paid = amount <= before
        decided.append((is_paid, before))
        if is_paid:
            left[account] = before - amount
    return decided
