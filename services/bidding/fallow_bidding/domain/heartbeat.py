"""What a heartbeat's run states mean for the provider's leases.

The agent lists every generation that it knows and the market has not let it forget. From that list and the leases that
we keep of this provider follow the changes to make and the answer to give. A generation that we do not want is named
``unwanted`` (the agent stops it), one that is over and settled is ``forgotten``, one whose order is paused for want of
funds is ``suspended`` (the agent freezes it, until it is named no more). An accepted generation that is missing from the
list is lost: the agent no longer knows it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from fallow_bidding.domain.leases import Endpoint, EndReason, GenerationKey, Lease, LeaseState

SELF_STOPPED: Final = "SELF_STOPPED"
FAILURE_REASONS: Final = {
    SELF_STOPPED: EndReason.UNREACHABLE,
    "DEVICE_FAILED": EndReason.DEVICE,
    "DEVICE_MISSING": EndReason.DEVICE,
    "DEVICE_NOT_GIVEN": EndReason.DEVICE,
}
"""Agents' reasons of a failure that are not the workload's own."""
FORGET_AFTER: Final = timedelta(seconds=60)
"""How long a final proof is waited for before a generation that was ready is forgotten without one."""
MISSING_AFTER: Final = timedelta(seconds=30)
"""How long after its acceptance a generation may be missing from heartbeats before it counts as lost."""


class RunState(StrEnum):
    """How far a generation is on its provider."""

    UNKNOWN = "UNKNOWN"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    SUSPENDED = "SUSPENDED"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"
    FAILED = "FAILED"


OVER: Final = frozenset({RunState.STOPPED, RunState.FAILED})
"""States in which nothing of the generation runs."""


@dataclass(frozen=True, slots=True)
class RunReport:
    """One generation as its agent sees it."""

    lease_id: str
    key: GenerationKey
    state: RunState
    reason: str = ""
    detail: str = ""
    endpoints: tuple[Endpoint, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """A live lease that ends by what the heartbeat says. ``nothing_runs``: its devices are free at once."""

    lease_id: str
    reason: EndReason
    detail: str
    nothing_runs: bool
    excludes_provider: bool


@dataclass(slots=True)
class HeartbeatVerdict:
    """The changes that a heartbeat causes, and what its answer says."""

    accepted: list[str] = field(default_factory=list)
    ready: list[tuple[str, tuple[Endpoint, ...]]] = field(default_factory=list)
    paused: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    unwanted: list[GenerationKey] = field(default_factory=list)
    forgotten: list[GenerationKey] = field(default_factory=list)
    suspended: list[GenerationKey] = field(default_factory=list)


def judge_runs(
    provider_id: str,
    runs: Sequence[RunReport],
    leases: Mapping[str, Lease],
    suspended_orders: Collection[str],
    stop_acknowledged: Mapping[str, datetime],
    now: datetime,
) -> HeartbeatVerdict:
    """Judge a heartbeat's runs against the leases that this provider holds or names.

    ``suspended_orders`` are those whose leases are to be paused. ``stop_acknowledged`` says, by lease, when the agent
    acknowledged a command to stop it.
    """
    verdict = HeartbeatVerdict()
    seen: set[str] = set()
    for run in runs:
        lease = leases.get(run.lease_id)
        if lease is None or lease.provider_id != provider_id or lease.key != run.key:
            (verdict.forgotten if run.state in OVER else verdict.unwanted).append(run.key)
            continue
        seen.add(run.lease_id)
        if lease.is_live:
            _judge_live(verdict, lease, run)
            if run.state not in OVER and lease.key.order_id in suspended_orders:
                verdict.suspended.append(lease.key)
        else:
            _judge_ended(verdict, lease, run, now)
    for lease in leases.values():
        if lease.provider_id == provider_id and lease.lease_id not in seen:
            _judge_missing(verdict, lease, stop_acknowledged.get(lease.lease_id), now)
    return verdict


def _judge_live(verdict: HeartbeatVerdict, lease: Lease, run: RunReport) -> None:
    """A generation that we want to run."""
    if run.state in OVER:
        reason = FAILURE_REASONS.get(run.reason, EndReason.WORKLOAD)
        detail = ": ".join(part for part in (run.reason, run.detail) if part) or "the generation stopped by itself"
        # An agent that stopped because it could not reach us has done what it should.
        verdict.failures.append(
            Failure(lease.lease_id, reason, detail, nothing_runs=True, excludes_provider=run.reason != SELF_STOPPED)
        )
    elif run.state is RunState.RUNNING:
        if lease.state is not LeaseState.RUNNING or lease.endpoints != run.endpoints:
            verdict.ready.append((lease.lease_id, run.endpoints))
    elif run.state is RunState.SUSPENDED and lease.state is LeaseState.RUNNING:
        verdict.paused.append(lease.lease_id)
    elif run.state is not RunState.UNKNOWN and lease.state is LeaseState.RESERVED:
        verdict.accepted.append(lease.lease_id)


def _judge_ended(verdict: HeartbeatVerdict, lease: Lease, run: RunReport, now: datetime) -> None:
    """A generation that is over for the tenant."""
    if run.state not in OVER:
        verdict.unwanted.append(run.key)
        return
    if lease.holds_devices:
        verdict.released.append(lease.lease_id)
    assert lease.end_time is not None, "a lease that is not live has an end"
    if lease.proof.final or lease.ready_time is None or now - lease.end_time >= FORGET_AFTER:
        verdict.forgotten.append(run.key)


def _judge_missing(verdict: HeartbeatVerdict, lease: Lease, stop_time: datetime | None, now: datetime) -> None:
    """A generation that the agent does not name."""
    if lease.is_live:
        if lease.accept_time is not None and now - lease.accept_time >= MISSING_AFTER:
            detail = "the provider's agent no longer knows the generation"
            verdict.failures.append(
                Failure(lease.lease_id, EndReason.PROVIDER, detail, nothing_runs=False, excludes_provider=True)
            )
    elif lease.holds_devices and stop_time is not None and now - stop_time >= MISSING_AFTER:
        verdict.released.append(lease.lease_id)
