"""How good a place is for a need: the engine's own policy, and those that it is compared with.

A policy looks at states, never at owners: it gives each state a cost of placing the need there, lower is better, and
the device that a share goes to. The engine takes the place that costs least.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from fallow_bidding.domain.engine.inventory import Floats, Integers, Inventory
from fallow_bidding.domain.engine.mix import Snapshot
from fallow_bidding.domain.engine.needs import Kind, Need
from fallow_bidding.domain.engine.slots import Slots, slots
from fallow_bidding.domain.engine.states import States, StateTable
from fallow_bidding.domain.engine.worth import Waste, waste
from fallow_bidding.domain.supply import WHOLE_DEVICE_MILLI

FRAGMENTATION_WEIGHT: Final = 0.15
"""Weight of what a node cannot give to big needs, beside what will be left over."""

POPULARITY: Final = 0.95
"""The most frequent needs that make up this share of all are the mix of fragmentation gradient descent."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """By state: the cost, the position of a share's device, and the slots of each class that would be lost."""

    cost: Floats
    position: Integers
    lost: Integers


Scale = tuple[float, float]
"""Processor time and devices of the largest node that a policy has seen."""
UNSEEN: Final[Scale] = (0.0, 0.0)


class Policy(Protocol):
    """What the engine asks of a policy. All of it is a function of what was learned and of the arguments."""

    name: str
    seed: int
    classes: int
    scale: Scale

    def learn(self, snapshot: Snapshot, kinds: Sequence[Kind], width: int) -> None:
        """Take a new mix; whatever was judged before is void."""

    def judge(self, need: Need, states: States) -> Verdict:
        """Judge states that have room for the need."""

    def prices(self, inventory: Inventory, table: StateTable) -> Floats:
        """The price of a slot by kind and class, now."""

    def draw(self, sequence: int, rows: Integers) -> int:
        """Which of equally good rows to take; they are in falling age."""


class _Plain:
    """What policies have in common that know no slots and take the oldest of equals."""

    name = ""
    seed = 0
    classes = 0
    scale = UNSEEN

    def learn(self, snapshot: Snapshot, kinds: Sequence[Kind], width: int) -> None:
        """Learn nothing."""

    def prices(self, inventory: Inventory, table: StateTable) -> Floats:
        """No slots, no prices."""
        return np.zeros((len(inventory.kinds), 0))

    def draw(self, sequence: int, rows: Integers) -> int:
        """The first."""
        return int(rows[0])


class LeastWaste:
    """The engine's own: where the capacity that will be left over, and the room for big needs lost, grow least."""

    name = "least_waste"
    seed = 0
    scale = UNSEEN

    def __init__(self) -> None:
        """Nothing learned yet: ``learn`` comes first."""
        self.classes = 0
        self._learned: tuple[Snapshot, tuple[Kind, ...], int] = Snapshot(), (), 0
        self._waste: Waste | None = None
        self._slots: Slots | None = None

    def learn(self, snapshot: Snapshot, kinds: Sequence[Kind], width: int) -> None:
        """Note a mix; its tables are made when something is first judged."""
        self._waste = None
        self._learned = snapshot, tuple(kinds), width
        self._slots = slots(snapshot, kinds)
        self.classes = len(self._slots.size)

    def judge(self, need: Need, states: States) -> Verdict:
        """The growth of what will be left, and the slots lost, on the best device of each state."""
        assert self._slots is not None, "a policy judges by what it has learned"
        left, classes = self._tables(), self._slots
        taken = states.charged(need, states.free)
        whole, total = states.whole, states.total
        slots_before = classes.count(states, whole)
        before, node_before = left.of(states)
        same = left.of_devices(taken, states.free)
        cost = same.sum(axis=1) - before.sum(axis=1) - node_before
        cost += left.of_nodes(taken, total - need.total_milli)
        position = np.zeros(len(cost), np.int64)
        if need.is_whole:
            cost -= same[:, : need.gpu_count].sum(axis=1)
            whole = whole - need.gpu_count
        elif need.gpu_count:
            growth = left.of_devices(taken, states.free - need.gpu_milli) - same
            opened = self._opening(classes, taken, whole, total - need.total_milli)
            growth += np.where(states.free == WHOLE_DEVICE_MILLI, opened[:, None], 0.0)
            # Rounded, so that the order of a summation never decides.
            growth = np.where(states.options(need), np.round(growth, 6), np.inf)
            # Of equal devices the last one tried is the fullest.
            position = growth.shape[1] - 1 - np.argmin(growth[:, ::-1], axis=1)
            index = np.arange(len(cost))
            cost += growth[index, position] - np.where(states.free[index, position] == WHOLE_DEVICE_MILLI, opened, 0.0)
            whole = whole - (states.free[index, position] == WHOLE_DEVICE_MILLI)
        slots_after = classes.count(taken, whole)
        cost += self._fragmentation(classes, states.kind, slots_after, total - need.total_milli)
        cost -= self._fragmentation(classes, states.kind, slots_before, total)
        return Verdict(cost, position, slots_before - slots_after)

    def prices(self, inventory: Inventory, table: StateTable) -> Floats:
        """What a slot is worth by kind and class, with what is free now."""
        assert self._slots is not None, "a policy prices what it has learned"
        kinds = len(inventory.kinds)
        if not self.classes:
            return np.zeros((kinds, 0))
        states = table.states(np.arange(table.count))
        held = np.bincount(table.row_state, minlength=table.count)
        counts = self._slots.count(states, states.whole) * held[:, None]
        left = np.stack([np.bincount(states.kind, column, kinds) for column in counts.T], axis=1)
        return self._slots.prices(int((states.total * held).sum()), left.astype(np.int64))

    def draw(self, sequence: int, rows: Integers) -> int:
        """The first: age, then id."""
        return int(rows[0])

    def _tables(self) -> Waste:
        """The tables of what was learned."""
        if self._waste is None:
            self._waste = waste(*self._learned)
        return self._waste

    def _opening(self, classes: Slots, taken: States, whole: Integers, total: Integers) -> Floats:
        """What it adds to fragmentation to open a whole device rather than a used one."""
        closed, opened = classes.count(taken, whole), classes.count(taken, np.maximum(whole - 1, 0))
        return self._fragmentation(classes, taken.kind, opened, total) - self._fragmentation(
            classes, taken.kind, closed, total
        )

    @staticmethod
    def _fragmentation(classes: Slots, kind: Integers, slots_left: Integers, total: Integers) -> Floats:
        """Weng et al.'s fragmentation for the big needs, weighed by GPUs asked: free milli that they cannot use."""
        usable = (classes.accepted[kind] * (slots_left > 0) * classes.share).sum(axis=1)
        unusable: Floats = total * (classes.share.sum() - usable)
        return FRAGMENTATION_WEIGHT * unusable


