"""The veto: a bad payout root and all that was built on it pay nothing, and settlements go on."""

import dataclasses

import pytest

from fallow_receipts import Header
from tests.component.contracts.test_vault import HOUR, claim, claim_values, payouts_of
from tests.component.contracts.world import ESCAPE_SECONDS, House, header_values


def veto(house: House, header: Header) -> None:
    """The guardian's veto."""
    house.anchor.send("veto", header_values(header), sender=house.guardian)


def payable(house: House) -> list[int]:
    """The batches whose payouts count."""
    numbers = range(len(house.headers) + 2)
    return [number for number in numbers if house.anchor.call("is_payable", number)]


def test_a_vetoed_root_pays_nothing_and_the_chain_goes_on(house: House) -> None:
    """Goal: a veto stops a root, not the settlements. Method: veto the second of three; claim by each; anchor a fourth."""
    house.fund(1_000)
    lists = [payouts_of(house, alice=total) for total in (100, 900, 901)]
    batches = [house.settle(payouts) for payouts in lists]
    house.world.clock.advance(seconds=HOUR)
    receipt = house.anchor.send("veto", header_values(batches[1][0]), sender=house.guardian)
    assert house.anchor.events("Vetoed", receipt) == [{"batch_id": 2, "next_batch": 4, "payout_parent": 1}]
    assert (payable(house), house.anchor.call("payout_parent")) == ([1], 1)
    for (header, tree), payouts in zip(batches[1:], lists[1:], strict=True):
        values = claim_values(header, payouts[0], tree.proof(0))
        house.vault.expect_revert("vault: vetoed", "claim", *values, sender=house.owner)
    assert claim(house, *batches[0], lists[0], 0) == 100
    good = payouts_of(house, alice=150)
    header, tree = house.settle(good)
    assert (header.batch_id, header.payout_parent, payable(house)) == (4, 1, [1, 4])
    house.world.clock.advance(seconds=HOUR)
    assert claim(house, header, tree, good, 0) == 50


def test_a_header_on_its_way_is_appended_and_pays_nothing(house: House) -> None:
    """Goal: a veto blocks no settlement that was signed before it. Method: headers that name vetoed parents, then one that
    does not; a parent that never was is refused as before.
    """
    house.fund(1_000)
    bad = payouts_of(house, alice=900)
    header, _ = house.settle(bad)
    veto(house, header)
    late, tree = house.settle(bad, payout_parent=1)
    later, _ = house.settle(bad, payout_parent=2)
    assert (late.batch_id, later.batch_id, payable(house)) == (2, 3, [])
    house.world.clock.advance(seconds=HOUR)
    values = claim_values(late, bad[0], tree.proof(0))
    house.vault.expect_revert("vault: vetoed", "claim", *values, sender=house.owner)
    for parent in (4, 10**6):
        words = list(header_values(house.next_header(payout_parent=0)))
        words[2] = parent
        house.anchor.expect_revert("anchor: wrong payout parent", "anchor", tuple(words), sender=house.anchorer)
    good = payouts_of(house, alice=10)
    header, tree = house.settle(good)
    assert (header.payout_parent, payable(house)) == (0, [4])
    house.world.clock.advance(seconds=HOUR)
    assert claim(house, header, tree, good, 0) == 10


def test_an_older_root_may_be_vetoed_after_a_newer_one(house: House) -> None:
    """Goal: each veto takes what was built on it, whatever came before. Method: batches 1 to 8 with vetoes of 4, 6 and 2."""
    for _ in range(4):
        house.append(house.next_header())
    veto(house, house.headers[3])
    house.append(house.next_header())
    house.append(house.next_header())
    assert payable(house) == [1, 2, 3, 5, 6]
    veto(house, house.headers[5])
    house.append(house.next_header())
    assert (payable(house), house.headers[6].payout_parent) == ([1, 2, 3, 5, 7], 5)
    veto(house, house.headers[1])
    assert (payable(house), house.anchor.call("payout_parent")) == ([1], 1)
    house.append(house.next_header())
    assert payable(house) == [1, 8]
    assert house.anchor.call("era") == 4


def test_only_who_may_and_only_what_counts(house: House) -> None:
    """Goal: the role and the object are checked. Method: strangers, what is vetoed, what never was, a forged header."""
    house.append(house.next_header())
    house.append(house.next_header())
    stranger = house.world.account("stranger")
    values = header_values(house.headers[1])
    for account in (stranger, house.anchorer):
        house.anchor.expect_revert("anchor: not the guardian", "veto", values, sender=account)
    forged = header_values(dataclasses.replace(house.headers[1], payout_parent=0))
    house.anchor.expect_revert("anchor: unknown header", "veto", forged, sender=house.guardian)
    for number in (0, 3, 2**63 - 1):
        other = (number, *values[1:])
        house.anchor.expect_revert("anchor: nothing to veto", "veto", other, sender=house.guardian)
    house.anchor.send("veto", values, sender=house.owner)
    house.anchor.expect_revert("anchor: nothing to veto", "veto", values, sender=house.guardian)
    house.anchor.expect_revert("ownership: not the owner", "set_guardian", stranger.address, sender=house.guardian)
    house.anchor.send("set_guardian", stranger.address, sender=house.owner)
    first = header_values(house.headers[0])
    house.anchor.expect_revert("anchor: not the guardian", "veto", first, sender=house.guardian)
    house.anchor.send("veto", first, sender=stranger)
    assert payable(house) == []


def test_a_veto_looks_back_over_so_many_others(house: House) -> None:
    """Goal: the work of a veto is bounded. Method: a root that 64 vetoes came after cannot be vetoed, one after 63 can."""
    for _ in range(2):
        house.append(house.next_header())
    for _ in range(64):
        house.append(house.next_header())
        veto(house, house.headers[-1])
    house.anchor.expect_revert("anchor: too long ago", "veto", header_values(house.headers[1]), sender=house.guardian)
    house.append(house.next_header())
    assert payable(house) == [1, 2, 67]


def test_a_veto_does_not_make_the_operator_silent(house: House) -> None:
    """Goal: a guardian cannot force an escape. Method: veto an old root; the silence counts from the last that counted."""
    house.append(house.next_header())
    house.world.clock.advance(seconds=ESCAPE_SECONDS - 1)
    house.append(house.next_header())
    veto(house, house.headers[1])
    house.world.clock.advance(seconds=ESCAPE_SECONDS - 1)
    house.vault.expect_revert("vault: the operator is there", "escape", sender=house.owner)
    late = house.next_header(payout_parent=2)
    house.append(late)
    house.world.clock.advance(seconds=1)
    house.vault.send("escape", sender=house.owner)
    assert house.vault.call("escaped") == 1, "a header whose payouts do not count is no sign of life"


@pytest.mark.parametrize("count", [1, 40])
def test_a_veto_costs_the_same_for_any_number_of_heirs(house: House, count: int) -> None:
    """Goal: no veto is too dear to be sent. Method: one heir and forty."""
    for _ in range(count + 1):
        house.append(house.next_header())
    receipt = house.anchor.send("veto", header_values(house.headers[0]), sender=house.guardian)
    assert int(receipt["gasUsed"], 16) <= 150_000
    assert payable(house) == []
