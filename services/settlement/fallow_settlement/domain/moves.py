"""Which transfers each act of settlement makes, with ids derived from what they belong to."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fallow_settlement.domain.charge import Charge
from fallow_settlement.domain.escrow import Escrow
from fallow_settlement.domain.grant import Grant
from fallow_settlement.domain.ledger import Account, AccountKind, Phase, Transfer, TransferReason, new_account
from fallow_settlement.domain.programme import Programme, Share


@dataclass(frozen=True, slots=True)
class Moves:
    """Transfers with the accounts that they need; an account that is not there yet is made."""

    accounts: tuple[Account, ...]
    transfers: tuple[Transfer, ...]


def _moves(steps: Iterable[tuple[Account, Account, Transfer]]) -> Moves:
    """Collect the accounts of some transfers."""
    listed = list(steps)
    accounts = {account.id: account for debit, credit, _ in listed for account in (debit, credit)}
    return Moves(tuple(accounts.values()), tuple(transfer for _, _, transfer in listed))


def _step(
    identifier: str,
    debit: Account,
    credit: Account,
    amount: int,
    reason: TransferReason,
    subject: str,
    *,
    phase: Phase = Phase.POSTED,
    pending_id: str = "",
) -> tuple[Account, Account, Transfer]:
    """One transfer between two accounts of one asset."""
    transfer = Transfer(
        identifier, debit.id, credit.id, debit.asset, amount, reason, subject, phase=phase, pending_id=pending_id
    )
    return debit, credit, transfer


def hold(escrow: Escrow, amount: int, key: str) -> Moves:
    """Free balance to escrow; ``key`` tells one hold of the order from the next."""
    return _moves(
        [
            _step(
                f"hold-{escrow.order_id}-{key}",
                new_account(AccountKind.BALANCE, escrow.account_id, escrow.asset),
                new_account(AccountKind.ESCROW, escrow.order_id, escrow.asset),
                amount,
                TransferReason.HOLD,
                f"orders/{escrow.order_id}",
            )
        ]
    )


def give_back(escrow: Escrow, amount: int, key: str) -> Moves:
    """A part of what an escrow holds back to the free balance; ``key`` tells one return of the order from the next."""
    return _returned(escrow, amount, f"release-{escrow.order_id}-{key}")


def release(escrow: Escrow) -> Moves:
    """All that an escrow still holds back to the free balance; none where it holds nothing."""
    if escrow.held == 0:
        return Moves((), ())
    return _returned(escrow, escrow.held, f"release-{escrow.order_id}")


def _returned(escrow: Escrow, amount: int, identifier: str) -> Moves:
    """Escrow to free balance."""
    return _moves(
        [
            _step(
                identifier,
                new_account(AccountKind.ESCROW, escrow.order_id, escrow.asset),
                new_account(AccountKind.BALANCE, escrow.account_id, escrow.asset),
                amount,
                TransferReason.RELEASE,
                f"orders/{escrow.order_id}",
            )
        ]
    )


def charge(charges: Sequence[Charge]) -> Moves:
    """Escrow to provider, platform and pool; parts of nothing make no transfer."""
    steps = []
    for item in charges:
        source = new_account(AccountKind.ESCROW, item.order_id, item.asset)
        parts = (
            ("charge", AccountKind.EARNINGS, item.provider_account_id, item.provider_part, TransferReason.CHARGE),
            ("fee", AccountKind.FEES, "", item.fee, TransferReason.FEE),
            ("pool", AccountKind.POOL, "", item.pool, TransferReason.POOL),
        )
        subject = f"charges/{item.id}"
        for prefix, kind, owner, amount, reason in parts:
            if amount > 0:
                target = new_account(kind, owner, item.asset)
                steps.append(_step(f"{prefix}-{item.id}", source, target, amount, reason, subject))
    return _moves(steps)


def withdrawal(withdrawal_id: str, owner: str, asset: str, *, from_earned: int, amount: int) -> Moves:
    """Earnings and free balance to what the account is owed on the chain; ``from_earned`` of ``amount`` are earnings."""
    assert 0 <= from_earned <= amount, (from_earned, amount)
    target = new_account(AccountKind.PAYABLE, owner, asset)
    parts = (("earned", AccountKind.EARNINGS, from_earned), ("free", AccountKind.BALANCE, amount - from_earned))
    return _moves(
        _step(
            f"withdrawal-{withdrawal_id}-{name}",
            new_account(kind, owner, asset),
            target,
            part,
            TransferReason.WITHDRAWAL,
            f"accounts/{owner}/withdrawals/{withdrawal_id}",
        )
        for name, kind, part in parts
        if part > 0
    )


def claimed(owner: str, asset: str, *, total: int, amount: int) -> Moves:
    """What the vault paid of what an account was owed; ``total``, all that it ever paid it, tells one claim from the next."""
    return _moves(
        [
            _step(
                f"claim-{owner}-{asset}-{total}",
                new_account(AccountKind.PAYABLE, owner, asset),
                new_account(AccountKind.VAULT, "", asset),
                amount,
                TransferReason.CLAIM,
                f"accounts/{owner}",
            )
        ]
    )


def overpaid(key: str, owner: str, asset: str, amount: int) -> Moves:
    """What the vault paid without our owing it, to the operator's loss.

    An account is owed it from then on, which its claim then settles; with no ``owner`` the vault merely lacks it. ``key``
    tells one claim from the next.
    """
    loss = new_account(AccountKind.CHAIN_LOSS, "", asset)
    target = new_account(AccountKind.PAYABLE if owner else AccountKind.VAULT, owner, asset)
    subject = f"accounts/{owner}" if owner else ""
    return _moves([_step(f"overpaid-{key}", loss, target, amount, TransferReason.CHAIN_LOSS, subject)])


def gap_booked(gap_id: str, owner: str, asset: str, amount: int, frozen: int) -> Moves:
    """What the vault lacks for a deposit that left the chain to the operator's loss; ``frozen`` of it is held back."""
    vault, loss = new_account(AccountKind.VAULT, "", asset), new_account(AccountKind.CHAIN_LOSS, "", asset)
    booked = _step(f"gap-{gap_id}", loss, vault, amount, TransferReason.CHAIN_LOSS, f"accounts/{owner}")
    return _moves([booked, *_frozen(gap_id, owner, asset, frozen, Phase.PENDING)])


