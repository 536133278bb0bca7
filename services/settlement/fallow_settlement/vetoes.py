"""Vetoes: payout roots that the anchor's guardian has stopped, and all that was built on them.

Settlements go on. The payout root of each batch from then on says what the last one that counts said, and nobody withdraws, until an
operator has found out why there was a veto and releases it; then the next batch takes up what waited, under a root of
its own. A veto counts from the moment when it is seen, and no more once its block has left the chain.
"""

from dataclasses import dataclass
from datetime import datetime

from fallow_chassis.logging import get_logger
from fallow_chassis.postgres import Connection, Database, UnitOfWork
from fallow_settlement.chain import Block, Log
from fallow_settlement.chain_store import Batch, batch_of
from fallow_settlement.contracts_abi import read_vetoed
from fallow_settlement.ledger_store import QUERIES

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Veto:
    """Batches from ``batch_number`` to before ``next_batch`` do not count; ``release_time`` is None while nobody withdraws."""

    batch_number: int
    next_batch: int
    transaction_hash: str
    create_time: datetime
    release_time: datetime | None


async def book(unit: UnitOfWork, block: Block, log: Log) -> None:
    """Write a veto that was seen; one that stands already stays."""
    seen = read_vetoed(log)
    await unit.connection.execute(
        QUERIES.get("insert_veto"),
        block.hash,
        log.index,
        seen.batch_number,
        seen.next_batch,
        log.transaction_hash,
        block.number,
        unit.clock.now(),
    )
    await unit.connection.execute(QUERIES.get("mark_payable"))
    _log.critical("payouts_vetoed", batch=seen.batch_number, heirs=seen.next_batch - seen.batch_number - 1)


async def forget_from(connection: Connection, number: int) -> None:
    """Forget the vetoes of blocks that have left the chain."""
    gone = await connection.fetch(QUERIES.get("delete_vetoes_from"), number)
    if gone:
        await connection.execute(QUERIES.get("mark_payable"))
        _log.warning("veto_left_the_chain", batches=[row["batch_number"] for row in gone])


async def is_open(connection: Connection) -> bool:
    """Whether any veto waits for an operator, and so nobody withdraws."""
    found: bool = await connection.fetchval(QUERIES.get("has_open_veto"))
    return found


async def last_payable(connection: Connection) -> Batch | None:
    """The last batch whose payouts count, anchored or on its way; the next one's payout parent."""
    row = await connection.fetchrow(QUERIES.get("load_last_payable"))
    return None if row is None else batch_of(row)


async def list_vetoes(database: Database) -> list[Veto]:
    """All vetoes, oldest first."""
    async with database.read() as connection:
        rows = await connection.fetch(QUERIES.get("list_vetoes"))
    return [
        Veto(row["batch_number"], row["next_batch"], row["transaction_hash"], row["create_time"], row["release_time"])
        for row in rows
    ]


async def release(unit: UnitOfWork) -> int:
    """Let withdrawals go on; returns how many vetoes had stopped them."""
    status = await unit.connection.execute(QUERIES.get("release_vetoes"), unit.clock.now())
    return int(status.removeprefix("UPDATE "))
