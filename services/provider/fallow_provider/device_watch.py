"""The site with the devices that are really there: what the file declares, and on one node what probes find.

Each probe has a thread of its own, since a call into a sick driver may never return. The thread hands what it has read to the loop; where it has been
silent for too long its cards are unknown, never failed. What is known of cards is written down, so that a card that
disappears while the agent is away has failed, and a fatal Xid is not forgotten by a restart of the agent; a restart of the
machine clears it, for that is what mends such a card, if anything does.
"""

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any, Final

from fallow_chassis.clock import Clock
from fallow_chassis.logging import get_logger
from fallow_chassis.settings import SettingsError
from fallow_provider.devices import DeclaredSite
from fallow_provider.domain.device_reading import (
    Card,
    CardEvent,
    CardReading,
    Cards,
    Slice,
    Snapshot,
    cards_after,
    cards_unread,
    devices_of,
)
from fallow_provider.domain.inventory import DeviceHealth, DeviceSource, Site
from fallow_provider.ports import DeviceProbe, ProbeError, ProbeMissingError
from fallow_provider.store import Store

READ_SECONDS: Final = 5.0
"""How often cards are read; an Xid has them read at once."""
WAIT_SECONDS: Final = 0.5
"""How long one wait for Xids takes at most, and so how soon a probe ends."""
SILENCE_SECONDS: Final = 30.0
"""How long a probe may be silent before its cards are unknown."""
FIRST_READ_SECONDS: Final = 30.0
_log = get_logger(__name__)


class DeviceWatch:
    """See the module. ``start`` reads once, ``run`` goes on until cancelled."""

    def __init__(
        self,
        declared: DeclaredSite,
        probes: Sequence[DeviceProbe],
        store: Store,
        clock: Clock,
        *,
        machine_boot_id: str,
        read_seconds: float = READ_SECONDS,
        on_change: Callable[[], None],
    ) -> None:
        """``probes`` are asked where the site file says that devices are to be found, else none is."""
        self._declared = declared
        self._probes = tuple(probes) if declared.found_on else ()
        self._store = store
        self._clock = clock
        self._machine_boot_id = machine_boot_id
        self._read_seconds = read_seconds
        self._on_change = on_change
        self._cards: Cards = _restored(store.fact("cards"), machine_boot_id) if self._probes else {}
        self._heard_ms: dict[DeviceSource, int] = {}
        self._missing: dict[DeviceSource, str] = {}
        self._failure: Exception | None = None
        self._is_ending = threading.Event()
        self._news = asyncio.Event()
        self._site = self._composed()

    def site(self) -> Site:
        """The site as it is now."""
        return self._site

    def cards(self) -> tuple[Card, ...]:
        """What the probes last read."""
        return tuple(self._cards.values())

    async def start(self) -> None:
        """Begin to read, and wait for the first reading.

        SettingsError where devices are to be found, no library is there to find them with, and none was ever known.
        """
        loop = asyncio.get_running_loop()
        for probe in self._probes:
            threading.Thread(target=self._read_for_ever, args=(probe, loop), name=probe.name, daemon=True).start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_READ_SECONDS):
                while self._failure is None and len(self._heard_ms) + len(self._missing) < len(self._probes):
                    self._news.clear()
                    await self._news.wait()
        if self._probes and len(self._missing) == len(self._probes) and not self._cards:
            raise SettingsError(no_devices_text(self._declared.found_on, list(self._missing.values())))
        self._publish()

    async def run(self) -> None:
        """Watch that the probes go on reading, until cancelled."""
        while True:
            await asyncio.sleep(SILENCE_SECONDS / 6)
            if self._failure is not None:
                raise self._failure
            for source, heard_ms in self._heard_ms.items():
                if self._clock.monotonic_ms() - heard_ms > SILENCE_SECONDS * 1_000:
                    self._take(cards_unread(self._cards, source, "its driver does not answer"))

    async def close(self) -> None:
        """Have the threads end; one that hangs in its driver ends with the process."""
        self._is_ending.set()

    def _read_for_ever(self, probe: DeviceProbe, loop: asyncio.AbstractEventLoop) -> None:
        """The thread of one probe: open, then read, at every event and every few seconds; open anew after an error."""
        while not self._is_ending.is_set():
            try:
                probe.open()
                self._read_while_open(probe, loop)
            except ProbeMissingError as error:
                _call(loop, self._is_missing, probe, str(error))
            except ProbeError as error:
                _call(loop, self._is_unread, probe, str(error))
            except Exception as error:  # noqa: BLE001 - `run` raises it where it ends the process
                _call(loop, self._has_failed, error)
                return
            finally:
                probe.close()
            self._is_ending.wait(self._read_seconds)

    def _read_while_open(self, probe: DeviceProbe, loop: asyncio.AbstractEventLoop) -> None:
        """Read until an error, or the end."""
        events: list[CardEvent] = []
        while not self._is_ending.is_set():
            _call(loop, self._has_read, probe, probe.read(), events)
            left_ms = int(self._read_seconds * 1_000)
            start_ms = self._clock.monotonic_ms()
            events = []
            while not events and not self._is_ending.is_set() and self._clock.monotonic_ms() - start_ms < left_ms:
                events = probe.wait(min(WAIT_SECONDS, self._read_seconds))

    def _has_read(self, probe: DeviceProbe, snapshot: Snapshot, events: list[CardEvent]) -> None:
        """Take a reading in; on the loop."""
        for event in events:
            _log.warning("xid", card=event.card_id, xid=event.xid)
        self._missing.pop(probe.source, None)
        self._heard_ms[probe.source] = self._clock.monotonic_ms()
        self._take(cards_after(self._cards, snapshot, probe.source, events))

    def _is_missing(self, probe: DeviceProbe, detail: str) -> None:
        """Note that a library is not there; on the loop. Cards that it once read are unknown."""
        self._missing[probe.source] = detail
        self._take(cards_unread(self._cards, probe.source, detail))

    def _is_unread(self, probe: DeviceProbe, detail: str) -> None:
        """Note that a library does not answer; on the loop."""
        self._heard_ms.setdefault(probe.source, self._clock.monotonic_ms())
        _log.warning("devices_unread", probe=probe.name, detail=detail)
        self._take(cards_unread(self._cards, probe.source, detail))

    def _has_failed(self, failure: Exception) -> None:
        """Note that a thread has ended by a mistake of ours; on the loop."""
        self._failure = failure
        self._news.set()

    def _take(self, cards: Cards) -> None:
        """Know these cards from now on; what has changed for the market is told soon, and written down first."""
        for card_id, card in cards.items():
            before = self._cards.get(card_id)
            if before is None or before.health is not card.health:
                _log.info(
                    "device_health", card=card_id, model=card.reading.name, health=card.health.name, detail=card.detail
                )
        text = _stored(cards, self._machine_boot_id)
        if text != _stored(self._cards, self._machine_boot_id) or self._store.fact("cards") is None:
            self._store.save_fact("cards", text)
        self._cards = cards
        self._publish()
        self._news.set()

    def _publish(self) -> None:
        """Compose the site anew."""
        site = self._composed()
        if site != self._site:
            self._site = site
            self._on_change()

    def _composed(self) -> Site:
        """The declared site with the devices that were found."""
        site = self._declared.site()
        if not self._probes:
            return site
        found = tuple(device for card in self._cards.values() for device in devices_of(card))
        nodes = tuple(
            replace(node, devices=found) if node.node_id == self._declared.found_on else node for node in site.nodes
        )
        return replace(site, nodes=nodes)


