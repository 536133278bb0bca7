"""What an SDL file says, in its own words: services, profiles, placements, deployment, endpoints.

Every part keeps the line and the path it came from, so that later stages can name them. Units are already integers.
Only what is deployed gets this far.
"""

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Place:
    """Where a part stands in the file."""

    line: int
    path: str


@dataclass(frozen=True, slots=True)
class ExposeTarget:
    """Who may reach a port: a service, everybody, or everybody by a leased address."""

    place: Place
    service: str
    is_global: bool
    ip: str


@dataclass(frozen=True, slots=True)
class Expose:
    """One port of a service."""

    place: Place
    port: int
    external: int
    protocol: str
    hosts: tuple[tuple[str, Place], ...]
    targets: tuple[ExposeTarget, ...]

    @property
    def seen_at(self) -> int:
        """The port that others see."""
        return self.external or self.port

    @property
    def is_global(self) -> bool:
        """Whether everybody may reach the port."""
        return any(target.is_global for target in self.targets)


@dataclass(frozen=True, slots=True)
class StorageMount:
    """Where a service mounts a volume of its profile."""

    place: Place
    volume: str
    path: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class Credentials:
    """Of a private registry."""

    place: Place
    host: str
    username: str
    password: str


@dataclass(frozen=True, slots=True)
class Service:
    """One container image with what it is started with. ``trusted_environment`` is empty, ``cpu`` or ``cpu-gpu``."""

    place: Place
    name: str
    image: str
    command: tuple[str, ...]
    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    exposes: tuple[Expose, ...]
    mounts: tuple[StorageMount, ...]
    credentials: Credentials | None
    trusted_environment: str
    trusted_place: Place


@dataclass(frozen=True, slots=True)
class Volume:
    """One volume of a profile."""

    place: Place
    name: str
    size_bytes: int
    storage_class: str
    persistent: bool


@dataclass(frozen=True, slots=True)
class GpuModel:
    """One acceptable kind of card; empty parts take any."""

    place: Place
    vendor: str
    model: str
    vram_bytes: int
    interface: str


@dataclass(frozen=True, slots=True)
class Gpu:
    """GPUs of a profile; a vendor without models takes any of its cards."""

    place: Place
    count: int
    vendors: tuple[str, ...]
    models: tuple[GpuModel, ...]


@dataclass(frozen=True, slots=True)
class Compute:
    """A compute profile: what one replica needs."""

    place: Place
    name: str
    cpu_milli: int
    memory_bytes: int
    volumes: tuple[Volume, ...]
    gpu: Gpu | None


@dataclass(frozen=True, slots=True)
class Pricing:
    """Most that one replica of a profile may cost per block."""

    place: Place
    profile: str
    denomination: str
    denomination_place: Place
    amount: Fraction


@dataclass(frozen=True, slots=True)
class Placement:
    """Which providers may run what is placed here, and for how much."""

    place: Place
    name: str
    attributes: tuple[tuple[str, str], ...]
    any_of: tuple[str, ...]
    all_of: tuple[str, ...]
    prices: tuple[Pricing, ...]
    prices_place: Place


@dataclass(frozen=True, slots=True)
class Deployed:
    """One service on one placement."""

    place: Place
    service: str
    placement: str
    profile: str
    profile_place: Place
    count: int


@dataclass(frozen=True, slots=True)
class EndpointName:
    """A leased address that services expose ports on."""

    place: Place
    name: str


@dataclass(frozen=True, slots=True)
class Stack:
    """A whole file. ``place`` is that of ``deployment``."""

    place: Place
    version: str
    services: tuple[Service, ...]
    computes: tuple[Compute, ...]
    placements: tuple[Placement, ...]
    deployed: tuple[Deployed, ...]
    endpoints: tuple[EndpointName, ...]
