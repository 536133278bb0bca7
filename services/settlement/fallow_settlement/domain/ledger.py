"""The ledger: double entry after TigerBeetle's model, as a pure decision.

An account has four sums: debits and credits, each pending and posted. A transfer moves one amount of one asset from
the debit side of one account to the credit side of another, so debits equal credits by construction. It is immutable,
idempotent by its id, and has one of five phases: POSTED at once; PENDING, which reserves, for ever or until its time is over;
POST_PENDING and VOID_PENDING, which resolve a pending one, once; EXPIRE_PENDING, which the ledger itself makes of one
whose time is over. An account may forbid that its debits, pending ones included, ever exceed its posted credits. A closed
account takes part in no new transfer; what was pending may still be resolved.

``create_transfers`` takes what the store loaded (accounts, transfers of these ids, pending transfers that are being
resolved) and a list of new transfers, and answers one ``Result`` for each plus the rows to write. A refused transfer
changes nothing; the others of the list stand, but for a chain: transfers that are each ``linked`` to the next stand or fall
together, the first refused one with its own reason, the others with LINKED_TRANSFER_FAILED.

Results are decided in the order in which ``Result`` lists them; the first that applies is the answer.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

LARGEST_MICROS: Final = (1 << 63) - 1
"""The largest sum of an account: what a bigint holds."""


class AccountKind(StrEnum):
    """What a ledger account stands for."""

    BALANCE = "BALANCE"
    ESCROW = "ESCROW"
    EARNINGS = "EARNINGS"
    FEES = "FEES"
    POOL = "POOL"
    VAULT = "VAULT"
    CHAIN_LOSS = "CHAIN_LOSS"
    PAYABLE = "PAYABLE"
    PROGRAMME = "PROGRAMME"


BOUNDED_KINDS: Final = frozenset(
    {
        AccountKind.BALANCE,
        AccountKind.ESCROW,
        AccountKind.EARNINGS,
        AccountKind.FEES,
        AccountKind.POOL,
        AccountKind.PAYABLE,
        AccountKind.PROGRAMME,
    }
)
"""Kinds whose debits may never exceed their credits; the vault is the other side of every deposit."""
_KIND_NAMES: Final = {kind: kind.value.lower().replace("_", "-") for kind in AccountKind}
"""How ids of accounts name their kinds."""


class Phase(StrEnum):
    """Phase of a transfer."""

    POSTED = "POSTED"
    PENDING = "PENDING"
    POST_PENDING = "POST_PENDING"
    VOID_PENDING = "VOID_PENDING"
    EXPIRE_PENDING = "EXPIRE_PENDING"


RESOLVING: Final = frozenset({Phase.POST_PENDING, Phase.VOID_PENDING, Phase.EXPIRE_PENDING})
"""Phases that resolve a pending transfer."""


class TransferReason(StrEnum):
    """Why money moved."""

    DEPOSIT = "DEPOSIT"
    HOLD = "HOLD"
    RELEASE = "RELEASE"
    CHARGE = "CHARGE"
    FEE = "FEE"
    POOL = "POOL"
    WITHDRAWAL = "WITHDRAWAL"
    INCENTIVE = "INCENTIVE"
    GRANT = "GRANT"
    CHAIN_LOSS = "CHAIN_LOSS"
    CLAIM = "CLAIM"
    ADJUSTMENT = "ADJUSTMENT"


class Result(StrEnum):
    """Answer to one transfer, in the order in which they are decided; the first that applies is the answer."""

    LINKED_CHAIN_OPEN = "LINKED_CHAIN_OPEN"
    LINKED_TRANSFER_FAILED = "LINKED_TRANSFER_FAILED"
    EXISTS = "EXISTS"
    EXISTS_WITH_DIFFERENT_INPUT = "EXISTS_WITH_DIFFERENT_INPUT"
    AMOUNT_NOT_POSITIVE = "AMOUNT_NOT_POSITIVE"
    AMOUNT_TOO_LARGE = "AMOUNT_TOO_LARGE"
    ACCOUNTS_ARE_THE_SAME = "ACCOUNTS_ARE_THE_SAME"
    DEBIT_ACCOUNT_NOT_FOUND = "DEBIT_ACCOUNT_NOT_FOUND"
    CREDIT_ACCOUNT_NOT_FOUND = "CREDIT_ACCOUNT_NOT_FOUND"
    ASSET_DIFFERS = "ASSET_DIFFERS"
    TIMEOUT_UNEXPECTED = "TIMEOUT_UNEXPECTED"
    PENDING_TRANSFER_UNEXPECTED = "PENDING_TRANSFER_UNEXPECTED"
    PENDING_TRANSFER_NOT_FOUND = "PENDING_TRANSFER_NOT_FOUND"
    PENDING_TRANSFER_NOT_PENDING = "PENDING_TRANSFER_NOT_PENDING"
    PENDING_TRANSFER_HAS_DIFFERENT_ACCOUNTS = "PENDING_TRANSFER_HAS_DIFFERENT_ACCOUNTS"
    PENDING_TRANSFER_HAS_DIFFERENT_AMOUNT = "PENDING_TRANSFER_HAS_DIFFERENT_AMOUNT"
    PENDING_TRANSFER_ALREADY_POSTED = "PENDING_TRANSFER_ALREADY_POSTED"
    PENDING_TRANSFER_ALREADY_VOIDED = "PENDING_TRANSFER_ALREADY_VOIDED"
    PENDING_TRANSFER_EXPIRED = "PENDING_TRANSFER_EXPIRED"
    DEBIT_ACCOUNT_CLOSED = "DEBIT_ACCOUNT_CLOSED"
    CREDIT_ACCOUNT_CLOSED = "CREDIT_ACCOUNT_CLOSED"
    OVERFLOWS = "OVERFLOWS"
    EXCEEDS_CREDITS = "EXCEEDS_CREDITS"
    OK = "OK"


@dataclass(frozen=True, slots=True)
class Account:
    """One account with its sums in micros; ``version`` counts the writes that touched it."""

    id: str
    kind: AccountKind
    owner: str
    asset: str
    debits_must_not_exceed_credits: bool
    debits_posted: int = 0
    credits_posted: int = 0
    debits_pending: int = 0
    credits_pending: int = 0
    version: int = 0
    closed: bool = False

    def __post_init__(self) -> None:
        """Hold what must be true of an account at any moment."""
        sums = (self.debits_posted, self.credits_posted, self.debits_pending, self.credits_pending)
        assert 0 <= min(sums) <= max(sums) <= LARGEST_MICROS, f"sums of {self.id} out of range: {sums}"
        if self.debits_must_not_exceed_credits:
            assert self.available >= 0, f"debits of {self.id} exceed its credits"

    @property
    def available(self) -> int:
        """What may still be debited: posted credits less all debits, pending ones included."""
        return self.credits_posted - self.debits_posted - self.debits_pending


@dataclass(frozen=True, slots=True)
class Transfer:
    """A movement of ``amount`` micros; ``pending_id`` names the transfer that a resolving phase resolves.

    ``linked``: it stands or falls with the next one of its list. ``timeout_ms``: a pending one expires so long after it was
    made; 0 is never.
    """

    id: str
    debit_account: str
    credit_account: str
    asset: str
    amount: int
    reason: TransferReason
    subject: str
    phase: Phase = Phase.POSTED
    pending_id: str = ""
    linked: bool = False
    timeout_ms: int = 0

    def __post_init__(self) -> None:
        """An id is derived by our own code, so a missing one is a programmer's error."""
        assert self.id, "a transfer has an id"