def gap_repaired(gap_id: str, owner: str, asset: str, amount: int, *, held_back: int, taken: int) -> Moves:
    """The vault has the deposit again: what is ``held_back`` still is free, what was ``taken`` returns."""
    vault, loss = new_account(AccountKind.VAULT, "", asset), new_account(AccountKind.CHAIN_LOSS, "", asset)
    balance, reason, subject = (
        new_account(AccountKind.BALANCE, owner, asset),
        TransferReason.CHAIN_LOSS,
        f"accounts/{owner}",
    )
    steps = [_step(f"gap-{gap_id}-repair", vault, loss, amount, reason, subject)]
    if taken:
        steps.append(_step(f"gap-{gap_id}-return", loss, balance, taken, reason, subject))
    return _moves([*steps, *_frozen(gap_id, owner, asset, held_back, Phase.VOID_PENDING)])


def gap_written_off(gap_id: str, owner: str, asset: str, frozen: int) -> Moves:
    """The operator bears the loss; what was held back is free."""
    return _moves(_frozen(gap_id, owner, asset, frozen, Phase.VOID_PENDING))


def gap_recovered(gap_id: str, owner: str, asset: str, frozen: int) -> Moves:
    """What was held back makes the operator's loss smaller."""
    return _moves(_frozen(gap_id, owner, asset, frozen, Phase.POST_PENDING))


