"""Room for big needs, several whole devices on one node, and what it costs to break such room.

Needs of as many devices are two classes: those that ask for no more processor time than the median (by GPUs asked), and
those that ask for more. A slot has room for nine in ten of its class, and a node has as many slots of a class as fit it. A
slot's price is its size times the chance that big needs still to come outnumber the slots left (Littlewood's rule): the
expected number is the class's share of what is free in the whole market. Needs that are bigger, ask for more processor
time, or take fewer kinds of device, press on the slots of the others as well. So nothing is reserved while there are slots enough, and nothing small breaks the last ones.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from fallow_bidding.domain.engine.inventory import Floats, Integers
from fallow_bidding.domain.engine.mix import Snapshot
from fallow_bidding.domain.engine.needs import Kind, Need
from fallow_bidding.domain.engine.states import States
from fallow_bidding.domain.supply import WHOLE_DEVICE_MILLI

SLOT_WEIGHT: Final = 1.0
"""Of a slot's size this much is charged when it is sure to be missed."""
MOST: Final = 0.9
"""A slot has room for this part of its class, by GPUs asked."""
TAIL_DEVIATIONS: Final = 8
"""So many standard deviations from the mean a Poisson tail counts as 0 or 1."""

NORMAL_MEAN: Final = 200.0
"""From this mean on a Poisson number is taken for a normal one."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """Needs that take a slot of class ``index`` or a better one, and only of ``kinds``: their share of all GPUs asked."""

    index: int
    kinds: tuple[bool, ...]
    share: float


@dataclass(frozen=True, slots=True)
class _Class:
    """Needs of as many devices that ask for more processor time than ``above_milli``."""

    size: int
    above_milli: int
    needs: tuple[Need, ...]


@dataclass(frozen=True, slots=True)
class Slots:
    """Classes of big needs, smallest first; ``accepted`` (kinds, classes) is how much of a class a kind may take."""

    size: Integers
    cpu_milli: Integers
    memory_bytes: Integers
    share: Floats
    accepted: Floats
    pressures: tuple[Pressure, ...]

    def count(self, states: States, whole: Integers) -> Integers:
        """Slots by state and class, of nodes with ``whole`` devices untouched."""
        by_cpu = states.cpu_milli[:, None] // self.cpu_milli
        by_memory = states.memory_bytes[:, None] // self.memory_bytes
        counts: Integers = np.minimum(np.minimum(whole[:, None] // self.size, by_cpu), by_memory)
        return counts

    def prices(self, free_milli: int, slots: Integers) -> Floats:
        """Prices by kind and class, with ``free_milli`` free in the market and ``slots`` by kind and class left."""
        prices = np.zeros(self.accepted.shape)
        for pressure in self.pressures:
            index, kinds = pressure.index, np.array(pressure.kinds, np.bool_)
            size_milli = int(self.size[index]) * WHOLE_DEVICE_MILLI
            chance = poisson_tail(free_milli * pressure.share / size_milli, int(slots[kinds, index].sum()))
            prices[kinds, index] = np.maximum(prices[kinds, index], SLOT_WEIGHT * size_milli * chance)
        return prices


def slots(snapshot: Snapshot, kinds: Sequence[Kind]) -> Slots:
    """The classes of big needs in a mix."""
    asked = {need: float(need.total_milli * count) for need, count in snapshot.counts if need.gpu_count}
    total = sum(asked.values()) or 1.0
    classes = _classes(asked)
    shares = [sum(asked[need] for need in each.needs) for each in classes]
    accepted = [
        [
            sum(asked[need] for need in each.needs if need.allows(kind)) / share
            for each, share in zip(classes, shares, strict=True)
        ]
        for kind in kinds
    ]
    return Slots(
        size=np.array([each.size for each in classes], np.int64),
        cpu_milli=np.array([_quantile(each.needs, asked, "cpu_milli", MOST) for each in classes], np.int64),
        memory_bytes=np.array([_quantile(each.needs, asked, "memory_bytes", MOST) for each in classes], np.int64),
        share=np.array(shares) / total,
        accepted=np.array(accepted, np.float64).reshape(len(kinds), len(classes)),
        pressures=tuple(
            pressure for index, each in enumerate(classes) for pressure in _pressures(index, each, asked, total, kinds)
        ),
    )


def poisson_tail(mean: float, least: int) -> float:
    """The chance that a Poisson number of this mean is at least ``least``."""
    spread = TAIL_DEVIATIONS * math.sqrt(mean) + TAIL_DEVIATIONS
    if least <= max(0.0, mean - spread):
        return 1.0
    if least >= mean + spread:
        return 0.0
    if mean > NORMAL_MEAN:
        return 0.5 * math.erfc((least - 0.5 - mean) / math.sqrt(2.0 * mean))
    term, below = math.exp(-mean), 0.0
    for number in range(least):
        below += term
        term *= mean / (number + 1)
    return max(0.0, 1.0 - below)


def _classes(asked: dict[Need, float]) -> list[_Class]:
    """The classes of big needs, smallest first, and of a size those with less processor time first."""
    found = []
    for size in sorted({need.gpu_count for need in asked if need.gpu_count > 1}):
        needs = [need for need in asked if need.gpu_count == size]
        median = _quantile(needs, asked, "cpu_milli", 0.5)
        light = tuple(need for need in needs if need.cpu_milli <= median)
        heavy = tuple(need for need in needs if need.cpu_milli > median)
        found += [_Class(size, -1, light)] + ([_Class(size, median, heavy)] if heavy else [])
    return found


def _quantile(needs: Sequence[Need], asked: dict[Need, float], field: str, part: float) -> int:
    """The quantile of a field of needs, by GPUs asked; at least 1, to divide by."""
    enough, seen = part * sum(asked[need] for need in needs), 0.0
    for amount, need in sorted((int(getattr(need, field)), need) for need in needs):
        seen += asked[need]
        if seen >= enough:
            return max(1, amount)
    return 1


def _pressures(
    index: int, pressed: _Class, asked: dict[Need, float], total: float, kinds: Sequence[Kind]
) -> list[Pressure]:
    """What presses on a class, for each set of kinds that its needs name."""
    taken: dict[tuple[bool, ...], float] = {}
    for need, milli in asked.items():
        if need.gpu_count >= pressed.size and need.cpu_milli > pressed.above_milli:
            mask = tuple(need.allows(kind) for kind in kinds)
            taken[mask] = taken.get(mask, 0.0) + milli
    named = sorted({tuple(need.allows(kind) for kind in kinds) for need in pressed.needs})
    return [
        Pressure(
            index,
            mask,
            sum(
                milli
                for inner, milli in taken.items()
                if all(outside or not inside for inside, outside in zip(inner, mask, strict=True))
            )
            / total,
        )
        for mask in named
    ]
