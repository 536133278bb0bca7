"""Incentive programmes: the gap between what verified devices earned and a reference rate, to date, and what of it is paid.

All is a sum to date, as charges are: what is due up to the end of a day does not depend on how often it was paid before, and a charge
that comes late makes the next payment smaller. What was paid once is never taken back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from fallow_settlement.domain.charging import MS_PER_HOUR, share_out

DEFAULT_TARGET_MILLI: Final = 950
SETTLED_AFTER: Final = timedelta(hours=6)
"""How long after a day its shares are paid: proofs, charges and the hours that bidding tells of are in by then."""
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Programme:
    """A programme; ``next_day`` is the first one (UTC) that is not paid yet, ``close_time`` None while it runs."""

    id: str
    model: str
    asset: str
    target_milli: int
    reference_micros_per_hour: int
    budget: int
    auditors: tuple[str, ...]
    creator: str
    create_time: datetime
    end_time: datetime
    next_day: date
    close_time: datetime | None = None
    paid: int = 0

    def __post_init__(self) -> None:
        """Hold the budget."""
        assert 0 <= self.paid <= self.budget, "a programme pays no more than its budget"

    @property
    def left(self) -> int:
        """What it may pay still."""
        return self.budget - self.paid

    def counted_until(self, day: date) -> datetime:
        """Up to when a day's payment counts."""
        return min(midnight(day) + _DAY, self.end_time)

    def is_due(self, now: datetime) -> bool:
        """Whether the next day's shares are to be paid."""
        return self.close_time is None and now >= self.counted_until(self.next_day) + SETTLED_AFTER

    @property
    def is_last_day(self) -> bool:
        """Whether nothing is counted after the next day."""
        return self.counted_until(self.next_day) >= self.end_time


@dataclass(frozen=True, slots=True)
class Sums:
    """What a programme counts of a provider, from its start; ``paid`` is what it has paid for it."""

    provider_id: str
    account_id: str
    online_ms: int
    related_ms: int
    earned: int
    paid: int


@dataclass(frozen=True, slots=True)
class Share:
    """A provider's payment of one day: ``due`` in all to date, of which ``paid`` is paid now and ``short`` cannot be."""

    day: date
    sums: Sums
    due: int
    paid: int
    short: int


def midnight(day: date) -> datetime:
    """When a day begins, in UTC."""
    return datetime.combine(day, time(), UTC)


def due_micros(programme: Programme, sums: Sums) -> int:
    """The gap to date: reference rate × target × time online for others, less what it earned; rounded down, never negative."""
    counted_ms = max(0, sums.online_ms - sums.related_ms)
    target = programme.reference_micros_per_hour * programme.target_milli * counted_ms // (1_000 * MS_PER_HOUR)
    return max(0, target - sums.earned)


def shares(programme: Programme, counted: Sequence[Sums]) -> tuple[Share, ...]:
    """The payments of the next day: what is due beyond what was paid, pro rata where the budget does not reach."""
    dues = [due_micros(programme, sums) for sums in counted]
    owed = [max(0, due - sums.paid) for due, sums in zip(dues, counted, strict=True)]
    parts = share_out(programme.left, owed)
    assert sum(parts) <= programme.left, "never beyond the budget"
    return tuple(
        Share(programme.next_day, sums, due, part, left - part)
        for sums, due, left, part in zip(counted, dues, owed, parts, strict=True)
    )
