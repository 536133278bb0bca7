# pragma version 0.4.3
"""
@title EscrowVault
@license Apache-2.0
@notice
    Holds one ERC-20 token. Anyone deposits for an account; settlement credits it off the chain. What an account is
    owed is a leaf under the payout root of an anchored header: the account, its payee and the total ever owed. After
    the challenge window anyone may hand in header, leaf and proof, and the payee gets what the total adds to what was
    claimed before. Totals only grow, so one claim covers any number of batches, and a replay pays nothing. A header that
    was vetoed pays nothing. No more than `daily_limit` leaves in a day: a claim beyond it gets what is left of the day.

    If no header whose payouts count was anchored for `escape_seconds`, anyone may call `escape`. From then on the vault
    is wound down: nothing comes in, and the last root that counts is the only one. What an account had with the operator
    at that batch is in a second leaf, a balance, and is paid to its payee, once. Neither limit nor pause hold this up.
@dev
    What was claimed is kept by account, never by payee: changing the payee pays nothing twice. It is kept as one sum for
    both kinds of leaf: the total of a balance is all that the account was ever owed and what it had besides, so that
    nobody is paid twice by claiming under a root that is vetoed later, or by both leaves. The first word of a
    leaf is its kind, so a leaf of one kind cannot be claimed as another. A vault that has less than is due pays what it has.
    `cap` is the greatest payout total among the headers that were claimed against: all claims together stay within it. A
    root that is vetoed after the escape gives way to the one before it, by another call of `escape`.
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
    def is_payable(batch_id: uint256) -> bool: view
    def payout_parent() -> uint256: view
    def last_payable_at() -> uint256: view


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


event Escaped:
    batch_id: indexed(uint256)


event BalanceClaimed:
    account: indexed(bytes32)
    payee: indexed(address)
    amount: uint256
    batch_id: uint256


event DailyLimitSet:
    daily_limit: uint256


event Rescued:
    token: indexed(address)
    receiver: indexed(address)
    amount: uint256


event Paused:
    guardian: indexed(address)


event Unpaused:
    owner: indexed(address)


event GuardianSet:
    guardian: indexed(address)


struct Payout:
    account: bytes32  # the account id's 16 bytes, at the right
    payee: address
    total: uint256  # all that it was ever owed; of a balance: and what it had besides; in the token's smallest unit


PAYOUT_TAG: constant(bytes32) = keccak256("fallow.leaf.payout.v1")
BALANCE_TAG: constant(bytes32) = keccak256("fallow.leaf.balance.v1")
DAY: constant(uint256) = 86400
PROOF_LENGTH_MAX: constant(uint256) = 40

token: public(immutable(address))
anchor: public(immutable(address))
challenge_seconds: public(immutable(uint256))
escape_seconds: public(immutable(uint256))

guardian: public(address)
paused: public(bool)
deposited: public(HashMap[bytes32, uint256])
claimed: public(HashMap[bytes32, uint256])  # by account: all that was paid, by either kind of leaf
paid_total: public(uint256)  # all that was paid by claims
cap: public(uint256)
daily_limit: public(uint256)
day: public(uint256)  # days since 1970: the last one on which something left
paid_on_day: public(uint256)
escaped: public(uint256)  # the batch that all is paid by since the escape; 0 before it


@deploy
def __init__(
    token_: address,
    anchor_: address,
    challenge_seconds_: uint256,
    escape_seconds_: uint256,
    daily_limit: uint256,
    owner: address,
    guardian: address,
):
    """
    @param token_ The ERC-20 token that this vault holds
    @param anchor_ The SettlementAnchor whose headers it pays against
    @param challenge_seconds_ How long a header stands before it can be claimed against
    @param escape_seconds_ How long the operator is silent before anyone may call `escape`; longer than the window
    @param daily_limit The most that is paid out in a day
    @param owner Who names the guardian, sets the limit and lifts a pause
    @param guardian Who, beside the owner, may pause; the zero address for none
    """
    assert token_.is_contract, "vault: no token"
    assert anchor_.is_contract, "vault: no anchor"
    assert escape_seconds_ > challenge_seconds_, "vault: escape within the window"
    ownership.__init__(owner)
    token = token_
    anchor = anchor_
    challenge_seconds = challenge_seconds_
    escape_seconds = escape_seconds_
    self._set_daily_limit(daily_limit)
    self._set_guardian(guardian)


@external
@nonreentrant
def deposit(amount: uint256, account_ref: bytes32):
    """
    @notice Pay `amount` of the token in for an account; the sender approves the vault before.
    @dev Refused unless exactly that amount arrives, so a token that takes a fee cannot make the books wrong.
    """
    assert not self.paused, "vault: paused"
    assert self.escaped == 0, "vault: wound down"
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
    @notice Pay an account's payee what it is owed beyond what was claimed, or what is left of the day. Anyone may send this.
    @return What was paid; 0, and no event, where the total was claimed already
    """
    is_escape: bool = self.escaped != 0
    assert is_escape or not self.paused, "vault: paused"
    self._check_claimable(header)
    self._check_leaf(PAYOUT_TAG, payout, header.payout_root, proof)
    claimed: uint256 = self.claimed[payout.account]
    if payout.total <= claimed:
        return 0
    due: uint256 = self._within_cash(payout.total - claimed)
    if not is_escape:
        due = self._within_day(due)
    if header.payout_total > self.cap:
        self.cap = header.payout_total
    paid_total: uint256 = self.paid_total + due
    assert paid_total <= self.cap, "vault: above payout total"
    # Written before the token is called: a token that calls back finds nothing left to claim.
    self.claimed[payout.account] = claimed + due
    self.paid_total = paid_total
    self._pay(payout.payee, due)
    log Claimed(
        account=payout.account,
        payee=payout.payee,
        amount=due,
        total=claimed + due,
        batch_id=header.batch_id,
    )
    return due


