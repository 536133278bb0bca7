"""Moving money between free balances and escrows."""

from collections.abc import Sequence
from dataclasses import dataclass

from fallow_chassis.errors import DomainError, FieldViolation
from fallow_chassis.postgres import Connection, UnitOfWork
from fallow_settlement.domain import moves
from fallow_settlement.domain.escrow import Escrow
from fallow_settlement.domain.holds import decide_holds
from fallow_settlement.domain.ledger import AccountKind, Result, account_id
from fallow_settlement.domain.reasons import INSUFFICIENT_FUNDS
from fallow_settlement.ledger_store import close_account, load_accounts, lock_accounts, must_post, post_transfers


@dataclass(frozen=True, slots=True)
class Hold:
    """Micros to move from an account's free balance into an escrow; ``key`` tells one hold of it from the next."""

    escrow: Escrow
    amount: int
    key: str

    @property
    def balance(self) -> str:
        """The ledger account that pays."""
        return account_id(AccountKind.BALANCE, self.escrow.account_id, self.escrow.asset)


async def hold_many(unit: UnitOfWork, holds: Sequence[Hold]) -> list[DomainError | None]:
    """Move free balances into escrows, first come first served; None, or INSUFFICIENT_FUNDS with what was short, each.

    A refused hold leaves nothing behind, no empty account either.
    """
    balances = [hold.balance for hold in holds]
    locked = await lock_accounts(unit.connection, set(balances))
    free = {identifier: account.available for identifier, account in locked.items()}
    decided = decide_holds(balances, [hold.amount for hold in holds], free)
    listed = [
        moves.hold(hold.escrow, hold.amount, hold.key)
        for hold, (is_paid, _) in zip(holds, decided, strict=True)
        if is_paid
    ]
    results = await post_transfers(
        unit.connection,
        [account for move in listed for account in move.accounts],
        [transfer for move in listed for transfer in move.transfers],
        unit.clock.now(),
    )
    # Not even EXISTS: money that moved before would be promised to a new escrow once more.
    assert set(results) <= {Result.OK}, f"holds were answered {set(results)}"
    return [
        None if is_paid else _insufficient(hold, before) for hold, (is_paid, before) in zip(holds, decided, strict=True)
    ]


async def hold_funds(unit: UnitOfWork, escrow: Escrow, amount: int, key: str) -> None:
    """Move free balance into one escrow; raises INSUFFICIENT_FUNDS with what is short."""
    (refusal,) = await hold_many(unit, [Hold(escrow, amount, key)])
    if refusal is not None:
        raise refusal


async def return_rest(unit: UnitOfWork, escrow: Escrow) -> None:
    """Move what an escrow still holds back to the free balance, for good: its account is closed."""
    move = moves.release(escrow)
    await must_post(unit.connection, move.accounts, move.transfers, unit.clock.now())
    await close_account(unit.connection, account_id(AccountKind.ESCROW, escrow.order_id, escrow.asset))


async def free_balance(connection: Connection, account: str, asset: str) -> int:
    """Micros that an account may spend; 0 for one that the ledger has never seen."""
    identifier = account_id(AccountKind.BALANCE, account, asset)
    found = (await load_accounts(connection, [identifier])).get(identifier)
    return 0 if found is None else found.available


def _insufficient(hold: Hold, free: int) -> DomainError:
    """The error for a hold that exceeds what is free."""
    asset = hold.escrow.asset
    return DomainError(
        INSUFFICIENT_FUNDS,
        f"the free balance is {free} micros of {asset}, and {hold.amount} are needed",
        metadata={
            "asset": asset,
            "needed_micros": str(hold.amount),
            "free_micros": str(free),
            "short_micros": str(hold.amount - free),
        },
        violations=(
            FieldViolation(
                f"accounts/{hold.escrow.account_id}/balances/{asset}", f"{hold.amount - free} micros are short"
            ),
        ),
    )
