"""Receipts that anyone can check: leaves, Merkle trees, headers, the receipt file, offline verification.

Pure: no clock, no network, nothing of ours; tiny-keccak (keccak-256) is the one dependency. The hashes equal those of
the contracts SettlementAnchor and EscrowVault and of OpenZeppelin's StandardMerkleTree.
"""

from fallow_receipts.errors import ReceiptError
from fallow_receipts.headers import Header, genesis_commitment, header_commitment
from fallow_receipts.leaves import (
    ATTESTED,
    PROBED,
    TERM,
    Charge,
    Payout,
    balance_leaf,
    charge_leaf,
    check_amounts,
    due_micros,
    payout_leaf,
)
from fallow_receipts.merkle import EMPTY_ROOT, MerkleTree, verify_proof
from fallow_receipts.receipt import Anchor, Receipt
from fallow_receipts.verification import VerifiedReceipt, verify_receipt
from fallow_receipts.words import asset_word, id_from_word, id_to_word, keccak

__all__ = [
    "ATTESTED",
    "EMPTY_ROOT",
    "PROBED",
    "TERM",
    "Anchor",
    "Charge",
    "Header",
    "MerkleTree",
    "Payout",
    "Receipt",
    "ReceiptError",
    "VerifiedReceipt",
    "asset_word",
    "balance_leaf",
    "charge_leaf",
    "check_amounts",
    "due_micros",
    "genesis_commitment",
    "header_commitment",
    "id_from_word",
    "id_to_word",
    "keccak",
    "payout_leaf",
    "verify_proof",
    "verify_receipt",
]
