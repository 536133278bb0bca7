"""Small makers of suppliers and demands."""

from datetime import datetime
from typing import Any

from fallow_bidding.domain.demand import GpuNeed, GroupDemand, OrderDemand, ReplicaSet
from fallow_bidding.domain.leases import GenerationKey, Lease
from fallow_bidding.domain.supply import Device, Health, Node, PriceSchedule, StandingOffer, Supplier

GIB = 1 << 30
CORE = 1_000


def device(device_id: str, **fields: Any) -> Device:
    """A healthy H100, unless the fields say otherwise."""
    defaults: dict[str, Any] = {
        "device_id": device_id,
        "vendor": "nvidia",
        "model": "h100",
        "vram_bytes": 80 * GIB,
        "interface": "sxm",
    }
    return Device(**defaults | fields)


def node(node_id: str = "n1", devices: int | tuple[Device, ...] = 1, **fields: Any) -> Node:
    """A node with room for a few replicas."""
    gpus = devices if isinstance(devices, tuple) else tuple(device(f"{node_id}-g{i}") for i in range(devices))
    defaults: dict[str, Any] = {
        "node_id": node_id,
        "cpu_milli": 32 * CORE,
        "memory_bytes": 128 * GIB,
        "storage_bytes_by_class": {"ephemeral": 500 * GIB},
        "devices": gpus,
    }
    return Node(**defaults | fields)


def prices(micros: int = 1_000_000, **fields: Any) -> PriceSchedule:
    """A price for H100s and nothing else."""
    defaults: dict[str, Any] = {"asset": "usdc", "gpu_micros_by_model": {"h100": micros}}
    return PriceSchedule(**defaults | fields)


def supplier(
    provider_id: str = "p1",
    *nodes: Node,
    micros: int = 1_000_000,
    schedule: PriceSchedule | None = None,
    term_ms_max: int | None = None,
    **fields: Any,
) -> Supplier:
    """A provider that is online, with one node of one H100 unless nodes are given."""
    schedule = schedule or prices(micros)
    offer = StandingOffer(f"offer-{provider_id}", schedule, term_ms_max)
    defaults: dict[str, Any] = {
        "provider_id": provider_id,
        "account": f"accounts/{provider_id}",
        "region": "eu-west",
        "create_time_ms": 1,
        "offers": {schedule.asset: offer},
        "nodes": nodes or (node(),),
    }
    return Supplier(**defaults | fields)


def replica_set(service: str = "web", replicas: int = 1, gpu: GpuNeed | None = None, **fields: Any) -> ReplicaSet:
    """Replicas of one core and one GiB."""
    defaults: dict[str, Any] = {
        "service": service,
        "replicas": replicas,
        "cpu_milli": CORE,
        "memory_bytes": GIB,
        "gpu": gpu,
    }
    return ReplicaSet(**defaults | fields)


def group(*sets: ReplicaSet, index: int = 0, **fields: Any) -> GroupDemand:
    """A group of one replica with one GPU, unless replica sets are given."""
    defaults: dict[str, Any] = {
        "index": index,
        "group_id": f"group-{index}",
        "replica_sets": sets or (replica_set(gpu=GpuNeed(1)),),
        "asset": "usdc",
        "price_limit_micros": 10_000_000,
    }
    return GroupDemand(**defaults | fields)


def order(*groups: GroupDemand, **fields: Any) -> OrderDemand:
    """An order of one such group, unless groups are given."""
    defaults: dict[str, Any] = {"order_id": "o1", "groups": groups or (group(),)}
    return OrderDemand(**defaults | fields)


def unhealthy(health: Health) -> Node:
    """A node with one device of that health."""
    return node(devices=(device("g", health=health),))


def reserved_lease(key: GenerationKey, create_time: datetime) -> Lease:
    """A lease that was just made, of a provider named `provider`."""
    return Lease(
        lease_id="lease",
        key=key,
        group_id="main",
        tenant="accounts/t",
        provider_id="provider",
        provider_account="accounts/p",
        provider_address="",
        offer_id="offer",
        asset="usdc",
        price_micros=1,
        placements=(),
        self_stop_ms=45_000,
        create_time=create_time,
    )
