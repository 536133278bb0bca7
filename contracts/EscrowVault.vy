# pragma version 0.4.3
"""
@title EscrowVault
@license Apache-2.0
@notice
    Holds one ERC-20 token. Anyone deposits for an account; settlement credits it off the chain. What an account is
    owed is a leaf under the payout root of an anchored header: the account, its payee and the total ever owed. After
    the challenge window anyone may hand in header, leaf and proof, and the payee gets what the total adds to what was
    claimed before. Totals only grow, so one claim covers any number of batches, and a replay pays nothing.
@dev
    What was claimed is kept by account, never by payee: changing the payee pays nothing twice. The first word of a
    leaf is its kind, so leaves of other kinds in the same tree cannot be claimed here. `cap` is the greatest
    payout total among the headers that were claimed against: all payouts together stay within it.
"""

from ethereum.ercs import IERC20

import batch_header
import ownership

initializes: ownership
exports: (
    ownership.owner,
    ownership.pending_owner,
    ownership.offer_ownership,
    ownership.accept_ownership,
)


interface SettlementAnchor:
    def commitments(batch_id: uint256) -> bytes32: view
    def anchored_at(batch_id: uint256) -> uint256: view


event Deposited:
    account_ref: indexed(bytes32)
    sender: indexed(address)
    amount: uint256
    total: uint256


event Claimed:
    account: indexed(bytes32)
    payee: indexed(address)
    amount: uint256
    total: uint256
    batch_id: uint256


event Paused:
    guardian: indexed(address)


event Unpaused:
    owner: indexed(address)


event GuardianSet:
    guardian: indexed(address)


struct Payout:
    account: bytes32  # the account id's 16 bytes, at the right
    payee: address
    total: uint256  # all that the account was ever owed, in the token's smallest unit


PAYOUT_TAG: constant(bytes32) = keccak256("fallow.leaf.payout.v1")
PROOF_LENGTH_MAX: constant(uint256) = 40

token: public(immutable(address))
anchor: public(immutable(address))
challenge_seconds: public(immutable(uint256))

guardian: public(address)
paused: public(bool)
deposited: public(HashMap[bytes32, uint256])
claimed: public(HashMap[bytes32, uint256])
paid_total: public(uint256)
cap: public(uint256)


@deploy
def __init__(token_: address, anchor_: address, challenge_seconds_: uint256, owner: address, guardian: address):
    """
    @param token_ The ERC-20 token that this vault holds
    @param anchor_ The SettlementAnchor whose headers it pays against
    @param challenge_seconds_ How long a header stands before it can be claimed against
    @param owner Who names the guardian and lifts a pause
    @param guardian Who, beside the owner, may pause; the zero address for none
    """
    assert token_.is_contract, "vault: no token"
    assert anchor_.is_contract, "vault: no anchor"
    ownership.__init__(owner)
    token = token_
    anchor = anchor_
    challenge_seconds = challenge_seconds_
    self._set_guardian(guardian)


@external
@nonreentrant
def deposit(amount: uint256, account_ref: bytes32):
    """
    @notice Pay `amount` of the token in for an account; the sender approves the vault before.
    @dev Refused unless exactly that amount arrives, so a token that takes a fee cannot make the books wrong.
    """
    assert not self.paused, "vault: paused"
    assert amount > 0, "vault: no amount"
    assert account_ref != empty(bytes32), "vault: no account"
    before: uint256 = staticcall IERC20(token).balanceOf(self)
    assert extcall IERC20(token).transferFrom(
        msg.sender, self, amount, default_return_value=True
    ), "vault: transfer refused"
    assert staticcall IERC20(token).balanceOf(self) == before + amount, "vault: inexact transfer"
    total: uint256 = self.deposited[account_ref] + amount
    self.deposited[account_ref] = total
    log Deposited(account_ref=account_ref, sender=msg.sender, amount=amount, total=total)


@external
@nonreentrant
def claim(header: batch_header.Header, payout: Payout, proof: DynArray[bytes32, PROOF_LENGTH_MAX]) -> uint256:
    """
    @notice Pay an account's payee what it is owed beyond what was claimed. Anyone may send this.
    @return What was paid; 0, and no event, where the total was claimed already
    """
    assert not self.paused, "vault: paused"
    self._check_claimable(header)
    assert payout.payee != empty(address), "vault: no payee"
    leaf: bytes32 = keccak256(
        keccak256(abi_encode(PAYOUT_TAG, chain.id, self, payout.account, payout.payee, payout.total))
    )
    assert self._root_of(leaf, proof) == header.payout_root, "vault: bad proof"
    claimed: uint256 = self.claimed[payout.account]
    if payout.total <= claimed:
        return 0
    due: uint256 = payout.total - claimed
    if header.payout_total > self.cap:
        self.cap = header.payout_total
    paid_total: uint256 = self.paid_total + due
    assert paid_total <= self.cap, "vault: above payout total"
    # Written before the token is called: a token that calls back finds nothing left to claim.
    self.claimed[payout.account] = payout.total
    self.paid_total = paid_total
    assert extcall IERC20(token).transfer(payout.payee, due, default_return_value=True), "vault: transfer refused"
    log Claimed(
        account=payout.account,
        payee=payout.payee,
        amount=due,
        total=payout.total,
        batch_id=header.batch_id,
    )
    return due


@external
def pause():
    """
    @notice Stop deposits and claims at once; the guardian or the owner may.
    """
    assert msg.sender == self.guardian or msg.sender == ownership.owner, "vault: not the guardian"
    self.paused = True
    log Paused(guardian=msg.sender)


@external
def unpause():
    """
    @notice Let deposits and claims go on; only the owner may.
    """
    ownership.check_owner()
    self.paused = False
    log Unpaused(owner=msg.sender)


@external
def set_guardian(guardian: address):
    """
    @notice Name the guardian; the zero address for none.
    """
    ownership.check_owner()
    self._set_guardian(guardian)


@internal
def _set_guardian(guardian: address):
    self.guardian = guardian
    log GuardianSet(guardian=guardian)


@internal
@view
def _check_claimable(header: batch_header.Header):
    source: SettlementAnchor = SettlementAnchor(anchor)
    # No header hashes to the genesis commitment or to nothing, so batch 0 and batches to come are refused here too.
    stored: bytes32 = staticcall source.commitments(header.batch_id)
    assert stored == batch_header.commitment(header), "vault: unknown header"
    anchored_at: uint256 = staticcall source.anchored_at(header.batch_id)
    assert block.timestamp >= anchored_at + challenge_seconds, "vault: in challenge window"


@internal
@pure
def _root_of(leaf: bytes32, proof: DynArray[bytes32, PROOF_LENGTH_MAX]) -> bytes32:
    node: bytes32 = leaf
    for sibling: bytes32 in proof:
        if convert(node, uint256) < convert(sibling, uint256):
            node = keccak256(concat(node, sibling))
        else:
            node = keccak256(concat(sibling, node))
    return node
