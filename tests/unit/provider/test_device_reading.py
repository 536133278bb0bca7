"""What the health of a card is by what was read of it, over its life."""

from dataclasses import replace
from typing import Any

import pytest

from fallow_provider.domain.device_reading import (
    FATAL_XIDS,
    WARNING_XIDS,
    Ailment,
    CardEvent,
    CardReading,
    Cards,
    Slice,
    Snapshot,
    ailment_of,
    cards_after,
    cards_unread,
    devices_of,
)
from fallow_provider.domain.inventory import DeviceHealth, DeviceSource

GIB = 1 << 30
CARD = CardReading(
    "GPU-0", "NVIDIA H100 80GB HBM3", "nvidia", 80 * GIB, temperature_celsius=40, temperature_limit_celsius=90
)
NVML = DeviceSource.NVML


def read(known: Cards, *cards: CardReading, is_complete: bool = True, xids: tuple[int, ...] = ()) -> Cards:
    """The cards after one reading, with Xids of the first."""
    events = [CardEvent("GPU-0", xid) for xid in xids]
    return cards_after(known, Snapshot(cards, is_complete), NVML, events)


def health(cards: Cards, card_id: str = "GPU-0") -> tuple[DeviceHealth, str]:
    """What is known of a card."""
    return cards[card_id].health, cards[card_id].detail


@pytest.mark.parametrize(
    ("changes", "expected", "told"),
    [
        ({}, DeviceHealth.HEALTHY, ""),
        ({"is_lost": True}, DeviceHealth.FAILED, "the driver has lost it"),
        ({"is_remap_failed": True}, DeviceHealth.FAILED, "rows of its memory could not be remapped"),
        ({"is_remap_pending": True}, DeviceHealth.DEGRADED, "rows of its memory wait to be remapped: reset it"),
        ({"uncorrected_errors": 0}, DeviceHealth.HEALTHY, ""),
        ({"uncorrected_errors": 2}, DeviceHealth.DEGRADED, "2 memory errors that ECC could not correct"),
        ({"temperature_celsius": 90}, DeviceHealth.DEGRADED, "as hot as 90 °C, where it slows down"),
        ({"temperature_celsius": None}, DeviceHealth.HEALTHY, ""),
    ],
)
def test_a_reading_has_its_health(changes: dict[str, Any], expected: DeviceHealth, told: str) -> None:
    """Goal: a card is failed by what says so alone. Method: one finding a row."""
    assert health(read({}, replace(CARD, **changes))) == (expected, told)


@pytest.mark.parametrize("xid", [*FATAL_XIDS, *WARNING_XIDS, 13, 31, 43, 45])
def test_an_xid_stays_with_the_card_that_it_tells_of(xid: int) -> None:
    """Goal: a workload's fault is no card's, a card's is not forgotten. Method: each Xid, then a good reading."""
    after = read(read({}, CARD, xids=(xid,)), CARD)
    expected = {
        Ailment.FATAL: DeviceHealth.FAILED,
        Ailment.WARNING: DeviceHealth.DEGRADED,
        Ailment.NONE: DeviceHealth.HEALTHY,
    }[ailment_of(xid)]
    assert after["GPU-0"].health is expected
    assert (f"Xid {xid}" in after["GPU-0"].detail) == (expected is not DeviceHealth.HEALTHY)


def test_a_card_that_a_complete_list_lacks_has_failed_and_an_incomplete_list_says_nothing() -> None:
    """Goal: unknown is not down. Method: a list without the card that is not complete, one that is, and the card again."""
    known = read({}, CARD)
    assert health(read(known, is_complete=False)) == (DeviceHealth.UNSPECIFIED, "it could not be read")
    gone = read(known)
    assert health(gone) == (DeviceHealth.FAILED, "the driver lists it no more")
    assert health(read(gone, is_complete=False))[0] is DeviceHealth.FAILED, "what has failed does not become unknown"
    assert health(read(gone, CARD))[0] is DeviceHealth.HEALTHY


def test_a_driver_that_does_not_answer_makes_cards_unknown_but_none_whole() -> None:
    """Goal: a sick driver neither fails nor heals a card. Method: a healthy card and a failed one while nothing is read."""
    other = replace(CARD, card_id="GPU-1", is_lost=True)
    known = cards_unread(read({}, CARD, other), NVML, "it does not answer")
    assert health(known) == (DeviceHealth.UNSPECIFIED, "it does not answer")
    assert health(known, "GPU-1") == (DeviceHealth.FAILED, "the driver has lost it")
    assert health(read(known, CARD, replace(other, is_lost=False)), "GPU-1")[0] is DeviceHealth.HEALTHY


def test_a_hot_card_is_healthy_again_only_once_it_has_cooled() -> None:
    """Goal: no card goes in and out at its limit. Method: at the limit, just below it, and five degrees below."""
    known: Cards = {}
    found = []
    for celsius in (90, 89, 86, 84, 89):
        known = read(known, replace(CARD, temperature_celsius=celsius))
        found.append(known["GPU-0"].health)
    hot, well = DeviceHealth.DEGRADED, DeviceHealth.HEALTHY
    assert found == [hot, hot, hot, well, well]


def test_cards_of_another_library_are_left_alone() -> None:
    """Goal: each probe speaks for its own cards. Method: an empty list of AMD's beside a card of NVIDIA's."""
    known = read({}, CARD)
    assert cards_after(known, Snapshot(()), DeviceSource.AMD_SMI) == known


def test_a_card_is_offered_whole_or_by_its_slices_under_the_markets_names() -> None:
    """Goal: the market's names, VRAM and interface. Method: a card of the table, one cut by MIG, one that the table lacks."""
    (whole,) = devices_of(read({}, CARD)["GPU-0"])
    assert (whole.device_id, whole.model, whole.interface, whole.vendor) == ("GPU-0", "h100", "sxm", "nvidia")
    cut = replace(
        CARD, name="NVIDIA A100-SXM4-40GB", slices=(Slice("MIG-0", "NVIDIA A100-SXM4-40GB MIG 1g.5gb", 5 * GIB),)
    )
    (part,) = devices_of(read({}, cut)["GPU-0"])
    assert (part.device_id, part.model, part.vram_bytes) == ("MIG-0", "a100-mig-1g-5gb", 5 * GIB)
    (strange,) = devices_of(read({}, replace(CARD, name="NVIDIA Frobnicator 9000 PCIe"))["GPU-0"])
    assert strange.model == "frobnicator-9000-pcie"
