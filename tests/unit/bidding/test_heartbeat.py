"""What run states mean for leases: a table of every state against every stage of a lease."""

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from fallow_bidding.domain.heartbeat import (
    FORGET_AFTER,
    MISSING_AFTER,
    SELF_STOPPED,
    HeartbeatVerdict,
    RunReport,
    RunState,
    judge_runs,
)
from fallow_bidding.domain.leases import (
    Endpoint,
    EndReason,
    Evidence,
    GenerationKey,
    Lease,
    LeaseState,
    ProofMark,
    accepted,
    ended,
    ready,
    released,
    suspended,
)
from tests.unit.bidding.market import reserved_lease

NOW = datetime(2026, 1, 1, 1, tzinfo=UTC)
MADE = NOW - timedelta(hours=1)
RESERVED = reserved_lease(GenerationKey("order", 0, 2), MADE)
STARTING = accepted(RESERVED, NOW)
ENDPOINTS = (Endpoint("web", 80, "http://x", 0),)
RUNNING = ready(STARTING, ENDPOINTS, NOW)
PAUSED = suspended(RUNNING)
EVIDENCE = Evidence(EndReason.TENANT, "", "services/bidding", NOW)
STOPPING = ended(RUNNING, EVIDENCE, NOW, NOW, lost=False, nothing_runs=False)
LOST = ended(STARTING, EVIDENCE, NOW, NOW, lost=True, nothing_runs=False)
ENDED = released(STOPPING, NOW)
ENDED_FINAL = replace(ENDED, proof=ProofMark(1, 1, final=True))

TABLE: list[tuple[Lease, RunState, HeartbeatVerdict]] = [
    (RESERVED, RunState.UNKNOWN, HeartbeatVerdict()),
    (RESERVED, RunState.STARTING, HeartbeatVerdict(accepted=["lease"])),
    (RESERVED, RunState.RUNNING, HeartbeatVerdict(ready=[("lease", ENDPOINTS)])),
    (STARTING, RunState.STARTING, HeartbeatVerdict()),
    (STARTING, RunState.RUNNING, HeartbeatVerdict(ready=[("lease", ENDPOINTS)])),
    (RUNNING, RunState.RUNNING, HeartbeatVerdict()),
    (RUNNING, RunState.STARTING, HeartbeatVerdict()),
    (RUNNING, RunState.SUSPENDED, HeartbeatVerdict(paused=["lease"])),
    (PAUSED, RunState.SUSPENDED, HeartbeatVerdict()),
    (PAUSED, RunState.RUNNING, HeartbeatVerdict(ready=[("lease", ENDPOINTS)])),
    (STARTING, RunState.SUSPENDED, HeartbeatVerdict()),
    (STOPPING, RunState.RUNNING, HeartbeatVerdict(unwanted=[RESERVED.key])),
    (STOPPING, RunState.STOPPING, HeartbeatVerdict(unwanted=[RESERVED.key])),
    (STOPPING, RunState.STOPPED, HeartbeatVerdict(released=["lease"])),
    (LOST, RunState.RUNNING, HeartbeatVerdict(unwanted=[RESERVED.key])),
    (LOST, RunState.FAILED, HeartbeatVerdict(released=["lease"], forgotten=[RESERVED.key])),
    (ENDED, RunState.STOPPED, HeartbeatVerdict()),
    (ENDED, RunState.RUNNING, HeartbeatVerdict(unwanted=[RESERVED.key])),
    (ENDED_FINAL, RunState.STOPPED, HeartbeatVerdict(forgotten=[RESERVED.key])),
]


def _judge(
    lease: Lease,
    *runs: RunReport,
    suspended_orders: Collection[str] = (),
    stop_time: datetime | None = None,
    now: datetime = NOW,
) -> HeartbeatVerdict:
    """One lease, one heartbeat."""
    stops = {} if stop_time is None else {lease.lease_id: stop_time}
    return judge_runs("provider", runs, {lease.lease_id: lease}, suspended_orders, stops, now)


@pytest.mark.parametrize(("lease", "state", "expected"), TABLE)
def test_a_run_state_changes_its_lease(lease: Lease, state: RunState, expected: HeartbeatVerdict) -> None:
    """Goal: each state of a run against each stage of its lease. Method: a table."""
    assert _judge(lease, RunReport("lease", lease.key, state, endpoints=ENDPOINTS)) == expected


@pytest.mark.parametrize(
    ("reason", "expected", "excludes"),
    [
        ("EXITED", EndReason.WORKLOAD, True),
        ("", EndReason.WORKLOAD, True),
        ("DEVICE_FAILED", EndReason.DEVICE, True),
        (SELF_STOPPED, EndReason.UNREACHABLE, False),
    ],
)
@pytest.mark.parametrize("lease", [RESERVED, STARTING, RUNNING])
@pytest.mark.parametrize("state", [RunState.STOPPED, RunState.FAILED])
def test_a_live_generation_that_is_over_has_failed(
    lease: Lease, state: RunState, reason: str, expected: EndReason, *, excludes: bool
) -> None:
    """Goal: whatever the stage, a generation that we want and that is over has failed, and its device is free. Method:
    every stage, both ends, each reason.
    """
    verdict = _judge(lease, RunReport("lease", lease.key, state, reason=reason))
    (failure,) = verdict.failures
    assert (failure.reason, failure.nothing_runs, failure.excludes_provider) == (expected, True, excludes)
    assert not verdict.unwanted
    assert not verdict.released


