"""Batches, the signer's transactions, scanned blocks and deposits in Postgres."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import asyncpg

from fallow_chassis.paging import TimePlace
from fallow_chassis.postgres import Connection
from fallow_receipts import Header
from fallow_settlement.domain.charge import Charge
from fallow_settlement.domain.transaction import Fees, TransactionState
from fallow_settlement.ledger_store import QUERIES
from fallow_settlement.metering_store import charge_of

MAX_BATCH_CHARGES: Final = 10_000
"""The most charges under one root."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Charges under one root on their way to the chain; ``version`` counts the events about it."""

    number: int
    chain_id: int
    anchor_address: str
    header: Header
    commitment: bytes
    state: TransactionState
    transaction_hash: str
    block_number: int
    version: int
    create_time: datetime
    payouts_through: int
    """Its payout root covers the withdrawals of batches up to this one."""
    balances_of: int = 0
    """Its payout root holds the balances that this batch took; 0 for none."""
    payable: bool = True
    """Whether its payouts count: neither it nor what it was built on was vetoed."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """Signed bytes of a transaction; all attempts of one transaction have its nonce."""

    transaction_hash: str
    number: int
    raw: bytes
    fees: Fees
    create_time: datetime
    send_time: datetime | None


@dataclass(frozen=True, slots=True)
class ChainTransaction:
    """The anchoring of one batch; ``nonce`` is None until it is signed."""

    id: int
    batch_number: int
    signer: str
    nonce: int | None
    state: TransactionState
    gas_limit: int | None
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class Deposit:
    """A deposit as a log of the vault told it; one log in one block."""

    id: str
    account_id: str
    asset: str
    amount: int
    sender: str
    state: str
    transaction_hash: str
    log_index: int
    block_number: int
    block_hash: str
    create_time: datetime
    repairs: str = ""
    """The gap that this deposit fills instead of being credited; empty for an ordinary one."""


async def lock_sealing(connection: Connection) -> None:
    """Let nobody else seal a batch until the transaction ends."""
    await connection.execute(QUERIES.get("lock_sealing"))


async def unbatched(connection: Connection) -> tuple[int, datetime | None]:
    """How many charges wait for a batch (counted up to the bound), and since when the oldest does."""
    row = await connection.fetchrow(QUERIES.get("load_unbatched_state"), MAX_BATCH_CHARGES)
    assert row is not None, "an aggregate has one row"
    return row["charges"], row["oldest"]


async def take_unbatched(connection: Connection) -> list[Charge]:
    """Take the oldest waiting charges off the queue, at most a batch of them."""
    return [charge_of(row) for row in await connection.fetch(QUERIES.get("take_unbatched_charges"), MAX_BATCH_CHARGES)]


async def insert_batch(connection: Connection, batch: Batch, charge_ids: Sequence[str]) -> None:
    """Write a new batch and the places of its charges."""
    header = batch.header
    await connection.execute(
        QUERIES.get("insert_batch"),
        batch.number,
        batch.chain_id,
        batch.anchor_address,
        header.prev,
        header.payout_parent,
        header.settlement_root,
        header.payout_root,
        header.count,
        header.payout_total,
        header.totals_hash,
        batch.commitment,
        batch.state.value,
        batch.create_time,
        batch.payouts_through,
        batch.balances_of,
    )
    await connection.execute(QUERIES.get("insert_batch_charges"), list(charge_ids), batch.number)


async def load_batch(connection: Connection, number: int, *, lock: bool = False) -> Batch | None:
    """A batch, or None."""
    query = QUERIES.get("lock_batch") if lock else QUERIES.get("load_batch")
    row = await connection.fetchrow(query, number)
    return None if row is None else batch_of(row)


async def load_last_batch(connection: Connection) -> Batch | None:
    """The batch with the highest number, or None."""
    row = await connection.fetchrow(QUERIES.get("load_last_batch"))
    return None if row is None else batch_of(row)


async def load_last_final(connection: Connection) -> Batch | None:
    """The newest batch that is final, or None."""
    row = await connection.fetchrow(QUERIES.get("load_last_final_batch"))
    return None if row is None else batch_of(row)


async def list_batches(connection: Connection, before: int, limit: int) -> list[Batch]:
    """Batches below a number (0: all), newest first."""
    return [batch_of(row) for row in await connection.fetch(QUERIES.get("list_batches"), before, limit)]


async def save_batch(connection: Connection, batch: Batch) -> None:
    """Write a batch whose row is locked."""
    await connection.execute(
        QUERIES.get("update_batch"),
        batch.number,
        batch.state.value,
        batch.transaction_hash,
        batch.block_number,
        batch.version,
    )


async def load_batch_charges(connection: Connection, number: int) -> list[Charge]:
    """The charges of a batch in the order of their leaves."""
    return [charge_of(row) for row in await connection.fetch(QUERIES.get("load_batch_charges"), number)]


async def lock_anchoring(connection: Connection) -> None:
    """Let nobody else choose the next transaction, or give anchors up as lost, until the transaction ends."""
    await connection.execute(QUERIES.get("lock_anchoring"))


async def start_transaction(connection: Connection, signer: str, now: datetime) -> None:
    """Take the oldest lost transaction up again, else make one for the oldest batch that has none; nothing where one is in flight."""
    await connection.execute(QUERIES.get("take_lost_anchor"))
    await connection.execute(QUERIES.get("start_transaction"), signer, now)


async def list_final_above(connection: Connection, number: int) -> list[Batch]:
    """Batches above a number that were final, in order."""
    return [batch_of(row) for row in await connection.fetch(QUERIES.get("list_final_above"), number)]


async def count_resending(connection: Connection) -> int:
    """How many lost transactions wait for their turn."""
    count: int = await connection.fetchval(QUERIES.get("count_resending"))
    return count


async def mark_anchors_lost(connection: Connection, above: int) -> list[int]:
    """Give up the anchors of all batches above a number; returns these numbers, each to be sent again in its turn.

    What is signed keeps its nonce and its bytes. What is not signed yet is forgotten and made anew after them.
    """
    await connection.execute(QUERIES.get("forget_unsigned_transaction"))
    return sorted(row["number"] for row in await connection.fetch(QUERIES.get("mark_anchors_lost"), above))


async def abandon_lost_anchors(connection: Connection) -> None:
    """Have those that wait made anew, because one before them needs another nonce, and theirs come after it."""
    await connection.execute(QUERIES.get("abandon_lost_anchors"))


async def load_in_flight(connection: Connection) -> ChainTransaction | None:
    """The one transaction that is on its way, with its attempts."""
    row = await connection.fetchrow(QUERIES.get("load_transaction_in_flight"))
    if row is None:
        return None
    attempts = await connection.fetch(QUERIES.get("load_attempts"), row["id"])
    return ChainTransaction(
        id=row["id"],
        batch_number=row["batch_number"],
        signer=row["signer"],
        nonce=row["nonce"],
        state=TransactionState(row["state"]),
        gas_limit=row["gas_limit"],
        attempts=tuple(_attempt(attempt) for attempt in attempts),
    )


async def load_next_nonce(connection: Connection, signer: str) -> int:
    """The nonce after the highest of a transaction that stands."""
    nonce: int = await connection.fetchval(QUERIES.get("load_next_nonce"), signer)
    return nonce


async def lock_transaction(connection: Connection, transaction: ChainTransaction) -> bool:
    """Hold a transaction's row; False where its state is not the expected one any more."""
    row = await connection.fetchrow(QUERIES.get("lock_transaction"), transaction.id, transaction.state.value)
    return row is not None


