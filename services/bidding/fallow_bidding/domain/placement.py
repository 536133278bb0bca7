"""Where a group's replicas go on one provider: nodes, devices, shares.

Replicas are placed one after another, the largest first, each where its GPUs are cheapest and then where it leaves
least (best fit). It is greedy: it may miss a packing that a search would find, never the other way round. A replica's
devices are all of one node and of one model; a share lives on one device; a device never gives more than 1,000 milli.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fallow_bidding.domain.demand import ReplicaSet
from fallow_bidding.domain.pricing import gpu_micros
from fallow_bidding.domain.supply import WHOLE_DEVICE_MILLI, PriceSchedule, Supplier

Candidates = dict[int, dict[str, frozenset[str]]]
"""What may take a group at one provider: by replica set, by node, the devices."""


_ByNode = dict[str, int]


@dataclass(frozen=True, slots=True)
class DeviceShare:
    """A lease's share of one device, 1 to 1,000 milli."""

    node_id: str
    device_id: str
    milli: int


@dataclass(frozen=True, slots=True)
class NodeUse:
    """What a lease takes of one node, without devices."""

    node_id: str
    cpu_milli: int
    memory_bytes: int
    storage_bytes_by_class: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one replica runs; ``model`` is that of its devices, empty without any."""

    service: str
    replica: int
    node_id: str
    devices: tuple[DeviceShare, ...] = ()
    model: str = ""


class Room:
    """What is free at one provider while decisions are made; placing takes from it."""

    def __init__(
        self,
        cpu_milli: dict[str, int],
        memory_bytes: dict[str, int],
        storage_bytes: dict[str, dict[str, int]],
        device_milli: dict[str, dict[str, int]],
        models: Mapping[str, Mapping[str, str]],
    ) -> None:
        """By node; use ``of``."""
        self._cpu_milli = cpu_milli
        self._memory_bytes = memory_bytes
        self._storage = storage_bytes
        self._free = device_milli
        self._models = models

    @classmethod
    def of(cls, supplier: Supplier) -> "Room":
        """A supplier's free capacity."""
        nodes = supplier.nodes
        return cls(
            {node.node_id: node.cpu_milli for node in nodes},
            {node.node_id: node.memory_bytes for node in nodes},
            {node.node_id: dict(node.storage_bytes_by_class) for node in nodes},
            {node.node_id: {device.device_id: device.free_milli for device in node.devices} for node in nodes},
            {node.node_id: {device.device_id: device.model for device in node.devices} for node in nodes},
        )

    def copy(self) -> "Room":
        """The same room, to be taken from apart."""
        return Room(
            dict(self._cpu_milli),
            dict(self._memory_bytes),
            {node_id: dict(classes) for node_id, classes in self._storage.items()},
            {node_id: dict(devices) for node_id, devices in self._free.items()},
            self._models,
        )

    def free_milli(self, node_id: str, device_id: str) -> int:
        """What is left of a device."""
        return self._free[node_id][device_id]

    def has_cpu(self, node_id: str, replica_set: ReplicaSet) -> bool:
        """Whether a node has the processor time for one replica."""
        return self._cpu_milli[node_id] >= replica_set.cpu_milli

    def has_memory(self, node_id: str, replica_set: ReplicaSet) -> bool:
        """Whether a node has the memory for one replica."""
        return self._memory_bytes[node_id] >= replica_set.memory_bytes_taken

    def has_storage(self, node_id: str, replica_set: ReplicaSet) -> bool:
        """Whether a node has the storage for one replica, in every class."""
        free = self._storage[node_id]
        return all(free.get(name, 0) >= size for name, size in replica_set.disk_bytes_by_class.items())

    def fits(self, node_id: str, replica_set: ReplicaSet) -> bool:
        """Whether a node has all but the GPUs for one replica."""
        return (
            self.has_cpu(node_id, replica_set)
            and self.has_memory(node_id, replica_set)
            and self.has_storage(node_id, replica_set)
        )

    def choose_devices(
        self, node_id: str, replica_set: ReplicaSet, allowed: frozenset[str]
    ) -> dict[str, tuple[DeviceShare, ...]]:
        """By model, the devices of a node that would serve one replica best; models that cannot are left out."""
        need = replica_set.gpu
        assert need is not None, "a replica without GPUs takes no devices"
        by_model: dict[str, list[tuple[int, str]]] = {}
        for device_id in allowed:
            free = self._free[node_id][device_id]
            if free >= need.milli:
                by_model.setdefault(self._models[node_id][device_id], []).append((free, device_id))
        chosen: dict[str, tuple[DeviceShare, ...]] = {}
        for model, devices in by_model.items():
            if len(devices) >= need.count:
                picked = sorted(devices)[: need.count]
                chosen[model] = tuple(DeviceShare(node_id, device_id, need.milli) for _, device_id in picked)
        return chosen

    def leftover(self, node_id: str, replica_set: ReplicaSet, shares: tuple[DeviceShare, ...]) -> tuple[int, int, int]:
        """What a node would have left: of the devices touched, of all its devices, of its processor time."""
        touched = sum(self._free[node_id][share.device_id] - share.milli for share in shares)
        whole = sum(self._free[node_id].values()) - sum(share.milli for share in shares)
        return touched, whole, self._cpu_milli[node_id] - replica_set.cpu_milli

    def give_back(self, shares: Iterable[DeviceShare], uses: Iterable[NodeUse]) -> None:
        """Count as free what a lease holds; of a node or device that is not there any more, nothing."""
        for share in shares:
            free = self._free.get(share.node_id, {})
            if share.device_id in free:
                free[share.device_id] = min(WHOLE_DEVICE_MILLI, free[share.device_id] + share.milli)
        for use in uses:
            if use.node_id in self._cpu_milli:
                self._cpu_milli[use.node_id] += use.cpu_milli
                self._memory_bytes[use.node_id] += use.memory_bytes
                classes = self._storage[use.node_id]
                for name, size in use.storage_bytes_by_class.items():
                    classes[name] = classes.get(name, 0) + size

    def sink_to(self, other: "Room") -> None:
        """Count as taken what is not free in another room of the same provider."""
        cpu_milli, memory_bytes, storage, free = other.contents()
        for node_id in self._cpu_milli:
            self._cpu_milli[node_id] = min(self._cpu_milli[node_id], cpu_milli[node_id])
            self._memory_bytes[node_id] = min(self._memory_bytes[node_id], memory_bytes[node_id])
            for name in self._storage[node_id]:
                self._storage[node_id][name] = min(self._storage[node_id][name], storage[node_id].get(name, 0))
            for device_id in self._free[node_id]:
                self._free[node_id][device_id] = min(self._free[node_id][device_id], free[node_id][device_id])

    def contents(self) -> tuple[_ByNode, _ByNode, dict[str, _ByNode], dict[str, _ByNode]]:
        """Processor time, memory, storage by class and devices that are free, by node; not to be changed."""
        return self._cpu_milli, self._memory_bytes, self._storage, self._free

    def take(self, placement: Placement, replica_set: ReplicaSet) -> None:
        """Take one replica's share; it must fit."""
        node_id = placement.node_id
        self._cpu_milli[node_id] -= replica_set.cpu_milli
        self._memory_bytes[node_id] -= replica_set.memory_bytes_taken
        for name, size in replica_set.disk_bytes_by_class.items():
            self._storage[node_id][name] -= size
            assert self._storage[node_id][name] >= 0, "storage is never oversold"
        for share in placement.devices:
            self._free[node_id][share.device_id] -= share.milli
            assert 0 <= self._free[node_id][share.device_id] <= WHOLE_DEVICE_MILLI, "a device is never oversold"
        assert self._cpu_milli[node_id] >= 0, "processor time is never oversold"
        assert self._memory_bytes[node_id] >= 0, "memory is never oversold"


