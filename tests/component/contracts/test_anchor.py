"""SettlementAnchor: append only, once, in order, by who may; hashes equal to fallow_receipts."""

import dataclasses
from typing import Any

import pytest

from fallow_receipts import genesis_commitment, header_commitment, keccak
from tests.component.contracts.world import CHAIN_ID, House, World, header_values


def test_genesis_equals_that_of_the_library(house: House) -> None:
    """Goal: contract and library start alike. Method: compare the commitment of batch 0."""
    assert house.anchor.call("commitments", 0) == genesis_commitment(chain_id=CHAIN_ID, anchor=house.anchor.address)
    assert house.anchor.call("next_batch") == 1
    assert house.anchor.call("payout_parent") == 0


def test_headers_are_appended_in_order(house: House) -> None:
    """Goal: a chain of commitments that the library computes too. Method: three headers, their events and views."""
    for number in (1, 2, 3):
        house.world.clock.advance(seconds=10)
        header = house.next_header(settlement_root=keccak(bytes([number])))
        assert house.anchor.call("anchor", header_values(header), sender=house.anchorer) is True
        receipt = house.append(header)
        commitment = header_commitment(header)
        assert house.anchor.events("Anchored", receipt) == [
            {
                "batch_id": number,
                "commitment": commitment,
                "settlement_root": header.settlement_root,
                "payout_root": header.payout_root,
                "count": 3,
            }
        ]
        assert house.anchor.call("commitments", number) == commitment
        assert house.anchor.call("anchored_at", number) == int(house.world.clock.now().timestamp())
        assert house.anchor.call("next_batch") == number + 1
        assert house.anchor.call("payout_parent") == number
    assert house.anchor.call("commitments", 4) == bytes(32)


def test_submitting_again_changes_nothing(house: House) -> None:
    """Goal: a lost receipt is harmless. Method: send the first and the last header again after time has passed."""
    for _ in range(2):
        house.append(house.next_header())
    stood = [house.anchor.call("anchored_at", number) for number in (1, 2)]
    house.world.clock.advance(seconds=100)
    for header in house.headers:
        assert house.anchor.call("anchor", header_values(header), sender=house.anchorer) is False
        receipt = house.anchor.send("anchor", header_values(header), sender=house.anchorer)
        assert receipt["logs"] == []
    assert [house.anchor.call("anchored_at", number) for number in (1, 2)] == stood
    assert house.anchor.call("next_batch") == 3


@pytest.mark.parametrize(
    "change",
    [
        {"settlement_root": b"\x02" * 32},
        {"payout_root": b"\x02" * 32},
        {"count": 4},
        {"payout_total": 1},
        {"totals_hash": b"\x02" * 32},
        {"prev": b"\x02" * 32},
    ],
)
def test_another_header_in_its_place_is_a_conflict(house: House, change: dict[str, Any]) -> None:
    """Goal: what stands is never replaced. Method: the same batch with each field changed."""
    house.append(house.next_header())
    other = dataclasses.replace(house.headers[0], **change)
    house.anchor.expect_revert("anchor: conflict", "anchor", header_values(other), sender=house.anchorer)
    assert house.anchor.call("commitments", 1) == header_commitment(house.headers[0])


def test_batch_zero_is_taken(house: House) -> None:
    """Goal: nobody writes before the beginning. Method: a header that calls itself batch 0."""
    values = (0, *header_values(house.next_header())[1:])
    house.anchor.expect_revert("anchor: conflict", "anchor", values, sender=house.anchorer)


def test_a_gap_is_refused(house: House) -> None:
    """Goal: no batch is left out. Method: batch 2 first."""
    values = (2, *header_values(house.next_header())[1:])
    house.anchor.expect_revert("anchor: gap", "anchor", values, sender=house.anchorer)
    assert house.anchor.call("next_batch") == 1


