"""Metering: from a provider's signed, cumulative claims to running time that is paid.

A provider says how long a generation has run in all; the market says, by its own clock, when it heard that. The growth
between two receipts is credited up to the time that passed at the market, plus a slack of at most one heartbeat interval
for receipts that came late. The slack is a bucket: it starts full, an early receipt draws on it, a late one fills it
again, and it never holds more than one interval. So over any run the credit is at most what passed at the market plus
one interval, whatever the provider claims. A silence of more than ``LONGEST_GAP_MS`` is not paid at all, unless the
market itself was away, and then only its own absence is forgiven.

Claims are cumulative, so duplicates and late, older ones change nothing and a lost one costs nothing. When a lease ends,
``charge_through_time`` cuts the credit; it may arrive after receipts that are later than itself, so the last receipts
are kept and counted again under the cut.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

LONGEST_GAP_MS: Final = 60_000
"""The longest silence between two receipts that is paid."""
RECENT_RECEIPTS: Final = 32
"""How many receipts a meter keeps, to count them again when an earlier end becomes known."""

_MILLISECOND: Final = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Claim:
    """A verified proof with the market's receipt.

    ``outage_ms``: how long the market itself was away before it. ``is_paid`` is False where it came while the order was
    paused for want of funds: it is heard and adds nothing, whatever it claims.
    """

    sequence: int
    running_ms: int
    final: bool
    receive_time: datetime
    outage_ms: int = 0
    is_paid: bool = True

    def __post_init__(self) -> None:
        """Hold the bounds of a claim."""
        assert self.sequence >= 1, "claims are numbered from 1"
        assert self.running_ms >= 0, "running time is never negative"
        assert self.outage_ms >= 0, "an absence is never negative"


@dataclass(frozen=True, slots=True)
class Counted:
    """A claim that was counted, with the meter's values after it."""

    claim: Claim
    proven_ms: int
    slack_ms: int


@dataclass(frozen=True, slots=True)
class Meter:
    """Proven running time of one generation.

    ``start_time`` is when the lease was made: nothing can have run before. ``proven_ms`` is what may be charged in all.
    """

    start_time: datetime
    heartbeat_interval_ms: int
    proven_ms: int = 0
    slack_ms: int | None = None
    charge_through_time: datetime | None = None
    final: bool = False
    recent: tuple[Counted, ...] = ()

    def __post_init__(self) -> None:
        """Hold the bounds of a meter."""
        assert self.heartbeat_interval_ms >= 1, "proofs come at an interval"
        assert self.proven_ms >= 0, "proven time is never negative"
        assert len(self.recent) <= RECENT_RECEIPTS, "the memory of receipts is bounded"
        assert self.slack_ms is None or 0 <= self.slack_ms <= self.heartbeat_interval_ms, (
            "slack is one interval at most"
        )

    @property
    def slack(self) -> int:
        """What is in the bucket; full before the first receipt."""
        return self.heartbeat_interval_ms if self.slack_ms is None else self.slack_ms

    @property
    def last(self) -> Claim | None:
        """The last claim that was counted."""
        return self.recent[-1].claim if self.recent else None


def count(meter: Meter, claim: Claim) -> Meter:
    """The meter after a claim; one that is not newer than the last, or comes after the final one, changes nothing."""
    last = meter.last
    if meter.final or (last is not None and claim.sequence <= last.sequence):
        return meter
    if last is not None and claim.running_ms < last.running_ms:
        # A counter that went back proves nothing; the next claim is held against the last good one.
        return meter
    credit, slack = _credit(meter, claim) if claim.is_paid else (0, meter.slack)
    proven = meter.proven_ms + credit
    counted = Counted(claim, proven, slack)
    return replace(
        meter,
        proven_ms=proven,
        slack_ms=slack,
        final=claim.final,
        recent=(*meter.recent, counted)[-RECENT_RECEIPTS:],
    )


def end(meter: Meter, charge_through_time: datetime, charged_ms: int) -> Meter:
    """Cut the credit at an instant of the market's clock; what is charged already (``charged_ms``) stays charged.

    Receipts later than the cut that were counted before it was known are counted again under it. A second end can only
    move the cut earlier.
    """
    if meter.charge_through_time is not None and meter.charge_through_time <= charge_through_time:
        return meter
    kept = 0
    while kept < len(meter.recent) and meter.recent[kept].claim.receive_time <= charge_through_time:
        kept += 1
    beyond = meter.recent[kept:]
    if not beyond:
        return replace(meter, charge_through_time=charge_through_time)
    base = _rewound(meter, kept, charge_through_time)
    for counted in beyond:
        base = count(base, counted.claim)
    assert base.proven_ms <= meter.proven_ms, "a cut never adds"
    return replace(base, proven_ms=max(base.proven_ms, charged_ms))


def _rewound(meter: Meter, kept: int, charge_through_time: datetime) -> Meter:
    """The meter as it was after its first ``kept`` remembered receipts, with the cut set."""
    if kept == 0 and len(meter.recent) == RECENT_RECEIPTS:
        # The cut is older than the memory; the oldest receipt that is still known is the best base there is.
        kept = 1
    before = meter.recent[:kept]
    return replace(
        meter,
        proven_ms=before[-1].proven_ms if before else 0,
        slack_ms=before[-1].slack_ms if before else None,
        charge_through_time=charge_through_time,
        final=False,
        recent=before,
    )


def _credit(meter: Meter, claim: Claim) -> tuple[int, int]:
    """Milliseconds that a newer claim adds, and the slack after it."""
    last = meter.last
    since = meter.start_time if last is None else last.receive_time
    claimed = 0 if last is None else last.running_ms
    growth = claim.running_ms - claimed
    passed = max(0, (claim.receive_time - since) // _MILLISECOND)
    if last is None:
        # Before the first receipt the workload was being fetched and started: that is no silence, but no proof either.
        passed = min(passed, LONGEST_GAP_MS + claim.outage_ms)
    elif passed - claim.outage_ms > LONGEST_GAP_MS:
        return 0, meter.slack
    through = meter.charge_through_time
    if through is not None:
        if since >= through:
            return 0, meter.slack
        passed = min(passed, (through - since) // _MILLISECOND)
    allowed = passed + meter.slack
    credit = min(growth, allowed)
    assert 0 <= credit <= growth, "credit never exceeds the claim"
    assert credit <= passed + meter.heartbeat_interval_ms, "credit never exceeds what passed by more than one interval"
    return credit, min(allowed - credit, meter.heartbeat_interval_ms)
