"""The receipt file and its verification: sound ones pass, every tampering is refused with its reason."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fallow_receipts import Receipt, ReceiptError, header_commitment, keccak, verify_receipt


def leaf_paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in a document."""
    if isinstance(value, dict):
        return [found for name, item in value.items() for found in leaf_paths(item, (*path, name))]
    if isinstance(value, list):
        return [found for index, item in enumerate(value) for found in leaf_paths(item, (*path, index))]
    return [path]


def changed(document: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> str:
    """The document's text with one value changed."""
    copy = json.loads(json.dumps(document))
    place = copy
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = change(place[path[-1]])
    return json.dumps(copy)


def test_a_sound_receipt_passes(receipt: Receipt) -> None:
    """Goal: the file alone and a trusted hash suffice. Method: through JSON and back, against each kind of trust."""
    read = Receipt.from_json(receipt.to_json())
    assert read == receipt
    assert Receipt.from_json(receipt.to_json().encode()) == receipt
    commitment = header_commitment(receipt.header)
    by_commitment = verify_receipt(read, commitment=commitment)
    by_root = verify_receipt(read, settlement_root=receipt.header.settlement_root)
    assert by_commitment == by_root
    assert by_commitment.commitment == commitment
    assert by_commitment.charge.amount_micros == 30_001
    assert (by_commitment.batch_id, by_commitment.index) == (3, 2)


def test_without_trust_nothing_is_verified(receipt: Receipt) -> None:
    """Goal: a receipt is not its own witness. Method: verify against nothing, and against something else."""
    with pytest.raises(ReceiptError) as caught:
        verify_receipt(receipt)
    assert caught.value.reason == "TRUST_MISSING"
    with pytest.raises(ReceiptError) as caught:
        verify_receipt(receipt, commitment=keccak(b"other"))
    assert caught.value.reason == "COMMITMENT_MISMATCH"
    with pytest.raises(ReceiptError) as caught:
        verify_receipt(receipt, settlement_root=keccak(b"other"))
    assert caught.value.reason == "SETTLEMENT_ROOT_MISMATCH"
    with pytest.raises(ReceiptError) as caught:
        verify_receipt(receipt, settlement_root=receipt.header.settlement_root, commitment=keccak(b"other"))
    assert caught.value.reason == "COMMITMENT_MISMATCH"
    with pytest.raises(ReceiptError) as caught:
        verify_receipt(receipt, commitment=b"short")
    assert caught.value.reason == "INVALID_FIELD"


def tamper(value: Any) -> Any:
    """Another value of the same spelling."""
    if value is None:
        return "0x" + "00" * 32
    if value.startswith("0x"):
        return value[:-1] + ("0" if value[-1] != "0" else "1")
    if value.isdigit():
        return str(int(value) + 1)
    if value in {"PROBED", "usdc"}:
        return {"PROBED": "ATTESTED", "usdc": "usdt"}[value]
    return value[:-1] + ("0" if value[-1] != "0" else "1")


def test_tampering_with_any_value_is_refused(receipt: Receipt) -> None:
    """Goal: every value that is shown is proven. Method: change each one, except where the header is to be found."""
    document = json.loads(receipt.to_json())
    commitment = header_commitment(receipt.header)
    paths = [path for path in leaf_paths(document) if path[0] != "anchor"]
    assert len(paths) == 1 + 16 + 1 + len(receipt.proof) + 8
    for path in paths:
        with pytest.raises(ReceiptError) as caught:
            verify_receipt(Receipt.from_json(changed(document, path, tamper)), commitment=commitment)
        assert caught.value.reason in {
            "FORMAT_UNSUPPORTED", "AMOUNT_WRONG", "ROOT_MISMATCH", "COMMITMENT_MISMATCH",
        }, path  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_change_of_one_character_passes(receipt: Receipt, data: st.DataObject) -> None:
    """Goal: no spelling slips through. Method: change one character anywhere before the anchor's part; it must be
    refused, or be the very same receipt (white space).
    """
    text = receipt.to_json()
    position = data.draw(st.integers(0, text.index('"anchor"') - 1))
    character = data.draw(st.characters(codec="utf-8"))
    other = text[:position] + character + text[position + 1 :]
    try:
        read = Receipt.from_json(other)
        verify_receipt(read, commitment=header_commitment(receipt.header))
    except ReceiptError:
        return
    assert read == receipt


def test_swapping_proofs_is_refused(receipt: Receipt) -> None:
    """Goal: a proof is for its charge. Method: reverse it, cut it, lengthen it."""
    for proof in (receipt.proof[::-1], receipt.proof[1:], (*receipt.proof, keccak(b"")), ()):
        with pytest.raises(ReceiptError) as caught:
            verify_receipt(dataclasses.replace(receipt, proof=proof), commitment=header_commitment(receipt.header))
        assert caught.value.reason == "ROOT_MISMATCH"


def test_an_index_beyond_the_batch_is_refused(receipt: Receipt) -> None:
    """Goal: the place is within the batch. Method: one beyond."""
    with pytest.raises(ReceiptError) as caught:
        verify_receipt(dataclasses.replace(receipt, index=5), commitment=header_commitment(receipt.header))
    assert (caught.value.reason, caught.value.field) == ("INDEX_OUT_OF_RANGE", "index")


def test_a_wrong_amount_names_its_field(receipt: Receipt) -> None:
    """Goal: the error says what is wrong. Method: a charge of one micro more, in the file."""
    text = receipt.to_json().replace('"30001"', '"30002"')
    with pytest.raises(ReceiptError) as caught:
        verify_receipt(Receipt.from_json(text), commitment=header_commitment(receipt.header))
    assert caught.value.reason == "AMOUNT_WRONG"
    assert caught.value.field == "charge.amount_micros"
    assert "30001" in caught.value.message


@pytest.mark.parametrize(
    ("path", "value", "reason", "field"),
    [
        (("format",), "fallow.receipt.v2", "FORMAT_UNSUPPORTED", "format"),
        (("charge", "amount_micros"), 30001, "INVALID_FIELD", "charge.amount_micros"),
        (("charge", "amount_micros"), "030001", "INVALID_FIELD", "charge.amount_micros"),
        (("charge", "amount_micros"), "+30001", "INVALID_FIELD", "charge.amount_micros"),
        (("charge", "amount_micros"), "-1", "INVALID_FIELD", "charge.amount_micros"),
        (("charge", "amount_micros"), "٣٠٠٠١", "INVALID_FIELD", "charge.amount_micros"),
        (("charge", "amount_micros"), "9223372036854775808", "INVALID_FIELD", "charge.amount_micros"),
        (("charge", "amount_micros"), "9" * 79, "INVALID_FIELD", "charge.amount_micros"),
        (("charge", "tenant"), None, "INVALID_FIELD", "charge.tenant"),
        (("charge", "evidence"), "probed", "INVALID_FIELD", "charge.evidence"),
        (("charge",), [], "INVALID_FIELD", "charge"),
        (("index",), "x", "INVALID_FIELD", "index"),
        (("proof",), "0x", "INVALID_FIELD", "proof"),
        (("proof", 0), "0x12", "INVALID_FIELD", "proof[0]"),
        (("proof", 0), "0x" + "AB" * 32, "INVALID_FIELD", "proof[0]"),
        (("proof",), ["0x" + "00" * 32] * 65, "INVALID_FIELD", "proof"),
        (("header", "prev"), "0x", "INVALID_FIELD", "header.prev"),
        (("header", "batch_id"), "0", "INVALID_FIELD", "header.batch_id"),
        (("anchor", "contract"), "0x12", "INVALID_FIELD", "anchor.contract"),
        (("anchor", "transaction"), "0x12", "INVALID_FIELD", "anchor.transaction"),
        (("anchor",), 7, "INVALID_FIELD", "anchor"),
    ],
)
def test_bad_values_are_refused_by_path(
    receipt: Receipt, path: tuple[Any, ...], value: Any, reason: str, field: str
) -> None:
    """Goal: a reader learns which field is wrong. Method: one bad value at a time."""
    with pytest.raises(ReceiptError) as caught:
        Receipt.from_json(changed(json.loads(receipt.to_json()), path, lambda _: value))
    assert (caught.value.reason, caught.value.field) == (reason, field)


@pytest.mark.parametrize("place", [(), ("charge",), ("header",), ("anchor",)])
def test_unknown_and_missing_fields_are_refused(receipt: Receipt, place: tuple[str, ...]) -> None:
    """Goal: nothing rides along, nothing is left out. Method: add one to and take each from every object."""
    document = json.loads(receipt.to_json())

    def at(copy: Any) -> Any:
        for step in place:
            copy = copy[step]
        return copy

    copy = json.loads(json.dumps(document))
    at(copy)["note"] = "paid"
    with pytest.raises(ReceiptError) as caught:
        Receipt.from_json(json.dumps(copy))
    assert (caught.value.reason, caught.value.field) == ("UNKNOWN_FIELD", ".".join((*place, "note")))
    for name in list(at(document)):
        copy = json.loads(json.dumps(document))
        del at(copy)[name]
        with pytest.raises(ReceiptError) as caught:
            Receipt.from_json(json.dumps(copy))
        assert (caught.value.reason, caught.value.field) == ("MISSING_FIELD", ".".join((*place, name)))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "MALFORMED_JSON"),
        ("{", "MALFORMED_JSON"),
        ("[" * 30_000, "MALFORMED_JSON"),
        ("{}" + " " * 70_000, "MALFORMED_JSON"),
        (b"\xff\xfe\xff", "MALFORMED_JSON"),
        ('{"format": NaN}', "MALFORMED_JSON"),
        ('{"format": "fallow.receipt.v1", "format": "fallow.receipt.v1"}', "DUPLICATE_FIELD"),
        ("[]", "INVALID_FIELD"),
        ("null", "INVALID_FIELD"),
    ],
)
def test_what_is_no_receipt_is_refused(text: str | bytes, reason: str) -> None:
    """Goal: any file is answered by a reason. Method: malformed, huge, deep, doubled."""
    with pytest.raises(ReceiptError) as caught:
        Receipt.from_json(text)
    assert caught.value.reason == reason


def test_the_anchor_may_be_absent(receipt: Receipt) -> None:
    """Goal: a house without a chain gives receipts too. Method: no anchor, no transaction."""
    bare = dataclasses.replace(receipt, anchor=None)
    assert Receipt.from_json(bare.to_json()) == bare
    assert receipt.anchor is not None
    waiting = dataclasses.replace(receipt, anchor=dataclasses.replace(receipt.anchor, transaction=None))
    assert Receipt.from_json(waiting.to_json()) == waiting