async def save_transaction(connection: Connection, transaction: ChainTransaction) -> None:
    """Write state, nonce and gas limit of a transaction whose row is locked."""
    await connection.execute(
        QUERIES.get("update_transaction"),
        transaction.id,
        transaction.state.value,
        transaction.nonce,
        transaction.gas_limit,
    )


async def insert_attempt(connection: Connection, transaction_id: int, attempt: Attempt) -> None:
    """Keep signed bytes; they are sent only after this is committed."""
    await connection.execute(
        QUERIES.get("insert_attempt"),
        attempt.transaction_hash,
        transaction_id,
        attempt.number,
        attempt.raw,
        str(attempt.fees.max_fee),
        str(attempt.fees.max_priority_fee),
        attempt.create_time,
    )


async def mark_sent(connection: Connection, transaction_hash: str, now: datetime) -> None:
    """Note when an attempt was first sent."""
    await connection.execute(QUERIES.get("mark_attempt_sent"), transaction_hash, now)


async def last_scanned(connection: Connection) -> tuple[int, str] | None:
    """Number and hash of the newest block whose logs were read."""
    row = await connection.fetchrow(QUERIES.get("load_last_scanned_block"))
    return None if row is None else (row["number"], row["hash"])


async def list_scanned(connection: Connection, limit: int) -> list[tuple[int, str]]:
    """The newest blocks whose logs were read, newest first."""
    return [(row["number"], row["hash"]) for row in await connection.fetch(QUERIES.get("list_scanned_blocks"), limit)]


async def insert_scanned(connection: Connection, number: int, block_hash: str, keep_from: int) -> None:
    """Note a block as read, and forget those below ``keep_from``."""
    await connection.execute(QUERIES.get("insert_scanned_block"), number, block_hash)
    await connection.execute(QUERIES.get("delete_scanned_blocks_before"), keep_from)


async def forget_scanned_from(connection: Connection, number: int) -> None:
    """Forget blocks from a number on: another branch has taken their place."""
    await connection.execute(QUERIES.get("delete_scanned_blocks_from"), number)


