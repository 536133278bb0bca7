# pragma version 0.4.3
"""
@title Header of a batch
@license Apache-2.0
@notice
    What a batch of settlements says of itself. Only its commitment is stored, so a header is handed in again by
    whoever claims against it. fallow_receipts computes the same words and the same hashes.
"""

GENESIS_TAG: constant(bytes32) = keccak256("fallow.settlement.genesis.v1")


struct Header:
    batch_id: uint256  # counts from 1
    prev: bytes32  # commitment of batch_id - 1; the genesis commitment for the first
    payout_parent: uint256  # batch_id of the last header that was not vetoed; 0 before any
    settlement_root: bytes32  # a leaf for each charge: audit
    payout_root: bytes32  # a leaf for each account that was ever owed money: claims
    count: uint256  # leaves of the settlement tree
    payout_total: uint256  # sum of the payout tree's totals: all that was ever owed
    totals_hash: bytes32  # totals that are kept off the chain


@internal
@pure
def commitment(header: Header) -> bytes32:
    return keccak256(abi_encode(header))


@internal
@view
def genesis() -> bytes32:
    return keccak256(abi_encode(GENESIS_TAG, chain.id, self))
