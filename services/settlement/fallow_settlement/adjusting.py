"""An operator's own transfers: between balances, earnings, fees and the pool, and the accounts that have no bottom.

Escrows move by orders, what is owed on the chain by withdrawals and claims: a hand on those would part the books from the
orders and from the vault, so their accounts are refused. Programmes' budgets and the pool are spent by programmes and by grants
that two operators approve; the pool takes what anybody gives. The ids of an operator's transfers have a name space of their own.
"""

from collections.abc import Sequence
from typing import Final

from fallow_chassis.errors import invalid_field
from fallow_chassis.postgres import Database
from fallow_settlement.domain.ledger import AccountKind, Result, Transfer, account_id, new_account
from fallow_settlement.domain.rules import Rules
from fallow_settlement.ledger_store import post_transfers

OWN: Final = "own-"
"""What the id of an operator's transfer begins with."""
REFUSED_KINDS: Final = {
    "debit_account": (AccountKind.ESCROW, AccountKind.PAYABLE, AccountKind.PROGRAMME, AccountKind.POOL),
    "credit_account": (AccountKind.ESCROW, AccountKind.PAYABLE, AccountKind.PROGRAMME),
}
"""Kinds of account that an operator does not move, by the side of a transfer."""


class Adjusting:
    """The use-case."""

    def __init__(self, database: Database, rules: Rules) -> None:
        """Take where the ledger stands, and the assets that are taken."""
        self._database = database
        self._pools = {pool.id: pool for pool in (new_account(AccountKind.POOL, "", asset) for asset in rules.assets)}

    async def post(self, transfers: Sequence[Transfer]) -> tuple[Result, ...]:
        """Make transfers, each with its result; INVALID_FIELD for an account that an operator does not move."""
        for index, transfer in enumerate(transfers):
            for side, refused in REFUSED_KINDS.items():
                kind = next((kind for kind in refused if _is_of(getattr(transfer, side), kind)), None)
                if kind is not None:
                    raise invalid_field(
                        f"transfers[{index}].{side}",
                        f"accounts of kind {kind} move by orders, withdrawals, programmes and grants alone",
                    )
        async with self._database.transaction() as unit:
            # A pool that no charge has filled yet can be given to all the same.
            pools = [self._pools[one.credit_account] for one in transfers if one.credit_account in self._pools]
            return await post_transfers(unit.connection, pools, transfers, unit.clock.now())


def _is_of(account: str, kind: AccountKind) -> bool:
    """Whether an account's id says that it is of a kind."""
    return account.startswith(account_id(kind, "", "-").rstrip("-") + "-")
