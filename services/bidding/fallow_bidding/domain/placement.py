"""Where a group's replicas go on one provider: nodes, devices, shares.

Replicas are placed one after another, the largest first, each where its GPUs are cheapest and then where the engine's
policy (``engine.policies.LeastWaste``) finds that the least will be wasted. It is greedy: it may miss a packing that a search
would find, never the other way round. A replica's devices are all of one node and of one kind; a share lives on one
device; a device never gives more than 1,000 milli.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from operator import is_not
from typing import Final

import numpy as np

from fallow_bidding.domain.demand import ReplicaSet, TermKind
from fallow_bidding.domain.engine.asks import Asks
from fallow_bidding.domain.engine.book import Book
from fallow_bidding.domain.engine.engine import Engine
from fallow_bidding.domain.engine.inventory import Floats, Integers, Inventory
from fallow_bidding.domain.engine.mix import Snapshot
from fallow_bidding.domain.engine.needs import Kind, Lot, Need
from fallow_bidding.domain.engine.policies import LeastWaste
from fallow_bidding.domain.pricing import gpu_micros
from fallow_bidding.domain.supply import WHOLE_DEVICE_MILLI, PriceSchedule, Supplier

Candidates = dict[int, dict[str, frozenset[str]]]
"""What may take a group at one provider: by replica set, by node, the devices."""

BOOKS_MAX: Final = 16
"""Kinds of terms for which lists by price are kept; each length of a reserved term is one."""

_Terms = tuple[str, TermKind, int | None]


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
        kinds: Mapping[str, Mapping[str, Kind]],
    ) -> None:
        """By node; use ``of``."""
        self._cpu_milli = cpu_milli
        self._memory_bytes = memory_bytes
        self._storage = storage_bytes
        self._free = device_milli
        self._kinds = kinds

    @classmethod
    def of(cls, supplier: Supplier) -> "Room":
        """A supplier's free capacity."""
        nodes = supplier.nodes
        return cls(
            {node.node_id: node.cpu_milli for node in nodes},
            {node.node_id: node.memory_bytes for node in nodes},
            {node.node_id: dict(node.storage_bytes_by_class) for node in nodes},
            {node.node_id: {device.device_id: device.free_milli for device in node.devices} for node in nodes},
            {node.node_id: {device.device_id: Kind.of(device) for device in node.devices} for node in nodes},
        )

    def copy(self) -> "Room":
        """The same room, to be taken from apart."""
        return Room(
            dict(self._cpu_milli),
            dict(self._memory_bytes),
            {node_id: dict(classes) for node_id, classes in self._storage.items()},
            {node_id: dict(devices) for node_id, devices in self._free.items()},
            self._kinds,
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

    def has_devices(self, node_id: str, replica_set: ReplicaSet, allowed: frozenset[str]) -> bool:
        """Whether a node has, among the allowed ones, the devices of one kind for one replica."""
        need = replica_set.gpu
        assert need is not None, "a replica without GPUs takes no devices"
        counts: dict[Kind, int] = {}
        for device_id in allowed:
            if self._free[node_id][device_id] >= need.milli:
                kind = self._kinds[node_id][device_id]
                counts[kind] = counts.get(kind, 0) + 1
        return max(counts.values(), default=0) >= need.count

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

    def stated(self, supplier: Supplier) -> Supplier:
        """The supplier of this room, with what is free of its nodes now."""
        nodes = tuple(
            replace(
                node,
                cpu_milli=self._cpu_milli[node.node_id],
                memory_bytes=self._memory_bytes[node.node_id],
                storage_bytes_by_class=dict(self._storage[node.node_id]),
                devices=tuple(
                    replace(device, free_milli=self._free[node.node_id][device.device_id]) for device in node.devices
                ),
            )
            for node in supplier.nodes
        )
        return replace(supplier, nodes=nodes)

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


class Placer:
    """The engine's core over the nodes of some suppliers: it finds who may sell, cheapest first, and chooses nodes and
    devices by the mix of needs that arrived.

    Its columns are made when they are first needed. Without a mix the first group looked at is the mix.
    """

    def __init__(
        self,
        suppliers: Sequence[Supplier],
        rooms: Mapping[str, Room],
        mix: Snapshot,
        slot_prices: Floats | None = None,
    ) -> None:
        """``rooms`` are what is free at the suppliers. Slots have the prices given, or those that follow from that."""
        self._suppliers = suppliers
        self._slot_prices = slot_prices
        self._engine: Engine | None = None
        self._rows: dict[str, range] = {}
        self._loaded = dict(rooms)
        self._books: dict[_Terms, Book] = {}
        self.mix = mix

    def slot_prices(self) -> Floats | None:
        """What slots cost, or None where there is no mix yet."""
        return self._core().slot_prices if self.mix.counts else None

    def expect(self, replica_sets: Sequence[ReplicaSet]) -> None:
        """Where there is no mix, these are it."""
        if not self.mix.counts:
            counts: dict[Need, int] = {}
            for replica_set in replica_sets:
                need = Need.of(replica_set)
                counts[need] = counts.get(need, 0) + replica_set.replicas
            self.mix = Snapshot(tuple(sorted(counts.items())))

    def sellers(
        self,
        rooms: Mapping[str, Room],
        replica_sets: Sequence[ReplicaSet],
        asset: str,
        *,
        term_kind: TermKind,
        duration_ms: int | None,
    ) -> Iterator[tuple[int, Supplier]]:
        """Suppliers that may have room for a group, and the least that each can ask for it, by price, reputation, age, id.

        ``rooms`` are what is free at all of them, and stay so. Some come again at higher prices, and some cannot take the
        group; but whoever can does come.
        """
        engine = self._core()
        assert len(rooms) == len(self._loaded), "rooms are those of the suppliers, in the same order"
        stale = map(is_not, rooms.values(), self._loaded.values())
        for provider_id in list(compress(rooms, stale)):
            self._load(engine, provider_id, rooms[provider_id])
        terms = asset, term_kind, duration_ms if term_kind is TermKind.RESERVED else None
        book = self._books.get(terms)
        if book is None:
            if len(self._books) >= BOOKS_MAX:
                del self._books[next(iter(self._books))]
            asks = Asks(engine.inventory, asset, term_kind=term_kind, duration_ms=terms[2])
            book = self._books[terms] = Book(engine, asks)
        lots = sorted((Lot.of(one) for one in replica_sets), key=lambda lot: -lot.need.total_milli)
        for price_micros, provider in book.sellers(tuple(lots)):
            yield price_micros, engine.inventory.suppliers[provider]

    def place(
        self,
        provider_id: str,
        room: Room,
        replica_sets: tuple[ReplicaSet, ...],
        candidates: Candidates,
        prices: PriceSchedule,
    ) -> tuple[Placement, ...] | None:
        """Places for every replica of a group at a provider, or None. ``room`` is what is free there, and stays so."""
        engine = self._core()
        self._load(engine, provider_id, room)
        needs: list[Need] = []
        rows: list[Integers] = []
        asks: list[Integers] = []
        for index, replica_set in enumerate(replica_sets):
            mine = self._eligible(engine, provider_id, replica_set, candidates.get(index, {}))
            ranks = _price_ranks(engine.inventory, replica_set, mine, prices)
            needs += [Need.of(replica_set)] * replica_set.replicas
            rows += [mine] * replica_set.replicas
            asks += [ranks] * replica_set.replicas
        choices = engine.decide_group(needs, rows, asks)
        if choices is None:
            return None
        inventory, placements = engine.inventory, []
        replicas = [(one, number) for one in replica_sets for number in range(one.replicas)]
        for (replica_set, number), choice in zip(replicas, choices, strict=True):
            node_id = inventory.nodes[inventory.node[choice.row]].node_id
            ids = [inventory.device_ids[choice.row][column] for column in choice.devices]
            milli = 0 if replica_set.gpu is None else replica_set.gpu.milli
            shares = tuple(DeviceShare(node_id, device_id, milli) for device_id in ids)
            model = inventory.kinds[inventory.kind[choice.row]].model if ids else ""
            placements.append(Placement(replica_set.service, number, node_id, shares, model))
        return tuple(placements)

    def _core(self) -> Engine:
        """The columns."""
        assert self.mix.counts, "a mix is expected before anything is placed"
        if self._engine is None:
            self._engine = Engine(Inventory(self._suppliers), LeastWaste(), self.mix)
            if self._slot_prices is not None:
                self._engine.price(self._slot_prices)
            inventory = self._engine.inventory
            bounds = np.searchsorted(inventory.provider, np.arange(len(inventory.suppliers) + 1)).tolist()
            for number, supplier in enumerate(inventory.suppliers):
                self._rows[supplier.provider_id] = range(bounds[number], bounds[number + 1])
        return self._engine

    def _load(self, engine: Engine, provider_id: str, room: Room) -> None:
        """Make the columns of a provider say what is free in a room, which nobody changes once it was placed in."""
        if self._loaded.get(provider_id) is room:
            return
        cpu_milli, memory_bytes, storage, free = room.contents()
        inventory = engine.inventory
        for row in self._rows[provider_id]:
            node_id = inventory.nodes[inventory.node[row]].node_id
            milli = [free[node_id][device_id] for device_id in inventory.device_ids[row]]
            engine.restate(row, cpu_milli[node_id], memory_bytes[node_id], storage[node_id], milli)
        self._loaded[provider_id] = room

    def _eligible(
        self, engine: Engine, provider_id: str, replica_set: ReplicaSet, nodes: Mapping[str, frozenset[str]]
    ) -> Integers:
        """The rows of a provider of which a replica set may take something."""
        inventory = engine.inventory
        kept = []
        for row in self._rows[provider_id]:
            allowed = nodes.get(inventory.nodes[inventory.node[row]].node_id)
            if allowed is not None and (replica_set.gpu is None or not allowed.isdisjoint(inventory.device_ids[row])):
                kept.append(row)
        return np.array(kept, np.int64)


def _price_ranks(inventory: Inventory, replica_set: ReplicaSet, rows: Integers, prices: PriceSchedule) -> Integers:
    """By row, the rank of what the replica's GPUs cost there; a price itself may be too large for a column."""
    micros = [gpu_micros(prices, replica_set, inventory.kinds[inventory.kind[row]].model) for row in rows]
    ranks = {price: rank for rank, price in enumerate(sorted(set(micros)))}
    return np.array([ranks[price] for price in micros], np.int64)
