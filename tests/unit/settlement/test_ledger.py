"""The ledger's decisions: one row for each result, their order, and a dictionary that predicts every list."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow_settlement.domain.ledger import (
    LARGEST_MICROS,
    RESOLVING,
    Account,
    AccountKind,
    Book,
    Phase,
    Result,
    Transfer,
    TransferReason,
    account_id,
    create_transfers,
    judge,
    new_account,
)

VAULT = new_account(AccountKind.VAULT, "", "usdc")
ALICE = replace(new_account(AccountKind.BALANCE, "alice", "usdc"), credits_posted=100, debits_pending=30)
BOB = new_account(AccountKind.BALANCE, "bob", "usdc")
EURO = new_account(AccountKind.BALANCE, "bob", "eurx")
FULL = replace(new_account(AccountKind.CHAIN_LOSS, "", "usdc"), credits_posted=LARGEST_MICROS)
RESERVED = Transfer("reserved", ALICE.id, BOB.id, "usdc", 30, TransferReason.HOLD, "s", phase=Phase.PENDING)
DONE = Transfer("done", VAULT.id, ALICE.id, "usdc", 100, TransferReason.DEPOSIT, "s")
VOIDED = replace(RESERVED, id="voided")
POSTED = replace(RESERVED, id="posted")
EXPIRED = replace(RESERVED, id="expired", timeout_ms=1)
OVERDUE = replace(RESERVED, id="overdue", timeout_ms=1)
SHUT = replace(new_account(AccountKind.ESCROW, "shut", "usdc"), credits_posted=9, closed=True)
BOOK = Book(
    {account.id: account for account in (VAULT, ALICE, BOB, EURO, FULL, SHUT)},
    {transfer.id: transfer for transfer in (RESERVED, DONE, VOIDED, POSTED, EXPIRED, OVERDUE)},
    {"voided": Phase.VOID_PENDING, "posted": Phase.POST_PENDING, "expired": Phase.EXPIRE_PENDING},
    frozenset({"expired", "overdue"}),
)
GOOD = Transfer("new", ALICE.id, BOB.id, "usdc", 70, TransferReason.HOLD, "s")
POSTING = replace(RESERVED, id="new", phase=Phase.POST_PENDING, pending_id="reserved")

# Each row breaks exactly one rule; the table stands in the order in which rules are decided.
TABLE = [
    (Result.EXISTS, DONE),
    (Result.EXISTS_WITH_DIFFERENT_INPUT, replace(DONE, amount=99)),
    (Result.AMOUNT_NOT_POSITIVE, replace(GOOD, amount=0)),
    (Result.AMOUNT_NOT_POSITIVE, replace(GOOD, amount=-1)),
    (Result.AMOUNT_TOO_LARGE, replace(GOOD, amount=LARGEST_MICROS + 1)),
    (Result.ACCOUNTS_ARE_THE_SAME, replace(GOOD, credit_account=ALICE.id)),
    (Result.DEBIT_ACCOUNT_NOT_FOUND, replace(GOOD, debit_account="nobody")),
    (Result.CREDIT_ACCOUNT_NOT_FOUND, replace(GOOD, credit_account="nobody")),
    (Result.ASSET_DIFFERS, replace(GOOD, credit_account=EURO.id)),
    (Result.ASSET_DIFFERS, replace(GOOD, asset="eurx")),
    (Result.TIMEOUT_UNEXPECTED, replace(GOOD, timeout_ms=1)),
    (Result.TIMEOUT_UNEXPECTED, replace(POSTING, timeout_ms=1)),
    (Result.PENDING_TRANSFER_UNEXPECTED, replace(GOOD, pending_id="reserved")),
    (Result.PENDING_TRANSFER_NOT_FOUND, replace(POSTING, pending_id="never")),
    (Result.PENDING_TRANSFER_NOT_PENDING, replace(POSTING, pending_id="done")),
    (Result.PENDING_TRANSFER_HAS_DIFFERENT_ACCOUNTS, replace(POSTING, debit_account=VAULT.id)),
    (Result.PENDING_TRANSFER_HAS_DIFFERENT_AMOUNT, replace(POSTING, amount=29)),
    (Result.PENDING_TRANSFER_ALREADY_POSTED, replace(POSTING, pending_id="posted")),
    (Result.PENDING_TRANSFER_ALREADY_VOIDED, replace(POSTING, pending_id="voided")),
    (Result.PENDING_TRANSFER_EXPIRED, replace(POSTING, pending_id="expired")),
    (Result.PENDING_TRANSFER_EXPIRED, replace(POSTING, pending_id="overdue", phase=Phase.VOID_PENDING)),
    (Result.DEBIT_ACCOUNT_CLOSED, replace(GOOD, debit_account=SHUT.id, amount=1)),
    (Result.CREDIT_ACCOUNT_CLOSED, replace(GOOD, credit_account=SHUT.id)),
    (Result.OVERFLOWS, replace(GOOD, debit_account=VAULT.id, credit_account=FULL.id)),
    (Result.EXCEEDS_CREDITS, replace(GOOD, amount=71)),
    (Result.OK, GOOD),
    (Result.OK, POSTING),
    (Result.OK, replace(POSTING, phase=Phase.VOID_PENDING)),
    (Result.OK, replace(GOOD, phase=Phase.PENDING)),
    (Result.OK, replace(GOOD, phase=Phase.PENDING, timeout_ms=1)),
    (Result.OK, replace(POSTING, pending_id="overdue", phase=Phase.EXPIRE_PENDING)),
]
# These are answers to a place in a chain, not to a transfer alone; their own test has them.
OF_CHAINS = [Result.LINKED_CHAIN_OPEN, Result.LINKED_TRANSFER_FAILED]

# Two rules broken at once: the one that stands first in Result is the answer.
PRECEDENCE = [
    (Result.EXISTS_WITH_DIFFERENT_INPUT, replace(DONE, amount=0)),
    (Result.AMOUNT_NOT_POSITIVE, replace(GOOD, amount=0, credit_account=ALICE.id)),
    (Result.AMOUNT_TOO_LARGE, replace(GOOD, amount=LARGEST_MICROS + 1, debit_account="nobody")),
    (Result.ACCOUNTS_ARE_THE_SAME, replace(GOOD, debit_account="nobody", credit_account="nobody")),
    (Result.DEBIT_ACCOUNT_NOT_FOUND, replace(GOOD, debit_account="nobody", credit_account="no one")),
    (Result.CREDIT_ACCOUNT_NOT_FOUND, replace(GOOD, credit_account="nobody", asset="eurx")),
    (Result.ASSET_DIFFERS, replace(POSTING, asset="eurx", pending_id="never")),
    (Result.TIMEOUT_UNEXPECTED, replace(GOOD, timeout_ms=1, pending_id="reserved")),
    (Result.PENDING_TRANSFER_UNEXPECTED, replace(GOOD, pending_id="reserved", debit_account=SHUT.id)),
    (Result.PENDING_TRANSFER_UNEXPECTED, replace(GOOD, pending_id="reserved", amount=71)),
    (Result.PENDING_TRANSFER_NOT_PENDING, replace(POSTING, pending_id="done", amount=29)),
    (Result.PENDING_TRANSFER_HAS_DIFFERENT_ACCOUNTS, replace(POSTING, debit_account=VAULT.id, amount=29)),
    (Result.PENDING_TRANSFER_HAS_DIFFERENT_AMOUNT, replace(POSTING, pending_id="posted", amount=29)),
    (Result.DEBIT_ACCOUNT_CLOSED, replace(GOOD, debit_account=SHUT.id, amount=71)),
    (Result.CREDIT_ACCOUNT_CLOSED, replace(GOOD, credit_account=SHUT.id, amount=71)),
    (Result.OVERFLOWS, replace(GOOD, credit_account=FULL.id, amount=71)),
]


@pytest.mark.parametrize(("result", "transfer"), TABLE)
def test_each_result_has_its_case(result: Result, transfer: Transfer) -> None:
    """Goal: every result can be reached. Method: break one rule a row."""
    assert judge(BOOK, transfer) is result


def test_the_table_covers_every_result() -> None:
    """Goal: no result without a case. Method: compare the table with the enumeration, order included."""
    assert OF_CHAINS + list(dict.fromkeys(result for result, _ in TABLE)) == list(Result)


@pytest.mark.parametrize(("result", "transfer"), PRECEDENCE)
def test_the_first_broken_rule_answers(result: Result, transfer: Transfer) -> None:
    """Goal: a documented order of precedence. Method: break a rule and one further down."""
    assert judge(BOOK, transfer) is result


def test_a_list_sees_its_own_transfers() -> None:
    """Goal: each transfer of a list sees those before it. Method: fund and spend in one list, the same id twice."""
    book = Book({account.id: account for account in (VAULT, BOB, replace(ALICE, credits_posted=0, debits_pending=0))})
    fund = Transfer("fund", VAULT.id, ALICE.id, "usdc", 10, TransferReason.DEPOSIT, "s")
    spend = Transfer("spend", ALICE.id, BOB.id, "usdc", 10, TransferReason.HOLD, "s")
    outcome = create_transfers(book, [spend, fund, fund, replace(spend, id="again"), replace(spend, id="more")])
    assert outcome.results == (Result.EXCEEDS_CREDITS, Result.OK, Result.EXISTS, Result.OK, Result.EXCEEDS_CREDITS)
    assert outcome.accounts[BOB.id].credits_posted == 10
    assert {account.version for account in outcome.accounts.values()} == {1}


OK, FAILED, OPEN = Result.OK, Result.LINKED_TRANSFER_FAILED, Result.LINKED_CHAIN_OPEN
CHAINS = [
    ("all of it", [10, 20, 30], "110", [OK, OK, OK], 60),
    ("none of it, for the last", [10, 20, 999], "110", [FAILED, FAILED, Result.EXCEEDS_CREDITS], 0),
    ("none of it, for the first", [999, 20, 30], "110", [Result.EXCEEDS_CREDITS, FAILED, FAILED], 0),
    ("each alone", [10, 999, 30], "000", [OK, Result.EXCEEDS_CREDITS, OK], 40),
    ("a chain that falls, beside two that stand", [5, 999, 7, 8], "1000", [FAILED, Result.EXCEEDS_CREDITS, OK, OK], 15),
    ("two chains", [5, 6, 7, 999], "1010", [OK, OK, FAILED, Result.EXCEEDS_CREDITS], 11),
    ("a chain without an end", [5, 6, 7], "011", [OK, FAILED, OPEN], 5),
    ("one link of nothing", [5], "1", [OPEN], 0),
    ("what a chain frees it may spend", [-70, 70, 999], "110", [FAILED, FAILED, Result.EXCEEDS_CREDITS], 0),
]


@pytest.mark.parametrize(
    ("amounts", "links", "results", "moved"), [row[1:] for row in CHAINS], ids=[row[0] for row in CHAINS]
)
def test_a_chain_stands_or_falls(amounts: list[int], links: str, results: list[Result], moved: int) -> None:
    """Goal: all or none, and the others as ever. Method: spend from 70 in chains; a negative amount is the way back."""
    alice = replace(ALICE, debits_pending=0, credits_posted=70)
    book = Book({account.id: account for account in (alice, BOB, VAULT)})
    transfers = [
        Transfer(
            f"t{number}",
            alice.id if amount > 0 else VAULT.id,
            BOB.id if amount > 0 else alice.id,
            "usdc",
            abs(amount),
            TransferReason.HOLD,
            "s",
            linked=link == "1",
        )
        for number, (amount, link) in enumerate(zip(amounts, links, strict=True))
    ]
    outcome = create_transfers(book, transfers)
    assert list(outcome.results) == results
    after = outcome.accounts.get(BOB.id, BOB)
    assert after.credits_posted == moved
    assert len(outcome.accepted) == results.count(OK)
    assert outcome.accounts.get(alice.id, alice).version == (1 if moved else 0)


def test_a_chain_that_falls_resolves_nothing() -> None:
    """Goal: a post within a chain is taken back too. Method: post a pending one, then fail; void it in the same list."""
    chain = [replace(POSTING, linked=True), replace(GOOD, id="beyond", amount=10**6)]
    book = replace(BOOK, accounts={**BOOK.accounts, BOB.id: replace(BOB, credits_pending=30)})
    outcome = create_transfers(book, [*chain, replace(POSTING, id="void", phase=Phase.VOID_PENDING)])
    assert outcome.results == (FAILED, Result.EXCEEDS_CREDITS, OK)
    assert outcome.accounts[ALICE.id].debits_pending == 0
    assert (outcome.accounts[BOB.id].credits_posted, outcome.accounts[BOB.id].credits_pending) == (0, 0)


def test_only_the_ledger_lets_transfers_expire() -> None:
    """Goal: an expiry before its time is a programmer's error. Method: expire one that is not overdue."""
    with pytest.raises(AssertionError, match="before its time"):
        judge(BOOK, replace(POSTING, phase=Phase.EXPIRE_PENDING))