@dataclass(frozen=True, slots=True)
class Book:
    """What a decision needs to know: accounts, transfers and resolutions (pending id to phase) that concern it.

    ``overdue``: pending transfers whose time is over, whether or not the ledger has ended them already.
    """

    accounts: Mapping[str, Account] = field(default_factory=dict)
    transfers: Mapping[str, Transfer] = field(default_factory=dict)
    resolutions: Mapping[str, Phase] = field(default_factory=dict)
    overdue: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Outcome:
    """One result for each transfer asked for; the accepted transfers and the touched accounts, to be written."""

    results: tuple[Result, ...]
    accepted: tuple[Transfer, ...]
    accounts: Mapping[str, Account]


def account_id(kind: AccountKind, owner: str, asset: str) -> str:
    """The id of an account, derived from what it is; ``owner`` is a bare id, empty for the platform's own."""
    assert asset, "an account has an asset"
    name = _KIND_NAMES[kind]
    return f"{name}-{owner}-{asset}" if owner else f"{name}-{asset}"


def new_account(kind: AccountKind, owner: str, asset: str) -> Account:
    """An account with no movements yet."""
    return Account(account_id(kind, owner, asset), kind, owner, asset, kind in BOUNDED_KINDS)


def create_transfers(book: Book, transfers: Sequence[Transfer]) -> Outcome:
    """Decide on a list of transfers, in order; each sees what those before it changed."""
    decision = _Decision(book)
    results: list[Result] = []
    for chain in _chains(transfers):
        results += decision.take(chain)
    assert len(results) == len(transfers), "one result for each transfer"
    # One list is one write to an account, however many of its transfers touch it.
    written = {key: sums.written(book.accounts[key]) for key, sums in decision.touched.items()}
    _assert_balanced(book.accounts, written)
    return Outcome(tuple(results), tuple(decision.accepted), written)