async def count_sightings(connection: Connection, block_hash: str, log_index: int) -> tuple[int, int]:
    """How often a log was seen already, and how many of these sightings stand (are not voided)."""
    row = await connection.fetchrow(QUERIES.get("count_sightings"), block_hash, log_index)
    assert row is not None, "an aggregate has one row"
    return row["sightings"], row["standing"]


async def insert_deposit(connection: Connection, deposit: Deposit) -> None:
    """Write a deposit that was seen."""
    await connection.execute(
        QUERIES.get("insert_deposit"),
        deposit.id,
        deposit.account_id,
        deposit.asset,
        deposit.amount,
        deposit.sender,
        deposit.transaction_hash,
        deposit.log_index,
        deposit.block_number,
        deposit.block_hash,
        deposit.create_time,
        deposit.repairs or None,
        deposit.state,
    )


async def void_strays_from(connection: Connection, number: int) -> None:
    """Take back deposits of nobody's in blocks from a number on."""
    await connection.execute(QUERIES.get("void_stray_deposits_from"), number)


async def list_strays(connection: Connection) -> list[Deposit]:
    """Deposits whose reference is no account's, oldest first."""
    return [_deposit(row) for row in await connection.fetch(QUERIES.get("list_stray_deposits"))]


async def lock_stray(connection: Connection, deposit_id: str) -> Deposit | None:
    """A deposit of nobody's whose row is held, or None."""
    row = await connection.fetchrow(QUERIES.get("lock_stray_deposit"), deposit_id)
    return None if row is None else _deposit(row)


async def assign_deposit(connection: Connection, deposit_id: str, account_id: str) -> None:
    """Make a deposit of nobody's an account's own."""
    await connection.execute(QUERIES.get("assign_deposit"), deposit_id, account_id)


async def lock_pending_from(connection: Connection, number: int) -> list[Deposit]:
    """Pending deposits in blocks from a number on."""
    return [_deposit(row) for row in await connection.fetch(QUERIES.get("lock_pending_deposits_from"), number)]


async def lock_pending_to(connection: Connection, number: int) -> list[Deposit]:
    """Pending deposits in blocks up to a number."""
    return [_deposit(row) for row in await connection.fetch(QUERIES.get("lock_pending_deposits_to"), number)]


async def list_posted_from(connection: Connection, number: int) -> list[Deposit]:
    """Posted deposits in blocks from a number on."""
    return [_deposit(row) for row in await connection.fetch(QUERIES.get("list_posted_deposits_from"), number)]


async def set_deposit_state(connection: Connection, deposit_id: str, state: str) -> None:
    """Move a deposit to POSTED, VOIDED or LOST."""
    await connection.execute(QUERIES.get("update_deposit"), deposit_id, state)


async def list_deposits(connection: Connection, account_id: str, before: TimePlace | None, limit: int) -> list[Deposit]:
    """Deposits of an account, newest first."""
    time, identifier = (None, "") if before is None else before
    rows = await connection.fetch(QUERIES.get("list_deposits"), account_id, time, identifier, limit)
    return [_deposit(row) for row in rows]


def batch_of(row: asyncpg.Record) -> Batch:
    """A batch from its row."""
    return Batch(
        number=row["number"],
        chain_id=row["chain_id"],
        anchor_address=row["anchor_address"],
        header=Header(
            batch_id=row["number"],
            prev=row["parent_commitment"],
            payout_parent=row["payout_parent"],
            settlement_root=row["settlement_root"],
            payout_root=row["payout_root"],
            count=row["charge_count"],
            payout_total=row["payout_total"],
            totals_hash=row["totals_hash"],
        ),
        commitment=row["commitment"],
        state=TransactionState(row["state"]),
        transaction_hash=row["transaction_hash"],
        block_number=row["block_number"],
        version=row["version"],
        create_time=row["create_time"],
        payouts_through=row["payouts_through"],
        balances_of=row["balances_of"],
        payable=row["payable"],
    )


def _attempt(row: asyncpg.Record) -> Attempt:
    """An attempt from its row."""
    return Attempt(
        transaction_hash=row["transaction_hash"],
        number=row["number"],
        raw=row["raw"],
        fees=Fees(int(row["max_fee"]), int(row["max_priority_fee"])),
        create_time=row["create_time"],
        send_time=row["send_time"],
    )


def _deposit(row: asyncpg.Record) -> Deposit:
    """A deposit from its row."""
    return Deposit(
        id=row["id"],
        account_id=row["account_id"],
        asset=row["asset"],
        amount=row["amount"],
        sender=row["sender"],
        state=row["state"],
        transaction_hash=row["transaction_hash"],
        log_index=row["log_index"],
        block_number=row["block_number"],
        block_hash=row["block_hash"],
        create_time=row["create_time"],
        repairs=row["repairs"] or "",
    )
