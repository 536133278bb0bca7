"""What an SDL file says, in its own words: services, profiles, placements, deployment, endpoints.

Every part keeps the line and the path it came from, so that later stages can name them. Units are already integers.
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
    hosts: tuple[str, ...]
    targets: tuple[ExposeTarget, ...]
    has_http_options: bool


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

    host: str
    username: str
    password: str


@dataclass(frozen=True, slots=True)
class Service:
    """One container image with what it is started with."""

    place: Place
    name: str
    image: str
    command: tuple[str, ...]
    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    exposes: tuple[Expose, ...]
    mounts: tuple[StorageMount, ...]
    credentials: Credentials | None
    dependencies: tuple[tuple[str, Place], ...]


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
    cpu_attributes: tuple[tuple[str, str], ...]
    memory_bytes: int
    volumes: tuple[Volume, ...]
    gpu: Gpu | None


@dataclass(frozen=True, slots=True)
class Pricing:
    """Most that one replica of a profile may cost per block."""

    place: Place
    profile: str
    denomination: str
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


@dataclass(frozen=True, slots=True)
class Deployed:
    """One service on one placement."""

    place: Place
    service: str
    placement: str
    profile: str
    count: int


@dataclass(frozen=True, slots=True)
class EndpointName:
    """A leased address that services expose ports on."""

    place: Place
    name: str


@dataclass(frozen=True, slots=True)
class Stack:
    """A whole file."""

    version: str
    services: tuple[Service, ...]
    computes: tuple[Compute, ...]
    placements: tuple[Placement, ...]
    deployed: tuple[Deployed, ...]
    endpoints: tuple[EndpointName, ...]
