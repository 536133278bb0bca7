"""Room for big needs, several whole devices on one node, and what it costs to break such room.

Needs of as many devices are one class, with the median (by GPUs asked) of their processor time and memory. A node has
as many slots of a class as such needs fit it. A slot's price is its size times the chance that big needs still to come
outnumber the slots left (Littlewood's rule): the expected number is the class's share of what is free in the whole
market. Needs that are bigger, or take fewer kinds of device, press on the slots of the smaller and freer ones as well.
So nothing is reserved while there are slots enough, and nothing small breaks the last ones.
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
TAIL_DEVIATIONS: Final = 8
"""So many standard deviations from the mean a Poisson tail counts as 0 or 1."""

NORMAL_MEAN: Final = 200.0
"""From this mean on a Poisson number is taken for a normal one."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """Needs of at least ``class`` that only ``kinds`` may take: their share of all GPUs asked."""

    size: int
    kinds: tuple[bool, ...]
    share: float


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
            index = int(np.flatnonzero(self.size == pressure.size)[0])
            kinds = np.array(pressure.kinds)
            size_milli = pressure.size * WHOLE_DEVICE_MILLI
            chance = poisson_tail(free_milli * pressure.share / size_milli, int(slots[kinds, index].sum()))
            prices[kinds, index] = np.maximum(prices[kinds, index], SLOT_WEIGHT * size_milli * chance)
        return prices


def slots(snapshot: Snapshot, kinds: Sequence[Kind]) -> Slots:
    """The classes of big needs in a mix."""
    asked = {need: float(need.total_milli * count) for need, count in snapshot.counts if need.gpu_count}
    total = sum(asked.values()) or 1.0
    sizes = sorted({need.gpu_count for need in asked if need.gpu_count > 1})
    classes = [[need for need in asked if need.gpu_count == size] for size in sizes]
    shares = [sum(asked[need] for need in needs) for needs in classes]
    accepted = [
        [
            sum(asked[need] for need in needs if need.allows(kind)) / share
            for needs, share in zip(classes, shares, strict=True)
        ]
        for kind in kinds
    ]
    return Slots(
        size=np.array(sizes, np.int64),
        cpu_milli=np.array([_median(needs, asked, "cpu_milli") for needs in classes], np.int64),
        memory_bytes=np.array([_median(needs, asked, "memory_bytes") for needs in classes], np.int64),
        share=np.array(shares) / total,
        accepted=np.array(accepted, np.float64).reshape(len(kinds), len(sizes)),
        pressures=_pressures(asked, total, kinds),
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


def _median(needs: Sequence[Need], asked: dict[Need, float], field: str) -> int:
    """The median of a field of needs, by GPUs asked; at least 1, to divide by."""
    half, seen = sum(asked[need] for need in needs) / 2, 0.0
    for amount, need in sorted((int(getattr(need, field)), need) for need in needs):
        seen += asked[need]
        if seen >= half:
            return max(1, amount)
    return 1


def _pressures(asked: dict[Need, float], total: float, kinds: Sequence[Kind]) -> tuple[Pressure, ...]:
    """What presses on each size and set of kinds."""
    taken: dict[tuple[int, tuple[bool, ...]], float] = {}
    for need, milli in asked.items():
        if need.gpu_count > 1:
            key = need.gpu_count, tuple(need.allows(kind) for kind in kinds)
            taken[key] = taken.get(key, 0.0) + milli
    found = []
    for size, mask in sorted(taken):
        pressing = (
            milli
            for (other, inner), milli in taken.items()
            if other >= size and all(outside or not inside for inside, outside in zip(inner, mask, strict=True))
        )
        found.append(Pressure(size, mask, sum(pressing) / total))
    return tuple(found)
