"""One generation on this provider: its states, its running time, its proofs.

STARTING → RUNNING ⇄ SUSPENDED → STOPPING → STOPPED or FAILED. A run whose tenant has no funds is SUSPENDED: its containers
are frozen and keep their devices, its time stands still. A run that must end for a reason of its own (EXITED, SELF_STOPPED …)
carries that reason through STOPPING and ends FAILED; one that the market ended carries none and ends STOPPED. STOPPED
and FAILED promise that nothing of the generation runs, so only ``ended`` may make them, after the driver has destroyed
everything. Running time counts milliseconds between readiness and the begin of the stop, without pauses; it only grows, it
is written down before a proof of it is signed, and proofs are numbered without gaps.
"""

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

MAX_DETAIL_CHARACTERS: Final = 1_024
DEFAULT_SELF_STOP_MS: Final = 60_000
DEFAULT_START_TIMEOUT_MS: Final = 300_000
DEFAULT_GRACE_MS: Final = 10_000


class RunState(IntEnum):
    """How far a generation is; the numbers are those of the contract."""

    STARTING = 1
    RUNNING = 2
    SUSPENDED = 3
    STOPPING = 4
    STOPPED = 5
    FAILED = 6

    @property
    def is_live(self) -> bool:
        """Whether containers may run in this state."""
        return self in {RunState.STARTING, RunState.RUNNING, RunState.SUSPENDED}

    @property
    def is_terminal(self) -> bool:
        """Whether nothing runs and nothing ever will."""
        return self in {RunState.STOPPED, RunState.FAILED}


PROVING: Final = frozenset({RunState.RUNNING, RunState.SUSPENDED})
"""States in which each heartbeat proves the running time: in a pause it proves that it stands still."""


@dataclass(frozen=True, slots=True, order=True)
class RunKey:
    """Names one run of one group: ``orders/…``, the group's index, the generation."""

    order: str
    group: int
    generation: int

    def __post_init__(self) -> None:
        """Hold the bounds of the contract."""
        assert self.order, "a run belongs to an order"
        assert self.group >= 0, "groups count from 0"
        assert self.generation >= 1, "generations count from 1"

    def same_group(self, other: "RunKey") -> bool:
        """Whether both are runs of one group."""
        return self.order == other.order and self.group == other.group


@dataclass(frozen=True, slots=True)
class DeviceUse:
    """A share of one device, in thousandths."""

    node_id: str
    device_id: str
    milli: int


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one replica of one service runs."""

    service: str
    replica: int
    node_id: str
    devices: tuple[DeviceUse, ...] = ()


@dataclass(frozen=True, slots=True)
class ProofFacts:
    """What a proof states; ``domain.proof`` makes the signed text of it."""

    lease: str
    key: RunKey
    sequence: int
    running_ms: int
    device_health: int
    is_final: bool


@dataclass(frozen=True, slots=True)
class Run:
    """One generation as the agent has it written down."""

    lease: str
    key: RunKey
    placements: tuple[Placement, ...]
    self_stop_ms: int = DEFAULT_SELF_STOP_MS
    start_timeout_ms: int = DEFAULT_START_TIMEOUT_MS
    order_address: str = ""
    workload_grant: str = ""
    accepted_at_ms: int = 0
    """Monotonic reading of this machine's present life when the command was accepted."""
    machine_boot_id: str = ""
    """Life of the machine in which ``accepted_at_ms`` was read."""
    state: RunState = RunState.STARTING
    reason: str = ""
    detail: str = ""
    progress: str = ""
    grace_ms: int = DEFAULT_GRACE_MS
    running_ms: int = 0
    proof_sequence: int = 0
    final_sequence: int = 0
    """Number of the final proof; 0 until there is one."""
    final_acknowledged: bool = False

    def __post_init__(self) -> None:
        """Hold what the states promise."""
        assert self.lease, "a run belongs to a lease"
        assert self.running_ms >= 0, "running time is never negative"
        assert self.state.is_terminal or not self.final_sequence, "a final proof is the last word"
        assert self.state is not RunState.FAILED or self.reason, "a failure has a reason"
        may_fail = self.state in {RunState.STOPPING, RunState.FAILED}
        assert may_fail or not self.reason, "only failures have reasons"
        assert len(self.detail) <= MAX_DETAIL_CHARACTERS, "a detail is bounded"