def _frozen(gap_id: str, owner: str, asset: str, amount: int, phase: Phase) -> list[tuple[Account, Account, Transfer]]:
    """One phase of holding a free balance back; nothing where nothing was free."""
    if amount == 0:
        return []
    pending = f"gap-{gap_id}-freeze"
    return [
        _step(
            pending if phase is Phase.PENDING else f"{pending}-end",
            new_account(AccountKind.BALANCE, owner, asset),
            new_account(AccountKind.CHAIN_LOSS, "", asset),
            amount,
            TransferReason.CHAIN_LOSS,
            f"accounts/{owner}",
            phase=phase,
            pending_id="" if phase is Phase.PENDING else pending,
        )
    ]


def deposit_seen(deposit_id: str, account_id: str, asset: str, amount: int) -> Moves:
    """Vault to free balance, pending until the chain has confirmed it."""
    return _deposit(f"deposit-{deposit_id}", account_id, asset, amount, Phase.PENDING, "", deposit_id)


def deposit_confirmed(deposit_id: str, account_id: str, asset: str, amount: int) -> Moves:
    """Post a pending deposit."""
    pending = f"deposit-{deposit_id}"
    return _deposit(f"{pending}-post", account_id, asset, amount, Phase.POST_PENDING, pending, deposit_id)


def deposit_vanished(deposit_id: str, account_id: str, asset: str, amount: int) -> Moves:
    """Void a pending deposit whose block is gone."""
    pending = f"deposit-{deposit_id}"
    return _deposit(f"{pending}-void", account_id, asset, amount, Phase.VOID_PENDING, pending, deposit_id)


def _deposit(
    identifier: str, account_id: str, asset: str, amount: int, phase: Phase, pending_id: str, deposit_id: str
) -> Moves:
    """One phase of a deposit."""
    return _moves(
        [
            _step(
                identifier,
                new_account(AccountKind.VAULT, "", asset),
                new_account(AccountKind.BALANCE, account_id, asset),
                amount,
                TransferReason.DEPOSIT,
                f"deposits/{deposit_id}",
                phase=phase,
                pending_id=pending_id,
            )
        ]
    )


def programme_funded(programme: Programme) -> Moves:
    """A programme's budget, out of the pool."""
    return _moves([_programme_step(programme, "budget", AccountKind.POOL, AccountKind.PROGRAMME, programme.budget)])


def programme_closed(programme: Programme) -> Moves:
    """What is left of a programme's budget, into the pool again."""
    return _moves([_programme_step(programme, "rest", AccountKind.PROGRAMME, AccountKind.POOL, programme.left)])


def _programme_step(
    programme: Programme, name: str, source: AccountKind, target: AccountKind, amount: int
) -> tuple[Account, Account, Transfer]:
    """A move between the pool and a programme."""
    debit, credit = (
        new_account(kind, programme.id if kind is AccountKind.PROGRAMME else "", programme.asset)
        for kind in (source, target)
    )
    subject = f"programmes/{programme.id}"
    return _step(f"programme-{programme.id}-{name}", debit, credit, amount, TransferReason.INCENTIVE, subject)


def programme_paid(programme: Programme, paid: Sequence[Share]) -> Moves:
    """One day's payments of a programme to providers' owners; parts of nothing make no transfer."""
    source = new_account(AccountKind.PROGRAMME, programme.id, programme.asset)
    return _moves(
        _step(
            f"programme-{programme.id}-{share.day}-{share.sums.provider_id}",
            source,
            new_account(AccountKind.EARNINGS, share.sums.account_id, programme.asset),
            share.paid,
            TransferReason.INCENTIVE,
            f"programmes/{programme.id}",
        )
        for share in paid
        if share.paid > 0
    )


def granted(grant: Grant) -> Moves:
    """A grant from the community pool to an account's free balance."""
    return _moves(
        [
            _step(
                f"grant-{grant.id}",
                new_account(AccountKind.POOL, "", grant.asset),
                new_account(AccountKind.BALANCE, grant.account_id, grant.asset),
                grant.amount,
                TransferReason.GRANT,
                f"communityGrants/{grant.id}",
            )
        ]
    )
