"""The numbers by which the market is run; settings fill them. Durations are milliseconds."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Policy:
    """One market's rules.

    A provider that is silent for ``unreachable_ms`` gets no new lease; one that is silent for ``grace_ms`` loses those
    it has. An agent that hears nothing for ``self_stop_ms`` stops by itself; ``overlap_margin_ms`` comes on top before
    a group that must not overlap is leased again.
    """

    market: str = "world"
    assets: frozenset[str] = frozenset({"usdc"})
    heartbeat_interval_ms: int = 5_000
    unreachable_ms: int = 15_000
    grace_ms: int = 60_000
    self_stop_ms: int = 45_000
    overlap_margin_ms: int = 10_000
    accept_timeout_ms: int = 15_000
    start_timeout_ms: int = 600_000
    start_margin_ms: int = 60_000
    resend_ms: int = 2_000
    failures_max: int = 5

    def __post_init__(self) -> None:
        """Hold the order of the waits."""
        assert 0 < self.heartbeat_interval_ms < self.unreachable_ms <= self.grace_ms, "waits grow"
        assert self.self_stop_ms > self.heartbeat_interval_ms, "an agent must be able to miss a heartbeat"
        assert self.failures_max >= 1, "a group may be tried"

    @property
    def overlap_wait(self) -> timedelta:
        """How long after a provider was last heard its generation has surely stopped."""
        return timedelta(milliseconds=self.self_stop_ms + self.overlap_margin_ms)
