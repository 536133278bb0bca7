"""Balances under the payout root: what accounts get at the vault if the operator falls silent for good.

An account names the address that is to get it. Now and then a batch takes what each such account has, free, earned and
held for its orders, and puts a leaf for each under its payout root; the batches after it hold the same leaves until
others are taken. A root that owes more than the one before holds new ones: money that was withdrawn must not stand in a
balance, its own or a tenant's that paid it, as well. The vault pays them once, after an escape alone, by the last root that counts. Who keeps what
``claimable`` answers, from the newest batch, needs nobody to be paid.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from fallow_chassis.errors import DomainError
from fallow_chassis.postgres import Connection, Database
from fallow_receipts import Header, Payout
from fallow_settlement import chain_store, withdrawal_store
from fallow_settlement.chain_store import Batch, batch_of
from fallow_settlement.contracts_abi import escape_seconds_call, last_payable_at_call
from fallow_settlement.domain.reasons import NOTHING_TO_CLAIM
from fallow_settlement.ledger_store import QUERIES
from fallow_settlement.payouts import check_payee, payout_tree
from fallow_settlement.ports import ChainNode
from fallow_settlement.settings import Contracts

TAKEN_EVERY: Final = timedelta(hours=1)
"""How old the balances under a new payout root are at most."""


@dataclass(frozen=True, slots=True)
class BalanceClaim:
    """A balance under the newest anchored root; ``escape_time`` is when the operator's silence would let anyone escape."""

    header: Header
    balance: Payout
    proof: tuple[bytes, ...]
    escape_time: datetime


class Balances:
    """The use-cases of balances."""

    def __init__(self, database: Database, node: ChainNode, contracts: Contracts) -> None:
        """Take where balances stand, and the vault."""
        self._database = database
        self._node = node
        self._contracts = contracts

    async def set_payee(self, account: str, payee: str, *, keeps: bool) -> str:
        """Name the address that gets an account's balance; ``keeps`` leaves one that was named before. Answers who it is."""
        check_payee(payee, self._contracts, "payee")
        async with self._database.transaction() as unit:
            named: str = await unit.connection.fetchval(
                QUERIES.get("set_balance_payee"), account, payee.lower(), unit.clock.now(), keeps
            )
        return named

    async def claimable(self, account: str) -> BalanceClaim:
        """What an account needs to claim its balance after an escape; NOTHING_TO_CLAIM where no root holds one."""
        async with self._database.read() as connection:
            row = await connection.fetchrow(QUERIES.get("load_last_anchored_payable"))
            batch = None if row is None else batch_of(row)
            held = [] if batch is None else await load_balances(connection, batch.balances_of)
            payouts = [] if batch is None else await withdrawal_store.load_payouts(connection, batch.payouts_through)
        index = next((index for index, balance in enumerate(held) if balance.account == account), None)
        if batch is None or index is None:
            raise DomainError(
                NOTHING_TO_CLAIM,
                "no anchored payout root holds a balance of the account: name a payee and wait for the next hour's batch",
                metadata={"account": f"accounts/{account}"},
            )
        tree = payout_tree(payouts, held, self._contracts)
        assert tree.root == batch.header.payout_root, "the leaves of a batch never change"
        alive = int.from_bytes(await self._node.call(self._contracts.anchor, last_payable_at_call()))
        silence = int.from_bytes(await self._node.call(self._contracts.vault, escape_seconds_call()))
        opens = datetime.fromtimestamp(alive + silence, self._database.clock.now().tzinfo)
        return BalanceClaim(batch.header, held[index], tree.proof(len(payouts) + index), opens)


async def take(
    connection: Connection, number: int, parent: Batch | None, asset: str, now: datetime, *, owes_more: bool
) -> int:
    """The batch whose balances the root of batch ``number`` holds, 0 for none: taken now, or as before where they still hold.

    ``owes_more`` says that the root's payouts are not its parent's.
    """
    last = await connection.fetchval(QUERIES.get("load_last_taken"))
    if last is not None and not owes_more:
        taken = await chain_store.load_batch(connection, last)
        assert taken is not None, "balances were taken by a batch"
        if now - taken.create_time < TAKEN_EVERY:
            return 0 if parent is None else parent.balances_of
    status = await connection.execute(QUERIES.get("take_balances"), number, asset)
    return 0 if status == "INSERT 0 0" else number


async def load_balances(connection: Connection, taken_by: int) -> list[Payout]:
    """The balances that a batch took, in the order of accounts; each total is all that was owed then and what there was besides."""
    rows = await connection.fetch(QUERIES.get("load_balances"), taken_by)
    return [Payout(row["account_id"], row["payee"], row["total"]) for row in rows]
