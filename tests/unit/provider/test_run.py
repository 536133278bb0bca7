"""One generation's states, time and proofs, as tables."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fallow_provider.domain.proof import proof_text
from fallow_provider.domain.run import (
    Placement,
    ProofFacts,
    Run,
    RunKey,
    RunState,
    acknowledge_final,
    became_ready,
    ended,
    failed,
    final_proof,
    has_run_for,
    is_past_self_stop,
    progressed,
    prove,
    stop_asked,
    tombstone,
)
from fallow_provider.proof_key import ProofKey

KEY = RunKey("orders/o", 0, 3)
STARTING = Run("leases/l", KEY, (Placement("web", 0, "node-1"),), machine_boot_id="boot")
RUNNING = became_ready(STARTING)
STOPPING = stop_asked(RUNNING, 5_000)
FAILING = failed(RUNNING, "EXITED", "exit status 1")
STOPPED = ended(STOPPING)
FAILED = ended(FAILING)
ALL = {"STARTING": STARTING, "RUNNING": RUNNING, "STOPPING": STOPPING, "STOPPED": STOPPED, "FAILED": FAILED}
STATES = list(ALL)


def _prove(run: Run) -> Run:
    return prove(run, 1)[0]


def _final(run: Run) -> Run:
    final_proof(run, 1)
    return run


@pytest.mark.parametrize(
    ("transition", "outcomes"),
    [
        (became_ready, ["RUNNING", None, None, None, None]),
        (lambda run: progressed(run, "pulling"), ["STARTING", None, None, None, None]),
        (lambda run: stop_asked(run, 1), ["STOPPING", "STOPPING", "STOPPING", "STOPPED", "FAILED"]),
        (lambda run: failed(run, "EXITED", ""), ["STOPPING", "STOPPING", "STOPPING", "STOPPED", "FAILED"]),
        (ended, [None, None, "STOPPED", None, None]),
        (lambda run: has_run_for(run, 1), [None, "RUNNING", None, None, None]),
        (_prove, [None, "RUNNING", None, None, None]),
        (_final, [None, None, None, "STOPPED", "FAILED"]),
        (acknowledge_final, [None, None, None, "STOPPED", "FAILED"]),
    ],
)
def test_each_transition_from_each_state(transition: Callable[[Run], Run], outcomes: list[str | None]) -> None:
    """Goal: no way but the drawn ones. Method: every transition from every state; None asserts."""
    for state, outcome in zip(STATES, outcomes, strict=True):
        if outcome is None:
            with pytest.raises(AssertionError):
                transition(ALL[state])
        else:
            assert transition(ALL[state]).state.name == outcome, state


def test_the_first_end_counts() -> None:
    """Goal: a reason is never rewritten. Method: a stop after a failure, a failure after a stop."""
    assert stop_asked(FAILING, 1) is FAILING
    assert failed(STOPPING, "EXITED", "late") is STOPPING
    assert (FAILED.reason, FAILED.detail) == ("EXITED", "exit status 1")
    assert STOPPED.reason == ""


def test_proofs_are_numbered_without_gaps_and_the_last_is_final() -> None:
    """Goal: cumulative and ordered. Method: run, prove, run, prove, stop."""
    run, first = prove(has_run_for(RUNNING, 1_500), 1)
    run, second = prove(has_run_for(run, 500), 3)
    over = ended(stop_asked(run, 0))
    last = final_proof(over, 1)
    assert [(proof.sequence, proof.running_ms, proof.is_final) for proof in (first, second, last)] == [
        (1, 1_500, False), (2, 2_000, False), (3, 2_000, True),
    ]  # fmt: skip
    assert final_proof(over, 1) == last
    assert second.device_health == 3


def test_what_is_over_keeps_no_grant() -> None:
    """Goal: no credential without use. Method: end a run that holds a grant."""
    assert ended(replace(STOPPING, workload_grant="secret")).workload_grant == ""


def test_a_tombstone_is_stopped_and_proves_nothing() -> None:
    """Goal: a generation stopped before it came owes nothing. Method: its final proof."""
    run = tombstone("leases/l", KEY)
    assert run.state is RunState.STOPPED
    assert final_proof(run, 1) == ProofFacts("leases/l", KEY, 1, 0, 1, is_final=True)


def test_details_are_bounded() -> None:
    """Goal: a heartbeat stays small. Method: a long detail and a long progress."""
    assert len(failed(STARTING, "EXITED", "x" * 9_999).detail) == 1_024
    assert len(progressed(STARTING, "x" * 9_999).progress) == 1_024


@pytest.mark.parametrize(
    ("accepted", "acknowledged", "now", "boot", "over"),
    [
        (0, None, 10_000, "boot", False),
        (0, None, 10_001, "boot", True),
        (0, 5_000, 15_000, "boot", False),
        (0, 5_000, 15_001, "boot", True),
        (9_000, 5_000, 19_000, "boot", False),
        (9_000, 5_000, 19_001, "boot", True),
        (0, 10_000, 10_000, "another", True),
    ],
)
def test_self_stop_counts_from_the_last_sign_of_life(
    accepted: int, acknowledged: int | None, now: int, boot: str, *, over: bool
) -> None:
    """Goal: stop neither too early nor too late. Method: both sides of the limit, by each of the two signs of life."""
    for state in (STARTING, RUNNING):
        run = replace(state, accepted_at_ms=accepted, self_stop_ms=10_000)
        assert is_past_self_stop(run, now_ms=now, acknowledged_at_ms=acknowledged, machine_boot_id=boot) is over
    for state in (STOPPING, STOPPED, FAILED):
        assert not is_past_self_stop(state, now_ms=10**9, acknowledged_at_ms=None, machine_boot_id="another")


def test_the_proofs_text_is_the_contracts() -> None:
    """Goal: others can verify. Method: the text written out by hand, and its signature under the public key."""
    facts = ProofFacts("leases/01", RunKey("orders/02", 5, 7), 9, 123_456, 1, is_final=True)
    assert proof_text(facts) == b"fallow-proof-v1|leases/01|orders/02|5|7|9|123456|1|1"
    key = Ed25519PrivateKey.generate()
    signer = ProofKey(key)
    key.public_key().verify(signer.sign(facts), proof_text(facts))
    assert len(signer.public_key) == 32
    assert proof_text(replace(facts, is_final=False)).endswith(b"|0")


def test_a_text_with_the_separator_is_a_mistake() -> None:
    """Goal: no two proofs share a text. Method: a lease that holds the separator."""
    with pytest.raises(AssertionError):
        proof_text(ProofFacts("leases/a|b", KEY, 1, 0, 1, is_final=False))
