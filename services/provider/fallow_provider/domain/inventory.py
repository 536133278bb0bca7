"""What a provider has and what it asks for it, as the operator declared it or a probe found it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum


class DeviceHealth(IntEnum):
    """Health of a device; the numbers are those of the contract."""

    UNSPECIFIED = 0
    HEALTHY = 1
    DEGRADED = 2
    FAILED = 3


class DeviceSource(IntEnum):
    """Where the knowledge about a device comes from; the numbers are those of the contract."""

    UNSPECIFIED = 0
    NVML = 1
    AMD_SMI = 2
    DECLARED = 3


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU of a node."""

    device_id: str
    vendor: str
    model: str
    vram_bytes: int
    interface: str
    health: DeviceHealth
    source: DeviceSource
    health_detail: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """One machine of the provider."""

    node_id: str
    cpu_milli: int
    memory_bytes: int
    storage_bytes_by_class: Mapping[str, int] = field(default_factory=dict)
    devices: tuple[Device, ...] = ()


@dataclass(frozen=True, slots=True)
class Prices:
    """A price schedule; every price is micros of ``asset`` for one hour."""

    asset: str
    gpu_micros_per_hour_by_model: Mapping[str, int] = field(default_factory=dict)
    cpu_core_micros_per_hour: int = 0
    memory_gib_micros_per_hour: int = 0
    storage_gib_micros_per_hour_by_class: Mapping[str, int] = field(default_factory=dict)
    group_micros_per_hour_min: int = 0


@dataclass(frozen=True, slots=True)
class Site:
    """One provider: what people call it, where it is, what it has and asks."""

    display_name: str
    region: str
    attributes: Mapping[str, str]
    nodes: tuple[Node, ...]
    prices: Prices

    def __post_init__(self) -> None:
        """Hold that ids name one thing each."""
        node_ids = [node.node_id for node in self.nodes]
        assert len(node_ids) == len(set(node_ids)), "node ids are unique at a provider"
        device_ids = [device.device_id for node in self.nodes for device in node.devices]
        assert len(device_ids) == len(set(device_ids)), "device ids are unique at a provider"

    def node(self, node_id: str) -> Node | None:
        """The node of that id, or None."""
        return next((node for node in self.nodes if node.node_id == node_id), None)


def changed_nodes(before: tuple[Node, ...], after: tuple[Node, ...]) -> tuple[list[Node], list[str]]:
    """The nodes that are new or have changed, and the ids of those that are gone."""
    known = {node.node_id: node for node in before}
    present = {node.node_id for node in after}
    return [node for node in after if known.get(node.node_id) != node], sorted(known.keys() - present)


def worst_health(healths: list[DeviceHealth]) -> DeviceHealth:
    """The worst of some devices' health; healthy where there are none, unknown only where nothing worse is known."""
    return max(healths, default=DeviceHealth.HEALTHY, key=_badness)


def _badness(health: DeviceHealth) -> int:
    """Order from best to worst: healthy, unknown, degraded, failed."""
    return (DeviceHealth.HEALTHY, DeviceHealth.UNSPECIFIED, DeviceHealth.DEGRADED, DeviceHealth.FAILED).index(health)