def _chains(transfers: Sequence[Transfer]) -> Iterator[list[Transfer]]:
    """A list, cut into what stands or falls together: a transfer alone, or a chain of linked ones with the one after."""
    chain: list[Transfer] = []
    for transfer in transfers:
        chain.append(transfer)
        if not transfer.linked:
            yield chain
            chain = []
    if chain:
        yield chain


class _Sums:
    """The sums of an account while a list is decided: the one thing here that changes in place, because lists are long."""

    __slots__ = ("credits_pending", "credits_posted", "debits_pending", "debits_posted")

    def __init__(self, of: "Account | _Sums") -> None:
        """Start from what an account has."""
        self.debits_posted: int = of.debits_posted
        self.credits_posted: int = of.credits_posted
        self.debits_pending: int = of.debits_pending
        self.credits_pending: int = of.credits_pending

    def written(self, account: Account) -> Account:
        """The account with these sums, as the next version."""
        return replace(
            account,
            debits_posted=self.debits_posted,
            credits_posted=self.credits_posted,
            debits_pending=self.debits_pending,
            credits_pending=self.credits_pending,
            version=account.version + 1,
        )


class _Decision:
    """What a list has come to so far."""

    def __init__(self, book: Book) -> None:
        """Start from what is known."""
        self._transfers = dict(book.transfers)
        self._resolutions = dict(book.resolutions)
        self._book = Book(book.accounts, self._transfers, self._resolutions, book.overdue)
        self.touched: dict[str, _Sums] = {}
        self.accepted: list[Transfer] = []

    def take(self, chain: list[Transfer]) -> list[Result]:
        """The results of what stands or falls together; nothing of it is left where it falls."""
        if chain[-1].linked:
            return [Result.LINKED_TRANSFER_FAILED] * (len(chain) - 1) + [Result.LINKED_CHAIN_OPEN]
        # A transfer alone is judged before it is applied: there is nothing to take back.
        named = _named(chain) if len(chain) > 1 else ()
        kept = {account: _Sums(self.touched[account]) for account in named if account in self.touched}
        for number, transfer in enumerate(chain):
            result = judge(self._book, transfer, self.touched)
            if result is not Result.OK:
                self._undo(chain[:number], kept)
                return [result if at == number else Result.LINKED_TRANSFER_FAILED for at in range(len(chain))]
            self._apply(transfer)
        self.accepted += chain
        return [Result.OK] * len(chain)

    def _apply(self, transfer: Transfer) -> None:
        """Let an accepted transfer stand, for now."""
        debit, credit = self._sums(transfer.debit_account), self._sums(transfer.credit_account)
        if transfer.phase is Phase.POSTED or transfer.phase is Phase.POST_PENDING:
            debit.debits_posted += transfer.amount
            credit.credits_posted += transfer.amount
        if transfer.phase is not Phase.POSTED:
            # A resolving transfer has the amount of its pending one: it was judged so.
            reserved = transfer.amount if transfer.phase is Phase.PENDING else -transfer.amount
            debit.debits_pending += reserved
            credit.credits_pending += reserved
        self._transfers[transfer.id] = transfer
        if transfer.phase in RESOLVING:
            self._resolutions[transfer.pending_id] = transfer.phase

    def _sums(self, account: str) -> _Sums:
        """The sums of an account, as they stand now."""
        found = self.touched.get(account)
        if found is None:
            found = self.touched[account] = _Sums(self._book.accounts[account])
        return found

    def _undo(self, made: list[Transfer], kept: Mapping[str, _Sums]) -> None:
        """Take back the beginning of a chain that fell; ``kept`` are the sums that its accounts had before."""
        for account in _named(made):
            del self.touched[account]
        self.touched.update(kept)
        for transfer in made:
            del self._transfers[transfer.id]
            self._resolutions.pop(transfer.pending_id, None)


def _named(transfers: Sequence[Transfer]) -> set[str]:
    """The accounts of some transfers."""
    return {account for transfer in transfers for account in (transfer.debit_account, transfer.credit_account)}