def test_account_ids_tell_what_they_are() -> None:
    """Goal: ids are derived and differ. Method: compare kinds, owners and assets."""
    assert account_id(AccountKind.CHAIN_LOSS, "", "usdc") == "chain-loss-usdc"
    assert account_id(AccountKind.BALANCE, "alice", "usdc") == "balance-alice-usdc"


@dataclass
class Model:
    """The ledger as a dictionary: what is free, and what is reserved by whom for whom."""

    free: dict[str, int] = field(default_factory=dict)
    reserved: dict[str, tuple[str, str, int]] = field(default_factory=dict)

    def take(self, owner: str, amount: int) -> bool:
        """Spend; the vault has no bottom."""
        if owner != VAULT.id and self.free.get(owner, 0) < amount:
            return False
        self.free[owner] = self.free.get(owner, 0) - amount
        return True

    def predict_list(self, transfers: list[Transfer]) -> list[bool]:
        """What passes of a list; a chain that fails leaves the model as it was."""
        passed: list[bool] = []
        chain: list[Transfer] = []
        for transfer in transfers:
            chain.append(transfer)
            if transfer.linked:
                continue
            before = dict(self.free), dict(self.reserved)
            stands = all(self.predict(item) for item in chain)
            if not stands:
                self.free, self.reserved = before
            passed += [stands] * len(chain)
            chain = []
        return passed + [False] * len(chain)

    def predict(self, transfer: Transfer) -> bool:
        """Whether it passes; changes the model if so."""
        if transfer.phase is Phase.POSTED or transfer.phase is Phase.PENDING:
            if transfer.debit_account == transfer.credit_account or not self.take(
                transfer.debit_account, transfer.amount
            ):
                return False
            if transfer.phase is Phase.PENDING:
                self.reserved[transfer.id] = (transfer.debit_account, transfer.credit_account, transfer.amount)
                return True
            self.free[transfer.credit_account] = self.free.get(transfer.credit_account, 0) + transfer.amount
            return True
        held = self.reserved.get(transfer.pending_id)
        if held != (transfer.debit_account, transfer.credit_account, transfer.amount):
            return False
        del self.reserved[transfer.pending_id]
        target = transfer.credit_account if transfer.phase is Phase.POST_PENDING else transfer.debit_account
        self.free[target] = self.free.get(target, 0) + transfer.amount
        return True


