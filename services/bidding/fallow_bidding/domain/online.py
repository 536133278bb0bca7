"""How long devices were online: counted a minute at a time, for all of a provider's devices and for those that auditors vouch for.

An auditor vouches for devices by signing the attribute ``devices/<model>`` with their number: no more of them count by its word,
whatever the agent reports.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from fallow_bidding.domain.audits import AuditorSignature, audited_attributes

COUNT_EVERY: Final = timedelta(seconds=60)
"""How often devices are counted, and how lately their provider must have been heard then."""
LONGEST_COUNT: Final = timedelta(seconds=90)
"""The most time that one count stands for; after a longer pause of ours nobody knows what was online in it."""
DEVICES_PREFIX: Final = "devices/"
"""What the name of an attribute begins with that says how many devices of a model there are."""
EVERYBODY: Final = ""
"""In the place of an auditor: all devices, whoever vouches for them."""


@dataclass(frozen=True, slots=True)
class OnlineDevices:
    """A provider's healthy devices of one model, offered in one asset, with what it says of itself and who signed what."""

    provider_id: str
    model: str
    asset: str
    devices: int
    ask_micros: int
    attributes: Mapping[str, str]
    signatures: tuple[AuditorSignature, ...]


@dataclass(frozen=True, slots=True)
class OnlineTime:
    """Device time in one hour; ``auditor`` is who vouches for it, empty for all of it."""

    provider_id: str
    model: str
    asset: str
    auditor: str
    start_time: datetime
    online_ms: int
    ask_micros: int


def counted_ms(last: datetime, now: datetime) -> int | None:
    """The milliseconds that a count at an instant stands for: none after a pause of ours; None where it is too early to count."""
    passed = now - last
    if passed < COUNT_EVERY:
        return None
    return passed // timedelta(milliseconds=1) if passed <= LONGEST_COUNT else 0


def by_auditor(found: OnlineDevices) -> dict[str, int]:
    """How many of the devices count by each auditor's word, and all of them under ``EVERYBODY``."""
    name = DEVICES_PREFIX + found.model
    signed = found.attributes.get(name, "")
    audited = int(signed) if signed.isascii() and signed.isdigit() and len(signed) <= len("999999") else 0
    counts = {EVERYBODY: found.devices}
    for auditor, names in audited_attributes(found.signatures, found.attributes).items():
        if name in names and audited:
            counts[auditor] = min(found.devices, audited)
    return counts
