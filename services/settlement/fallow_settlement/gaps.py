"""Gaps: confirmed deposits that left the chain, in a reorganisation deeper than the confirmations.

The vault lacks the sum, so it moves to the operator's account CHAIN_LOSS, and as much of the tenant's free balance as is
there is held back by a pending transfer. While a gap is open nobody withdraws. It ends when the transaction is mined
again (REPAIRED: all is as it was), or when an operator decides because it does not come: WRITTEN_OFF bears the loss and
lets the tenant's balance go, RECOVERED takes what was held back. What comes after such a decision repairs it all the same.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import asyncpg

from fallow_chassis.logging import get_logger
from fallow_chassis.postgres import Connection, Database, UnitOfWork
from fallow_settlement import ledger_store
from fallow_settlement.chain_store import Deposit
from fallow_settlement.domain import moves
from fallow_settlement.domain.ledger import AccountKind, account_id
from fallow_settlement.domain.moves import Moves
from fallow_settlement.ledger_store import QUERIES, must_post


class GapState(StrEnum):
    """OPEN, or how it ended."""

    OPEN = "OPEN"
    REPAIRED = "REPAIRED"
    WRITTEN_OFF = "WRITTEN_OFF"
    RECOVERED = "RECOVERED"


_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Gap:
    """What the vault lacks, or lacked, for one deposit; sums are micros."""

    id: str
    deposit_id: str
    account_id: str
    asset: str
    amount: int
    frozen: int
    state: GapState
    transaction_hash: str
    create_time: datetime


async def book(unit: UnitOfWork, deposit: Deposit) -> None:
    """Book what the vault lacks for a posted deposit that left the chain, and hold back what is there of it."""
    identifier = f"{deposit.id}-{await unit.connection.fetchval(QUERIES.get('count_gaps'), deposit.id) + 1}"
    balance = account_id(AccountKind.BALANCE, deposit.account_id, deposit.asset)
    locked = await ledger_store.lock_accounts(unit.connection, [balance])
    frozen = min(locked[balance].available, deposit.amount)
    move = moves.gap_booked(identifier, deposit.account_id, deposit.asset, deposit.amount, frozen)
    await must_post(unit.connection, move.accounts, move.transfers, unit.clock.now())
    await unit.connection.execute(QUERIES.get("insert_gap"), identifier, deposit.id, frozen, unit.clock.now())
    _log.critical("posted_deposit_left_the_chain", gap=identifier, amount_micros=deposit.amount, frozen_micros=frozen)


async def decide(unit: UnitOfWork, gap_id: str, how: GapState) -> bool:
    """End an open gap as an operator decides, WRITTEN_OFF or RECOVERED; False where it has ended already, or is none."""
    gap = await _lock(unit.connection, gap_id)
    if gap is None or gap.state is not GapState.OPEN:
        return False
    moved = moves.gap_recovered if how is GapState.RECOVERED else moves.gap_written_off
    await _end(unit, gap, how, moved(gap.id, gap.account_id, gap.asset, gap.frozen))
    return True


async def repair(unit: UnitOfWork, gap_id: str) -> None:
    """End a gap because its deposit is on the chain again, whatever an operator decided before."""
    gap = await _lock(unit.connection, gap_id)
    assert gap is not None, "what a deposit repairs is there"
    assert gap.state is not GapState.REPAIRED, "one deposit repairs a gap, once"
    held_back = gap.frozen if gap.state is GapState.OPEN else 0
    taken = gap.frozen if gap.state is GapState.RECOVERED else 0
    move = moves.gap_repaired(gap.id, gap.account_id, gap.asset, gap.amount, held_back=held_back, taken=taken)
    await _end(unit, gap, GapState.REPAIRED, move)


async def _lock(connection: Connection, gap_id: str) -> Gap | None:
    """A gap whose row is held."""
    row = await connection.fetchrow(QUERIES.get("lock_gap"), gap_id)
    return None if row is None else _gap(row)


async def _end(unit: UnitOfWork, gap: Gap, how: GapState, move: Moves) -> None:
    """Post what an end moves, and note it."""
    await must_post(unit.connection, move.accounts, move.transfers, unit.clock.now())
    await unit.connection.execute(QUERIES.get("resolve_gap"), gap.id, how.value, unit.clock.now())
    _log.warning("chain_gap_ended", gap=gap.id, how=how)


async def is_open(connection: Connection) -> bool:
    """Whether any gap is open, and so nobody withdraws."""
    found: bool = await connection.fetchval(QUERIES.get("has_open_gap"))
    return found


async def gap_for(connection: Connection, transaction_hash: str, account: str, amount: int) -> str:
    """The gap that a deposit of a transaction which is mined again fills; empty for none."""
    return await connection.fetchval(QUERIES.get("find_gap"), transaction_hash, account, amount) or ""


async def reopen_lost(connection: Connection, block_hash: str, log_index: int) -> None:
    """Let a lost deposit whose very block is back wait for its confirmations, to repair its own gap."""
    await connection.execute(QUERIES.get("reopen_lost_deposit"), block_hash, log_index)


async def list_gaps(database: Database) -> list[Gap]:
    """All gaps there ever were, oldest first."""
    async with database.read() as connection:
        return [_gap(row) for row in await connection.fetch(QUERIES.get("list_gaps"))]


def _gap(row: asyncpg.Record) -> Gap:
    """A gap from its row."""
    return Gap(
        id=row["id"],
        deposit_id=row["deposit_id"],
        account_id=row["account_id"],
        asset=row["asset"],
        amount=row["amount"],
        frozen=row["frozen"],
        state=GapState(row["state"]),
        transaction_hash=row["transaction_hash"],
        create_time=row["create_time"],
    )