OWNERS = (VAULT.id, "balance-a-usdc", "balance-b-usdc", "balance-c-usdc")
STEP = st.tuples(
    st.sampled_from(OWNERS),
    st.sampled_from(OWNERS),
    st.integers(1, 50),
    st.sampled_from(list(Phase)),
    st.integers(0, 40),
    st.booleans(),
)


def balances(accounts: Mapping[str, Account]) -> dict[str, int]:
    """What is free by account; the vault's is what it gave out, negative."""
    return {
        name: account.credits_posted - account.debits_posted - account.debits_pending
        for name, account in accounts.items()
    }


@given(st.lists(st.lists(STEP, max_size=6), max_size=12))
def test_the_ledger_agrees_with_a_dictionary(lists: list[list[tuple[str, str, int, Phase, int, bool]]]) -> None:
    """Goal: no list of transfers makes or loses money. Method: run random lists, with chains and expiries, against a
    dictionary that is copied before each chain.
    """
    accounts: dict[str, Account] = {VAULT.id: VAULT}
    for owner in "abc":
        account = new_account(AccountKind.BALANCE, owner, "usdc")
        accounts[account.id] = account
    known: dict[str, Transfer] = {}
    resolutions: dict[str, Phase] = {}
    model = Model()
    number = 0
    for steps in lists:
        transfers = []
        for debit, credit, amount, phase, back, linked in steps:
            number += 1
            pending = f"t{max(1, number - back)}" if phase in RESOLVING else ""
            source = known.get(pending)
            if source is not None and source.phase is Phase.PENDING:
                debit, credit, amount = source.debit_account, source.credit_account, source.amount  # noqa: PLW2901
            transfers.append(
                Transfer(f"t{number}", debit, credit, "usdc", amount, TransferReason.HOLD, "s", phase, pending, linked)
            )
        # Whatever somebody lets expire is overdue; nothing else is.
        overdue = frozenset(item.pending_id for item in transfers if item.phase is Phase.EXPIRE_PENDING)
        transfers = [item for item in transfers if item.pending_id not in overdue or item.phase is Phase.EXPIRE_PENDING]
        outcome = create_transfers(Book(accounts, known, resolutions, overdue), transfers)
        assert [result is Result.OK for result in outcome.results] == model.predict_list(transfers)
        accounts.update(outcome.accounts)
        known.update({transfer.id: transfer for transfer in outcome.accepted})
        resolutions.update({item.pending_id: item.phase for item in outcome.accepted if item.pending_id})
        found = balances(accounts)
        assert found == {name: model.free.get(name, 0) for name in found}
        assert sum(account.debits_posted - account.credits_posted for account in accounts.values()) == 0
        assert sum(account.debits_pending - account.credits_pending for account in accounts.values()) == 0
