"""Withdrawals, payouts and claims in Postgres."""

from dataclasses import dataclass
from datetime import datetime

import asyncpg

from fallow_chassis.paging import TimePlace
from fallow_chassis.postgres import Connection
from fallow_receipts import Payout
from fallow_settlement.domain.transaction import TransactionState
from fallow_settlement.ledger_store import QUERIES


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """Money that an account withdrew to ``payee``.

    ``batch_number`` is the batch whose payout root covers it first (0 for none yet), ``batch_state`` where that stands.
    ``through`` is the sum of the account's withdrawals up to and with this one, in micros, in the order of batches.
    ``overpaid`` ones are no withdrawals, but what the vault paid without our owing it; nobody is told of them.
    """

    id: str
    account_id: str
    asset: str
    amount: int
    payee: str
    create_time: datetime
    batch_number: int = 0
    batch_state: TransactionState | None = None
    through: int = 0
    overpaid: bool = False


@dataclass(frozen=True, slots=True)
class VaultClaim:
    """What the vault paid to an account's payee, as one log in one block tells; ``total`` is all it ever paid it.

    ``account_id`` is empty where the leaf was of no account's; none of ours is.
    """

    account_id: str
    payee: str
    amount: int
    total: int
    transaction_hash: str
    log_index: int
    block_number: int
    block_hash: str


async def insert_withdrawal(connection: Connection, withdrawal: Withdrawal) -> None:
    """Write a new withdrawal."""
    await connection.execute(
        QUERIES.get("insert_withdrawal"),
        withdrawal.id,
        withdrawal.account_id,
        withdrawal.asset,
        withdrawal.amount,
        withdrawal.payee,
        withdrawal.create_time,
        withdrawal.overpaid,
    )


async def is_owed(connection: Connection, claim: VaultClaim) -> bool:
    """Whether one of our roots was to pay what the vault paid."""
    found: bool = await connection.fetchval(QUERIES.get("is_claim_owed"), claim.account_id, claim.total, claim.payee)
    return found


async def load_withdrawal(connection: Connection, withdrawal_id: str) -> Withdrawal | None:
    """A withdrawal, without ``through``; or None."""
    row = await connection.fetchrow(QUERIES.get("load_withdrawal"), withdrawal_id)
    return None if row is None else _withdrawal(row)


async def list_withdrawals(
    connection: Connection, account_id: str, before: TimePlace | None, limit: int
) -> list[Withdrawal]:
    """Withdrawals of an account, newest first."""
    time, identifier = (None, "") if before is None else before
    rows = await connection.fetch(QUERIES.get("list_withdrawals"), account_id, time, identifier, limit)
    return [_withdrawal(row) for row in rows]


async def oldest_unbatched(connection: Connection) -> datetime | None:
    """Since when the oldest withdrawal waits for a batch."""
    oldest: datetime | None = await connection.fetchval(QUERIES.get("load_unbatched_withdrawals"))
    return oldest


async def take_into_batch(connection: Connection, batch_number: int) -> None:
    """Give all withdrawals that wait to a batch that is about to be written."""
    await connection.execute(QUERIES.get("batch_withdrawals"), batch_number)


async def load_payouts(connection: Connection, through: int) -> list[Payout]:
    """The payouts of a tree that covers the withdrawals of batches up to one, in the order of accounts."""
    rows = await connection.fetch(QUERIES.get("load_payouts"), through)
    return [Payout(row["account_id"], row["payee"], row["total"]) for row in rows]


async def load_payout_total(connection: Connection, batch_number: int) -> int:
    """The most that a batch's payout root and all before it may pay."""
    total: int = await connection.fetchval(QUERIES.get("load_payout_total"), batch_number)
    return total


async def list_claimable_batches(connection: Connection, account_id: str, limit: int) -> list[int]:
    """Numbers of anchored batches that cover a withdrawal of the account first, newest first."""
    rows = await connection.fetch(QUERIES.get("list_claimable_batches"), account_id, limit)
    return [row["number"] for row in rows]


async def insert_claim(connection: Connection, claim: VaultClaim) -> None:
    """Write a claim that was seen; one that stands already stays."""
    await connection.execute(
        QUERIES.get("insert_claim"),
        claim.block_hash,
        claim.log_index,
        claim.account_id,
        claim.payee,
        claim.amount,
        claim.total,
        claim.transaction_hash,
        claim.block_number,
    )


async def forget_pending_claims_from(connection: Connection, number: int) -> None:
    """Forget claims that are not confirmed, in blocks from a number on."""
    await connection.execute(QUERIES.get("delete_pending_claims_from"), number)


async def lose_posted_claims_from(connection: Connection, number: int) -> list[VaultClaim]:
    """Forget the confirmed claims in blocks from a number on, which have left the chain; they are returned."""
    return [_claim(row) for row in await connection.fetch(QUERIES.get("lose_posted_claims_from"), number)]


async def confirm_claims_to(connection: Connection, number: int) -> list[VaultClaim]:
    """Confirm the claims in blocks up to a number; those that were not before."""
    return [_claim(row) for row in await connection.fetch(QUERIES.get("post_claims_to"), number)]


def _withdrawal(row: asyncpg.Record) -> Withdrawal:
    """A withdrawal from its row."""
    state = row["batch_state"]
    return Withdrawal(
        id=row["id"],
        account_id=row["account_id"],
        asset=row["asset"],
        amount=row["amount"],
        payee=row["payee"],
        create_time=row["create_time"],
        batch_number=row["batch_number"] or 0,
        batch_state=None if state is None else TransactionState(state),
        through=row["through"],
    )


def _claim(row: asyncpg.Record) -> VaultClaim:
    """A claim from its row."""
    return VaultClaim(
        account_id=row["account_id"],
        payee=row["payee"],
        amount=row["amount"],
        total=row["total"],
        transaction_hash=row["transaction_hash"],
        log_index=row["log_index"],
        block_number=row["block_number"],
        block_hash=row["block_hash"],
    )
