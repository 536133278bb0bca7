# pragma version 0.4.3
"""
@title Ownership in two steps
@license Apache-2.0
@notice
    An owner offers the contract to a new one, who must accept: a mistyped address cannot take it away for ever.
    Offering to the zero address withdraws an offer.
"""

event OwnershipOffered:
    owner: indexed(address)
    pending_owner: indexed(address)


event OwnershipTransferred:
    previous_owner: indexed(address)
    owner: indexed(address)


owner: public(address)
pending_owner: public(address)


@deploy
def __init__(owner: address):
    assert owner != empty(address), "ownership: no owner"
    self.owner = owner
    log OwnershipTransferred(previous_owner=empty(address), owner=owner)


@internal
@view
def check_owner():
    assert msg.sender == self.owner, "ownership: not the owner"


@external
def offer_ownership(pending_owner: address):
    """
    @notice Name who may become the owner.
    """
    self.check_owner()
    self.pending_owner = pending_owner
    log OwnershipOffered(owner=self.owner, pending_owner=pending_owner)


@external
def accept_ownership():
    """
    @notice Become the owner; only who was named may do so.
    """
    assert msg.sender == self.pending_owner, "ownership: not the pending owner"
    previous_owner: address = self.owner
    self.owner = msg.sender
    self.pending_owner = empty(address)
    log OwnershipTransferred(previous_owner=previous_owner, owner=msg.sender)
