"""Offline verification: a receipt file and something trusted that was read off the chain, nothing else.

The checks run in a fixed order, from what the charge claims to what the chain holds: its place in the batch, its
amount (price times proven time, and shares within it), its leaf up to the settlement root of the header in the file,
that header's commitment, and last the trusted values. What is trusted is the commitment of the batch (the contract's
`commitments(batch)`) or its settlement root (in the event `Anchored`), or both. A receipt is never its own witness:
without either, there is nothing to verify against and that is an error.
"""

from dataclasses import dataclass
from hmac import compare_digest

from fallow_receipts import errors
from fallow_receipts.errors import ReceiptError
from fallow_receipts.headers import header_commitment
from fallow_receipts.leaves import Charge, charge_leaf, check_amounts
from fallow_receipts.merkle import longest_proof, verify_proof
from fallow_receipts.receipt import Receipt
from fallow_receipts.words import checked_word, word_to_hexadecimal


@dataclass(frozen=True, slots=True)
class VerifiedReceipt:
    """What a verified receipt establishes, with every hash that was recomputed."""

    charge: Charge
    batch_id: int
    index: int
    leaf: bytes
    settlement_root: bytes
    commitment: bytes


def verify_receipt(
    receipt: Receipt, *, commitment: bytes | None = None, settlement_root: bytes | None = None
) -> VerifiedReceipt:
    """Return what the receipt proves against the trusted commitment or settlement root, or raise ReceiptError."""
    if commitment is None and settlement_root is None:
        raise ReceiptError(
            errors.TRUST_MISSING, "a receipt is verified against a commitment or a settlement root read off the chain"
        )
    header = receipt.header
    if receipt.index >= header.count:
        raise ReceiptError(
            errors.INDEX_OUT_OF_RANGE, f"the batch has {header.count} charges, numbered from 0", field="index"
        )
    try:
        check_amounts(receipt.charge)
    except ReceiptError as error:
        raise error.below("charge") from error
    leaf = charge_leaf(receipt.charge, batch_id=header.batch_id, index=receipt.index)
    if len(receipt.proof) > longest_proof(header.count) or not verify_proof(
        leaf, receipt.proof, header.settlement_root
    ):
        raise ReceiptError(
            errors.ROOT_MISMATCH,
            "the charge, its index and its proof do not lead to the header's settlement root",
            field="header.settlement_root",
        )
    recomputed = header_commitment(header)
    if commitment is not None:
        _same(commitment, recomputed, errors.COMMITMENT_MISMATCH, "header", "commitment")
    if settlement_root is not None:
        _same(
            settlement_root,
            header.settlement_root,
            errors.SETTLEMENT_ROOT_MISMATCH,
            "header.settlement_root",
            "settlement root",
        )
    return VerifiedReceipt(
        charge=receipt.charge,
        batch_id=header.batch_id,
        index=receipt.index,
        leaf=leaf,
        settlement_root=header.settlement_root,
        commitment=recomputed,
    )


def _same(trusted: bytes, found: bytes, reason: str, field: str, noun: str) -> None:
    checked_word(trusted, noun)
    if not compare_digest(trusted, found):
        raise ReceiptError(
            reason,
            f"the receipt comes to {noun} {word_to_hexadecimal(found)}, but {word_to_hexadecimal(trusted)} is trusted",
            field=field,
        )
