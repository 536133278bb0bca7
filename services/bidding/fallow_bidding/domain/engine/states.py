"""States of pools: what is free in a row, without who owns it. Equal rows share a state, and what is known of it.

A state is (kind, processor time, memory, devices, free milli by device in falling order). States are numbered as they are first
seen; the numbers are names only and never decide anything.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from fallow_bidding.domain.engine.inventory import Bools, Integers, Inventory
from fallow_bidding.domain.engine.needs import Need
from fallow_bidding.domain.supply import WHOLE_DEVICE_MILLI

HEAD: Final = 4
"""Columns before the devices: kind, processor time, memory, how many devices there are."""


@dataclass(frozen=True, slots=True)
class States:
    """Some states in columns; ``free`` is (states, devices), in falling order."""

    kind: Integers
    cpu_milli: Integers
    memory_bytes: Integers
    devices: Integers
    free: Integers

    @classmethod
    def of(cls, table: Integers) -> "States":
        """Columns of a table of keys."""
        return cls(table[:, 0], table[:, 1], table[:, 2], table[:, 3], table[:, HEAD:])

    @property
    def whole(self) -> Integers:
        """Devices of which nothing is taken."""
        whole: Integers = np.count_nonzero(self.free == WHOLE_DEVICE_MILLI, axis=1)
        return whole

    @property
    def total(self) -> Integers:
        """Free milli over all devices."""
        total: Integers = self.free.sum(axis=1)
        return total

    def fits(self, need: Need, allowed: Bools) -> Bools:
        """Which states have room for a need; ``allowed`` is by kind. Storage is no part of a state."""
        fits = allowed[self.kind] & (self.cpu_milli >= need.cpu_milli) & (self.memory_bytes >= need.memory_bytes)
        if need.gpu_count > self.free.shape[1]:
            return np.zeros(len(fits), np.bool_)
        return fits & (self.free[:, need.gpu_count - 1] >= need.gpu_milli) if need.gpu_count else fits

    def options(self, need: Need) -> Bools:
        """By state and device, which devices are worth trying for a share: of equal ones the last."""
        last = np.ones(self.free.shape, np.bool_)
        last[:, :-1] = self.free[:, :-1] != self.free[:, 1:]
        return last & (self.free >= need.gpu_milli)

    def after(self, need: Need, position: Integers) -> "States":
        """The states after a need was placed, a share on the device at ``position``, whole devices on the first ones."""
        free = self.free.copy()
        if need.is_whole:
            free[:, : need.gpu_count] = 0
        elif need.gpu_count:
            free[np.arange(len(free)), position] -= need.gpu_milli
        free = -np.sort(-free, axis=1)
        return self.charged(need, free)

    def charged(self, need: Need, free: Integers) -> "States":
        """The states with a need's processor time and memory taken, and their devices as given."""
        cpu_milli, memory_bytes = self.cpu_milli - need.cpu_milli, self.memory_bytes - need.memory_bytes
        return States(self.kind, cpu_milli, memory_bytes, self.devices, free)

    def pick(self, chosen: Integers | Bools) -> "States":
        """Some of the states."""
        columns = (self.kind, self.cpu_milli, self.memory_bytes, self.devices, self.free)
        return States(*(column[chosen] for column in columns))


class StateTable:
    """All states seen since the last ``rebuild``, and the state of every row."""

    def __init__(self, inventory: Inventory) -> None:
        """Number the states of an inventory's rows."""
        self._inventory = inventory
        self.rebuild()

    def rebuild(self) -> None:
        """Forget the states that no row is in any more."""
        inventory = self._inventory
        node = inventory.node
        free = -np.sort(-inventory.free_milli, axis=1)
        shared = inventory.cpu_milli[node], inventory.memory_bytes[node]
        head = np.stack((inventory.kind, *shared, inventory.device_count), axis=1)
        table = np.ascontiguousarray(np.concatenate((head, free), axis=1))
        unique, inverse = np.unique(table, axis=0, return_inverse=True)
        self.row_state = inverse.reshape(-1).astype(np.int64)
        self.count = len(unique)
        self._table = np.zeros((max(64, 2 * self.count), table.shape[1]), np.int64)
        self._table[: self.count] = unique
        self._numbers = {unique[number].tobytes(): number for number in range(self.count)}

    @property
    def capacity(self) -> int:
        """How many states there is room for before the table grows."""
        return len(self._table)

    def states(self, numbers: Integers) -> States:
        """Columns of some states."""
        return States.of(self._table[numbers])

    def update(self, row: int) -> int:
        """Look at a row anew; returns the number of its state."""
        inventory, node = self._inventory, self._inventory.node[row]
        key = np.empty(self._table.shape[1], np.int64)
        key[0], key[1], key[2] = inventory.kind[row], inventory.cpu_milli[node], inventory.memory_bytes[node]
        key[3] = inventory.device_count[row]
        key[HEAD:] = -np.sort(-inventory.free_milli[row])
        number = self._numbers.setdefault(key.tobytes(), self.count)
        if number == self.count:
            if number == len(self._table):
                self._table = np.concatenate((self._table, np.zeros_like(self._table)))
            self._table[number] = key
            self.count += 1
        self.row_state[row] = number
        return number
