"""How well a provider has done, in one number from 0 to 1,000: docs/reputation.md tells the formula for people.

Everything is computed in integers from facts that the market has: leases with what was proven and how they ended, silences,
the market's own outages. A lease counts on the day of its end, a live one today. Days are tallied once they are settled, and
weighed by their age, so that tallies kept from day to day give the same as all leases taken anew. Nobody starts high or low:
each part begins in the middle and moves with what is seen.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from statistics import median_low
from typing import Final

from fallow_bidding.domain.leases import EndReason
from fallow_bidding.domain.silence import Outage, outage_ms

HOUR_MS: Final = 3_600_000
DAY: Final = timedelta(days=1)
NEUTRAL_MILLI: Final = 500
"""What each part, and so the score, is before anything was seen."""
HALF_LIFE_DAYS: Final = 30
HORIZON_DAYS: Final = 180
"""The age, in days, from which on nothing counts."""
SETTLED_AFTER_DAYS: Final = 2
"""A day is tallied for good on the second day after it: late proofs and later generations have been seen then."""
RAN_ELSEWHERE_WITHIN: Final = DAY
"""How long after its end a failed workload may become ready at another provider, to count against the first."""
EXCUSED_AFTER_OUTAGE: Final = timedelta(minutes=2)
"""An unreachable provider is excused if the market itself was away within this time before the lease's end."""
WEEK: Final = timedelta(days=7)
MONTH: Final = timedelta(days=30)
FULL_PRICE_MICROS: Final = 100_000
"""An hour at this price or above is an hour of paid time; a cheaper one counts in proportion."""
PAID_PRIOR_MS: Final = 24 * HOUR_MS
EARLY_CLOSE_MS: Final = 24 * HOUR_MS
"""The paid time that one early close outweighs."""
UPTIME_PRIOR_MS: Final = 6 * HOUR_MS
TIME_TO_START_MS: Final = 60_000
"""The usual time to start that makes half the speed."""
TIMED_START_PAID_MS: Final = 600_000
"""The least paid time of a lease of which the start is timed."""
EARLY: Final = frozenset({EndReason.PROVIDER, EndReason.UNREACHABLE, EndReason.DEVICE})
_ONE: Final = 1 << 20
"""The weight of today."""


@dataclass(frozen=True, slots=True)
class LeaseFact:
    """What of a lease counts. Leases of a provider's own account are no facts.

    ``seen_by_market`` says that the market, and not the provider, saw the end. ``ran_elsewhere`` says that the group became
    ready at another provider within ``RAN_ELSEWHERE_WITHIN`` of the end.
    """

    create_time: datetime
    accept_time: datetime | None
    ready_time: datetime | None
    end_time: datetime | None
    end_reason: EndReason | None
    seen_by_market: bool
    running_ms: int
    price_micros: int
    ran_elsewhere: bool = False

    @property
    def paid_ms(self) -> int:
        """Proven running time, less where the price is low."""
        return self.running_ms * min(self.price_micros, FULL_PRICE_MICROS) // FULL_PRICE_MICROS


@dataclass(frozen=True, slots=True)
class Tally:
    """What the leases of one day add up to. ``starts_milli`` counts a start in full once its lease was paid an hour."""

    leases: int = 0
    early_closes: int = 0
    starts_milli: int = 0
    starts_failed: int = 0
    paid_ms: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        """Both together."""
        return Tally(
            self.leases + other.leases,
            self.early_closes + other.early_closes,
            self.starts_milli + other.starts_milli,
            self.starts_failed + other.starts_failed,
            self.paid_ms + other.paid_ms,
        )


@dataclass(frozen=True, slots=True)
class Uptime:
    """When a provider was silent, from ``since`` (its registration) on, and when the market was away."""

    since: datetime
    silences: Sequence[Outage]
    outages: Sequence[Outage]
    silent_after: timedelta

    def share_milli(self, window: timedelta, now: datetime) -> int:
        """The share of a window in which the provider was heard, begun in the middle; the market's own outages left out."""
        start = max(self.since, now - window)
        tracked_ms = (now - start) // timedelta(milliseconds=1) - outage_ms(self.outages, start, now)
        counted = [silence for silence in self.silences if self._counts(silence)]
        offline_ms = outage_ms([*counted, *self.outages], start, now) - outage_ms(self.outages, start, now)
        assert 0 <= offline_ms <= tracked_ms, "a provider is silent only in time that counts"
        return (1_000 * (tracked_ms - offline_ms) + NEUTRAL_MILLI * UPTIME_PRIOR_MS) // (tracked_ms + UPTIME_PRIOR_MS)

    def _counts(self, silence: Outage) -> bool:
        """Whether a silence was long to a market that listened."""
        away = timedelta(milliseconds=outage_ms(self.outages, silence.start_time, silence.end_time))
        return silence.end_time - silence.start_time - away > self.silent_after


