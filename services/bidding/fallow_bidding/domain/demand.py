"""What an order asks of the market: groups of replicas, constraints, price limits, term."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from fallow_bidding.domain.supply import WHOLE_DEVICE_MILLI

DEFAULT_STORAGE_CLASS: Final = "ephemeral"
MEMORY_STORAGE_CLASS: Final = "ram"
"""A volume of this class is taken from the node's memory."""


class TermKind(StrEnum):
    """Terms under which a lease runs."""

    ON_DEMAND = "ON_DEMAND"
    SPOT = "SPOT"
    RESERVED = "RESERVED"


@dataclass(frozen=True, slots=True, order=True)
class GpuAlternative:
    """One kind of device that would do; empty parts take any."""

    vendor: str = ""
    model: str = ""
    vram_bytes_min: int = 0
    interface: str = ""

    def allows(self, vendor: str, model: str, vram_bytes: int, interface: str) -> bool:
        """Whether a device is of this kind."""
        return (
            (not self.vendor or self.vendor == vendor)
            and (not self.model or self.model == model)
            and vram_bytes >= self.vram_bytes_min
            and (not self.interface or self.interface == interface)
        )


@dataclass(frozen=True, slots=True)
class GpuNeed:
    """GPUs of one replica, all on one node: ``count`` whole devices, or one share of ``milli`` (1 to 999).

    With ``alternatives`` a device must be of one of them too.
    """

    count: int
    milli: int = WHOLE_DEVICE_MILLI
    vendor: str = ""
    models: tuple[str, ...] = ()
    vram_bytes_min: int = 0
    interface: str = ""
    alternatives: tuple[GpuAlternative, ...] = ()

    def __post_init__(self) -> None:
        """A share lives on one device."""
        assert self.count >= 1, "a need of no GPU is None"
        assert 1 <= self.milli <= WHOLE_DEVICE_MILLI, "a share is 1 to 1,000 thousandths"
        assert self.milli == WHOLE_DEVICE_MILLI or self.count == 1, "a share lives on one device"

    @property
    def total_milli(self) -> int:
        """All that one replica takes, in thousandths of a device."""
        return self.count * self.milli

    def names(self, vendor: str, model: str, vram_bytes: int, interface: str) -> bool:
        """Whether a device is of one of the alternatives, where there are any."""
        return not self.alternatives or any(
            each.allows(vendor, model, vram_bytes, interface) for each in self.alternatives
        )


@dataclass(frozen=True, slots=True)
class ReplicaSet:
    """Like replicas of one service; a replica lives on one node. ``storage_bytes_by_class`` is per replica."""

    service: str
    replicas: int
    cpu_milli: int
    memory_bytes: int
    gpu: GpuNeed | None = None
    storage_bytes_by_class: Mapping[str, int] = field(default_factory=dict)
    image: str = ""

    @property
    def memory_bytes_taken(self) -> int:
        """Memory that one replica takes of its node, with its volumes of class ``ram``."""
        return self.memory_bytes + self.storage_bytes_by_class.get(MEMORY_STORAGE_CLASS, 0)

    @property
    def disk_bytes_by_class(self) -> dict[str, int]:
        """Storage that one replica takes of its node, without what lives in memory."""
        return {name: size for name, size in self.storage_bytes_by_class.items() if name != MEMORY_STORAGE_CLASS}


@dataclass(frozen=True, slots=True)
class GroupDemand:
    """A part of an order that one provider must take whole. ``excluded`` holds provider ids.

    ``bids`` are prices for the whole group, by provider id, that stand in the place of what schedules make.
    """

    index: int
    group_id: str
    replica_sets: tuple[ReplicaSet, ...]
    asset: str
    price_limit_micros: int
    regions: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    auditors_any_of: tuple[str, ...] = ()
    auditors_all_of: tuple[str, ...] = ()
    excluded: frozenset[str] = frozenset()
    reputation_milli_min: int = 0
    bids: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OrderDemand:
    """The groups of an order that look for a provider now. ``together``: all of them, or none.

    ``second_price``: the winner of a group is paid the next best price that fits, or, alone, the price limit.
    ``in_full``: all offers are weighed and told of, as a round's bidders are told.
    """

    order_id: str
    groups: tuple[GroupDemand, ...]
    together: bool = True
    term_kind: TermKind = TermKind.ON_DEMAND
    duration_ms: int | None = None
    second_price: bool = False
    in_full: bool = False
