"""The hard constraints of a group on a provider, each of which keeps some of its nodes and devices, in one fixed order."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from fallow_bidding.domain.demand import GpuNeed, GroupDemand, OrderDemand, ReplicaSet
from fallow_bidding.domain.placement import Candidates, Placer, Room
from fallow_bidding.domain.supply import Device, Health, Node, StandingOffer, Supplier

EXEC_DRIVER: Final = "exec"
EXEC_IMAGE: Final = "exec:host"
MOCK_DRIVER: Final = "mock"
_LEASED_HEALTH: Final = frozenset({Health.HEALTHY, Health.UNKNOWN})
"""Health of devices that are leased: unknown is not down."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is the same of a provider before every group: its nodes and devices by their ids, and what they have in common."""

    nodes: Mapping[str, Node]
    devices: Mapping[tuple[str, str], Device]
    everything: Mapping[str, frozenset[str]]
    models: frozenset[str]
    are_healthy: bool
    have_devices: bool
    """Whether every node has any: one without goes at the first constraint on devices."""

    @classmethod
    def of(cls, supplier: Supplier) -> "Facts":
        """The facts of a supplier."""
        devices = {(node.node_id, device.device_id): device for node in supplier.nodes for device in node.devices}
        return cls(
            nodes={node.node_id: node for node in supplier.nodes},
            devices=devices,
            everything={node.node_id: frozenset(d.device_id for d in node.devices) for node in supplier.nodes},
            models=frozenset(device.model for device in devices.values()),
            are_healthy=all(device.health in _LEASED_HEALTH for device in devices.values()),
            have_devices=all(node.devices for node in supplier.nodes),
        )


@dataclass(frozen=True, slots=True)
class View:
    """One provider before one group."""

    order: OrderDemand
    group: GroupDemand
    supplier: Supplier
    room: Room
    placer: Placer
    facts: Facts

    @property
    def offer(self) -> StandingOffer | None:
        """The provider's offer in the group's asset."""
        return self.supplier.offers.get(self.group.asset)


Keep = Callable[[View, Candidates], Candidates]


def all_candidates(view: View) -> Candidates:
    """Everything that a provider has, for every replica set."""
    return {index: dict(view.facts.everything) for index in range(len(view.group.replica_sets))}


def serves(group: GroupDemand, candidates: Candidates) -> bool:
    """Whether every replica set still has a node."""
    return all(candidates.get(index) for index in range(len(group.replica_sets)))


def count(candidates: Candidates) -> int:
    """A provider's devices that could serve some replica set."""
    if len(candidates) == 1:
        return sum(map(len, candidates[0].values()))
    left = {(node, device) for nodes in candidates.values() for node, devices in nodes.items() for device in devices}
    return len(left)


def _by_provider(holds: Callable[[View], bool]) -> Keep:
    """A constraint on whole providers."""
    return lambda view, candidates: candidates if holds(view) else {}


def _by_node(holds: Callable[[View, ReplicaSet, str, frozenset[str]], bool]) -> Keep:
    """A constraint on nodes, for each replica set; what loses nothing is returned itself."""

    def keep(view: View, candidates: Candidates) -> Candidates:
        kept = {
            index: {
                node_id: devices
                for node_id, devices in nodes.items()
                if holds(view, view.group.replica_sets[index], node_id, devices)
            }
            for index, nodes in candidates.items()
        }
        return candidates if all(len(kept[index]) == len(nodes) for index, nodes in candidates.items()) else kept

    return keep


def _by_device(
    holds: Callable[[View, GpuNeed, str, Device], bool],
    *,
    for_all: Callable[[View, GpuNeed], bool] = lambda view, need: False,
    for_none: Callable[[View, GpuNeed], bool] = lambda view, need: False,
) -> Keep:
    """A constraint on devices, for each replica set that asks for GPUs; a node that loses all of them goes too.

    ``for_all`` and ``for_none`` say where it is known without a look that it holds for every device, or for none. What
    loses nothing is returned itself.
    """

    def keep(view: View, candidates: Candidates) -> Candidates:
        kept: Candidates = {}
        for index, nodes in candidates.items():
            need = view.group.replica_sets[index].gpu
            if need is None or for_all(view, need):
                kept[index] = nodes
                continue
            if for_none(view, need):
                kept[index] = {}
                continue
            devices_of = view.facts.devices
            left = {
                node_id: frozenset(d for d in devices if holds(view, need, node_id, devices_of[node_id, d]))
                for node_id, devices in nodes.items()
            }
            is_whole = all(len(left[node_id]) == len(devices) > 0 for node_id, devices in nodes.items())
            kept[index] = nodes if is_whole else {node_id: devices for node_id, devices in left.items() if devices}
        return candidates if all(kept[index] is nodes for index, nodes in candidates.items()) else kept

    return keep


def _has_count(view: View, replica_set: ReplicaSet, node_id: str, devices: frozenset[str]) -> bool:
    """Whether a node has enough devices of one kind for one replica."""
    return replica_set.gpu is None or view.room.has_devices(node_id, replica_set, devices)


