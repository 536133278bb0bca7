"""Changes on their way, and revisions of workloads: each named query of ``sql/updates.sql`` behind a typed function."""

from datetime import datetime

import asyncpg

from fallow_chassis.postgres import Connection
from fallow_order.domain.order import Order
from fallow_order.domain.update import Holding, PendingUpdate, Update
from fallow_order.store import QUERIES, Sealed


async def next_number(connection: Connection, order_id: str) -> int:
    """The number that ``take_number`` would give; the order's row must be locked."""
    return int(await connection.fetchval(QUERIES.get("next_update_number"), order_id))


async def take_number(connection: Connection, order_id: str) -> int:
    """A number that no change of the order had before."""
    return int(await connection.fetchval(QUERIES.get("take_update_number"), order_id))


async def load_applied(connection: Connection, order_id: str) -> int:
    """The number of the last change that was made after settlement was asked; 0 for none."""
    return int(await connection.fetchval(QUERIES.get("load_update_applied"), order_id))


async def save_update(connection: Connection, pending: PendingUpdate, due_at: datetime) -> None:
    """Store what is on its way; it takes the place of the order's last one."""
    update = pending.update
    await connection.execute(
        QUERIES.get("save_update"),
        pending.order_id,
        pending.number,
        pending.request_id,
        pending.restoring,
        update.specification,
        dict(update.labels),
        update.holding.hold_micros,
        update.holding.budget_micros,
        update.holding.auto_top_up,
        update.term_ms,
        list(update.revisions),
        update.summary,
        due_at,
    )


async def load_update(connection: Connection, order_id: str) -> PendingUpdate | None:
    """What is on its way for an order."""
    row = await connection.fetchrow(QUERIES.get("load_update"), order_id)
    return None if row is None else _pending(row)


async def list_due(connection: Connection, now: datetime, limit: int) -> list[PendingUpdate]:
    """Changes that were left half-way."""
    return [_pending(row) for row in await connection.fetch(QUERIES.get("list_due_updates"), now, limit)]


async def postpone(connection: Connection, pending: PendingUpdate, due_at: datetime) -> None:
    """Look at a change again later."""
    await connection.execute(QUERIES.get("postpone_update"), pending.order_id, pending.number, due_at)


async def delete_update(connection: Connection, pending: PendingUpdate) -> None:
    """Forget a change."""
    await connection.execute(QUERIES.get("delete_update"), pending.order_id, pending.number)


async def apply_update(connection: Connection, before: Order, after: Order, number: int) -> None:
    """Write what only a change touches; ``store.save_order`` writes the rest of the order."""
    await connection.execute(
        QUERIES.get("apply_update"),
        after.id,
        after.specification,
        after.hold_micros,
        after.budget_micros,
        after.auto_top_up,
        after.term_ms,
        number,
    )
    for old, new in zip(before.groups, after.groups, strict=True):
        if new.revision != old.revision:
            await connection.execute(QUERIES.get("set_group_revision"), after.id, new.index, new.revision)


async def insert_workload(connection: Connection, order_id: str, index: int, sealed: Sealed, revision: int) -> None:
    """Store one later revision of one group's workload, encrypted."""
    await connection.execute(
        QUERIES.get("insert_workload"), order_id, index, sealed.key_id, sealed.nonce, sealed.ciphertext, revision
    )


async def note_lease_revision(
    connection: Connection, order_id: str, index: int, generation: int, revision: int
) -> None:
    """Note which revision a generation was matched with, if it is the group's present one."""
    await connection.execute(QUERIES.get("note_lease_revision"), order_id, index, generation, revision)


async def delete_older_workloads(connection: Connection, order_id: str, index: int, generation: int) -> None:
    """Forget the revisions before the one that runs now, if that generation is the group's present one."""
    await connection.execute(QUERIES.get("delete_older_workloads"), order_id, index, generation)


async def delete_newer_workloads(connection: Connection, order_id: str) -> None:
    """Forget the revisions that came with a change that is not made."""
    await connection.execute(QUERIES.get("delete_newer_workloads"), order_id)


def _pending(row: asyncpg.Record) -> PendingUpdate:
    """A change of a row."""
    update = Update(
        specification=row["specification"],
        labels=tuple(sorted(row["labels"].items())),
        holding=Holding(row["asset"], row["hold_micros"], row["budget_micros"], row["auto_top_up"]),
        term_ms=row["term_ms"],
        revisions=tuple(row["revisions"]),
        summary=row["summary"],
    )
    return PendingUpdate(row["order_id"], row["number"], row["request_id"], row["restoring"], update)
