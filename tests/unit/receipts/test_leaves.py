"""Charges, payouts, words: what is refused, what the sums are, and that every field reaches the leaf."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow_receipts import (
    Charge,
    Header,
    Payout,
    ReceiptError,
    asset_word,
    charge_leaf,
    check_amounts,
    due_micros,
    genesis_commitment,
    header_commitment,
    id_from_word,
    id_to_word,
    keccak,
    payout_leaf,
)
from fallow_receipts.leaves import charge_words
from tests.unit.receipts.conftest import charge_number

CHANGES: dict[str, Any] = {
    "charge_id": "01k9v3d6h4m8p2q5r7s9t1v3zz",
    "order_id": "01k9v3d6h4m8p2q5r7s9t1v3zz",
    "group": 1,
    "generation": 9,
    "sequence": 8,
    "tenant": "01k9v3d6h4m8p2q5r7s9t1v3zz",
    "provider": "01k9v3d6h4m8p2q5r7s9t1v3zz",
    "asset": "dai",
    "from_running_ms": 0,
    "to_running_ms": 61_003,
    "price_micros_per_hour": 1_800_001,
    "amount_micros": 30_002,
    "fee_micros": 6_001,
    "pool_micros": 13,
    "evidence": "ATTESTED",
    "short_micros": 1,
}


def test_every_field_of_a_charge_reaches_the_leaf() -> None:
    """Goal: nothing in a receipt is decoration. Method: change each field, the batch and the index."""
    charge = charge_number(0)
    assert set(CHANGES) == {field.name for field in dataclasses.fields(Charge)}
    leaves = {charge_leaf(charge, batch_id=1, index=0), charge_leaf(charge, batch_id=2, index=0)}
    leaves.add(charge_leaf(charge, batch_id=1, index=1))
    for name, value in CHANGES.items():
        leaves.add(charge_leaf(dataclasses.replace(charge, **{name: value}), batch_id=1, index=0))
    assert len(leaves) == 3 + len(CHANGES)
    assert len(charge_words(charge, batch_id=1, index=0)) == 19 * 32


def test_a_known_charge_leaf() -> None:
    """Goal: the layout never changes unnoticed. Method: one leaf, fixed."""
    assert charge_leaf(charge_number(0), batch_id=1, index=0).hex() == KNOWN_LEAF


KNOWN_LEAF = "81679f623375c644749b2fc2d2badf9e8d8379b07613fb13211f91727d20071b"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("charge_id", "short"),
        ("charge_id", "01K9V3D6H4M8P2Q5R7S9T1V3ZZ"),
        ("order_id", "01k9v3d6h4m8p2q5r7s9t1v3zu"),
        ("tenant", "81k9v3d6h4m8p2q5r7s9t1v3zz"),
        ("provider", 7),
        ("group", -1),
        ("group", 2**31),
        ("generation", 0),
        ("sequence", True),
        ("asset", ""),
        ("asset", "us\ndc"),
        ("from_running_ms", -1),
        ("to_running_ms", 1_001),
        ("price_micros_per_hour", 2**63),
        ("amount_micros", -1),
        ("amount_micros", 1.0),
        ("fee_micros", "6"),
        ("pool_micros", None),
        ("short_micros", -1),
        ("evidence", "CLAIMED"),
    ],
)
def test_bad_fields_are_refused(field: str, value: Any) -> None:
    """Goal: no charge out of bounds exists. Method: one bad value for each kind of field."""
    with pytest.raises(ReceiptError) as caught:
        dataclasses.replace(charge_number(0), **{field: value})
    assert (caught.value.reason, caught.value.field) == ("INVALID_FIELD", field)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"amount_micros": 30_002}, "AMOUNT_WRONG"),
        ({"amount_micros": 30_000}, "AMOUNT_WRONG"),
        ({"amount_micros": 20_000}, "AMOUNT_WRONG"),
        ({"short_micros": 1}, "AMOUNT_WRONG"),
        ({"fee_micros": 30_002}, "SPLIT_WRONG"),
        ({"fee_micros": 29_990}, "SPLIT_WRONG"),
        ({"pool_micros": 24_002}, "SPLIT_WRONG"),
    ],
)
def test_wrong_sums_are_refused(change: dict[str, int], reason: str) -> None:
    """Goal: an amount follows from price and time, shares fit within it. Method: break each."""
    with pytest.raises(ReceiptError) as caught:
        check_amounts(dataclasses.replace(charge_number(0), **change))  # type: ignore[arg-type]
    assert caught.value.reason == reason


def test_a_shortfall_is_sound() -> None:
    """Goal: an escrow that ran dry gives a receipt too. Method: what was paid and what was short make what was due."""
    charge = dataclasses.replace(charge_number(0), amount_micros=20_000, short_micros=10_001)
    check_amounts(charge)
    assert charge.provider_micros == 20_000 - 6_000 - 12


@given(
    st.integers(0, 10**12),
    st.lists(st.integers(0, 10**10), min_size=2, max_size=12).map(sorted),
)
def test_no_rounding_is_lost_over_any_split(price: int, moments: list[int]) -> None:
    """Goal: charges of a lease sum to its charge to date. Method: cut any span into any intervals."""
    parts = sum(due_micros(price, moments[index], moments[index + 1]) for index in range(len(moments) - 1))
    assert parts == due_micros(price, moments[0], moments[-1])
    assert due_micros(price, 0, moments[-1]) == price * moments[-1] // 3_600_000


@given(st.integers(0, 2**128 - 1))
def test_ids_and_words_are_one_to_one(number: int) -> None:
    """Goal: an id is its 16 bytes. Method: there and back for any 128 bits."""
    word = number.to_bytes(32, "big")
    assert id_to_word(id_from_word(word)) == word


def test_a_word_above_128_bits_is_no_id() -> None:
    """Goal: no two words are one id. Method: one bit too many."""
    with pytest.raises(ReceiptError):
        id_from_word((2**128).to_bytes(32, "big"))


def test_keccak_is_ethereums() -> None:
    """Goal: keccak-256, not SHA3-256. Method: the hash of nothing, known to every client."""
    assert keccak(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    assert asset_word("usdc") == keccak(b"usdc")


@pytest.mark.parametrize(
    "change",
    [
        {"account": "00000000000000000000000001"},
        {"payee": "0x" + "33" * 20},
        {"total_micros": 6},
    ],
)
def test_every_field_of_a_payout_reaches_the_leaf(change: dict[str, Any]) -> None:
    """Goal: a payout's leaf binds account, payee and total. Method: change each."""
    payout = Payout(account="0" * 26, payee="0x" + "11" * 20, total_micros=5)
    leaf = payout_leaf(payout, chain_id=1, vault="0x" + "22" * 20)
    assert payout_leaf(dataclasses.replace(payout, **change), chain_id=1, vault="0x" + "22" * 20) != leaf
    assert payout_leaf(payout, chain_id=2, vault="0x" + "22" * 20) != leaf
    assert payout_leaf(payout, chain_id=1, vault="0x" + "23" * 20) != leaf


