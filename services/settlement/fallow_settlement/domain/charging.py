"""Charging: from proven time to parts of money, with no micro lost or gained over any split.

Everything is a sum to date: what a generation owes for its first n milliseconds, what of that is the platform's, what
of that is the pool's. A charge is the difference between two sums to date, so it does not matter how often or when
charges are posted. Each division rounds down: the tenant gains on the price, the provider on the shares.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MS_PER_HOUR: Final = 3_600_000
BASIS_POINTS: Final = 10_000
"""Shares are in hundredths of a per cent."""


@dataclass(frozen=True, slots=True)
class Rates:
    """The platform's take of a charge and the community pool's share of that take, in basis points.

    Fixed for a generation when its lease is made, like its price.
    """

    take: int
    pool: int

    def __post_init__(self) -> None:
        """A share is between none and all."""
        assert 0 <= self.take <= BASIS_POINTS, "the take is a share"
        assert 0 <= self.pool <= BASIS_POINTS, "the pool's part is a share"


@dataclass(frozen=True, slots=True)
class Parts:
    """A sum split among those who get it; the three add up to the amount."""

    provider: int
    fee: int
    pool: int

    @property
    def amount(self) -> int:
        """The whole."""
        return self.provider + self.fee + self.pool


def due_micros(price_micros_per_hour: int, running_ms: int) -> int:
    """What running for that long owes in all: rounded down, the tenant gains less than a micro."""
    assert price_micros_per_hour >= 0, "a price is never negative"
    assert running_ms >= 0, "time is never negative"
    return price_micros_per_hour * running_ms // MS_PER_HOUR


def split_to_date(charged_micros: int, rates: Rates) -> Parts:
    """How all that was ever charged for a generation is shared: rounded down, the provider gains less than a micro."""
    assert charged_micros >= 0, "charges are never negative"
    take = charged_micros * rates.take // BASIS_POINTS
    pool = take * rates.pool // BASIS_POINTS
    return Parts(provider=charged_micros - take, fee=take - pool, pool=pool)


def split_charge(charged_before: int, amount: int, rates: Rates) -> Parts:
    """The parts of one charge: the difference between the shares to date after it and before it."""
    assert amount >= 0, "a charge is never negative"
    before = split_to_date(charged_before, rates)
    after = split_to_date(charged_before + amount, rates)
    parts = Parts(after.provider - before.provider, after.fee - before.fee, after.pool - before.pool)
    assert parts.amount == amount, "the parts are the whole"
    assert min(parts.provider, parts.fee, parts.pool) >= 0, "no part is negative"
    return parts


def share_out(held: int, dues: Sequence[int]) -> tuple[int, ...]:
    """What each of several dues gets of the funds held: all of it where they suffice, else pro rata.

    Pro rata parts are rounded down and the micros left over go to the first dues that are still short, one each, so
    that everything held is used.
    """
    assert held >= 0, "funds are never negative"
    assert all(due >= 0 for due in dues), "dues are never negative"
    total = sum(dues)
    if total <= held:
        return tuple(dues)
    parts = [held * due // total for due in dues]
    left = held - sum(parts)
    for index, due in enumerate(dues):
        if left == 0:
            break
        if parts[index] < due:
            parts[index] += 1
            left -= 1
    assert sum(parts) == held, "everything held is used"
    assert all(part <= due for part, due in zip(parts, dues, strict=True)), "nobody gets more than is due"
    return tuple(parts)
