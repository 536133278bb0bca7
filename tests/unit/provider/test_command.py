"""What becomes of commands, as tables in the order of precedence."""

from dataclasses import replace

import pytest

from fallow_provider.domain.command import Accepted, Known, Refused, decide_run, decide_stop
from fallow_provider.domain.inventory import Device, DeviceHealth, DeviceSource, Node, Prices, Site, worst_health
from fallow_provider.domain.run import DeviceUse, Placement, Run, RunKey, RunState, became_ready, ended, stop_asked

HEALTHY = DeviceHealth.HEALTHY


def device(name: str, health: DeviceHealth = HEALTHY) -> Device:
    """A device."""
    return Device(name, "nvidia", "h100", 80 << 30, "sxm", health, DeviceSource.DECLARED)


SITE = Site(
    "Fjord", "eu", {}, (Node("n1", 1, 1, devices=(device("a"), device("b"), device("broken", DeviceHealth.FAILED))),),
    Prices("usdc"),
)  # fmt: skip
KEY = RunKey("orders/o", 0, 5)


def wanted(*uses: tuple[str, int], key: RunKey = KEY, lease: str = "leases/l", node: str = "n1") -> Run:
    """A run that is asked for, with one replica."""
    devices = tuple(DeviceUse(node, name, milli) for name, milli in uses)
    return Run(lease, key, (Placement("web", 0, node, devices),))


def known(*runs: Run, highest: int = 0) -> Known:
    """What is written down."""
    return Known(runs=runs, highest_generation=highest)


def reason(decision: Accepted | Refused) -> str:
    """The reason of a refusal, or nothing."""
    return decision.reason.reason if isinstance(decision, Refused) else ""


ELSEWHERE = RunKey("orders/x", 0, 1)
BUSY = became_ready(wanted(("a", 600), key=ELSEWHERE, lease="leases/x"))


@pytest.mark.parametrize(
    ("run", "facts", "draining", "expected"),
    [
        (wanted(("a", 1_000)), known(), False, ""),
        (wanted(), known(highest=4), False, ""),
        (replace(wanted(), placements=()), known(highest=9), True, "COMMAND_INVALID"),
        (replace(wanted(), placements=wanted().placements * 2), known(highest=9), True, "COMMAND_INVALID"),
        (wanted(("a", 0)), known(highest=9), True, "COMMAND_INVALID"),
        (wanted(("a", 1_001)), known(highest=9), True, "COMMAND_INVALID"),
        (wanted(("no", 1)), known(highest=6), True, "GENERATION_OLD"),
        (wanted(("no", 1)), known(highest=5), True, "GENERATION_ENDED"),
        (wanted(("no", 1)), known(ended(stop_asked(wanted(), 0)), highest=5), True, "GENERATION_ENDED"),
        (wanted(("no", 1)), known(stop_asked(wanted(), 0), highest=5), True, "GENERATION_ENDED"),
        (wanted(("no", 1)), known(replace(wanted(), lease="leases/z"), highest=5), True, "COMMAND_INVALID"),
        (wanted(("no", 1)), known(), True, "DRAINING"),
        (wanted(("no", 1), node="n2"), known(), False, "NODE_MISSING"),
        (wanted(("no", 1)), known(), False, "DEVICE_MISSING"),
        (wanted(("broken", 1)), known(), False, "DEVICE_FAILED"),
        (wanted(("a", 400)), known(BUSY), False, ""),
        (wanted(("a", 401)), known(BUSY), False, "DEVICE_BUSY"),
        (wanted(("b", 1_000)), known(BUSY), False, ""),
        (wanted(("a", 401)), known(stop_asked(BUSY, 0)), False, "DEVICE_BUSY"),
        (wanted(("a", 401)), known(ended(stop_asked(BUSY, 0))), False, ""),
        (wanted(("a", 600), ("a", 401)), known(), False, "DEVICE_BUSY"),
    ],
)
def test_run_in_order_of_precedence(run: Run, facts: Known, *, draining: bool, expected: str) -> None:
    """Goal: the first fault is told. Method: commands with one fault more each; a stopping run still holds devices."""
    assert reason(decide_run(run, facts, SITE, is_draining=draining)) == expected


def test_a_repeat_changes_nothing() -> None:
    """Goal: commands may come twice. Method: the run is starting, then running; even while draining."""
    for present in (wanted(), became_ready(wanted())):
        assert decide_run(wanted(), known(present, highest=5), SITE, is_draining=True) == Accepted()


def test_a_newer_generation_supersedes_the_older() -> None:
    """Goal: one generation of a group runs, on the same device. Method: generation 5 where 4 runs and holds it."""
    older = became_ready(wanted(("a", 1_000), key=RunKey("orders/o", 0, 4), lease="leases/k"))
    decision = decide_run(wanted(("a", 1_000)), known(older, highest=4), SITE, is_draining=False)
    assert isinstance(decision, Accepted)
    assert decision.superseded == (older.key,)
    assert decision.run == wanted(("a", 1_000))


@pytest.mark.parametrize(
    ("facts", "expected", "state"),
    [
        (known(), "", RunState.STOPPED),
        (known(highest=4), "", RunState.STOPPED),
        (known(highest=5), "", None),
        (known(highest=6), "GENERATION_OLD", None),
        (known(wanted(), highest=5), "", RunState.STOPPING),
        (known(wanted(), highest=6), "", RunState.STOPPING),
        (known(stop_asked(wanted(), 0), highest=5), "", None),
        (known(ended(stop_asked(wanted(), 0)), highest=5), "", None),
        (known(replace(wanted(), lease="leases/z"), highest=5), "COMMAND_INVALID", None),
    ],
)
def test_stop(facts: Known, expected: str, state: RunState | None) -> None:
    """Goal: a stop always ends in nothing running. Method: known, unknown, old, repeated; what is written down."""
    decision = decide_stop("leases/l", KEY, facts, grace_ms=7_000)
    assert reason(decision) == expected
    written = decision.run if isinstance(decision, Accepted) else None
    assert (written.state if written else None) == state


def test_the_worst_health_counts() -> None:
    """Goal: evidence of the worst device. Method: sets of healths; unknown is better than degraded."""
    health = DeviceHealth
    assert worst_health([]) is health.HEALTHY
    assert worst_health([health.HEALTHY, health.UNSPECIFIED]) is health.UNSPECIFIED
    assert worst_health([health.DEGRADED, health.UNSPECIFIED]) is health.DEGRADED
    assert worst_health([health.DEGRADED, health.FAILED, health.HEALTHY]) is health.FAILED