def judge(book: Book, transfer: Transfer, moved: Mapping[str, _Sums] = MappingProxyType({})) -> Result:
    """The result that one transfer would get now; the order of the checks is that of ``Result``.

    ``moved``: sums of accounts that transfers of the same list have moved since the book was read.
    """
    existing = book.transfers.get(transfer.id)
    if existing is not None:
        return Result.EXISTS if existing == transfer else Result.EXISTS_WITH_DIFFERENT_INPUT
    if transfer.amount <= 0:
        return Result.AMOUNT_NOT_POSITIVE
    if transfer.amount > LARGEST_MICROS:
        return Result.AMOUNT_TOO_LARGE
    if transfer.debit_account == transfer.credit_account:
        return Result.ACCOUNTS_ARE_THE_SAME
    debit = book.accounts.get(transfer.debit_account)
    if debit is None:
        return Result.DEBIT_ACCOUNT_NOT_FOUND
    credit = book.accounts.get(transfer.credit_account)
    if credit is None:
        return Result.CREDIT_ACCOUNT_NOT_FOUND
    if not debit.asset == credit.asset == transfer.asset:
        return Result.ASSET_DIFFERS
    if transfer.timeout_ms and transfer.phase is not Phase.PENDING:
        return Result.TIMEOUT_UNEXPECTED
    if transfer.phase in RESOLVING:
        return _judge_resolving(book, transfer)
    if transfer.pending_id:
        return Result.PENDING_TRANSFER_UNEXPECTED
    if debit.closed:
        return Result.DEBIT_ACCOUNT_CLOSED
    if credit.closed:
        return Result.CREDIT_ACCOUNT_CLOSED
    bounded = debit.debits_must_not_exceed_credits
    return _judge_bounds(moved.get(debit.id, debit), moved.get(credit.id, credit), transfer.amount, bounded=bounded)


def _judge_resolving(book: Book, transfer: Transfer) -> Result:
    """The checks of a transfer that posts or voids a pending one; it always resolves the whole amount."""
    pending = book.transfers.get(transfer.pending_id)
    if pending is None:
        return Result.PENDING_TRANSFER_NOT_FOUND
    if pending.phase is not Phase.PENDING:
        return Result.PENDING_TRANSFER_NOT_PENDING
    if (pending.debit_account, pending.credit_account) != (transfer.debit_account, transfer.credit_account):
        return Result.PENDING_TRANSFER_HAS_DIFFERENT_ACCOUNTS
    if pending.amount != transfer.amount:
        return Result.PENDING_TRANSFER_HAS_DIFFERENT_AMOUNT
    resolved = book.resolutions.get(transfer.pending_id)
    if resolved is Phase.POST_PENDING:
        return Result.PENDING_TRANSFER_ALREADY_POSTED
    if resolved is Phase.VOID_PENDING:
        return Result.PENDING_TRANSFER_ALREADY_VOIDED
    if resolved is Phase.EXPIRE_PENDING:
        return Result.PENDING_TRANSFER_EXPIRED
    is_overdue = transfer.pending_id in book.overdue
    if transfer.phase is Phase.EXPIRE_PENDING:
        assert is_overdue, "only the ledger lets transfers expire, and none before its time"
    elif is_overdue:
        # Whether the ledger has ended it already makes no difference.
        return Result.PENDING_TRANSFER_EXPIRED
    # The pending amount was within bounds when it was reserved, and resolving it reserves nothing new.
    return Result.OK


def _judge_bounds(debit: Account | _Sums, credit: Account | _Sums, amount: int, *, bounded: bool) -> Result:
    """Whether the sums stay within a bigint, and the debit side within its credits where it must."""
    debits = debit.debits_posted + debit.debits_pending + amount
    if debits > LARGEST_MICROS or credit.credits_posted + credit.credits_pending + amount > LARGEST_MICROS:
        return Result.OVERFLOWS
    if bounded and debits > debit.credits_posted:
        return Result.EXCEEDS_CREDITS
    return Result.OK


def _assert_balanced(before: Mapping[str, Account], after: Mapping[str, Account]) -> None:
    """What the debits of an asset grew by, its credits grew by."""
    posted: dict[str, int] = {}
    pending: dict[str, int] = {}
    for key, account in after.items():
        old = before[key]
        debits = account.debits_posted - old.debits_posted
        credits_ = account.credits_posted - old.credits_posted
        posted[account.asset] = posted.get(account.asset, 0) + debits - credits_
        debits = account.debits_pending - old.debits_pending
        credits_ = account.credits_pending - old.credits_pending
        pending[account.asset] = pending.get(account.asset, 0) + debits - credits_
    assert not any(posted.values()), f"posted debits and credits differ: {posted}"
    assert not any(pending.values()), f"pending debits and credits differ: {pending}"
