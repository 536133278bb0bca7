"""The numbers by which the market is run; settings fill them. Durations are milliseconds."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from fallow_bidding.domain.markets import Markets

PREEMPT_NOTICE_MS_MIN: Final = 30_000
"""No spot lease gets less notice."""


@dataclass(frozen=True, slots=True)
class Policy:
    """One market's rules. ``market`` is the one that this service keeps, ``markets`` says which are whose.

    A provider that is silent for ``unreachable_ms`` gets no new lease; one that is silent for ``grace_ms`` loses those
    it has. An agent that hears nothing for ``self_stop_ms`` stops by itself, which is longer than a minute in which we are
    away, so that this closes nothing; ``overlap_margin_ms`` comes on top before
    a group that must not overlap is leased again. A provider that failed a group may have it again where nobody else
    fits: after ``return_ms``, doubled with each lease that the group lost, at most ``return_ms_max``. A spot lease that has run
    for ``spot_run_ms_min`` may be pre-empted, ``preempt_notice_ms`` after it was told.
    """

    market: str = "world"
    markets: Markets = field(default_factory=Markets)
    assets: frozenset[str] = frozenset({"usdc"})
    heartbeat_interval_ms: int = 5_000
    unreachable_ms: int = 15_000
    grace_ms: int = 60_000
    self_stop_ms: int = 90_000
    overlap_margin_ms: int = 10_000
    accept_timeout_ms: int = 15_000
    start_timeout_ms: int = 600_000
    start_margin_ms: int = 60_000
    resend_ms: int = 2_000
    failures_max: int = 5
    return_ms: int = 60_000
    return_ms_max: int = 3_600_000
    spot_run_ms_min: int = 600_000
    preempt_notice_ms: int = 30_000

    def __post_init__(self) -> None:
        """Hold the order of the waits."""
        assert 0 < self.heartbeat_interval_ms < self.unreachable_ms <= self.grace_ms, "waits grow"
        assert self.self_stop_ms > self.heartbeat_interval_ms, "an agent must be able to miss a heartbeat"
        assert self.failures_max >= 1, "a group may be tried"
        assert self.preempt_notice_ms >= PREEMPT_NOTICE_MS_MIN, "a spot lease is told in time"
        assert self.spot_run_ms_min >= 0, "a spot lease runs for a while"
        assert 0 < self.return_ms <= self.return_ms_max, "a return takes a while"

    @property
    def overlap_wait(self) -> timedelta:
        """How long after a provider was last heard its generation has surely stopped."""
        return timedelta(milliseconds=self.self_stop_ms + self.overlap_margin_ms)

    def return_wait(self, leases_lost: int) -> timedelta:
        """How long providers that failed a group do not get it again, after its ``leases_lost``-th loss."""
        assert leases_lost >= 1, "who failed has had a lease"
        doublings = min(leases_lost - 1, 32)
        return timedelta(milliseconds=min(self.return_ms << doublings, self.return_ms_max))