@dataclass(frozen=True, slots=True)
class Reputation:
    """A provider's score with its parts: thousandths, but for the time, in ms, and counts within the horizon."""

    score_milli: int = NEUTRAL_MILLI
    reliability_milli: int = NEUTRAL_MILLI
    uptime_week_milli: int = NEUTRAL_MILLI
    uptime_month_milli: int = NEUTRAL_MILLI
    start_success_milli: int = NEUTRAL_MILLI
    time_to_start_ms: int | None = None
    early_closes: int = 0
    leases: int = 0


def tally(fact: LeaseFact, outages: Sequence[Outage]) -> Tally:
    """What one lease adds to the day of its end, or to today."""
    excused = fact.end_time is not None and _was_away(outages, fact.end_time)
    unreachable = fact.end_reason is EndReason.UNREACHABLE
    closed_early = fact.end_reason in EARLY and not (unreachable and excused)
    unanswered = fact.end_reason is EndReason.REFUSED and fact.seen_by_market and not excused
    failed_here = fact.end_reason is EndReason.WORKLOAD and fact.ran_elsewhere
    is_ready = fact.ready_time is not None
    return Tally(
        leases=int(fact.accept_time is not None),
        early_closes=int(closed_early),
        starts_milli=min(1_000, 1_000 * fact.paid_ms // HOUR_MS) if is_ready else 0,
        starts_failed=int(not is_ready and (closed_early or unanswered or failed_here)),
        paid_ms=fact.paid_ms,
    )


def tally_days(facts: Iterable[LeaseFact], outages: Sequence[Outage], today: date) -> dict[date, Tally]:
    """The tallies of leases, by day; live leases stand in today's."""
    days: dict[date, Tally] = {}
    for fact in facts:
        day = today if fact.end_time is None else fact.end_time.date()
        days[day] = days.get(day, Tally()) + tally(fact, outages)
    return days


def time_to_start_ms(facts: Iterable[LeaseFact], now: datetime) -> int | None:
    """The usual time from lease to readiness over a month: the lower median of leases that were paid a while; or None."""
    timed = [
        (fact.ready_time - fact.create_time) // timedelta(milliseconds=1)
        for fact in facts
        if fact.ready_time is not None and fact.ready_time > now - MONTH and fact.paid_ms >= TIMED_START_PAID_MS
    ]
    return median_low(timed) if timed else None


def weight(age_days: int) -> int:
    """What a day of that age weighs, of 2^20: half every ``HALF_LIFE_DAYS``, straight in between; nothing at the horizon."""
    assert age_days >= 0, "nothing happens on a day to come"
    if age_days >= HORIZON_DAYS:
        return 0
    halvings, rest = divmod(age_days, HALF_LIFE_DAYS)
    return (_ONE * (2 * HALF_LIFE_DAYS - rest) // (2 * HALF_LIFE_DAYS)) >> halvings


def judge(days: Mapping[date, Tally], uptime: Uptime, start_ms: int | None, now: datetime) -> Reputation:
    """The reputation that tallied days, uptime and the usual time to start make."""
    paid_ms = starts_milli = failed_milli = early_ms = 0
    whole = Tally()
    for day, one in days.items():
        part = weight((now.date() - day).days)
        paid_ms += part * one.paid_ms
        early_ms += part * one.early_closes * EARLY_CLOSE_MS
        starts_milli += part * one.starts_milli
        failed_milli += part * one.starts_failed * 1_000
        whole += one if part else Tally()
    reliability = _share_milli(paid_ms // _ONE, early_ms // _ONE, PAID_PRIOR_MS)
    start_success = _share_milli(starts_milli // _ONE, failed_milli // _ONE, 2_000)
    week, month = uptime.share_milli(WEEK, now), uptime.share_milli(MONTH, now)
    return Reputation(
        score_milli=score_milli(reliability, week, month, start_success, start_ms),
        reliability_milli=reliability,
        uptime_week_milli=week,
        uptime_month_milli=month,
        start_success_milli=start_success,
        time_to_start_ms=start_ms,
        early_closes=whole.early_closes,
        leases=whole.leases,
    )


def score_milli(reliability: int, uptime_week: int, uptime_month: int, start_success: int, start_ms: int | None) -> int:
    """All parts in one number: four tenths reliability, three uptime, two start success, one speed; rounded down."""
    speed = NEUTRAL_MILLI if start_ms is None else 1_000 * TIME_TO_START_MS // (TIME_TO_START_MS + max(0, start_ms))
    score = (4 * reliability + 3 * ((uptime_week + uptime_month) // 2) + 2 * start_success + speed) // 10
    assert 0 <= score <= 1_000, "a mean of shares is a share"
    return score


def _share_milli(good: int, bad: int, prior: int) -> int:
    """The good's share, with ``prior`` of which half was good."""
    return (1_000 * good + NEUTRAL_MILLI * prior) // (good + bad + prior)


def _was_away(outages: Sequence[Outage], instant: datetime) -> bool:
    """Whether the market was away shortly before an instant."""
    since = instant - EXCUSED_AFTER_OUTAGE
    return any(outage.start_time < instant and outage.end_time > since for outage in outages)
