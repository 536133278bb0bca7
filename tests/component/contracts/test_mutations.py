"""The tests of the contracts would notice: each planted fault is compiled in, and the test that it is for must fail."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from contracts.compile import SOURCES, compile_contract
from fallow_receipts import Header, MerkleTree
from fallow_stack.chain.errors import RpcError
from tests.component.contracts import test_anchor, test_escape, test_vault, test_veto, world
from tests.component.contracts.world import House, World

Check = Callable[[World], object]


def on_house(check: Callable[[House], object]) -> Check:
    """A test that takes an ordinary house."""
    return lambda made: check(House.make(made))


def on_limit(check: Callable[[House], object]) -> Check:
    """A test that takes a vault with a daily limit."""

    def run(made: World) -> None:
        house = House.make(made, daily_limit=100)
        house.fund(10_000)
        check(house)

    return run


def on_settled(check: Callable[[tuple[House, Header, MerkleTree]], object]) -> Check:
    """A test of escapes: a root that owes one account and holds balances of two."""

    def run(made: World) -> None:
        house = House.make(made)
        house.fund(1_000, test_vault.TENANT_REF)
        payouts = test_vault.payouts_of(house, alice=100)
        check((house, *house.settle(payouts, test_vault.payouts_of(house, alice=130, bob=600))))

    return run


def on_armed(made: World) -> None:
    """The tests of a token that calls back."""
    house = House.make(made, token="ReenteringToken")
    house.fund(1_000)
    payouts = test_vault.payouts_of(house, alice=100, bob=50)
    header, tree = house.settle(payouts)
    made.clock.advance(seconds=test_vault.HOUR)
    test_vault.TestReentry().test_claims_do_not_nest((house, house.token, header, tree, payouts))


def conflict(house: House) -> None:
    """One of the changes that are conflicts."""
    test_anchor.test_another_header_in_its_place_is_a_conflict(house, {"count": 4})


@dataclass(frozen=True)
class Fault:
    """In a source, what stands there, what stands there instead, and the test that must fail then."""

    source: str
    right: str
    wrong: str
    check: Check


ANCHOR = "SettlementAnchor"
VAULT = "EscrowVault"
FAULTS = [
    Fault(ANCHOR, "assert self.is_anchorer[msg.sender]", "assert True", on_house(test_anchor.test_only_anchorers_anchor)),
    Fault(ANCHOR, "assert self.commitments[header.batch_id] == commitment", "assert True", on_house(conflict)),
    Fault(ANCHOR, "assert header.batch_id == next_batch", "assert True", on_house(test_anchor.test_a_gap_is_refused)),
    Fault(ANCHOR, "assert header.prev == self.commitments[next_batch - 1]", "assert True", on_house(test_anchor.test_a_wrong_parent_is_refused)),
    Fault(ANCHOR, "assert self._is_vetoed(header.payout_parent)", "assert True", on_house(test_anchor.test_a_wrong_payout_parent_is_refused)),
    Fault(ANCHOR, "batch_id != 0 and batch_id < self.next_batch and", "batch_id != 0 and", on_house(test_veto.test_a_header_on_its_way_is_appended_and_pays_nothing)),
    Fault(ANCHOR, "if known == 0 or batch_id < known:", "if known == 0:", on_house(test_veto.test_an_older_root_may_be_vetoed_after_a_newer_one)),
    Fault(ANCHOR, "if first + step > era:", "if step > 0:", on_house(test_veto.test_an_older_root_may_be_vetoed_after_a_newer_one)),
    Fault(ANCHOR, "self.era = era + 1", "self.era = era", on_house(test_veto.test_a_vetoed_root_pays_nothing_and_the_chain_goes_on)),
    Fault(ANCHOR, "(header.payout_parent << TIME_BITS) | (self.head & TIME_MASK)", "header.payout_parent << TIME_BITS", on_house(test_veto.test_a_veto_does_not_make_the_operator_silent)),
    Fault(ANCHOR, "return vetoed_from == 0 or batch_id < vetoed_from", "return vetoed_from == 0 or batch_id <= vetoed_from", on_house(test_veto.test_a_vetoed_root_pays_nothing_and_the_chain_goes_on)),
    Fault(ANCHOR, "assert msg.sender == self.guardian or msg.sender == ownership.owner", "assert True", on_house(test_veto.test_only_who_may_and_only_what_counts)),
    Fault(ANCHOR, "assert self.commitments[batch_id] == batch_header.commitment(header)", "assert True", on_house(test_veto.test_only_who_may_and_only_what_counts)),
    Fault(ANCHOR, "assert self._is_payable(batch_id)", "assert True", on_house(test_veto.test_only_who_may_and_only_what_counts)),
    Fault(ANCHOR, "assert era - first < ERAS_MAX", "assert True", on_house(test_veto.test_a_veto_looks_back_over_so_many_others)),
    Fault("ownership", "assert msg.sender == self.pending_owner", "assert True", on_house(test_anchor.test_ownership_moves_in_two_steps)),
    Fault("batch_header", "abi_encode(GENESIS_TAG, chain.id, self)", "abi_encode(GENESIS_TAG, chain.id)", on_house(test_anchor.test_genesis_equals_that_of_the_library)),
    Fault(VAULT, "balanceOf(self) == before + amount", "balanceOf(self) > before", test_vault.TestDeposit().test_a_token_that_takes_a_fee_is_refused),
    Fault(VAULT, "total: uint256 = self.deposited[account_ref] + amount", "total: uint256 = amount", on_house(test_vault.TestDeposit().test_a_deposit_is_told)),
    Fault(VAULT, "        return 0\n    due: uint256 = self._within_cash(payout.total - claimed)", "        return 0\n    due: uint256 = self._within_cash(payout.total)", on_house(test_vault.TestClaim().test_a_claim_pays_what_is_new)),
    Fault(VAULT, "self.claimed[payout.account] = claimed + due\n    self.paid_total", "self.claimed[payout.account] = payout.total\n    self.paid_total", on_limit(test_escape.TestDailyLimit().test_a_claim_beyond_it_gets_the_rest_of_the_day)),
    Fault(VAULT, "claimed: uint256 = self.claimed[payout.account]\n    if", "claimed: uint256 = self.claimed[convert(payout.payee, bytes32)]\n    if", on_house(test_vault.TestClaim().test_a_new_payee_is_not_paid_again)),
    Fault(VAULT, "block.timestamp >= anchored_at + challenge_seconds", "block.timestamp >= anchored_at", on_house(test_vault.TestClaim().test_the_window_must_pass)),
    Fault(VAULT, "assert stored == batch_header.commitment(header)", "assert stored != empty(bytes32)", on_house(lambda house: test_vault.TestClaim().test_only_anchored_headers_count(house, {"payout_root": b"\x09" * 32}))),
    Fault(VAULT, "assert self._root_of(leaf, proof) == root", "assert True", on_house(test_vault.TestClaim().test_bad_proofs_are_refused)),
    Fault(VAULT, "if convert(node, uint256) < convert(sibling, uint256):", "if True:", on_house(lambda house: test_vault.TestClaim().test_deep_proofs_pay(house, 257))),
    Fault(VAULT, "abi_encode(kind, chain.id, self, payout.account", "abi_encode(kind, payout.total, self, payout.account", on_house(test_vault.TestClaim().test_a_leaf_of_another_vault_chain_or_kind_is_refused)),
    Fault(VAULT, "if header.payout_total > self.cap:", "if True:", on_house(test_vault.TestClaim().test_all_claims_stay_within_the_payout_total)),
    Fault(VAULT, "assert paid_total <= self.cap", "assert True", on_house(test_vault.TestClaim().test_all_claims_stay_within_the_payout_total)),
    Fault(VAULT, "assert staticcall source.is_payable(header.batch_id)", "assert True", on_house(test_veto.test_a_vetoed_root_pays_nothing_and_the_chain_goes_on)),
    Fault(VAULT, "@external\n@nonreentrant\ndef claim(", "@external\ndef claim(", on_armed),
    Fault(VAULT, 'assert is_escape or not self.paused, "vault: paused"', "pass", on_house(test_vault.TestRoles().test_a_pause_stops_money_both_ways)),
    Fault(VAULT, "    if self.day != today:", "    if False:", on_limit(test_escape.TestDailyLimit().test_a_claim_beyond_it_gets_the_rest_of_the_day)),
    Fault(VAULT, "part: uint256 = min(due, limit - paid)", "part: uint256 = due", on_limit(test_escape.TestDailyLimit().test_a_claim_beyond_it_gets_the_rest_of_the_day)),
    Fault(VAULT, "if not is_escape:\n", "if True:\n", on_settled(test_escape.TestEscape().test_neither_pause_nor_limit_holds_it_up)),
    Fault(VAULT, "silent_since + escape_seconds", "silent_since", on_settled(test_escape.TestEscape().test_balances_are_paid_once)),
    Fault(VAULT, "self.claimed[payout.account] = claimed + due\n    self._pay", "self._pay", on_settled(test_escape.TestEscape().test_balances_are_paid_once)),
    Fault(VAULT, "self.claimed[payout.account] = claimed + due\n    self._pay", "self.claimed[payout.account] = payout.total\n    self._pay", on_house(test_escape.TestEscape().test_a_vault_that_is_short_pays_what_it_has)),
    Fault(VAULT, "claimed already\"\n    due: uint256 = self._within_cash(payout.total - claimed)", "claimed already\"\n    due: uint256 = self._within_cash(payout.total)", on_house(test_escape.TestEscape().test_what_was_claimed_by_a_vetoed_root_is_not_paid_again)),
    Fault(VAULT, "self._check_leaf(BALANCE_TAG, payout", "self._check_leaf(PAYOUT_TAG, payout", on_settled(test_escape.TestEscape().test_leaves_of_one_kind_are_not_the_other)),
    Fault(VAULT, "@external\n@nonreentrant\ndef claim_balance(", "@external\ndef claim_balance(", test_escape.TestEscape().test_balances_do_not_nest),
    Fault(VAULT, "return min(due, cash)", "return due", on_house(test_vault.TestClaim().test_never_more_than_there_is)),
    Fault(VAULT, 'assert cash > 0, "vault: no cash"', "pass", on_house(test_vault.TestClaim().test_never_more_than_there_is)),
    Fault(VAULT, "balanceOf(self) == before - amount", "balanceOf(self) <= before - amount", test_vault.TestClaim().test_a_token_that_takes_more_than_arrives_pays_nothing),
    Fault(VAULT, "balanceOf(self) == before - amount", "balanceOf(self) <= before", on_house(test_vault.TestClaim().test_the_vault_itself_is_no_payee)),
    Fault(VAULT, "balanceOf(self) == before, ", "balanceOf(self) <= before, ", on_house(test_escape.TestRescue().test_only_foreign_tokens_and_only_the_owner)),
    Fault(VAULT, "balanceOf(self) == before, ", "balanceOf(self) <= before, ", test_escape.TestRescue().test_a_second_address_of_its_token_is_not_foreign),
    Fault(VAULT, "assert escaped == 0 or header.batch_id == escaped", "assert True", on_settled(test_escape.TestEscape().test_nothing_comes_in_and_no_other_root_counts)),
    Fault(VAULT, 'assert self.escaped == 0, "vault: wound down"', "pass", on_settled(test_escape.TestEscape().test_nothing_comes_in_and_no_other_root_counts)),
    Fault(VAULT, "assert not staticcall source.is_payable(escaped)", "assert False", on_settled(test_escape.TestEscape().test_a_vetoed_root_gives_way)),
    Fault(VAULT, "assert escape_seconds_ > challenge_seconds_", "assert True", on_house(test_escape.TestEscape().test_an_escape_is_later_than_the_window)),
    Fault(ANCHOR, "    self.commitments[0] = batch_header.genesis()", "    pass", on_house(test_anchor.test_genesis_equals_that_of_the_library)),
    Fault(ANCHOR, "        return False\n    assert header.batch_id", "        return True\n    assert header.batch_id", on_house(test_anchor.test_submitting_again_changes_nothing)),
    Fault(ANCHOR, "if header.batch_id < next_batch:", "if header.batch_id <= next_batch:", on_house(test_anchor.test_headers_are_appended_in_order)),
    Fault(ANCHOR, "    ownership.check_owner()\n    self._set_anchorer", "    self._set_anchorer", on_house(test_anchor.test_only_anchorers_anchor)),
    Fault(ANCHOR, "    ownership.check_owner()\n    self._set_guardian", "    self._set_guardian", on_house(test_veto.test_only_who_may_and_only_what_counts)),
    Fault(ANCHOR, "msg.sender == self.guardian or msg.sender == ownership.owner", "msg.sender == self.guardian", on_house(test_veto.test_only_who_may_and_only_what_counts)),
    Fault("ownership", "assert msg.sender == self.owner", "assert True", on_house(test_anchor.test_ownership_moves_in_two_steps)),
    Fault("ownership", "    self.pending_owner = empty(address)", "    pass", on_house(test_anchor.test_ownership_moves_in_two_steps)),
    Fault("batch_header", "abi_encode(GENESIS_TAG, chain.id, self)", "abi_encode(GENESIS_TAG, self)", on_house(test_anchor.test_genesis_equals_that_of_the_library)),
    Fault(VAULT, 'assert not self.paused, "vault: paused"', "pass", on_house(test_vault.TestRoles().test_a_pause_stops_money_both_ways)),
    Fault(VAULT, 'assert amount > 0, "vault: no amount"', "pass", on_house(test_vault.TestDeposit().test_nothing_for_nobody)),
    Fault(VAULT, 'assert account_ref != empty(bytes32), "vault: no account"', "pass", on_house(test_vault.TestDeposit().test_nothing_for_nobody)),
    Fault(VAULT, 'assert payout.payee != empty(address), "vault: no payee"', "pass", on_house(test_vault.TestClaim().test_a_payee_is_needed)),
    Fault(VAULT, "    ownership.check_owner()\n    self.paused = False", "    self.paused = False", on_house(test_vault.TestRoles().test_a_pause_stops_money_both_ways)),
    Fault(VAULT, "    ownership.check_owner()\n    self._set_daily_limit", "    self._set_daily_limit", on_limit(test_escape.TestDailyLimit().test_the_owner_sets_it)),
    Fault(VAULT, "    ownership.check_owner()\n    self._set_guardian", "    self._set_guardian", on_house(test_vault.TestRoles().test_the_guardian_is_the_owners_choice)),
    Fault(VAULT, "    ownership.check_owner()\n    amount", "    amount", on_house(test_escape.TestRescue().test_only_foreign_tokens_and_only_the_owner)),
    Fault(VAULT, 'msg.sender == self.guardian or msg.sender == ownership.owner, "vault', 'msg.sender == self.guardian, "vault', on_house(test_vault.TestRoles().test_a_pause_stops_money_both_ways)),
    Fault(VAULT, 'assert token_.is_contract, "vault: no token"', "pass", on_house(test_vault.TestRoles().test_a_vault_needs_contracts)),
    Fault(VAULT, 'assert anchor_.is_contract, "vault: no anchor"', "pass", on_house(test_vault.TestRoles().test_a_vault_needs_contracts)),
    Fault(VAULT, "DAY: constant(uint256) = 86400", "DAY: constant(uint256) = 43200", on_limit(test_escape.TestDailyLimit().test_the_day_ends_at_midnight)),
    Fault(VAULT, "PROOF_LENGTH_MAX: constant(uint256) = 40", "PROOF_LENGTH_MAX: constant(uint256) = 8", on_house(lambda house: test_vault.TestClaim().test_deep_proofs_pay(house, 257))),
    Fault(VAULT, "block.timestamp >= anchored_at", "block.timestamp > anchored_at", on_house(test_vault.TestClaim().test_the_window_must_pass)),
    Fault(VAULT, "block.timestamp >= silent_since", "block.timestamp > silent_since", on_settled(test_escape.TestEscape().test_balances_are_paid_once)),
    Fault(VAULT, 'assert self.escaped != 0, "vault: the operator is there"', "pass", on_settled(test_escape.TestEscape().test_balances_are_paid_once)),
    Fault(VAULT, "assert batch_id != 0 and", "assert", on_house(test_escape.TestEscape().test_without_a_root_there_is_nothing_to_pay_by)),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=[f"{fault.source}-{index}" for index, fault in enumerate(FAULTS)])
def test_a_planted_fault_is_found(tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    """Goal: no guard of the contracts is untested. Method: take one away at a time; the test that it is for fails."""
    text = (SOURCES / f"{fault.source}.vy").read_text("utf-8")
    assert text.count(fault.right) == 1, "the fault names one place"
    for source in (ANCHOR, VAULT, fault.source):
        original = (SOURCES / f"{source}.vy").read_text("utf-8")
        planted = original.replace(fault.right, fault.wrong) if source == fault.source else original
        (tmp_path / f"{source}.vy").write_text(planted, "utf-8")
    names = {fault.source} if fault.source in {ANCHOR, VAULT} else {ANCHOR, VAULT}
    broken = {name: compile_contract(tmp_path / f"{name}.vy") for name in names}
    whole = world_artifact
    monkeypatch.setattr("tests.component.contracts.world.artifact", lambda name: broken.get(name) or whole(name))
    with pytest.raises((AssertionError, pytest.fail.Exception, RpcError)):
        fault.check(world)


world_artifact = world.artifact
