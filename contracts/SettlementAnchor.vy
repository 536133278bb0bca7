# pragma version 0.4.3
"""
@title SettlementAnchor
@license Apache-2.0
@notice
    An append-only chain of batch headers. An anchorer hands in the next header; the contract checks that it follows
    the last one and keeps its commitment and the time. A header that stands already may be handed in again, which
    changes nothing: a sender who lost the receipt may always send again. Anything else in its place is refused.
@dev
    Batches count from 1; commitments[0] is the genesis commitment, which binds the chain of headers to this contract on
    this chain. A header names as `payout_parent` the last header whose payouts count, so that a veto can stop payouts
    and not the chain of settlements. There is no veto yet, so that is the header before.
"""

import batch_header
import ownership

initializes: ownership
exports: (
    ownership.owner,
    ownership.pending_owner,
    ownership.offer_ownership,
    ownership.accept_ownership,
)

event Anchored:
    batch_id: indexed(uint256)
    commitment: indexed(bytes32)
    settlement_root: bytes32
    payout_root: bytes32
    count: uint256


event AnchorerSet:
    anchorer: indexed(address)
    allowed: bool


next_batch: public(uint256)
commitments: public(HashMap[uint256, bytes32])
anchored_at: public(HashMap[uint256, uint256])
is_anchorer: public(HashMap[address, bool])


@deploy
def __init__(owner: address, anchorer: address):
    """
    @param owner Who says who may anchor
    @param anchorer The first who may; the zero address for none yet
    """
    ownership.__init__(owner)
    self.next_batch = 1
    self.commitments[0] = batch_header.genesis()
    self.anchored_at[0] = block.timestamp
    if anchorer != empty(address):
        self._set_anchorer(anchorer, True)


@external
def anchor(header: batch_header.Header) -> bool:
    """
    @notice Append a header.
    @return True if it was appended now, False if this very header stands already
    """
    assert self.is_anchorer[msg.sender], "anchor: not an anchorer"
    commitment: bytes32 = batch_header.commitment(header)
    next_batch: uint256 = self.next_batch
    if header.batch_id < next_batch:
        assert self.commitments[header.batch_id] == commitment, "anchor: conflict"
        return False
    assert header.batch_id == next_batch, "anchor: gap"
    assert header.prev == self.commitments[next_batch - 1], "anchor: wrong parent"
    assert header.payout_parent == self._payout_parent(), "anchor: wrong payout parent"
    self.commitments[next_batch] = commitment
    self.anchored_at[next_batch] = block.timestamp
    self.next_batch = next_batch + 1
    log Anchored(
        batch_id=next_batch,
        commitment=commitment,
        settlement_root=header.settlement_root,
        payout_root=header.payout_root,
        count=header.count,
    )
    return True


@external
@view
def payout_parent() -> uint256:
    """
    @notice The batch that the next header has to name as its payout parent; 0 before any.
    """
    return self._payout_parent()


@external
def set_anchorer(anchorer: address, allowed: bool):
    """
    @notice Allow an address to anchor, or no longer.
    """
    ownership.check_owner()
    self._set_anchorer(anchorer, allowed)


@internal
def _set_anchorer(anchorer: address, allowed: bool):
    self.is_anchorer[anchorer] = allowed
    log AnchorerSet(anchorer=anchorer, allowed=allowed)


@internal
@view
def _payout_parent() -> uint256:
    return self.next_batch - 1