def progressed(run: Run, progress: str) -> Run:
    """The run with another word on its start; only while it starts."""
    assert run.state is RunState.STARTING, "only a start has progress"
    return replace(run, progress=progress[:MAX_DETAIL_CHARACTERS])


def became_ready(run: Run) -> Run:
    """The run once every container passed its readiness check."""
    assert run.state is RunState.STARTING, f"a run in {run.state.name} does not become ready"
    return replace(run, state=RunState.RUNNING, progress="")


def suspended(run: Run) -> Run:
    """The run that is paused for want of funds; unchanged where it does not run."""
    return replace(run, state=RunState.SUSPENDED) if run.state is RunState.RUNNING else run


def resumed(run: Run) -> Run:
    """The run that goes on after a pause; unchanged where it was not paused."""
    return replace(run, state=RunState.RUNNING) if run.state is RunState.SUSPENDED else run


def stop_asked(run: Run, grace_ms: int) -> Run:
    """The run that the market wants stopped; unchanged when it is stopping or over already."""
    if not run.state.is_live:
        return run
    return replace(run, state=RunState.STOPPING, grace_ms=grace_ms, progress="")


def failed(run: Run, reason: str, detail: str, *, grace_ms: int = DEFAULT_GRACE_MS) -> Run:
    """The run that must end for a reason of its own; unchanged when it is stopping or over already."""
    assert reason, "a failure has a reason"
    if not run.state.is_live:
        return run
    return replace(
        run,
        state=RunState.STOPPING,
        reason=reason,
        detail=detail[:MAX_DETAIL_CHARACTERS],
        grace_ms=grace_ms,
        progress="",
    )


def ended(run: Run) -> Run:
    """The run once nothing of it runs any more, with its final proof numbered."""
    assert run.state is RunState.STOPPING, f"a run in {run.state.name} cannot have ended"
    sequence = run.proof_sequence + 1
    state = RunState.FAILED if run.reason else RunState.STOPPED
    return replace(run, state=state, workload_grant="", proof_sequence=sequence, final_sequence=sequence, progress="")


def tombstone(lease: str, key: RunKey) -> Run:
    """The record of a generation that was stopped before it was ever started here: it never will be."""
    return Run(lease=lease, key=key, placements=(), state=RunState.STOPPED, proof_sequence=1, final_sequence=1)


def has_run_for(run: Run, elapsed_ms: int) -> Run:
    """The run after ``elapsed_ms`` more of running; only RUNNING grows."""
    assert elapsed_ms >= 0, "the monotonic clock never goes back"
    assert run.state is RunState.RUNNING or not elapsed_ms, f"a run in {run.state.name} does not grow"
    return replace(run, running_ms=run.running_ms + elapsed_ms)


def prove(run: Run, device_health: int) -> tuple[Run, ProofFacts]:
    """The run with its next proof numbered, and what that proof states."""
    assert run.state in PROVING, f"a run in {run.state.name} makes no ordinary proof"
    numbered = replace(run, proof_sequence=run.proof_sequence + 1)
    facts = ProofFacts(run.lease, run.key, numbered.proof_sequence, run.running_ms, device_health, is_final=False)
    return numbered, facts


def final_proof(run: Run, device_health: int) -> ProofFacts:
    """What the final proof of a run that is over states; the same every time."""
    assert run.final_sequence, "only a run that is over has a final proof"
    return ProofFacts(run.lease, run.key, run.final_sequence, run.running_ms, device_health, is_final=True)


def acknowledge_final(run: Run) -> Run:
    """The run that is over once the market has its final proof."""
    assert run.final_sequence, "only a run that is over has a final proof"
    return replace(run, final_acknowledged=True)


def is_past_self_stop(run: Run, *, now_ms: int, acknowledged_at_ms: int | None, machine_boot_id: str) -> bool:
    """Whether the agent must stop the run by itself.

    ``acknowledged_at_ms`` is when the last acknowledged heartbeat was sent, None when no such heartbeat is known of this
    life of the machine. Accepting the command counts as a sign of life too. After a restart of the machine every
    monotonic reading of before is worthless; the silence could have been of any length, so the run is over.
    """
    if not run.state.is_live:
        return False
    if run.machine_boot_id != machine_boot_id:
        return True
    last_ms = run.accepted_at_ms if acknowledged_at_ms is None else max(run.accepted_at_ms, acknowledged_at_ms)
    return now_ms - last_ms > run.self_stop_ms
