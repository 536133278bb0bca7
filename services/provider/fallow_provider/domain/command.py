"""What becomes of a command: accepted, with what to write down, or refused, with a reason.

Checks of RunLease in their order of precedence: the command's shape, the generation, the agent's own will, nodes,
devices, shares of devices. StopLease is refused only for an older generation that is not known here; an unknown one
that is not older leaves a tombstone, so that a RunLease that comes late starts nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fallow_chassis.errors import ErrorReason
from fallow_provider.domain import reasons
from fallow_provider.domain.inventory import DeviceHealth, Site
from fallow_provider.domain.run import DeviceUse, Placement, Run, RunKey, stop_asked, tombstone

MAX_MILLI = 1_000


@dataclass(frozen=True, slots=True)
class Accepted:
    """The command will be done; ``run`` is what to write down, None where all stands as it should already."""

    run: Run | None = None
    superseded: tuple[RunKey, ...] = ()
    """Live runs of older generations of the group, which must stop."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The command will not be done, and nothing of the generation runs."""

    reason: ErrorReason
    detail: str


@dataclass(frozen=True, slots=True)
class Known:
    """What the agent has written down that bears on a command."""

    runs: Sequence[Run]
    highest_generation: int
    """The highest generation of the command's group that was ever seen, 0 for none."""

    def run(self, key: RunKey) -> Run | None:
        """The run of that key, or None."""
        return next((run for run in self.runs if run.key == key), None)


def decide_run(wanted: Run, known: Known, site: Site, *, is_draining: bool) -> Accepted | Refused:
    """Whether a generation may run here; see the module for the order of the checks."""
    shape = _shape_fault(wanted.placements)
    if shape:
        return Refused(reasons.COMMAND_INVALID, shape)
    present = known.run(wanted.key)
    if present is not None:
        return _repeated(wanted, present)
    if wanted.key.generation < known.highest_generation:
        return Refused(reasons.GENERATION_OLD, f"generation {known.highest_generation} is known")
    if wanted.key.generation == known.highest_generation:
        return Refused(reasons.GENERATION_ENDED, "the generation was forgotten after its end")
    if is_draining:
        return Refused(reasons.DRAINING, "the agent takes no new leases")
    others = [run for run in known.runs if not run.state.is_terminal and not run.key.same_group(wanted.key)]
    fault = _placement_fault(wanted.placements, site, others)
    if fault is not None:
        return fault
    older = tuple(run.key for run in known.runs if run.key.same_group(wanted.key) and run.state.is_live)
    return Accepted(run=wanted, superseded=older)


def decide_stop(lease: str, key: RunKey, known: Known, *, grace_ms: int) -> Accepted | Refused:
    """What a stop of a generation changes."""
    present = known.run(key)
    if present is not None:
        if present.lease != lease:
            return Refused(reasons.COMMAND_INVALID, f"the generation belongs to {present.lease}")
        after = stop_asked(present, grace_ms)
        return Accepted(run=None if after is present else after)
    if key.generation < known.highest_generation:
        return Refused(reasons.GENERATION_OLD, f"generation {known.highest_generation} is known")
    if key.generation == known.highest_generation:
        return Accepted()
    return Accepted(run=tombstone(lease, key))


def _repeated(wanted: Run, present: Run) -> Accepted | Refused:
    """What a second command to run a generation gets; nothing is started twice."""
    if present.lease != wanted.lease:
        return Refused(reasons.COMMAND_INVALID, f"the generation belongs to {present.lease}")
    if present.state.is_live:
        return Accepted()
    return Refused(reasons.GENERATION_ENDED, f"the generation is {present.state.name}")


def _shape_fault(placements: Sequence[Placement]) -> str:
    """What is wrong with the command itself; empty when nothing is."""
    if not placements:
        return "no replica is placed"
    names = [(placement.service, placement.replica) for placement in placements]
    if len(names) != len(set(names)):
        return "a replica is placed twice"
    if any(not placement.service or placement.replica < 0 for placement in placements):
        return "a placement names no replica"
    for placement in placements:
        if any(not 1 <= device.milli <= MAX_MILLI for device in placement.devices):
            return "a device's share is outside 1 to 1,000"
    return ""


def _placement_fault(placements: Sequence[Placement], site: Site, others: Sequence[Run]) -> Refused | None:
    """The first node or device that is not there or not free."""
    for placement in placements:
        node = site.node(placement.node_id)
        if node is None:
            return Refused(reasons.NODE_MISSING, f"there is no node {placement.node_id}")
        present = {device.device_id: device for device in node.devices}
        for use in placement.devices:
            device = present.get(use.device_id)
            if device is None:
                return Refused(reasons.DEVICE_MISSING, f"node {node.node_id} has no device {use.device_id}")
            if device.health in {DeviceHealth.DEGRADED, DeviceHealth.FAILED}:
                return Refused(reasons.DEVICE_FAILED, f"device {use.device_id} is {device.health.name}")
    held = _shares([use for run in others for placement in run.placements for use in placement.devices])
    asked = _shares([use for placement in placements for use in placement.devices])
    for device_id, milli in asked.items():
        if held.get(device_id, 0) + milli > MAX_MILLI:
            return Refused(
                reasons.DEVICE_BUSY, f"device {device_id} has {MAX_MILLI - held.get(device_id, 0)} of {milli} free"
            )
    return None


def _shares(uses: Sequence[DeviceUse]) -> Mapping[str, int]:
    """The sum of shares by device."""
    total: dict[str, int] = {}
    for use in uses:
        total[use.device_id] = total.get(use.device_id, 0) + use.milli
    return total
