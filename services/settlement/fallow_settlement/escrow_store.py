"""Escrows in Postgres."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from fallow_chassis.postgres import Connection, encode_json
from fallow_settlement.domain.escrow import Escrow, EscrowState
from fallow_settlement.ledger_store import QUERIES


@dataclass(frozen=True, slots=True)
class Opened:
    """An escrow with what opened it; a tombstone was opened by nothing."""

    escrow: Escrow
    opening: Mapping[str, Any]


async def lock_names(connection: Connection, order_ids: Collection[str]) -> None:
    """Let nobody else open or release the escrows of orders until the transaction ends, whether they exist or not."""
    await connection.execute(QUERIES.get("lock_escrow_names"), list(order_ids))


async def load_escrow(connection: Connection, order_id: str, *, lock: bool = False) -> Escrow | None:
    """An escrow, or None; ``lock`` holds its row until the transaction ends."""
    query = QUERIES.get("lock_escrow") if lock else QUERIES.get("load_escrow")
    row = await connection.fetchrow(query, order_id)
    return None if row is None else _escrow(row)


async def lock_escrows(connection: Connection, order_ids: Collection[str]) -> list[Escrow]:
    """Escrows of orders, held until the transaction ends, by order; those that do not exist are left out."""
    return [_escrow(row) for row in await connection.fetch(QUERIES.get("lock_escrows"), list(order_ids))]


async def load_opened(connection: Connection, order_ids: Collection[str]) -> dict[str, Opened]:
    """The escrows of orders, by order, each with what opened it."""
    rows = await connection.fetch(QUERIES.get("load_escrows"), list(order_ids))
    return {row["order_id"]: Opened(_escrow(row), row["opening"]) for row in rows}


async def insert_escrows(connection: Connection, opened: Sequence[Opened]) -> None:
    """Write new escrows with what opened them."""
    if not opened:
        return
    listed = [one.escrow for one in opened]
    await connection.execute(
        QUERIES.get("insert_escrows"),
        [escrow.order_id for escrow in listed],
        [escrow.account_id for escrow in listed],
        [escrow.asset for escrow in listed],
        [escrow.state.value for escrow in listed],
        [escrow.deposited for escrow in listed],
        [escrow.top_up for escrow in listed],
        [escrow.budget for escrow in listed],
        [escrow.create_time for escrow in listed],
        [escrow.close_time for escrow in listed],
        [escrow.version for escrow in listed],
        [encode_json(dict(one.opening)) for one in opened],
        [escrow.hold for escrow in listed],
    )


async def save_escrow(connection: Connection, escrow: Escrow) -> None:
    """Write a changed escrow whose row is locked."""
    await save_escrows(connection, [escrow])


async def save_escrows(connection: Connection, escrows: Sequence[Escrow]) -> None:
    """Write changed escrows whose rows are locked."""
    status = await connection.execute(
        QUERIES.get("update_escrows"),
        [escrow.order_id for escrow in escrows],
        [escrow.state.value for escrow in escrows],
        [escrow.deposited for escrow in escrows],
        [escrow.charged for escrow in escrows],
        [escrow.refunded for escrow in escrows],
        [escrow.end_time for escrow in escrows],
        [escrow.close_time for escrow in escrows],
        [escrow.funds_end_asked for escrow in escrows],
        [escrow.version for escrow in escrows],
        [escrow.top_up for escrow in escrows],
        [escrow.budget for escrow in escrows],
        [escrow.hold for escrow in escrows],
        [escrow.resizes for escrow in escrows],
        [escrow.grace_end_time for escrow in escrows],
        [escrow.pauses for escrow in escrows],
        [escrow.pauses_told for escrow in escrows],
    )
    assert status == f"UPDATE {len(escrows)}", "an escrow that was locked is there"


async def list_chargeable(connection: Connection, after: str, limit: int) -> list[tuple[str, int]]:
    """Orders with proven time that is not charged yet and funds to charge, by id, each with the number of its charges."""
    rows = await connection.fetch(QUERIES.get("list_chargeable_orders"), after, limit)
    return [(row["order_id"], row["charges"]) for row in rows]


async def list_closing(connection: Connection, after: str, limit: int) -> list[str]:
    """Orders that have ended and whose rest is not returned yet, by id."""
    return [row["order_id"] for row in await connection.fetch(QUERIES.get("list_closing_orders"), after, limit)]


async def list_suspended(connection: Connection, after: str, limit: int) -> list[str]:
    """Orders whose escrow is used up and that have not ended yet, by id."""
    return [row["order_id"] for row in await connection.fetch(QUERIES.get("list_suspended_orders"), after, limit)]


async def list_untold(connection: Connection, after: str, limit: int) -> list[tuple[str, bool, int]]:
    """Orders that were suspended or resumed without bidding knowing of it, by id: whether suspended, and the count."""
    rows = await connection.fetch(QUERIES.get("list_untold_orders"), after, limit)
    return [(row["order_id"], row["state"] == EscrowState.SUSPENDED, row["pauses"]) for row in rows]


async def load_suspended(connection: Connection, order_ids: Collection[str]) -> set[str]:
    """Those of some orders whose escrow is used up."""
    return {row["order_id"] for row in await connection.fetch(QUERIES.get("load_suspended"), list(order_ids))}


async def drop_tombstones_before(connection: Connection, time: datetime) -> None:
    """Forget tombstones that were left before an instant."""
    await connection.execute(QUERIES.get("drop_old_tombstones"), time)


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
        grace_end_time=row["grace_end_time"],
        pauses=row["pauses"],
        pauses_told=row["pauses_told"],
    )