def test_a_wrong_parent_is_refused(house: House) -> None:
    """Goal: headers form one chain. Method: a first header of another anchor, a second that skips the first."""
    stranger = dataclasses.replace(
        house.next_header(), prev=genesis_commitment(chain_id=1, anchor=house.anchor.address)
    )
    house.anchor.expect_revert("anchor: wrong parent", "anchor", header_values(stranger), sender=house.anchorer)
    house.append(house.next_header())
    second = dataclasses.replace(house.next_header(), prev=house.headers[0].prev)
    house.anchor.expect_revert("anchor: wrong parent", "anchor", header_values(second), sender=house.anchorer)


def test_a_wrong_payout_parent_is_refused(house: House) -> None:
    """Goal: a header says truly which payouts it builds on. Method: the second names the genesis."""
    house.append(house.next_header())
    second = dataclasses.replace(house.next_header(), payout_parent=0)
    house.anchor.expect_revert("anchor: wrong payout parent", "anchor", header_values(second), sender=house.anchorer)


def test_only_anchorers_anchor(house: House) -> None:
    """Goal: the role is needed, and can be given and taken. Method: a stranger, the owner, then both changed."""
    values = header_values(house.next_header())
    stranger = house.world.account("stranger")
    for account in (stranger, house.owner):
        house.anchor.expect_revert("anchor: not an anchorer", "anchor", values, sender=account)
    house.anchor.expect_revert(
        "ownership: not the owner", "set_anchorer", stranger.address, True, sender=house.anchorer
    )
    house.anchor.send("set_anchorer", stranger.address, True, sender=house.owner)
    house.anchor.send("set_anchorer", house.anchorer.address, False, sender=house.owner)
    house.anchor.expect_revert("anchor: not an anchorer", "anchor", values, sender=house.anchorer)
    house.anchor.send("anchor", values, sender=stranger)
    assert house.anchor.call("is_anchorer", stranger.address) is True


def test_ownership_moves_in_two_steps(house: House) -> None:
    """Goal: a mistyped owner takes nothing. Method: offer, wrong taker, withdraw, offer again, accept."""
    heir, stranger = house.world.account("heir"), house.world.account("stranger")
    anchor = house.anchor
    anchor.expect_revert("ownership: not the owner", "offer_ownership", stranger.address, sender=stranger)
    anchor.send("offer_ownership", heir.address, sender=house.owner)
    assert anchor.call("owner") == house.owner.address.lower()
    anchor.expect_revert("ownership: not the pending owner", "accept_ownership", sender=stranger)
    anchor.send("offer_ownership", "0x" + "00" * 20, sender=house.owner)
    anchor.expect_revert("ownership: not the pending owner", "accept_ownership", sender=heir)
    anchor.send("offer_ownership", heir.address, sender=house.owner)
    anchor.send("accept_ownership", sender=heir)
    assert anchor.call("owner") == heir.address.lower()
    assert anchor.call("pending_owner") == "0x" + "00" * 20
    anchor.expect_revert("ownership: not the owner", "set_anchorer", stranger.address, True, sender=house.owner)


def test_gas_does_not_depend_on_the_batch(house: House) -> None:
    """Goal: a batch of any size costs the same, at most 100,000 gas. Method: after the first, a small and a huge one."""
    used = []
    for count in (1, 1, 10**12):
        receipt = house.append(dataclasses.replace(house.next_header(), count=count, payout_total=count))
        used.append(int(receipt["gasUsed"], 16))
    assert max(used) <= 100_000
    # The calldata of a greater number has more bytes that are not zero; nothing else differs.
    assert abs(used[2] - used[1]) <= 500


def test_an_owner_is_needed(world: World) -> None:
    """Goal: no anchor without an owner. Method: deploy with the zero address."""
    with pytest.raises(AssertionError, match="not deployed"):
        world.deploy("SettlementAnchor", "0x" + "00" * 20, world.bank.address, world.bank.address)