class Fragmentation(_Plain):
    """Fragmentation gradient descent as published (Weng et al., ATC 2023).

    The mix is the most frequent needs that make up 95 % of all; scores are whole numbers from 0 to 100, as its
    authors' scheduler rounds them, and the first of equals wins. Neither detail is ours to mend: they are worth 0.5 %.
    """

    name = "fgd"

    def __init__(self) -> None:
        """Nothing learned yet: ``learn`` comes first."""
        self._shapes: list[tuple[int, int]] = []
        self._too_wide = 0

    def learn(self, snapshot: Snapshot, kinds: Sequence[Kind], width: int) -> None:
        """Keep the popular needs."""
        ordered = sorted(snapshot.counts, key=lambda pair: (-pair[1], pair[0]))
        total, seen = sum(count for _, count in ordered), 0
        shares: list[float] = []
        popular = []
        for need, count in ordered:
            if seen >= POPULARITY * total:
                break
            seen += count
            popular.append(need)
            shares.append(count / total)
        self._share = np.array(shares)
        self._cpu_milli = np.array([need.cpu_milli for need in popular], np.int64)
        self._memory_bytes = np.array([need.memory_bytes for need in popular], np.int64)
        self._allowed = np.array([[need.allows(kind) for need in popular] for kind in kinds], np.bool_)
        shapes = sorted({(need.gpu_count, need.gpu_milli) for need in popular})
        self._shapes = [shape for shape in shapes if shape[0] <= width]
        self._shape = np.array([shapes.index((need.gpu_count, need.gpu_milli)) for need in popular], np.int64)
        self._too_wide = len(shapes) - len(self._shapes)

    def judge(self, need: Need, states: States) -> Verdict:
        """The growth of fragmentation, rounded as its authors do."""
        before = self._fragments(states)
        if need.is_whole or not need.gpu_count:
            position = np.zeros(len(before), np.int64)
            growth = self._fragments(states.after(need, position)) - before
        else:
            index, device = states.options(need).nonzero()
            # Rounded, so that the order of a summation never decides between equal devices.
            tried = np.round(self._fragments(states.pick(index).after(need, device)) - before[index], 6)
            table: Floats = np.full(states.free.shape, np.inf)
            table[index, device] = tried
            position = table.shape[1] - 1 - np.argmin(table[:, ::-1], axis=1)
            growth = table[np.arange(len(before)), position]
        # Rounded, so that the order of a summation never decides on which side of a whole score a growth of nothing falls.
        score = np.floor(100.0 / (1.0 + np.exp(np.round(growth, 6) / WHOLE_DEVICE_MILLI)))
        return Verdict(-score, position, _none(states))

    def _fragments(self, states: States) -> Floats:
        """Expected free milli that the next need cannot use."""
        total = states.total
        free, never = states.free, np.zeros(len(total), np.bool_)
        room = [free[:, count - 1] >= milli if count else never for count, milli in self._shapes]
        short = [np.where(free < milli, free, 0).sum(axis=1) for _, milli in self._shapes]
        room, short = room + [never] * self._too_wide, short + [total] * self._too_wide
        fits = np.stack(room, axis=1)[:, self._shape] & self._allowed[states.kind]
        fits &= states.cpu_milli[:, None] >= self._cpu_milli
        fits &= states.memory_bytes[:, None] >= self._memory_bytes
        lost = np.where(fits, np.stack(short, axis=1)[:, self._shape], total[:, None])
        found: Floats = (lost * self._share).sum(axis=1)
        return found


