"""Gives a container the devices that it was leased, and looks into it whether it has them.

What an engine answers is no proof: some take a request for GPUs and start a container without any. So ``plan_injection``
says what to ask the engine for and which device files the container must have then, and which it must not; once it runs,
``injection_fault`` looks. A card is known by the numbers of its device file, not by the file's name. Who may read
``/proc/PID/root`` sees the container's ``/dev`` whatever is in its image.
"""

import contextlib
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fallow_provider.domain.reasons import DEVICE_NOT_GIVEN
from fallow_provider.domain.workload import LeasedDevice
from fallow_provider.drivers import cdi
from fallow_provider.drivers.cdi import CdiDevice, card_node, device_named
from fallow_provider.ports import DriverRefusedError

_CHARACTERS: Final = "c"

DeviceNumbers = tuple[int, int]
"""Major and minor number of a device file."""


@dataclass(frozen=True, slots=True)
class Injection:
    """How to ask for devices, and what must be in the container then. ``names`` are those of CDI, ``ids`` the vendor's."""

    names: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    wanted: Mapping[DeviceNumbers, str] = field(default_factory=dict)
    foreign: Mapping[DeviceNumbers, str] = field(default_factory=dict)
    """Files of cards that are not the container's."""

    def requests(self) -> list[dict[str, Any]]:
        """``HostConfig.DeviceRequests`` of the Docker Engine API."""
        if self.names:
            return [{"Driver": "cdi", "DeviceIDs": list(self.names)}]
        if self.ids:
            return [{"Driver": "nvidia", "DeviceIDs": list(self.ids), "Capabilities": [["gpu"]]}]
        return []


def plan_injection(
    leased: Sequence[LeasedDevice], specified: Sequence[CdiDevice], *, has_cdi: bool, has_requests: bool
) -> Injection:
    """What to ask the engine for; refused with DEVICE_NOT_GIVEN where it has no way to give one of the devices.

    ``has_cdi``: the engine reads CDI specifications; ``has_requests``: it takes NVIDIA's device requests.
    """
    if not leased:
        return Injection()
    named = [device_named(specified, device.vendor, device.device_id) if has_cdi else None for device in leased]
    found = [device for device in named if device is not None]
    if len(found) == len(leased):
        files = {container: host for device in found for container, host in device.nodes}
        common = {host for device in specified for host in device.common}
        others = {host for device in specified for _, host in device.nodes} - set(files.values()) - common
        wanted = {_numbers_on_host(host): container for container, host in files.items()}
        if not wanted:
            raise DriverRefusedError(DEVICE_NOT_GIVEN, f"CDI device {found[0].name} brings no device file to look for")
        return Injection(tuple(device.name for device in found), (), wanted, _present(others))
    cards = [card_node(device.device_id) if device.vendor == "nvidia" else None for device in leased]
    if has_requests and all(cards):
        wanted = {_numbers_on_host(card): card for card in cards if card is not None}
        others = {str(file) for file in cdi.DEVICE_FOLDER.glob("nvidia[0-9]*")} - set(wanted.values())
        return Injection((), tuple(device.device_id for device in leased), wanted, _present(others))
    missing = next(device.device_id for device, there in zip(leased, named, strict=True) if there is None)
    raise DriverRefusedError(
        DEVICE_NOT_GIVEN, f"the engine has no way to give {missing}: no CDI specification that it reads names it"
    )


def injection_fault(injection: Injection, present: Mapping[DeviceNumbers, str]) -> str:
    """What is wrong with the device files that a container has; empty where it has all that are its and no other card's."""
    missing = sorted(file for numbers, file in injection.wanted.items() if numbers not in present)
    foreign = sorted(file for numbers, file in present.items() if numbers in injection.foreign)
    return "; ".join(
        text
        for text in (
            f"{', '.join(missing)} is not in the container" if missing else "",
            f"{', '.join(foreign)} is another's" if foreign else "",
        )
        if text
    )


def devices_seen_from_host(container_id: str, processes: Path = Path("/proc")) -> Mapping[DeviceNumbers, str] | None:
    """The device files of a container's ``/dev``, through one of its processes; None where none can be looked into.

    Its processes are known by their control group, so that it does not matter in which namespace the engine counts them.
    """
    for process in processes.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if container_id in (process / "cgroup").read_text("utf-8"):
                return _devices_below(process / "root" / "dev")
    return None


def devices_listed(listing: str) -> Mapping[DeviceNumbers, str]:
    """The device files in the output of ``ls -lR /dev``."""
    found: dict[DeviceNumbers, str] = {}
    for line in listing.splitlines():
        words = line.replace(",", " ").split()
        if line.startswith(_CHARACTERS) and len(words) >= 6 and words[4].isdigit() and words[5].isdigit():
            found[int(words[4]), int(words[5])] = words[-1]
    return found


def _devices_below(folder: Path) -> Mapping[DeviceNumbers, str]:
    """Character devices in a folder and those below; OSError where it may not be read. Links are not followed."""
    found: dict[DeviceNumbers, str] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                found |= _devices_below(folder / entry.name)
            elif stat.S_ISCHR(status.st_mode):
                found[os.major(status.st_rdev), os.minor(status.st_rdev)] = entry.name
    return found


def _numbers_on_host(file: str) -> DeviceNumbers:
    """The numbers of a device file of the host; refused where it is none: the card cannot be given then."""
    try:
        status = os.stat(file)  # noqa: PTH116 - of a device, whose numbers are wanted
    except OSError as error:
        raise DriverRefusedError(DEVICE_NOT_GIVEN, f"the device file {file} is not there: {error.strerror}") from error
    if not stat.S_ISCHR(status.st_mode):
        raise DriverRefusedError(DEVICE_NOT_GIVEN, f"{file} is no device file")
    return os.major(status.st_rdev), os.minor(status.st_rdev)


def _present(files: set[str]) -> dict[DeviceNumbers, str]:
    """The numbers of those device files that are there."""
    found = {}
    for file in files:
        with contextlib.suppress(DriverRefusedError):
            found[_numbers_on_host(file)] = file
    return found
