"""What one replica takes, in the form that the engine counts and caches by."""

from dataclasses import astuple, dataclass
from typing import Any, Self

from fallow_bidding.domain.demand import GpuAlternative, ReplicaSet
from fallow_bidding.domain.supply import WHOLE_DEVICE_MILLI, Device


@dataclass(frozen=True, slots=True, order=True)
class Kind:
    """Devices that no need can tell apart; a replica's devices are all of one kind and of one node."""

    vendor: str = ""
    model: str = ""
    vram_bytes: int = 0
    interface: str = ""

    @classmethod
    def of(cls, device: Device) -> Self:
        """The kind of a device."""
        return cls(device.vendor, device.model, device.vram_bytes, device.interface)


@dataclass(frozen=True, slots=True, order=True)
class Need:
    """One replica's share of one node. ``gpu_count`` whole devices, or one share of ``gpu_milli``, or no GPU (0, 0)."""

    cpu_milli: int
    memory_bytes: int
    gpu_count: int = 0
    gpu_milli: int = 0
    vendor: str = ""
    models: tuple[str, ...] = ()
    vram_bytes_min: int = 0
    interface: str = ""
    storage: tuple[tuple[str, int], ...] = ()
    alternatives: tuple[GpuAlternative, ...] = ()

    def __post_init__(self) -> None:
        """Hold the bounds of a share."""
        assert self.cpu_milli >= 0, "no replica gives processor time"
        assert self.memory_bytes >= 0, "no replica gives memory"
        assert self.gpu_count >= 0, "no replica gives devices"
        assert (self.gpu_count == 0) == (self.gpu_milli == 0), "no devices, no share"
        assert self.gpu_milli == WHOLE_DEVICE_MILLI or self.gpu_count <= 1, "a share lives on one device"
        assert 0 <= self.gpu_milli <= WHOLE_DEVICE_MILLI, "a share is at most a device"

    @classmethod
    def of(cls, replica_set: ReplicaSet) -> Self:
        """What one replica of a set takes."""
        gpu, storage = replica_set.gpu, tuple(sorted(replica_set.disk_bytes_by_class.items()))
        if gpu is None:
            return cls(replica_set.cpu_milli, replica_set.memory_bytes_taken, storage=storage)
        return cls(
            cpu_milli=replica_set.cpu_milli,
            memory_bytes=replica_set.memory_bytes_taken,
            gpu_count=gpu.count,
            gpu_milli=gpu.milli,
            vendor=gpu.vendor,
            models=tuple(sorted(set(gpu.models))),
            vram_bytes_min=gpu.vram_bytes_min,
            interface=gpu.interface,
            storage=storage,
            alternatives=tuple(sorted(set(gpu.alternatives))),
        )

    @property
    def total_milli(self) -> int:
        """All that the replica takes of devices, in thousandths."""
        return self.gpu_count * self.gpu_milli

    @property
    def is_whole(self) -> bool:
        """Whether it takes whole devices."""
        return self.gpu_milli == WHOLE_DEVICE_MILLI

    def allows(self, kind: Kind) -> bool:
        """Whether devices of a kind would do; without GPUs every node does."""
        return self.gpu_count == 0 or (
            (not self.vendor or self.vendor == kind.vendor)
            and (not self.models or kind.model in self.models)
            and kind.vram_bytes >= self.vram_bytes_min
            and (not self.interface or self.interface == kind.interface)
            and (not self.alternatives or any(each.allows(*astuple(kind)) for each in self.alternatives))
        )

    def to_record(self) -> dict[str, Any]:
        """The need as a JSON object."""
        record = {name: getattr(self, name) for name in self.__slots__}
        return record | {"alternatives": [astuple(each) for each in self.alternatives]}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
        """The need that ``to_record`` wrote."""
        fields = dict(record)
        fields["models"] = tuple(fields["models"])
        fields["storage"] = tuple((name, size) for name, size in fields["storage"])
        fields["alternatives"] = tuple(GpuAlternative(*each) for each in fields.get("alternatives", ()))
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Lot:
    """Like replicas of a group, as lists by price know them: what each takes, and what of memory and storage is charged.

    A volume in memory is taken from the node's memory and charged as storage.
    """

    need: Need
    replicas: int
    memory_bytes: int
    storage: tuple[tuple[str, int], ...]

    @classmethod
    def one(cls, need: Need) -> Self:
        """One replica of a need."""
        return cls(need, 1, need.memory_bytes, need.storage)

    @classmethod
    def of(cls, replica_set: ReplicaSet) -> Self:
        """All replicas of a set."""
        charged = tuple(sorted(replica_set.storage_bytes_by_class.items()))
        return cls(Need.of(replica_set), replica_set.replicas, replica_set.memory_bytes, charged)
