"""The header of a batch and its commitment, which is all that the chain keeps of it.

Headers form a chain: each holds the commitment of the one before, and the first holds the genesis commitment, which
names the chain and the contract. The commitment is keccak256(abi.encode(header)), equal to what SettlementAnchor
computes from the struct.
"""

from dataclasses import dataclass
from typing import Final

from fallow_receipts import errors
from fallow_receipts.errors import ReceiptError
from fallow_receipts.words import (
    INT64_MAX,
    UINT256_MAX,
    address_word,
    checked_integer,
    checked_word,
    integer_word,
    keccak,
)

GENESIS_TAG: Final = keccak(b"fallow.settlement.genesis.v1")


@dataclass(frozen=True, slots=True)
class Header:
    """One batch: who came before, the two roots, how much.

    `batch_id` counts from 1. `prev` is the commitment of batch_id - 1, `payout_parent` the id of the last batch that
    was not vetoed (0 before any). `settlement_root` is over the `count` charges, `payout_root` over the cumulative
    payouts, whose totals sum to `payout_total`. `totals_hash` stands for totals that are kept off the chain.
    """

    batch_id: int
    prev: bytes
    payout_parent: int
    settlement_root: bytes
    payout_root: bytes
    count: int
    payout_total: int
    totals_hash: bytes

    def __post_init__(self) -> None:
        checked_integer(self.batch_id, "batch_id", 1, INT64_MAX)
        checked_integer(self.payout_parent, "payout_parent", 0, INT64_MAX)
        if self.payout_parent >= self.batch_id:
            raise ReceiptError(errors.INVALID_FIELD, "must be below batch_id", field="payout_parent")
        checked_integer(self.count, "count", 0, INT64_MAX)
        checked_integer(self.payout_total, "payout_total", 0, UINT256_MAX)
        for name in ("prev", "settlement_root", "payout_root", "totals_hash"):
            checked_word(getattr(self, name), name)

    def words(self) -> bytes:
        """Return abi.encode of the struct: eight words, which are its calldata too."""
        return b"".join(
            (
                integer_word(self.batch_id),
                self.prev,
                integer_word(self.payout_parent),
                self.settlement_root,
                self.payout_root,
                integer_word(self.count),
                integer_word(self.payout_total),
                self.totals_hash,
            )
        )


def header_commitment(header: Header) -> bytes:
    """Return what the contract stores of a header."""
    return keccak(header.words())


def genesis_commitment(*, chain_id: int, anchor: str) -> bytes:
    """Return what the first header of an anchor names as its predecessor: keccak256(abi.encode(tag, chain, anchor)).

    Without a chain, `chain_id` is 0 and the anchor the zero address.
    """
    checked_integer(chain_id, "chain_id", 0, UINT256_MAX)
    return keccak(GENESIS_TAG + integer_word(chain_id) + address_word(anchor, "anchor"))
