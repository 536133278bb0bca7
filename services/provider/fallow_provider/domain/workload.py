"""What is to run: containers as a driver gets them, and how one learns that they serve."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Final

from fallow_provider.domain.inventory import DeviceSource, Site
from fallow_provider.domain.run import Placement, Run, RunKey

DEFAULT_READINESS_TIMEOUT_MS: Final = 300_000
_KEY_TEXT: Final = re.compile(r"(leases/[^|]+)\|(orders/[^|]+)\|(\d{1,9})\|(\d{1,18})\|([^|]+)\|(\d{1,9})")


class Transport(IntEnum):
    """Transport of a port; the numbers are those of the contract."""

    UNSPECIFIED = 0
    TCP = 1
    UDP = 2
    HTTP = 3


class RestartPolicy(IntEnum):
    """When a stopped container starts again; the numbers are those of the contract."""

    UNSPECIFIED = 0
    ALWAYS = 1
    ON_FAILURE = 2
    NEVER = 3


@dataclass(frozen=True, slots=True)
class ContainerPort:
    """A port of a container that others may reach."""

    container_port: int
    external_port: int = 0
    transport: Transport = Transport.UNSPECIFIED
    is_public: bool = False

    @property
    def scheme(self) -> str:
        """What an endpoint's address starts with: HTTP where the contract's default says so, else TCP or UDP."""
        if self.transport is Transport.UDP:
            return "udp"
        if self.transport is Transport.HTTP:
            return "http"
        is_web = self.transport is Transport.UNSPECIFIED and 80 in {self.container_port, self.external_port}
        return "http" if is_web else "tcp"


@dataclass(frozen=True, slots=True)
class Readiness:
    """How readiness is learnt; at most one of the checks is set, none means ready once it runs."""

    http_port: int = 0
    http_path: str = "/"
    tcp_port: int = 0
    command: tuple[str, ...] = ()
    log_line: str = ""
    timeout_ms: int = DEFAULT_READINESS_TIMEOUT_MS


@dataclass(frozen=True, slots=True)
class Registry:
    """Credentials of a private registry."""

    host: str
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class LeasedDevice:
    """A whole device that one container was leased. A declared one is not there to be given; an empty vendor is not known."""

    device_id: str
    vendor: str = ""
    is_declared: bool = False


@dataclass(frozen=True, slots=True, order=True)
class ContainerKey:
    """Names one container of one generation; what a driver labels it with."""

    lease: str
    run: RunKey
    service: str
    replica: int

    @property
    def name(self) -> str:
        """A name that is unique on the machine and that every engine takes: letters, digits, dashes."""
        return f"fallow-{self.lease.partition('/')[2]}-{self.run.generation}-{self.service}-{self.replica}"

    def text(self) -> str:
        """The key in one line, for a process's environment; ``parse_key`` reads it."""
        run = self.run
        return f"{self.lease}|{run.order}|{run.group}|{run.generation}|{self.service}|{self.replica}"


def parse_key(text: str) -> ContainerKey | None:
    """The key that ``ContainerKey.text`` wrote; None for any other text."""
    match = _KEY_TEXT.fullmatch(text)
    if match is None or int(match[4]) < 1:
        return None
    return ContainerKey(match[1], RunKey(match[2], int(match[3]), int(match[4])), match[5], int(match[6]))


@dataclass(frozen=True, slots=True)
class Container:
    """One container as a driver starts it."""

    key: ContainerKey
    image: str
    command: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    ports: tuple[ContainerPort, ...] = ()
    mount_paths: tuple[str, ...] = ()
    cpu_milli: int = 1_000
    memory_bytes: int = 1 << 30
    devices: tuple[LeasedDevice, ...] = ()
    is_root_read_only: bool = False
    registry: Registry | None = None
    readiness: Readiness = field(default_factory=Readiness)
    restart_policy: RestartPolicy = RestartPolicy.UNSPECIFIED
    self_stop_ms: int = 0
    """Longest silence of the market after which a driver that can ends the container without the agent; 0 for any."""

    @property
    def device_ids(self) -> tuple[str, ...]:
        """Ids of its devices."""
        return tuple(device.device_id for device in self.devices)

    @property
    def found_devices(self) -> tuple[LeasedDevice, ...]:
        """Those of its devices that are really there and must be given to it."""
        return tuple(device for device in self.devices if not device.is_declared)


@dataclass(frozen=True, slots=True)
class ServiceTemplate:
    """One container of the workload before it is placed; ``container.key`` holds no replica of meaning yet."""

    service: str
    container: Container


class PlacementMismatchError(Exception):
    """The workload and the placement do not speak of the same services."""


def containers_of(run: Run, templates: Sequence[ServiceTemplate], site: Site) -> list[Container]:
    """Each placed replica as a container; PlacementMismatchError where a placement names no service, or is left out.

    What its devices are the site tells; one that the site has no more is a device of no known vendor.
    """
    by_service = {template.service: template for template in templates}
    placed = {placement.service for placement in run.placements}
    if placed != set(by_service):
        missing, unknown = sorted(set(by_service) - placed), sorted(placed - set(by_service))
        raise PlacementMismatchError(f"services not placed: {missing}; placed but not in the workload: {unknown}")
    known = {
        device.device_id: LeasedDevice(device.device_id, device.vendor, device.source is DeviceSource.DECLARED)
        for node in site.nodes
        for device in node.devices
    }
    return [_placed(run, placement, by_service[placement.service].container, known) for placement in run.placements]


def _placed(run: Run, placement: Placement, container: Container, known: Mapping[str, LeasedDevice]) -> Container:
    """A template at its place."""
    key = ContainerKey(run.lease, run.key, placement.service, placement.replica)
    devices = tuple(known.get(use.device_id, LeasedDevice(use.device_id)) for use in placement.devices)
    return replace(container, key=key, devices=devices, self_stop_ms=run.self_stop_ms)


def restarts_after(policy: RestartPolicy, exit_status: int | None) -> bool:
    """Whether a container that stopped by itself starts again; an unknown status counts as a failure."""
    if policy is RestartPolicy.NEVER:
        return False
    if policy is RestartPolicy.ON_FAILURE:
        return exit_status != 0
    return True