def _runs_image(view: View, replica_set: ReplicaSet, node_id: str, _: frozenset[str]) -> bool:
    """Whether a node has a driver for the image; a node that names none may have any."""
    drivers = view.facts.nodes[node_id].drivers
    if not drivers or not replica_set.image or MOCK_DRIVER in drivers:
        return True
    if replica_set.image == EXEC_IMAGE:
        return EXEC_DRIVER in drivers
    return any(driver != EXEC_DRIVER for driver in drivers)


def _has_attributes(view: View) -> bool:
    """Whether a provider has every attribute; a wanted value that ends in ``*`` is a prefix."""
    for key, wanted in view.group.attributes.items():
        value = view.supplier.attributes.get(key)
        if value is None:
            return False
        if not (value.startswith(wanted[:-1]) if wanted.endswith("*") else value == wanted):
            return False
    return True


def _is_audited(view: View) -> bool:
    """Whether one of the first auditors and all of the second vouch for every attribute that the group asks for."""
    asked, any_of = view.group.attributes.keys(), view.group.auditors_any_of
    signed = {auditor for auditor, names in view.supplier.audited.items() if names.issuperset(asked)}
    return (not any_of or not signed.isdisjoint(any_of)) and signed.issuperset(view.group.auditors_all_of)


def _takes_term(view: View) -> bool:
    """Whether the offer takes the order's duration; an order without one fits any offer."""
    offer, duration_ms = view.offer, view.order.duration_ms
    return offer is None or offer.term_ms_max is None or duration_ms is None or duration_ms <= offer.term_ms_max


def _is_free(view: View, need: GpuNeed, node_id: str, device: Device) -> bool:
    """Whether enough is left of a device, after the decisions made so far."""
    return view.room.free_milli(node_id, device.device_id) >= need.milli


def _is_sold(view: View, device: Device) -> bool:
    """Whether the offer has a price for the device's model."""
    return view.offer is not None and device.model in view.offer.prices.gpu_micros_by_model


STEPS: Final[tuple[tuple[str, Keep], ...]] = (
    ("provider_state", _by_provider(lambda view: not view.supplier.unavailable and bool(view.supplier.nodes))),
    ("excluded_providers", _by_provider(lambda view: view.supplier.provider_id not in view.group.excluded)),
    (
        "device_health",
        _by_device(
            lambda view, need, node, device: device.health in _LEASED_HEALTH,
            for_all=lambda view, need: view.facts.are_healthy and view.facts.have_devices,
        ),
    ),
    (
        "gpu_vendor",
        _by_device(
            lambda view, need, node, device: not need.vendor or device.vendor == need.vendor,
            for_all=lambda view, need: not need.vendor and view.facts.have_devices,
        ),
    ),
    (
        "gpu_model",
        _by_device(
            lambda view, need, node, device: not need.models or device.model in need.models,
            for_all=lambda view, need: not need.models and view.facts.have_devices,
            for_none=lambda view, need: bool(need.models) and view.facts.models.isdisjoint(need.models),
        ),
    ),
    (
        "vram",
        _by_device(
            lambda view, need, node, device: device.vram_bytes >= need.vram_bytes_min,
            for_all=lambda view, need: not need.vram_bytes_min and view.facts.have_devices,
        ),
    ),
    (
        "gpu_interface",
        _by_device(
            lambda view, need, node, device: not need.interface or device.interface == need.interface,
            for_all=lambda view, need: not need.interface and view.facts.have_devices,
        ),
    ),
    (
        "gpu_alternatives",
        _by_device(
            lambda view, need, node, device: need.names(
                device.vendor, device.model, device.vram_bytes, device.interface
            ),
            for_all=lambda view, need: not need.alternatives and view.facts.have_devices,
        ),
    ),
    ("device_free", _by_device(_is_free)),
    ("gpu_count", _by_node(_has_count)),
    ("runtime", _by_node(_runs_image)),
    ("cpu", _by_node(lambda view, replica_set, node, _: view.room.has_cpu(node, replica_set))),
    ("memory", _by_node(lambda view, replica_set, node, _: view.room.has_memory(node, replica_set))),
    ("storage", _by_node(lambda view, replica_set, node, _: view.room.has_storage(node, replica_set))),
    ("region", _by_provider(lambda view: not view.group.regions or view.supplier.region in view.group.regions)),
    ("attributes", _by_provider(_has_attributes)),
    ("auditors", _by_provider(_is_audited)),
    ("reputation", _by_provider(lambda view: view.supplier.reputation_milli >= view.group.reputation_milli_min)),
    ("asset", _by_provider(lambda view: view.offer is not None)),
    ("term", _by_provider(_takes_term)),
    ("gpu_price", _by_device(lambda view, need, node, device: _is_sold(view, device))),
)
"""The hard constraints in the order in which they are applied; placement and price limit follow."""
_OF_PROVIDERS: Final = frozenset(
    {"provider_state", "excluded_providers", "region", "attributes", "auditors", "reputation", "asset", "term"}
)
"""Those that keep a provider with all it has or not at all."""
_QUICK_FIRST: Final = sorted(STEPS, key=lambda step: step[0] not in _OF_PROVIDERS)


def survivors(view: View) -> Candidates | None:
    """What of a provider all constraints keep for a group; None where they leave it no place."""
    left = all_candidates(view)
    for _, keep in _QUICK_FIRST:
        kept = keep(view, left)
        if kept is not left and not serves(view.group, kept):
            return None
        left = kept
    return left