def no_devices_text(node_id: str, missing: Sequence[str]) -> str:
    """What to tell an operator whose machine has no library to find devices with."""
    return (
        f"FALLOW_SITE_FILE: node {node_id} has find_devices = true, but there is nothing to find them with: "
        + "; ".join(missing)
        + ". Or take find_devices away and declare the node's devices in [[nodes.devices]] tables: the market labels"
        " them DECLARED"
    )


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: Any) -> None:
    """Call on the loop, from another thread; nothing where the loop has ended."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(function, *arguments)


def _stored(cards: Cards, machine_boot_id: str) -> str:
    """What is kept of cards over a restart of the agent: which there are, and what ails them for good."""
    kept = [
        {
            "card": asdict(
                CardReading(
                    card_id=card_id,
                    name=card.reading.name,
                    vendor=card.reading.vendor,
                    vram_bytes=card.reading.vram_bytes,
                    slices=card.reading.slices,
                )
            ),
            "source": int(card.source),
            "xids": card.xids,
            "is_absent": card.is_absent,
        }
        for card_id, card in cards.items()
    ]
    return json.dumps({"boot_id": machine_boot_id, "cards": kept})


def _restored(text: str | None, machine_boot_id: str) -> Cards:
    """What was kept, if the machine has not restarted since; nothing is known of health until a probe has read."""
    kept = json.loads(text) if text else {}
    if kept.get("boot_id") != machine_boot_id:
        return {}
    cards = {}
    for item in kept["cards"]:
        facts = item["card"]
        slices = None if facts["slices"] is None else tuple(Slice(**part) for part in facts["slices"])
        reading = CardReading(**{**facts, "slices": slices})
        is_failed = item["is_absent"]
        cards[reading.card_id] = Card(
            reading=reading,
            source=DeviceSource(item["source"]),
            xids=tuple(item["xids"]),
            is_absent=item["is_absent"],
            health=DeviceHealth.FAILED if is_failed else DeviceHealth.UNSPECIFIED,
            detail="the driver lists it no more" if is_failed else "it was not read yet",
        )
    return cards