def test_what_is_not_ours_is_unwanted_or_forgotten() -> None:
    """Goal: unknown generations are stopped while they run and forgotten once they are over. Method: an unknown lease,
    another generation under a known lease, and a lease of another provider.
    """
    stranger = replace(RUNNING, provider_id="another")
    for run_key, lease_id, lease in (
        (GenerationKey("x", 0, 1), "unknown", RUNNING),
        (GenerationKey("order", 0, 1), "lease", RUNNING),
        (RUNNING.key, "lease", stranger),
    ):
        late = replace(lease, accept_time=NOW)
        running = _judge(late, RunReport(lease_id, run_key, RunState.RUNNING))
        assert running == HeartbeatVerdict(unwanted=[run_key])
        over = _judge(late, RunReport(lease_id, run_key, RunState.FAILED))
        assert over == HeartbeatVerdict(forgotten=[run_key])


@pytest.mark.parametrize("lease", [RESERVED, STARTING, RUNNING, PAUSED, STOPPING])
@pytest.mark.parametrize("state", [RunState.STARTING, RunState.RUNNING, RunState.SUSPENDED, RunState.FAILED])
def test_what_a_suspended_order_runs_is_to_be_paused(lease: Lease, state: RunState) -> None:
    """Goal: an agent is told as long as the pause lasts, and of nothing that is over. Method: each stage and state."""
    run = RunReport("lease", lease.key, state, endpoints=ENDPOINTS)
    is_paused = lease.is_live and state is not RunState.FAILED
    assert _judge(lease, run, suspended_orders={"order"}).suspended == ([lease.key] if is_paused else [])
    assert _judge(lease, run, suspended_orders={"another"}).suspended == []


def test_new_endpoints_are_told_again() -> None:
    """Goal: a running generation that answers elsewhere is a change. Method: another endpoint."""
    moved = (Endpoint("web", 80, "http://y", 0),)
    verdict = _judge(RUNNING, RunReport("lease", RUNNING.key, RunState.RUNNING, endpoints=moved))
    assert verdict.ready == [("lease", moved)]


def test_a_final_proof_is_waited_for_before_forgetting() -> None:
    """Goal: a stopped generation that was ready is kept until its final proof came or a minute is over. Method: both
    sides of the minute.
    """
    run = RunReport("lease", ENDED.key, RunState.STOPPED)
    assert _judge(ENDED, run, now=NOW + FORGET_AFTER - timedelta(milliseconds=1)).forgotten == []
    assert _judge(ENDED, run, now=NOW + FORGET_AFTER).forgotten == [ENDED.key]


@pytest.mark.parametrize("lease", [STARTING, RUNNING])
def test_an_accepted_generation_that_is_missing_is_lost(lease: Lease) -> None:
    """Goal: an agent that no longer knows a generation has lost it, after a while. Method: both sides of the while; a
    lease that was not accepted yet may be missing.
    """
    assert _judge(lease, now=NOW + MISSING_AFTER - timedelta(milliseconds=1)) == HeartbeatVerdict()
    (failure,) = _judge(lease, now=NOW + MISSING_AFTER).failures
    assert (failure.reason, failure.nothing_runs) == (EndReason.PROVIDER, False)
    assert _judge(RESERVED, now=NOW + MISSING_AFTER) == HeartbeatVerdict()


@pytest.mark.parametrize("lease", [STOPPING, LOST])
def test_a_stopped_generation_that_is_missing_frees_its_devices(lease: Lease) -> None:
    """Goal: without a word devices stay held, unless the agent acknowledged the stop and names the generation no more.
    Method: without an acknowledgement, with a fresh one, with one that is long ago.
    """
    assert _judge(lease, now=NOW + timedelta(days=1)) == HeartbeatVerdict()
    assert _judge(lease, stop_time=NOW, now=NOW + MISSING_AFTER - timedelta(milliseconds=1)) == HeartbeatVerdict()
    assert _judge(lease, stop_time=NOW, now=NOW + MISSING_AFTER) == HeartbeatVerdict(released=["lease"])


def test_leases_never_come_back() -> None:
    """Goal: an end is an end. Method: every transition that would revive or repeat one asserts, repeats are harmless."""
    for lease in (STOPPING, LOST, ENDED):
        with pytest.raises(AssertionError, match="only a live lease"):
            ready(lease, (), NOW)
        with pytest.raises(AssertionError, match="ends once"):
            ended(lease, EVIDENCE, NOW, NOW, lost=False, nothing_runs=True)
        assert accepted(lease, NOW) is lease
    with pytest.raises(AssertionError, match="holds its devices"):
        released(RUNNING, NOW)
    with pytest.raises(AssertionError, match="future"):
        ended(RUNNING, EVIDENCE, NOW + timedelta(milliseconds=1), NOW, lost=False, nothing_runs=True)
    assert released(ENDED, NOW + timedelta(days=1)) is ENDED
    assert {lease.state for lease in (RESERVED, STARTING, RUNNING) if lease.is_live} == {
        LeaseState.RESERVED,
        LeaseState.STARTING,
        LeaseState.RUNNING,
    }
