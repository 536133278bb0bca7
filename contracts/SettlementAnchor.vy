# pragma version 0.4.3
"""
@title SettlementAnchor
@license Apache-2.0
@notice
    An append-only chain of batch headers. An anchorer hands in the next header; the contract checks that it follows
    the last one and keeps its commitment and the time. A header that stands already may be handed in again, which
    changes nothing: a sender who lost the receipt may always send again. Anything else in its place is refused.
    The guardian or the owner may veto a header: its payouts, and those of all that were built on it, count no more.
    Settlements go on: the next header names the last one whose payouts count as its `payout_parent`.
@dev
    Batches count from 1; commitments[0] is the genesis commitment, which binds the chain of headers to this contract on
    this chain. Payouts are cumulative, so a header carries on what its payout parent says, good or bad: a veto of one
    is a veto of its heirs. Every header belongs to the era in which it was anchored, a veto begins a new era, and for each
    era the first number that counts no more is kept. A header that names a vetoed payout parent was on its way when the
    veto came; it is appended, and its payouts do not count either.
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


event Vetoed:
    batch_id: indexed(uint256)
    next_batch: uint256
    payout_parent: uint256


event AnchorerSet:
    anchorer: indexed(address)
    allowed: bool


event GuardianSet:
    guardian: indexed(address)


ERAS_MAX: constant(uint256) = 64
NO_ERA: constant(uint256) = 0
TIME_BITS: constant(uint256) = 64
TIME_MASK: constant(uint256) = 2**64 - 1

next_batch: public(uint256)
commitments: public(HashMap[uint256, bytes32])
is_anchorer: public(HashMap[address, bool])
guardian: public(address)
era: public(uint256)  # counts from 1
vetoed_from: public(HashMap[uint256, uint256])  # by era: the first batch whose payouts count no more; 0 for none
stamps: HashMap[uint256, uint256]  # by batch: its era (NO_ERA where its payouts never counted) and the time
head: uint256  # the last batch whose payouts count, and when the last such batch was anchored


@deploy
def __init__(owner: address, anchorer: address, guardian: address):
    """
    @param owner Who says who may anchor and who may veto
    @param anchorer The first who may anchor; the zero address for none yet
    @param guardian Who, beside the owner, may veto; the zero address for none
    """
    ownership.__init__(owner)
    self.next_batch = 1
    self.era = 1
    self.commitments[0] = batch_header.genesis()
    self.stamps[0] = block.timestamp
    self.head = block.timestamp
    if anchorer != empty(address):
        self._set_anchorer(anchorer, True)
    self._set_guardian(guardian)


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
    counts: bool = header.payout_parent == self.head >> TIME_BITS
    era: uint256 = NO_ERA
    if counts:
        era = self.era
        self.head = (next_batch << TIME_BITS) | block.timestamp
    else:
        assert self._is_vetoed(header.payout_parent), "anchor: wrong payout parent"
    self.commitments[next_batch] = commitment
    self.stamps[next_batch] = (era << TIME_BITS) | block.timestamp
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
def veto(header: batch_header.Header):
    """
    @notice Let the payouts of a header, and of all that were built on it, count no more; the guardian or the owner may.
    """
    assert msg.sender == self.guardian or msg.sender == ownership.owner, "anchor: not the guardian"
    batch_id: uint256 = header.batch_id
    assert self._is_payable(batch_id), "anchor: nothing to veto"
    assert self.commitments[batch_id] == batch_header.commitment(header), "anchor: unknown header"
    first: uint256 = self.stamps[batch_id] >> TIME_BITS
    era: uint256 = self.era
    assert era - first < ERAS_MAX, "anchor: too long ago"
    for step: uint256 in range(ERAS_MAX):
        if first + step > era:
            break
        known: uint256 = self.vetoed_from[first + step]
        if known == 0 or batch_id < known:
            self.vetoed_from[first + step] = batch_id
    self.era = era + 1
    self.head = (header.payout_parent << TIME_BITS) | (self.head & TIME_MASK)
    log Vetoed(batch_id=batch_id, next_batch=self.next_batch, payout_parent=header.payout_parent)


@external
@view
def payout_parent() -> uint256:
    """
    @notice The batch that the next header has to name as its payout parent; 0 before any.
    """
    return self.head >> TIME_BITS


@external
@view
def last_payable_at() -> uint256:
    """
    @notice When the last header was anchored whose payouts counted then; of the deployment before any.
    """
    return self.head & TIME_MASK


@external
@view
def anchored_at(batch_id: uint256) -> uint256:
    """
    @notice When a batch was anchored; 0 for one that never was.
    """
    return self.stamps[batch_id] & TIME_MASK


@external
@view
def is_payable(batch_id: uint256) -> bool:
    """
    @notice Whether the payouts of an anchored batch count.
    """
    return self._is_payable(batch_id)


@external
def set_anchorer(anchorer: address, allowed: bool):
    """
    @notice Allow an address to anchor, or no longer.
    """
    ownership.check_owner()
    self._set_anchorer(anchorer, allowed)


@external
def set_guardian(guardian: address):
    """
    @notice Name the guardian; the zero address for none.
    """
    ownership.check_owner()
    self._set_guardian(guardian)


@internal
def _set_anchorer(anchorer: address, allowed: bool):
    self.is_anchorer[anchorer] = allowed
    log AnchorerSet(anchorer=anchorer, allowed=allowed)


@internal
def _set_guardian(guardian: address):
    self.guardian = guardian
    log GuardianSet(guardian=guardian)


@internal
@view
def _is_payable(batch_id: uint256) -> bool:
    era: uint256 = self.stamps[batch_id] >> TIME_BITS
    if era == NO_ERA:
        return False
    vetoed_from: uint256 = self.vetoed_from[era]
    return vetoed_from == 0 or batch_id < vetoed_from


@internal
@view
def _is_vetoed(batch_id: uint256) -> bool:
    return batch_id != 0 and batch_id < self.next_batch and not self._is_payable(batch_id)
