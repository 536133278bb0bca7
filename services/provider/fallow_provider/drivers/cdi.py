"""Reads CDI specifications: which device files a container gets with a device's name, such as ``nvidia.com/gpu=0``.

The Container Device Interface is a folder of JSON or YAML files that the vendor's tool writes and container engines read
(https://github.com/cncf-tags/container-device-interface). The agent reads them too, to know by which name an engine gives
out the card that the market leased by its id, and which files must then be in the container. A file that cannot be read
is told of and left out: the engine leaves it out too.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from fallow_chassis.logging import get_logger

KINDS: Final = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu"}
"""The kind of a vendor's GPUs."""
MIG_KIND: Final = "nvidia.com/mig"
"""What some tools call slices."""
MAX_SPECIFICATION_BYTES: Final = 4 * 1024 * 1024
CARDS_FOLDER: Final = Path("/proc/driver/nvidia/gpus")
DEVICE_FOLDER: Final = Path("/dev")
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CdiDevice:
    """One device of a specification: its whole name, and each file that it brings, by its place in the container."""

    name: str
    nodes: tuple[tuple[str, str], ...]
    """Path in the container, path on the host."""
    common: frozenset[str] = frozenset()
    """Files of the host that every device of the specification brings."""

    @property
    def kind(self) -> str:
        """The part before ``=``."""
        return self.name.partition("=")[0]

    @property
    def short_name(self) -> str:
        """The part after ``=``."""
        return self.name.partition("=")[2]


def read_specifications(folders: Sequence[Path]) -> tuple[CdiDevice, ...]:
    """All devices of GPUs in the folders; a name in a later folder hides one of an earlier."""
    found: dict[str, CdiDevice] = {}
    for folder in folders:
        for file in sorted(folder.glob("*")) if folder.is_dir() else ():
            if file.suffix in {".json", ".yaml", ".yml"}:
                found |= {device.name: device for device in _read(file)}
    return tuple(found.values())


def device_named(devices: Sequence[CdiDevice], vendor: str, device_id: str) -> CdiDevice | None:
    """The device that a card's or slice's id means: by its id as a name, else by the file of the card of that id."""
    kinds = {KINDS.get(vendor, ""), MIG_KIND if vendor == "nvidia" else ""}
    ours = [device for device in devices if device.kind in kinds]
    for device in ours:
        if device.short_name == device_id:
            return device
    node = card_node(device_id) if vendor == "nvidia" else None
    # The device "all" brings the file too, and others with it.
    holders = [device for device in ours if node is not None and _cards(device) == {node}]
    return holders[0] if holders else None


def card_node(uuid: str) -> str | None:
    """The device file of an NVIDIA card by its UUID, as its kernel driver tells; None where there is none."""
    for file in CARDS_FOLDER.glob("*/information"):
        facts = dict(line.split(":", 1) for line in file.read_text("utf-8").splitlines() if ":" in line)
        if facts.get("GPU UUID", "").strip() == uuid:
            return str(DEVICE_FOLDER / f"nvidia{facts['Device Minor'].strip()}")
    return None


def _cards(device: CdiDevice) -> set[str]:
    """The files of whole NVIDIA cards among those of a device."""
    return {host for _, host in device.nodes if host.removeprefix("/dev/nvidia").isdigit()}


def _read(file: Path) -> list[CdiDevice]:
    """The devices of one file; none, with a word in the log, where it is no specification of GPUs that can be read."""
    try:
        if file.stat().st_size > MAX_SPECIFICATION_BYTES:
            raise ValueError("it is too large")
        text = file.read_text("utf-8")
        content: dict[str, Any] = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
        kind = content["kind"]
        if kind not in {*KINDS.values(), MIG_KIND}:
            return []
        common = frozenset(host for _, host in _nodes(content))
        return [CdiDevice(f"{kind}={item['name']}", _nodes(item), common) for item in content["devices"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        _log.warning("cdi_specification_unread", file=str(file), error=str(error) or type(error).__name__)
        return []


def _nodes(item: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """The device files of one device, or of a whole specification."""
    nodes = (item.get("containerEdits") or {}).get("deviceNodes") or []
    return tuple((str(node["path"]), str(node.get("hostPath") or node["path"])) for node in nodes)