def test_addresses_fold_case() -> None:
    """Goal: EIP-55 spelling does not change a leaf. Method: both spellings of one address."""
    mixed = Payout(account="0" * 26, payee="0x" + "aB" * 20, total_micros=5)
    assert mixed == Payout(account="0" * 26, payee="0x" + "ab" * 20, total_micros=5)
    with pytest.raises(ReceiptError):
        Payout(account="0" * 26, payee="ab" * 21, total_micros=5)


HEADER = Header(
    batch_id=3,
    prev=keccak(b"prev"),
    payout_parent=2,
    settlement_root=keccak(b"settlement"),
    payout_root=keccak(b"payout"),
    count=5,
    payout_total=6,
    totals_hash=keccak(b"totals"),
)


def test_every_field_of_a_header_reaches_the_commitment() -> None:
    """Goal: a commitment binds the whole header. Method: change each field."""
    other = keccak(b"other")
    changes: dict[str, Any] = {
        "batch_id": 4,
        "prev": other,
        "payout_parent": 1,
        "settlement_root": other,
        "payout_root": other,
        "count": 6,
        "payout_total": 7,
        "totals_hash": other,
    }
    assert set(changes) == {field.name for field in dataclasses.fields(Header)}
    commitments = {header_commitment(dataclasses.replace(HEADER, **{name: value})) for name, value in changes.items()}
    assert len(commitments | {header_commitment(HEADER)}) == 9


@pytest.mark.parametrize(
    ("field", "value"),
    [("batch_id", 0), ("payout_parent", 3), ("prev", b"short"), ("count", -1), ("payout_total", 2**256)],
)
def test_bad_headers_are_refused(field: str, value: Any) -> None:
    """Goal: no header out of bounds exists. Method: one bad value for each kind of field."""
    with pytest.raises(ReceiptError) as caught:
        dataclasses.replace(HEADER, **{field: value})
    assert caught.value.field == field


def test_genesis_binds_chain_and_contract() -> None:
    """Goal: two anchors never share a history. Method: other chain, other contract."""
    one = genesis_commitment(chain_id=1, anchor="0x" + "11" * 20)
    assert one != genesis_commitment(chain_id=2, anchor="0x" + "11" * 20)
    assert one != genesis_commitment(chain_id=1, anchor="0x" + "12" * 20)