class BestFit(_Plain):
    """The place that has least left of processor time and devices, each as a share of the largest node's."""

    name = "best_fit"

    def prices(self, inventory: Inventory, table: StateTable) -> Floats:
        """Note the largest node when it is first seen; there are no slots."""
        if self.scale == UNSEEN:
            self.scale = float(inventory.cpu_milli.max() or 1), float(inventory.free_milli.sum(axis=1).max() or 1)
        return np.zeros((len(inventory.kinds), 0))

    def judge(self, need: Need, states: States) -> Verdict:
        """What would be left, and the fullest device."""
        cpu, gpu = self.scale
        cost = (states.cpu_milli - need.cpu_milli) / cpu + (states.total - need.total_milli) / gpu
        return Verdict(cost, _fullest(need, states), _none(states))


class DotProduct(BestFit):
    """The place whose free resources have the least dot product with what the need asks, a share against its device.

    Scores are whole numbers from 0 to 100 and the first of equals wins, as in the published runs.
    """

    name = "dot_product"

    def judge(self, need: Need, states: States) -> Verdict:
        """The product over processor time and devices, and the fullest device."""
        cpu, gpu = self.scale
        position = _fullest(need, states)
        free = states.total if need.is_whole else states.free[np.arange(len(position)), position]
        product = states.cpu_milli / cpu * (need.cpu_milli / cpu) + free / gpu * (need.total_milli / gpu)
        return Verdict(-np.floor(100.0 * (1.0 - product / 2.0)), position, _none(states))


class Packing(_Plain):
    """Used devices first, then untouched devices of used nodes, then untouched nodes, small ones before large ones.

    Scores are whole numbers and the first of equals wins, as in the published runs; needs without GPUs take the first.
    """

    name = "packing"

    def judge(self, need: Need, states: States) -> Verdict:
        """Scores from 100 down: by tenths of the used device, then one rank for used nodes, then by untouched devices."""
        position = _fullest(need, states)
        if not need.gpu_count:
            return Verdict(np.zeros(len(position)), position, _none(states))
        chosen = states.free[np.arange(len(position)), position]
        whole = states.whole
        score = np.where(chosen < WHOLE_DEVICE_MILLI, 100 - chosen // 100, 50 - need.gpu_count)
        score = np.where(whole == states.devices, np.maximum(33 - whole, whole), score)
        return Verdict(-score.astype(np.float64), position, _none(states))


class Random(_Plain):
    """Any place that fits, and there the first device that does."""

    name = "random"

    def __init__(self, seed: int) -> None:
        """Draws follow from the seed."""
        self.seed = seed

    def judge(self, need: Need, states: States) -> Verdict:
        """All states are equally good."""
        fits = states.free >= max(need.gpu_milli, 1)
        return Verdict(np.zeros(len(fits)), np.argmax(fits, axis=1), _none(states))

    def draw(self, sequence: int, rows: Integers) -> int:
        """Any, by a draw that depends on seed and sequence alone."""
        return int(rows[np.random.Generator(np.random.PCG64((self.seed, sequence))).integers(len(rows))])


def _fullest(need: Need, states: States) -> Integers:
    """The position of the fullest device that takes a share."""
    fits = states.free >= max(need.gpu_milli, 1)
    position: Integers = np.maximum(np.count_nonzero(fits, axis=1) - 1, 0)
    return position


def _none(states: States) -> Integers:
    """No slots lost."""
    return np.zeros((len(states.kind), 0), np.int64)


POLICIES: Final = ("least_waste", "fgd", "best_fit", "dot_product", "packing", "random")
"""The names of all policies, the engine's own first."""


def make_policy(name: str, seed: int = 0) -> Policy:
    """The policy of a name; the seed is for the random one."""
    if name == "random":
        return Random(seed)
    made: dict[str, Callable[[], Policy]] = {
        "least_waste": LeastWaste,
        "fgd": Fragmentation,
        "best_fit": BestFit,
        "dot_product": DotProduct,
        "packing": Packing,
    }
    return made[name]()
