"""Escrows in Postgres."""

from datetime import datetime
from typing import Any

import asyncpg

from fallow_chassis.postgres import Connection
from fallow_settlement.domain.escrow import Escrow, EscrowState
from fallow_settlement.ledger_store import QUERIES


async def lock_name(connection: Connection, order_id: str) -> None:
    """Let nobody else open or release the escrow of an order until the transaction ends, whether it exists or not."""
    await connection.execute(QUERIES.get("lock_escrow_name"), order_id)


async def load_escrow(connection: Connection, order_id: str, *, lock: bool = False) -> Escrow | None:
    """An escrow, or None; ``lock`` holds its row until the transaction ends."""
    query = QUERIES.get("lock_escrow") if lock else QUERIES.get("load_escrow")
    row = await connection.fetchrow(query, order_id)
    return None if row is None else _escrow(row)


async def load_opening(connection: Connection, order_id: str) -> dict[str, Any]:
    """What opened an escrow that exists."""
    row = await connection.fetchrow(QUERIES.get("load_escrow"), order_id)
    assert row is not None, "the escrow exists"
    opening: dict[str, Any] = row["opening"]
    return opening


async def insert_escrow(connection: Connection, escrow: Escrow, opening: dict[str, Any]) -> None:
    """Write a new escrow with what opened it."""
    await connection.execute(
        QUERIES.get("insert_escrow"),
        escrow.order_id,
        escrow.account_id,
        escrow.asset,
        escrow.state.value,
        escrow.deposited,
        escrow.charged,
        escrow.refunded,
        escrow.top_up,
        escrow.budget,
        escrow.create_time,
        escrow.end_time,
        escrow.close_time,
        escrow.funds_end_asked,
        escrow.version,
        opening,
        escrow.hold,
        escrow.resizes,
    )


async def save_escrow(connection: Connection, escrow: Escrow) -> None:
    """Write a changed escrow whose row is locked."""
    status = await connection.execute(
        QUERIES.get("update_escrow"),
        escrow.order_id,
        escrow.state.value,
        escrow.deposited,
        escrow.charged,
        escrow.refunded,
        escrow.end_time,
        escrow.close_time,
        escrow.funds_end_asked,
        escrow.version,
        escrow.top_up,
        escrow.budget,
        escrow.hold,
        escrow.resizes,
    )
    assert status == "UPDATE 1", "an escrow that was locked is there"


async def list_chargeable(connection: Connection, after: str, limit: int) -> list[str]:
    """Orders with proven time that is not charged yet and funds to charge, by id."""
    return [row["order_id"] for row in await connection.fetch(QUERIES.get("list_chargeable_orders"), after, limit)]


async def list_closing(connection: Connection, after: str, limit: int) -> list[str]:
    """Orders that have ended and whose rest is not returned yet, by id."""
    return [row["order_id"] for row in await connection.fetch(QUERIES.get("list_closing_orders"), after, limit)]


async def list_used_up(connection: Connection, limit: int) -> list[str]:
    """Orders whose escrow is used up and that bidding was not asked to end yet."""
    return [row["order_id"] for row in await connection.fetch(QUERIES.get("list_used_up_orders"), limit)]


async def sum_held(connection: Connection, account_id: str, asset: str) -> int:
    """Micros held in an account's live escrows."""
    held: int = await connection.fetchval(QUERIES.get("sum_held"), account_id, asset)
    return held


def _escrow(row: asyncpg.Record) -> Escrow:
    """An escrow from its row."""
    end_time: datetime | None = row["end_time"]
    return Escrow(
        order_id=row["order_id"],
        account_id=row["account_id"],
        asset=row["asset"],
        state=EscrowState(row["state"]),
        deposited=row["deposited"],
        create_time=row["create_time"],
        charged=row["charged"],
        refunded=row["refunded"],
        top_up=row["top_up"],
        budget=row["budget"],
        end_time=end_time,
        close_time=row["close_time"],
        funds_end_asked=row["funds_end_asked"],
        version=row["version"],
        hold=row["hold"],
        resizes=row["resizes"],
    )
