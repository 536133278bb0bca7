"""Who was away: a provider, or the market itself.

Unknown is not down. While the market was away it could hear nobody, so that time counts against no provider: a grace
starts again at the end of an outage of our own. The market notes its own pulse; a gap between two pulses is an outage,
and so is the time since the last pulse, if that is long.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

OUTAGE_AFTER: Final = timedelta(seconds=5)
"""The shortest gap between two pulses that counts as an outage of the market."""


@dataclass(frozen=True, slots=True)
class Outage:
    """A time in which the market was away."""

    start_time: datetime
    end_time: datetime

    def __post_init__(self) -> None:
        """Time goes forward."""
        assert self.start_time <= self.end_time, "an outage ends after it began"


def outages_with_present(outages: Sequence[Outage], pulse_time: datetime | None, now: datetime) -> list[Outage]:
    """The recorded outages, and the one that is going on if the last pulse is long ago."""
    current = [] if pulse_time is None or now - pulse_time < OUTAGE_AFTER else [Outage(pulse_time, now)]
    return [*outages, *current]


def outage_ms(outages: Sequence[Outage], start_time: datetime, end_time: datetime) -> int:
    """How much of an interval the market was away, in milliseconds; outages that overlap count once."""
    away = timedelta()
    reached = start_time
    for outage in sorted(outages, key=lambda outage: outage.start_time):
        begin = max(outage.start_time, reached)
        end = min(outage.end_time, end_time)
        if end > begin:
            away += end - begin
            reached = end
    return away // timedelta(milliseconds=1)


def heard_since(outages: Sequence[Outage], instant: datetime) -> datetime:
    """Since when somebody last heard at ``instant`` has been silent to a market that listened."""
    return max([instant, *(outage.end_time for outage in outages)])
