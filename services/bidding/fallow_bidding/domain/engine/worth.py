"""What free capacity is worth under a mix of needs: how much of it will be left over, in milli-GPU.

Two tables by exact dynamic programming, for each kind of device:

- ``device_waste``: what is left of one device with so much free, on a node with so much processor time. A whole device
  takes the next need that comes. A hole in a device takes the better of two that fit, since needs choose among many
  holes. A hole that few needs fit may stay empty, and more so than in proportion: such holes are many, for they
  linger, and the few needs are shared among them.
- ``exhaustion``: what is left of a node's devices, taken together, once its processor time (or memory) has run out.

Grids are coarse on purpose: devices in 10 milli, nodes in 100 milli, processor time in cores, memory in 8 GiB. Free
amounts are rounded down and needs up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from fallow_bidding.domain.engine.inventory import Floats, Integers
from fallow_bidding.domain.engine.mix import Snapshot
from fallow_bidding.domain.engine.needs import Kind, Need
from fallow_bidding.domain.engine.states import States
from fallow_bidding.domain.supply import WHOLE_DEVICE_MILLI

RARE: Final = 0.02
"""A hole that fits this share of all needs stays empty with a chance of 1 in e; one that fits more, hardly ever."""
PATIENCE: Final = 60
"""Needs that a node may expect before what it has left is lost."""
CHOICE: Final = 2
"""Of so many needs that fit it a hole takes the one that fits best."""
EXHAUSTION_WEIGHT: Final = 0.25
"""Weight of each of processor time and memory; the two tables count some of the same capacity twice."""
DEVICE_STEP: Final = 10
DEVICE_STEPS: Final = WHOLE_DEVICE_MILLI // DEVICE_STEP
NODE_STEP: Final = 100
CORE_MILLI: Final = 1_000
MEMORY_STEP: Final = 8 << 30
DEVICE_CORES_MAX: Final = 64
UNITS_MAX: Final = 128
KEPT: Final = 8
"""Mixes whose tables are kept: a market that is laid out anew for each pass has the same mix for many."""

_Group = tuple[int, int]
"""GPU steps and units of processor time or memory of like needs."""


@dataclass(frozen=True, slots=True)
class Waste:
    """The tables by kind: devices (kinds, cores, steps); nodes by processor time and by memory (kinds, units, steps)."""

    device: Floats
    cpu: Floats
    memory: Floats

    def of(self, states: States) -> tuple[Floats, Floats]:
        """What will be left of each device, (states, devices), and of each node besides, (states)."""
        return self.of_devices(states, states.free), self.of_nodes(states, states.total)

    def of_devices(self, states: States, free: Integers) -> Floats:
        """What will be left of devices with ``free`` milli, (states, devices), on nodes in these states."""
        cores = np.minimum(states.cpu_milli // CORE_MILLI, DEVICE_CORES_MAX)
        left: Floats = self.device[states.kind[:, None], cores[:, None], np.maximum(free, 0) // DEVICE_STEP]
        return left

    def of_nodes(self, states: States, total: Integers) -> Floats:
        """What exhaustion will leave of nodes with ``total`` milli free."""
        steps = np.minimum((total + NODE_STEP // 2) // NODE_STEP, self.cpu.shape[2] - 1)
        cores = np.minimum(states.cpu_milli // CORE_MILLI, UNITS_MAX)
        units = np.minimum(states.memory_bytes // MEMORY_STEP, UNITS_MAX)
        left: Floats = self.cpu[states.kind, cores, steps] + self.memory[states.kind, units, steps]
        return EXHAUSTION_WEIGHT * left


@lru_cache(maxsize=KEPT)
def waste(snapshot: Snapshot, kinds: tuple[Kind, ...], width: int) -> Waste:
    """The tables of a mix for some kinds of device, ``width`` devices on a node at most; the last ones are kept."""
    total = sum(count for _, count in snapshot.counts)
    tables: dict[tuple[bool, ...], tuple[Floats, Floats, Floats]] = {}
    by_kind = []
    for kind in kinds:
        wanted = tuple(need.allows(kind) for need, _ in snapshot.counts)
        if wanted not in tables:
            counts = [
                (need, count / total) for (need, count), wants in zip(snapshot.counts, wanted, strict=True) if wants
            ]
            tables[wanted] = _tables(counts, width)
        by_kind.append(tables[wanted])
    return Waste(*(np.stack(part) for part in zip(*by_kind, strict=True)))


def _tables(counts: Sequence[tuple[Need, float]], width: int) -> tuple[Floats, Floats, Floats]:
    """The three tables of the needs that a kind may take, each with its share of all arrivals."""
    single: dict[_Group, float] = {}
    cpu: dict[_Group, float] = {}
    memory: dict[_Group, float] = {}
    for need, share in counts:
        cores = max(1, _up(need.cpu_milli, CORE_MILLI))
        if need.gpu_count == 1:
            _count(single, (_up(need.gpu_milli, DEVICE_STEP), cores), share)
        steps = (need.total_milli + NODE_STEP // 2) // NODE_STEP
        _count(cpu, (steps, cores), share)
        _count(memory, (steps, max(1, _up(need.memory_bytes, MEMORY_STEP))), share)
    steps_max = width * (WHOLE_DEVICE_MILLI // NODE_STEP)
    return device_waste(single), exhaustion(cpu, steps_max), exhaustion(memory, steps_max)


def device_waste(shares: dict[_Group, float]) -> Floats:
    """Expected milli left of one device, (cores, steps free), when needs of (steps, cores) come with these shares."""
    steps = np.arange(DEVICE_STEPS + 1)
    table = np.tile(steps * float(DEVICE_STEP), (DEVICE_CORES_MAX + 1, 1))
    groups = sorted(shares, key=lambda group: (-group[0], group[1]))
    if not groups:
        return table
    size, cores = np.array(groups).T
    share = np.array([shares[group] for group in groups])
    heads = np.flatnonzero(np.r_[True, size[1:] != size[:-1]])
    source = np.maximum(steps - size[:, None], 0)
    draws = np.where(steps == DEVICE_STEPS, 1, CHOICE)
    for budget in range(1, DEVICE_CORES_MAX + 1):
        fits = (cores <= budget)[:, None] & (size[:, None] <= steps)
        weight = share[:, None] * fits
        left = table[np.maximum(budget - cores, 0)[:, None], source]
        mass = np.add.reduceat(weight, heads, axis=0)
        value = np.add.reduceat(weight * left, heads, axis=0)
        fitting = mass.sum(axis=0)
        scale = np.where(fitting > 0, fitting, 1.0)
        seen = np.minimum(np.cumsum(mass, axis=0) / scale, 1.0)
        before = np.maximum(seen - mass / scale, 0.0)
        best = (1.0 - before) ** draws - (1.0 - seen) ** draws
        expected = (best * value / np.where(mass > 0, mass, 1.0)).sum(axis=0)
        none = np.exp(-((fitting / RARE) ** 2))
        table[budget] = none * steps * DEVICE_STEP + (1.0 - none) * expected
    return table


def exhaustion(shares: dict[_Group, float], steps_max: int) -> Floats:
    """Expected milli left of a node, (units, steps free), when needs of (steps, units) come; devices count as one."""
    steps = np.arange(steps_max + 1)
    table = np.tile(steps * float(NODE_STEP), (UNITS_MAX + 1, 1))
    groups = sorted(shares)
    if not groups:
        return table
    size, units = np.array(groups).T
    share = np.array([shares[group] for group in groups])
    source = np.maximum(steps - size[:, None], 0)
    for budget in range(1, UNITS_MAX + 1):
        fits = (units <= budget)[:, None] & (size[:, None] <= steps)
        weight = share[:, None] * fits
        left = table[np.maximum(budget - units, 0)[:, None], source]
        fitting = weight.sum(axis=0)
        using = weight[size > 0].sum(axis=0)
        expected = (weight * left).sum(axis=0) / np.where(fitting > 0, fitting, 1.0)
        none = np.where(fitting > 0, np.maximum(1.0 - using, 0.0) ** PATIENCE, 1.0)
        table[budget] = none * steps * NODE_STEP + (1.0 - none) * expected
    return table


def _count(shares: dict[_Group, float], group: _Group, share: float) -> None:
    """Add a share to a group."""
    shares[group] = shares.get(group, 0.0) + share


def _up(amount: int, step: int) -> int:
    """Steps that hold an amount."""
    return -(-amount // step)
