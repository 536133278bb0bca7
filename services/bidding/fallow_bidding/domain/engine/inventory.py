"""What is free, in columns: one row for each pool, which is the devices of one kind on one node.

Rows are in the order provider (age, then id), node id, kind, whatever the order of the input; ties between rows go to
the first. A node's processor time, memory and storage stand once and are shared by its pools; a node without devices
has one pool of none. Only healthy devices count. Taking is checked: no node and no device is ever oversold.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fallow_bidding.domain.engine.needs import Kind, Need
from fallow_bidding.domain.supply import WHOLE_DEVICE_MILLI, Device, Health, Node, Supplier

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

USABLE: Final = frozenset({Health.HEALTHY, Health.UNKNOWN})


@dataclass(frozen=True, slots=True)
class Choice:
    """Where one replica goes: a row of the inventory and the columns of its devices in that row."""

    row: int
    devices: tuple[int, ...] = ()


class Inventory:
    """Columns over rows (pools) and nodes."""

    def __init__(self, suppliers: Iterable[Supplier]) -> None:
        """Lay the suppliers out; their order, and that of nodes and devices, does not matter."""
        self.suppliers = tuple(sorted(suppliers, key=lambda one: (one.create_time_ms, one.provider_id)))
        pools: list[tuple[int, int, Kind, list[Device]]] = []
        nodes: list[Node] = []
        for provider, supplier in enumerate(self.suppliers):
            for node in sorted(supplier.nodes, key=lambda one: one.node_id):
                pools += [(provider, len(nodes), kind, devices) for kind, devices in _by_kind(node)]
                nodes.append(node)
        self.nodes = tuple(nodes)
        self.kinds = tuple(sorted({kind for _, _, kind, _ in pools}))
        kind_index = {kind: index for index, kind in enumerate(self.kinds)}
        width = max((len(devices) for *_, devices in pools), default=0) or 1
        self.provider = np.array([provider for provider, *_ in pools], np.int64)
        self.node = np.array([node for _, node, *_ in pools], np.int64)
        self.kind = np.array([kind_index[kind] for _, _, kind, _ in pools], np.int64)
        self.first = np.ones(len(pools), np.bool_)
        self.first[1:] = self.node[1:] != self.node[:-1]
        self.device_ids = tuple(tuple(device.device_id for device in devices) for *_, devices in pools)
        self.device_count = np.array([len(ids) for ids in self.device_ids], np.int64)
        self.free_milli = np.zeros((len(pools), width), np.int64)
        for row, (*_, devices) in enumerate(pools):
            self.free_milli[row, : len(devices)] = [device.free_milli for device in devices]
        self.cpu_milli = np.array([node.cpu_milli for node in nodes], np.int64)
        self.memory_bytes = np.array([node.memory_bytes for node in nodes], np.int64)
        self.classes = tuple(sorted({name for node in nodes for name in node.storage_bytes_by_class}))
        table = [[node.storage_bytes_by_class.get(name, 0) for name in self.classes] for node in nodes]
        self.storage_bytes = np.array(table, np.int64).reshape(len(nodes), len(self.classes))

    @property
    def rows(self) -> int:
        """How many pools there are."""
        return len(self.node)

    @property
    def devices(self) -> int:
        """How many usable devices there are."""
        return sum(len(ids) for ids in self.device_ids)

    def has_storage(self, need: Need, rows: Integers) -> Bools:
        """Of some rows, whether their nodes have the storage."""
        fits = np.ones(len(rows), np.bool_)
        for name, size in need.storage:
            if size == 0:
                continue
            if name not in self.classes:
                return np.zeros(len(rows), np.bool_)
            fits &= self.storage_bytes[self.node[rows], self.classes.index(name)] >= size
        return fits

    def fits(self, need: Need, choice: Choice) -> bool:
        """Whether a choice can be taken now."""
        node, free = self.node[choice.row], self.free_milli[choice.row]
        return bool(
            need.allows(self.kinds[self.kind[choice.row]])
            and len(set(choice.devices)) == need.gpu_count
            and self.cpu_milli[node] >= need.cpu_milli
            and self.memory_bytes[node] >= need.memory_bytes
            and (not need.storage or self.has_storage(need, np.array([choice.row]))[0])
            and all(free[device] >= need.gpu_milli for device in choice.devices)
        )

    def take(self, need: Need, choice: Choice) -> None:
        """Take one replica's share; it must fit."""
        assert self.fits(need, choice), "no node and no device is ever oversold"
        self._add(need, choice, -1)

    def give_back(self, need: Need, choice: Choice) -> None:
        """Return what one replica took."""
        self._add(need, choice, 1)
        free = self.free_milli[choice.row]
        assert all(free[device] <= WHOLE_DEVICE_MILLI for device in choice.devices), "more came back than was taken"

    def _add(self, need: Need, choice: Choice, sign: int) -> None:
        """Add one replica's share to what is free, or subtract it."""
        node = self.node[choice.row]
        self.cpu_milli[node] += sign * need.cpu_milli
        self.memory_bytes[node] += sign * need.memory_bytes
        for name, size in need.storage:
            if size:
                self.storage_bytes[node, self.classes.index(name)] += sign * size
        for device in choice.devices:
            self.free_milli[choice.row, device] += sign * need.gpu_milli


def _by_kind(node: Node) -> Sequence[tuple[Kind, list[Device]]]:
    """A node's usable devices by kind, by id within one; a node without any has one pool of none."""
    pools: dict[Kind, list[Device]] = {}
    for device in sorted(node.devices, key=lambda one: one.device_id):
        if device.health in USABLE:
            pools.setdefault(Kind.of(device), []).append(device)
    return sorted(pools.items()) or [(Kind(), [])]
