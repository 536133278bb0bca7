"""What providers have and ask: devices, nodes, price schedules, standing offers.

A ``Supplier`` is one provider as the engine sees it at one instant: free capacity is what its last inventory report
offers less what leases hold. Fractions of a device are thousandths (milli); all money is in micros.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

WHOLE_DEVICE_MILLI: Final = 1_000


class Health(StrEnum):
    """Health of a device as its agent reports it."""

    UNKNOWN = "UNKNOWN"
    HEALTHY = "HEALTHY"
    DEGRADED = "DEGRADED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU with what is free of it, 0 to 1,000 milli."""

    device_id: str
    vendor: str
    model: str
    vram_bytes: int
    interface: str = ""
    health: Health = Health.HEALTHY
    free_milli: int = WHOLE_DEVICE_MILLI

    def __post_init__(self) -> None:
        """Hold the bounds of a share."""
        assert 0 <= self.free_milli <= WHOLE_DEVICE_MILLI, f"{self.device_id} has {self.free_milli} milli free"


@dataclass(frozen=True, slots=True)
class Node:
    """One machine with what is free of it. An empty ``drivers`` means that the agent named none."""

    node_id: str
    cpu_milli: int
    memory_bytes: int
    storage_bytes_by_class: Mapping[str, int] = field(default_factory=dict)
    devices: tuple[Device, ...] = ()
    drivers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReservedTier:
    """A discount, in thousandths, for reserved terms of at least ``duration_ms_min``."""

    duration_ms_min: int
    discount_milli: int


@dataclass(frozen=True, slots=True)
class PriceSchedule:
    """Prices for one hour, in micros of ``asset``. A GPU model without a price is not for sale."""

    asset: str
    gpu_micros_by_model: Mapping[str, int] = field(default_factory=dict)
    cpu_core_micros: int = 0
    memory_gib_micros: int = 0
    storage_gib_micros_by_class: Mapping[str, int] = field(default_factory=dict)
    group_micros_min: int = 0
    reserved_tiers: tuple[ReservedTier, ...] = ()
    spot_discount_milli: int = 0


@dataclass(frozen=True, slots=True)
class StandingOffer:
    """An active, unexpired offer; ``term_ms_max`` is None where any term is taken."""

    offer_id: str
    prices: PriceSchedule
    term_ms_max: int | None = None


@dataclass(frozen=True, slots=True)
class Supplier:
    """One provider as the engine sees it. ``unavailable`` says why it takes no new lease, or is empty.

    ``audited`` names, by auditor in lower case, the attributes that it vouches for.
    """

    provider_id: str
    account: str
    region: str
    create_time_ms: int
    attributes: Mapping[str, str] = field(default_factory=dict)
    audited: Mapping[str, frozenset[str]] = field(default_factory=dict)
    reputation_milli: int = 0
    unavailable: str = ""
    offers: Mapping[str, StandingOffer] = field(default_factory=dict)
    nodes: tuple[Node, ...] = ()