@external
def escape():
    """
    @notice Wind the vault down by the last root that counts, because the operator was silent for too long. Anyone may.
    """
    source: SettlementAnchor = SettlementAnchor(anchor)
    escaped: uint256 = self.escaped
    if escaped == 0:
        silent_since: uint256 = staticcall source.last_payable_at()
        assert block.timestamp >= silent_since + escape_seconds, "vault: the operator is there"
    else:
        assert not staticcall source.is_payable(escaped), "vault: wound down"
    batch_id: uint256 = staticcall source.payout_parent()
    assert batch_id != 0 and (escaped == 0 or batch_id < escaped), "vault: no root"
    self.escaped = batch_id
    log Escaped(batch_id=batch_id)


@external
@nonreentrant
def claim_balance(
    header: batch_header.Header, payout: Payout, proof: DynArray[bytes32, PROOF_LENGTH_MAX]
) -> uint256:
    """
    @notice After an escape: pay an account's payee what the account had with the operator, less what was paid. Anyone may.
    @return What was paid
    """
    assert self.escaped != 0, "vault: the operator is there"
    self._check_claimable(header)
    self._check_leaf(BALANCE_TAG, payout, header.payout_root, proof)
    claimed: uint256 = self.claimed[payout.account]
    assert payout.total > claimed, "vault: claimed already"
    due: uint256 = self._within_cash(payout.total - claimed)
    self.claimed[payout.account] = claimed + due
    self._pay(payout.payee, due)
    log BalanceClaimed(account=payout.account, payee=payout.payee, amount=due, batch_id=header.batch_id)
    return due


@external
@nonreentrant
def rescue(foreign: address, receiver: address):
    """
    @notice Send on all of another token that somebody sent here by mistake; only the owner may.
    @dev What the vault holds of its own token must stay as it is: some tokens answer under a second address too.
    """
    ownership.check_owner()
    amount: uint256 = staticcall IERC20(foreign).balanceOf(self)
    before: uint256 = staticcall IERC20(token).balanceOf(self)
    assert extcall IERC20(foreign).transfer(receiver, amount, default_return_value=True), "vault: transfer refused"
    assert staticcall IERC20(token).balanceOf(self) == before, "vault: its own token"
    log Rescued(token=foreign, receiver=receiver, amount=amount)


@external
def set_daily_limit(daily_limit: uint256):
    """
    @notice Set the most that is paid out in a day; 0 stops claims, until an escape.
    """
    ownership.check_owner()
    self._set_daily_limit(daily_limit)


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
def _set_daily_limit(daily_limit: uint256):
    self.daily_limit = daily_limit
    log DailyLimitSet(daily_limit=daily_limit)


@internal
def _within_day(due: uint256) -> uint256:
    today: uint256 = block.timestamp // DAY
    if self.day != today:
        self.day = today
        self.paid_on_day = 0
    paid: uint256 = self.paid_on_day
    limit: uint256 = self.daily_limit
    assert paid < limit, "vault: daily limit"
    part: uint256 = min(due, limit - paid)
    self.paid_on_day = paid + part
    return part


@internal
@view
def _within_cash(due: uint256) -> uint256:
    cash: uint256 = staticcall IERC20(token).balanceOf(self)
    assert cash > 0, "vault: no cash"
    return min(due, cash)


@internal
def _pay(payee: address, amount: uint256):
    before: uint256 = staticcall IERC20(token).balanceOf(self)
    assert extcall IERC20(token).transfer(payee, amount, default_return_value=True), "vault: transfer refused"
    assert staticcall IERC20(token).balanceOf(self) == before - amount, "vault: inexact transfer"


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
    escaped: uint256 = self.escaped
    assert escaped == 0 or header.batch_id == escaped, "vault: wound down by another root"
    assert staticcall source.is_payable(header.batch_id), "vault: vetoed"
    anchored_at: uint256 = staticcall source.anchored_at(header.batch_id)
    assert block.timestamp >= anchored_at + challenge_seconds, "vault: in challenge window"


@internal
@view
def _check_leaf(kind: bytes32, payout: Payout, root: bytes32, proof: DynArray[bytes32, PROOF_LENGTH_MAX]):
    assert payout.payee != empty(address), "vault: no payee"
    leaf: bytes32 = keccak256(keccak256(abi_encode(kind, chain.id, self, payout.account, payout.payee, payout.total)))
    assert self._root_of(leaf, proof) == root, "vault: bad proof"


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
