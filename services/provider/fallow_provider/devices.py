"""What the operator's site file says: nodes, declared devices, prices.

Devices in the file are declared: nobody has looked whether they are there, and they are labelled DECLARED to the market.
A node may have ``find_devices = true`` instead, which is the machine that the agent runs on: ``device_watch`` fills it with what is there.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fallow_chassis.gpu_models import builds_of, find_gpu_model
from fallow_chassis.settings import SettingsError
from fallow_provider.domain.inventory import Device, DeviceHealth, DeviceSource, Node, Prices, Site

Micros = Annotated[int, Field(ge=0, le=1_000_000_000_000)]
Bytes = Annotated[int, Field(ge=0)]


class _Table(BaseModel):
    """A table of the file: unknown names are mistakes, and nothing is converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _DeviceTable(_Table):
    device_id: str = Field(min_length=1, max_length=128)
    name: str = Field(default="", max_length=128)
    vendor: str = Field(default="", pattern=r"^[a-z0-9-]{0,32}$")
    model: str = Field(default="", pattern=r"^[a-z0-9-]{0,64}$")
    vram_bytes: Bytes | None = None
    interface: str = Field(default="", pattern=r"^[a-z0-9-]{0,16}$")

    @model_validator(mode="after")
    def _is_known_or_told(self) -> "_DeviceTable":
        """Hold that the file or the market's table of models says what the device is."""
        if bool(self.name) == bool(self.model):
            raise ValueError("needs either model, the market's name, or name, what the vendor calls the card")
        if find_gpu_model(self.name or self.model) is None and not (self.model and self.vendor and self.vram_bytes):
            raise ValueError(
                f"the market's table has no {self.name or self.model}: give vendor, model and vram_bytes yourself"
            )
        return self


class _NodeTable(_Table):
    node_id: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$")
    cpu_milli: int = Field(ge=1)
    memory_bytes: int = Field(ge=1)
    storage_bytes_by_class: dict[str, Bytes] = Field(default_factory=dict, max_length=16)
    devices: list[_DeviceTable] = Field(default_factory=list, max_length=64)
    find_devices: bool = False

    @model_validator(mode="after")
    def _found_or_declared(self) -> "_NodeTable":
        """Hold that a node's devices are found or declared, not both: a device could stand for another."""
        if self.find_devices and self.devices:
            raise ValueError("with find_devices no devices are declared")
        return self


class _PricesTable(_Table):
    asset: str = Field(pattern=r"^[a-z][a-z0-9]{1,15}$")
    gpu_micros_per_hour_by_model: dict[str, Micros] = Field(default_factory=dict, max_length=128)
    cpu_core_micros_per_hour: Micros = 0
    memory_gib_micros_per_hour: Micros = 0
    storage_gib_micros_per_hour_by_class: dict[str, Micros] = Field(default_factory=dict, max_length=16)
    group_micros_per_hour_min: Micros = 0


class _SiteTable(_Table):
    display_name: str = Field(min_length=1, max_length=128)
    region: str = Field(min_length=1, max_length=63)
    attributes: dict[str, str] = Field(default_factory=dict, max_length=64)
    nodes: list[_NodeTable] = Field(min_length=1, max_length=1024)
    prices: _PricesTable

    @model_validator(mode="after")
    def _names_differ(self) -> "_SiteTable":
        """Hold that each id names one thing."""
        node_ids = [node.node_id for node in self.nodes]
        device_ids = [device.device_id for node in self.nodes for device in node.devices]
        for what, ids in (("node_id", node_ids), ("device_id", device_ids)):
            twice = sorted({identifier for identifier in ids if ids.count(identifier) > 1})
            if twice:
                raise ValueError(f"{what} {', '.join(twice)} stands twice")
        if sum(node.find_devices for node in self.nodes) > 1:
            raise ValueError("find_devices stands at two nodes, and the agent runs on one machine")
        return self


class DeclaredSite:
    """The site as the operator's file declares it; read once, at the start."""

    def __init__(self, site: Site, found_on: str = "") -> None:
        """Use ``load``."""
        self._site = site
        self.found_on = found_on
        """Id of the node whose devices are to be found; empty where all are declared."""

    @classmethod
    def load(cls, path: str | Path) -> "DeclaredSite":
        """Read the file; SettingsError names what is wrong and where."""
        try:
            content = tomllib.loads(Path(path).read_text("utf-8"))
            table = _SiteTable.model_validate(content)
            return cls(_site_of(table), next((node.node_id for node in table.nodes if node.find_devices), ""))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SettingsError(f"FALLOW_SITE_FILE: {path}: {error}") from error
        except ValidationError as error:
            faults = "; ".join(f"{_place(item['loc'])}: {item['msg']}" for item in error.errors())
            raise SettingsError(f"FALLOW_SITE_FILE: {path}: {faults}") from error

    def site(self) -> Site:
        """The site."""
        return self._site


def _site_of(table: _SiteTable) -> Site:
    """The file's content in the words of the domain."""
    return Site(
        display_name=table.display_name,
        region=table.region,
        attributes=table.attributes,
        nodes=tuple(_node_of(node) for node in table.nodes),
        prices=Prices(**table.prices.model_dump()),
    )


def _node_of(table: _NodeTable) -> Node:
    """One node."""
    return Node(
        node_id=table.node_id,
        cpu_milli=table.cpu_milli,
        memory_bytes=table.memory_bytes,
        storage_bytes_by_class=table.storage_bytes_by_class,
        devices=tuple(_device_of(device) for device in table.devices),
    )


def _device_of(table: _DeviceTable) -> Device:
    """One declared device; what the file leaves out is the market's table's, where its builds agree on it."""
    builds = builds_of(table.name or table.model)
    interfaces = {build.interface for build in builds}
    return Device(
        device_id=table.device_id,
        vendor=table.vendor or builds[0].vendor,
        model=table.model or builds[0].model,
        vram_bytes=min(build.vram_bytes for build in builds) if table.vram_bytes is None else table.vram_bytes,
        interface=table.interface or (interfaces.pop() if len(interfaces) == 1 else ""),
        health=DeviceHealth.HEALTHY,
        source=DeviceSource.DECLARED,
    )


def _place(location: tuple[Any, ...]) -> str:
    """Where a fault is, such as ``nodes[0].devices[1].vram_bytes``."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "the file"