def place(
    room: Room, replica_sets: tuple[ReplicaSet, ...], candidates: Candidates, prices: PriceSchedule
) -> tuple[Placement, ...] | None:
    """Place every replica of a group and take it from ``room``, or return None and leave ``room`` half used."""
    placements: list[tuple[int, Placement]] = []
    for set_index in sorted(range(len(replica_sets)), key=lambda index: _size(replica_sets[index]), reverse=True):
        replica_set = replica_sets[set_index]
        for replica in range(replica_set.replicas):
            placement = _place_replica(room, replica_set, replica, candidates.get(set_index, {}), prices)
            if placement is None:
                return None
            room.take(placement, replica_set)
            placements.append((set_index, placement))
    placements.sort(key=lambda pair: (pair[0], pair[1].replica))
    return tuple(placement for _, placement in placements)


def _size(replica_set: ReplicaSet) -> tuple[int, int, int]:
    """How hard a replica is to place: GPUs, then memory, then processor time."""
    gpu_milli = 0 if replica_set.gpu is None else replica_set.gpu.total_milli
    return gpu_milli, replica_set.memory_bytes_taken, replica_set.cpu_milli


def _place_replica(
    room: Room,
    replica_set: ReplicaSet,
    replica: int,
    nodes: Mapping[str, frozenset[str]],
    prices: PriceSchedule,
) -> Placement | None:
    """The best place for one replica: cheapest GPUs, least left over, then the names decide."""
    options: list[tuple[tuple[int, tuple[int, int, int], str, str], Placement]] = []
    for node_id, allowed in nodes.items():
        if not room.fits(node_id, replica_set):
            continue
        choices: Mapping[str, tuple[DeviceShare, ...]] = {"": ()}
        if replica_set.gpu is not None:
            choices = room.choose_devices(node_id, replica_set, allowed)
        for model, shares in choices.items():
            rank = (
                gpu_micros(prices, replica_set, model),
                room.leftover(node_id, replica_set, shares),
                node_id,
                model,
            )
            options.append((rank, Placement(replica_set.service, replica, node_id, shares, model)))
    return min(options, key=lambda option: option[0])[1] if options else None
