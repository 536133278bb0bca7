"""What a probe reads of a machine's GPUs, and what their health is by it.

A card is a piece of hardware; what is offered is the card itself, or, where it is cut by MIG, its slices. Unknown is not
down: a card is FAILED only by a reading that says so (lost, a fatal Xid, memory that cannot be mended), or by its absence from
a complete list. A card that a probe could not read is UNSPECIFIED.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from fallow_chassis.gpu_models import gpu_model_of
from fallow_provider.domain.inventory import Device, DeviceHealth, DeviceSource

COOLING_CELSIUS: Final = 5
"""How far below its limit a card that was too hot must be to count as healthy again."""

FATAL_XIDS: Final[Mapping[int, str]] = {
    48: "memory error that ECC could not correct",
    62: "internal micro-controller halted",
    64: "rows of memory could not be remapped",
    79: "fell off the bus",
    95: "memory error that was not contained",
    119: "its firmware (GSP) does not answer",
    120: "its firmware (GSP) failed",
    140: "unrecovered memory error",
    143: "could not be initialised",
}
"""After these the card does no work until it is reset or replaced (NVIDIA's Xid catalogue)."""
WARNING_XIDS: Final[Mapping[int, str]] = {
    63: "rows of memory wait to be remapped",
    74: "NVLink error",
    92: "high rate of memory errors that ECC corrects",
    94: "contained memory error",
    121: "error of the link to the processor",
}
"""After these the card still works; it should be looked at before somebody relies on it. All other Xids tell of a workload."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a card that MIG has cut off, leased as a device of its own."""

    device_id: str
    name: str
    vram_bytes: int


@dataclass(frozen=True, slots=True)
class CardReading:
    """One card as a probe read it; what the card does not tell is None."""

    card_id: str
    name: str
    vendor: str
    vram_bytes: int
    pci_bus_id: str = ""
    is_lost: bool = False
    temperature_celsius: int | None = None
    temperature_limit_celsius: int | None = None
    power_milliwatts: int | None = None
    gpu_percent: int | None = None
    memory_used_bytes: int | None = None
    uncorrected_errors: int | None = None
    """Memory errors that ECC could not correct, since the driver was loaded."""
    is_remap_pending: bool = False
    is_remap_failed: bool = False
    slices: tuple[Slice, ...] | None = None
    """None where the card is not cut."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All cards of one library at one time. ``is_complete`` is False where a card may be there that could not be read."""

    cards: tuple[CardReading, ...]
    is_complete: bool = True


@dataclass(frozen=True, slots=True)
class CardEvent:
    """An Xid that the driver reported of a card."""

    card_id: str
    xid: int


class Ailment(IntEnum):
    """How bad a finding is."""

    NONE = 0
    WARNING = 1
    FATAL = 2


@dataclass(frozen=True, slots=True)
class Card:
    """A card as the agent knows it, over its own lives within one life of the machine."""

    reading: CardReading
    source: DeviceSource
    xids: tuple[int, ...] = ()
    """Those that tell of the card, each once, sorted. Only a restart of the machine clears them."""
    is_absent: bool = False
    is_hot: bool = False
    health: DeviceHealth = DeviceHealth.UNSPECIFIED
    detail: str = ""
    """Why it is not healthy, for people."""


Cards = Mapping[str, Card]
"""Cards by id, in the order in which they were first seen."""


def ailment_of(xid: int) -> Ailment:
    """Whether an Xid tells of the card, and how bad it is."""
    if xid in FATAL_XIDS:
        return Ailment.FATAL
    return Ailment.WARNING if xid in WARNING_XIDS else Ailment.NONE


def cards_after(known: Cards, snapshot: Snapshot, source: DeviceSource, events: Sequence[CardEvent] = ()) -> Cards:
    """The cards once a library was read: a known card that a complete list lacks has failed, a new one is added."""
    read = {reading.card_id: reading for reading in snapshot.cards}
    cards = dict(known)
    for card_id, card in known.items():
        if card.source is source and card_id not in read:
            is_absent = card.is_absent or snapshot.is_complete
            cards[card_id] = replace(card, is_absent=is_absent, xids=_xids(card.xids, card_id, events))
    for card_id, reading in read.items():
        before = known.get(card_id)
        facts = before.reading if before is not None and reading.is_lost else reading
        cards[card_id] = Card(
            reading=replace(facts, is_lost=reading.is_lost),
            source=source,
            xids=_xids(before.xids if before is not None else (), card_id, events),
            is_hot=_is_hot(reading, was_hot=before is not None and before.is_hot),
        )
    return {
        card_id: _judged(card, is_read=card_id in read) if card.source is source else card
        for card_id, card in cards.items()
    }


def cards_unread(known: Cards, source: DeviceSource, detail: str) -> Cards:
    """The cards while a library does not answer: what has failed stays so, of the rest nothing is known."""
    return {
        card_id: replace(card, health=DeviceHealth.UNSPECIFIED, detail=detail)
        if card.source is source and card.health is not DeviceHealth.FAILED
        else card
        for card_id, card in known.items()
    }


def devices_of(card: Card) -> tuple[Device, ...]:
    """What a card offers: itself, or its slices."""
    reading = card.reading
    parts = reading.slices
    if parts is None:
        parts = (Slice(reading.card_id, reading.name, reading.vram_bytes),)
    builds = [(part, gpu_model_of(part.name, reading.vendor, part.vram_bytes)) for part in parts]
    return tuple(
        Device(
            part.device_id,
            reading.vendor,
            build.model,
            part.vram_bytes,
            build.interface,
            card.health,
            card.source,
            card.detail,
        )
        for part, build in builds
    )


def _xids(known: tuple[int, ...], card_id: str, events: Sequence[CardEvent]) -> tuple[int, ...]:
    """The Xids that tell of a card, those of the events among them."""
    new = {event.xid for event in events if event.card_id == card_id and ailment_of(event.xid)}
    return tuple(sorted(new.union(known)))


def _is_hot(reading: CardReading, *, was_hot: bool) -> bool:
    """Whether a card is at the limit at which it slows down; it must cool for a while to count as cool again."""
    if reading.temperature_celsius is None or reading.temperature_limit_celsius is None:
        return was_hot and reading.is_lost
    return reading.temperature_celsius >= reading.temperature_limit_celsius - (COOLING_CELSIUS if was_hot else 0)


def _judged(card: Card, *, is_read: bool) -> Card:
    """The card with its health; the first finding that holds counts, the worst first."""
    reading = card.reading
    fatal = [xid for xid in card.xids if xid in FATAL_XIDS]
    warned = [xid for xid in card.xids if xid in WARNING_XIDS]
    failed: Sequence[tuple[bool, str]] = (
        (bool(fatal), _xid_text(fatal)),
        (reading.is_lost, "the driver has lost it"),
        (card.is_absent, "the driver lists it no more"),
        (reading.is_remap_failed, "rows of its memory could not be remapped"),
    )
    degraded: Sequence[tuple[bool, str]] = (
        (bool(warned), _xid_text(warned)),
        (reading.is_remap_pending, "rows of its memory wait to be remapped: reset it"),
        (bool(reading.uncorrected_errors), f"{reading.uncorrected_errors} memory errors that ECC could not correct"),
        (card.is_hot, f"as hot as {reading.temperature_limit_celsius} °C, where it slows down"),
    )
    for is_found, detail in failed:
        if is_found:
            return replace(card, health=DeviceHealth.FAILED, detail=detail)
    if not is_read:
        return replace(card, health=DeviceHealth.UNSPECIFIED, detail="it could not be read")
    for is_found, detail in degraded:
        if is_found:
            return replace(card, health=DeviceHealth.DEGRADED, detail=detail)
    return replace(card, health=DeviceHealth.HEALTHY, detail="")


def _xid_text(xids: Sequence[int]) -> str:
    """Xids with what they mean."""
    return "; ".join(f"Xid {xid}: {FATAL_XIDS.get(xid) or WARNING_XIDS[xid]}" for xid in xids)
