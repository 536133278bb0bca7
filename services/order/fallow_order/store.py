"""Orders in Postgres: each named query of ``sql/orders.sql`` behind a typed function.

``save_order`` writes a changed order in one piece: row, groups, new changes, and a notification for those who
watch. It holds the revision against lost updates; callers lock the row first, so a mismatch is a programmer's error.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

import asyncpg

from fallow_chassis.postgres import Connection, encode_json, notify
from fallow_chassis.sql import Queries
from fallow_order.channels import ORDER_CHANNEL
from fallow_order.domain.order import (
    Change,
    Endpoint,
    EndReason,
    Group,
    GroupState,
    GroupStep,
    Order,
    OrderState,
)
from fallow_order.domain.quota import LIVE_ORDERS

QUERIES: Final = Queries.load("fallow_order")
AFTER_ALL_IDS: Final = "~"
"""Greater than every id."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """An encrypted workload: which key, which nonce, what."""

    key_id: str
    nonce: bytes
    ciphertext: bytes


@dataclass(frozen=True, slots=True)
class OrderFilter:
    """Which orders a list shows: in one of ``states`` (empty: any), with all ``labels``, created in a half-open time."""

    states: tuple[OrderState, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    created_min: datetime | None = None
    created_max: datetime | None = None


def due_time(order: Order, now: datetime) -> datetime | None:
    """When a job should look at the order next, by its state; None when nothing is due."""
    if order.state is OrderState.PENDING:
        return order.created_at
    if order.state is OrderState.CLOSING and not order.end_confirmed:
        return now
    return None


async def insert_orders(connection: Connection, orders: Sequence[Order], workloads: Sequence[Sealed]) -> list[Order]:
    """Store new orders with their groups and first changes, and a workload for each group of each order, in that order.

    Returns the orders as stored. Nobody is told: whoever could watch one does not know its name yet.
    """
    if not orders:
        return []
    for order in orders:
        assert order.state is OrderState.PENDING, "an order starts PENDING"
        assert order.revision == order.event_version == 0, "a new order was never written"
        assert order.sequence == len(order.changes) == 1, "a new order has one change"
    groups = [(order.id, group) for order in orders for group in order.groups]
    assert len(groups) == len(workloads), "a workload for each group"
    await connection.execute(
        QUERIES.get("insert_orders"),
        [order.id for order in orders],
        [order.account for order in orders],
        [order.specification for order in orders],
        [encode_json(dict(order.labels)) for order in orders],
        [order.asset for order in orders],
        [order.hold_micros for order in orders],
        [order.budget_micros for order in orders],
        [order.auto_top_up for order in orders],
        [order.match_timeout_ms for order in orders],
        [order.term_ms for order in orders],
        [order.created_at for order in orders],
        [due_time(order, order.created_at) for order in orders],
        [order.changes[0].reason for order in orders],
        [order_id for order_id, _ in groups],
        [group.index for _, group in groups],
        [group.group_id for _, group in groups],
        [sealed.key_id for sealed in workloads],
        [sealed.nonce for sealed in workloads],
        [sealed.ciphertext for sealed in workloads],
    )
    return [replace(order, revision=1, changes=()) for order in orders]


async def lock_revisions(connection: Connection, order_ids: Collection[str]) -> dict[str, int]:
    """The revisions of orders, which stay locked until the transaction ends; those that are gone are left out."""
    rows = await connection.fetch(QUERIES.get("lock_revisions"), list(order_ids))
    return {row["id"]: row["revision"] for row in rows}


async def save_opened(connection: Connection, pairs: Sequence[tuple[Order, Order]], now: datetime) -> list[Order]:
    """Store what opening changed of PENDING orders, each as it was and as it is; their rows must be locked."""
    if not pairs:
        return []
    (reason,) = {change.reason for _, after in pairs for change in after.changes}
    stored = [replace(after, revision=before.revision + 1, updated_at=now, changes=()) for before, after in pairs]
    rows = await connection.fetch(
        QUERIES.get("open_orders"),
        [order.id for order in stored],
        [order.held_micros for order in stored],
        [due_time(order, now) for order in stored],
        [order.revision for order in stored],
        [order.sequence for order in stored],
        now,
        [order.event_version for order in stored],
        reason,
        ORDER_CHANNEL,
    )
    assert len(rows) == len(stored), "a locked order changes only here"
    return stored


async def save_order(connection: Connection, before: Order, after: Order, now: datetime) -> Order:
    """Store what changed; the row must be locked. Returns the order as stored; writes nothing if nothing changed."""
    if before == after:
        return before
    stored = replace(after, revision=before.revision + 1, updated_at=now)
    status = await connection.execute(
        QUERIES.get("update_order"),
        stored.id,
        stored.state.value,
        dict(stored.labels),
        stored.updated_at,
        stored.opened_at,
        stored.ready_at,
        stored.closed_at,
        stored.close_reason,
        stored.close_detail,
        stored.charged_micros,
        stored.refunded_micros,
        stored.held_micros,
        stored.end_confirmed,
        stored.escrow_closed,
        due_time(stored, now),
        stored.revision,
        stored.sequence,
        stored.event_version,
    )
    assert status == "UPDATE 1", "a locked order changes only here"
    changed = [group for group, old in zip(stored.groups, before.groups, strict=True) if group != old]
    if changed:
        await connection.executemany(
            QUERIES.get("update_group"), [(stored.id, group.index, *_group_values(group)) for group in changed]
        )
    if stored.state is OrderState.CLOSED:
        await connection.execute(QUERIES.get("delete_workloads"), stored.id)
    return await _write_changes(connection, stored)


async def withdraw_orders(connection: Connection, order_ids: Collection[str], now: datetime) -> dict[str, str]:
    """Forget orders that never opened, leave a note to release the escrow of each, and wake who watches it.

    Those that are not PENDING any more stay as they are. Returns the account of each that is gone.
    """
    if not order_ids:
        return {}
    pending = await connection.fetch(QUERIES.get("lock_pending"), list(order_ids))
    rows = await connection.fetch(QUERIES.get("withdraw_orders"), [row["id"] for row in pending], now, ORDER_CHANNEL)
    return {row["id"]: row["account"] for row in rows}


async def load_order(connection: Connection, order_id: str) -> Order | None:
    """One order, or None."""
    return await _one(connection, await connection.fetchrow(QUERIES.get("load_order"), order_id))


async def load_orders(connection: Connection, order_ids: Collection[str]) -> dict[str, Order]:
    """Orders by id; those that are not there are left out."""
    if not order_ids:
        return {}
    rows = await connection.fetch(QUERIES.get("load_orders"), list(order_ids))
    return {order.id: order for order in await _many(connection, rows)}


async def lock_order(connection: Connection, order_id: str) -> Order | None:
    """One order, locked until the transaction ends, or None."""
    return await _one(connection, await connection.fetchrow(QUERIES.get("lock_order"), order_id))


async def list_orders(
    connection: Connection,
    account: str,
    *,
    before_id: str,
    wanted: OrderFilter,
    limit: int,
) -> list[Order]:
    """Orders of an account, newest first, from before an id (empty: from the newest)."""
    rows = await connection.fetch(
        QUERIES.get("list_orders"),
        account,
        before_id or AFTER_ALL_IDS,
        [state.value for state in wanted.states or OrderState],
        dict(wanted.labels),
        wanted.created_min,
        wanted.created_max,
        limit,
    )
    return await _many(connection, rows)


async def lock_quotas(connection: Connection, names: Sequence[str]) -> None:
    """Keep others who lock one of these names waiting until the transaction ends."""
    await connection.fetch(QUERIES.get("lock_quotas"), list(names))


async def lock_and_count_live(connection: Connection, accounts: Collection[str]) -> dict[str, int]:
    """Orders of each account that are not CLOSED, with the accounts locked against others who count, until the
    transaction ends. In READ COMMITTED the count, a statement of its own, sees what was committed before the lock.
    """
    wanted = list(accounts)
    await lock_quotas(connection, [f"{LIVE_ORDERS}|{account}" for account in wanted])
    rows = await connection.fetch(QUERIES.get("count_live_orders"), wanted)
    return dict.fromkeys(wanted, 0) | {row["account"]: row["live"] for row in rows}


async def list_due(connection: Connection, state: OrderState, now: datetime, limit: int) -> list[str]:
    """Ids of orders in a state that a job should look at now, the longest due first."""
    rows = await connection.fetch(QUERIES.get("list_due"), state, now, limit)
    return [row["id"] for row in rows]


async def postpone_order(connection: Connection, order_id: str, due_at: datetime) -> None:
    """Let a job look at an order again later."""
    await connection.execute(QUERIES.get("postpone_order"), order_id, due_at)


async def load_changes(connection: Connection, order_id: str, after: int, limit: int) -> list[Change]:
    """Changes after a sequence number, oldest first."""
    rows = await connection.fetch(QUERIES.get("load_transitions"), order_id, after, limit)
    return [_change(row) for row in rows]


async def raise_generation(connection: Connection, order_id: str, index: int, generation: int) -> int | None:
    """Note that a generation exists; returns the highest known, or None if there is no such group."""
    highest = await connection.fetchval(QUERIES.get("raise_generation"), order_id, index, generation)
    return None if highest is None else int(highest)


async def load_workload(connection: Connection, order_id: str, index: int, revision: int) -> Sealed | None:
    """One revision of one group's workload, encrypted; None once a newer one runs, or the order is closed."""
    row = await connection.fetchrow(QUERIES.get("load_workload"), order_id, index, revision)
    return None if row is None else Sealed(row["key_id"], row["nonce"], row["ciphertext"])


async def count_workload_keys(connection: Connection) -> dict[str, int]:
    """How many workloads each key has sealed."""
    rows = await connection.fetch(QUERIES.get("count_workload_keys"))
    return {row["key_id"]: row["workloads"] for row in rows}


async def lock_workloads_of_keys(
    connection: Connection, key_ids: Sequence[str], limit: int
) -> list[tuple[str, int, int, Sealed]]:
    """Workloads that these keys sealed, locked: order, group, revision, and what is sealed."""
    rows = await connection.fetch(QUERIES.get("lock_workloads_of_keys"), list(key_ids), limit)
    return [
        (row["order_id"], row["group_index"], row["revision"], Sealed(row["key_id"], row["nonce"], row["ciphertext"]))
        for row in rows
    ]


async def reseal_workload(connection: Connection, order_id: str, index: int, revision: int, sealed: Sealed) -> None:
    """Put what another key sealed in a workload's place."""
    await connection.execute(
        QUERIES.get("reseal_workload"), order_id, index, revision, sealed.key_id, sealed.nonce, sealed.ciphertext
    )


async def add_escrow_release(connection: Connection, order_id: str, now: datetime) -> None:
    """Note that an escrow may be open for an order that is gone."""
    await connection.execute(QUERIES.get("insert_escrow_release"), order_id, now)


async def list_escrow_releases(connection: Connection, now: datetime, limit: int) -> list[str]:
    """Ids of withdrawn orders whose escrow must be released."""
    return [row["order_id"] for row in await connection.fetch(QUERIES.get("list_escrow_releases"), now, limit)]


async def postpone_escrow_release(connection: Connection, order_id: str, due_at: datetime) -> None:
    """Try a release again later."""
    await connection.execute(QUERIES.get("postpone_escrow_release"), order_id, due_at)


async def delete_escrow_release(connection: Connection, order_id: str) -> None:
    """Forget a release that was done."""
    await connection.execute(QUERIES.get("delete_escrow_release"), order_id)


async def _write_changes(connection: Connection, order: Order) -> Order:
    """Write the changes noted in an order and wake those who watch it; returns the order without them."""
    if order.changes:
        rows = [
            (order.id, change.sequence, change.source, change.target, change.reason, change.at, *_step_values(change))
            for change in order.changes
        ]
        await connection.execute(QUERIES.get("insert_transitions"), *zip(*rows, strict=True))
    await notify(connection, ORDER_CHANNEL, order.id)
    return replace(order, changes=())


async def _one(connection: Connection, row: asyncpg.Record | None) -> Order | None:
    """An order with its groups."""
    if row is None:
        return None
    return (await _many(connection, [row]))[0]


async def _many(connection: Connection, rows: Sequence[asyncpg.Record]) -> list[Order]:
    """Orders with their groups, in the order of the rows."""
    found = await connection.fetch(QUERIES.get("load_groups"), [row["id"] for row in rows]) if rows else []
    groups: dict[str, list[Group]] = {}
    for entry in found:
        groups.setdefault(entry["order_id"], []).append(_group(entry))
    return [_order(row, tuple(groups.get(row["id"], ()))) for row in rows]


def _order(row: asyncpg.Record, groups: tuple[Group, ...]) -> Order:
    """An order of a row."""
    return Order(
        id=row["id"],
        account=row["account"],
        state=OrderState(row["state"]),
        specification=row["specification"],
        labels=tuple(sorted(row["labels"].items())),
        groups=groups,
        asset=row["asset"],
        hold_micros=row["hold_micros"],
        budget_micros=row["budget_micros"],
        auto_top_up=row["auto_top_up"],
        match_timeout_ms=row["match_timeout_ms"],
        term_ms=row["term_ms"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        opened_at=row["opened_at"],
        ready_at=row["ready_at"],
        closed_at=row["closed_at"],
        close_reason=None if row["close_reason"] is None else EndReason(row["close_reason"]),
        close_detail=row["close_detail"],
        charged_micros=row["charged_micros"],
        refunded_micros=row["refunded_micros"],
        held_micros=row["held_micros"],
        end_confirmed=row["end_confirmed"],
        escrow_closed=row["escrow_closed"],
        revision=row["revision"],
        sequence=row["sequence"],
        event_version=row["event_version"],
    )


def _change(row: asyncpg.Record) -> Change:
    """A change of a row."""
    step = None
    if row["group_id"]:
        source, target = GroupState(row["source_group_state"]), GroupState(row["target_group_state"])
        step = GroupStep(row["group_id"], source, target, row["lease"], row["provider"], row["generation"])
    source_state = None if row["source_state"] is None else OrderState(row["source_state"])
    return Change(
        row["sequence"], source_state, OrderState(row["target_state"]), row["reason"], row["transition_at"], step
    )


def _step_values(change: Change) -> tuple[Any, ...]:
    """What a change says of a group, in the order of the query; nothing where the order itself changed."""
    step = change.step
    if step is None:
        return "", None, None, "", "", 0
    return step.group_id, step.source, step.target, step.lease, step.provider, step.generation


def _group(row: asyncpg.Record) -> Group:
    """A group of a row."""
    return Group(
        index=row["index"],
        group_id=row["group_id"],
        state=GroupState(row["state"]),
        generation=row["generation"],
        highest_generation=row["highest_generation"],
        lease=row["lease"],
        provider=row["provider"],
        price_asset=row["price_asset"],
        price_micros_per_hour=row["price_micros_per_hour"],
        endpoints=tuple(
            Endpoint(entry["service"], entry["container_port"], entry["uri"], entry["replica"])
            for entry in row["endpoints"]
        ),
        revision=row["revision"],
    )


def _group_values(group: Group) -> tuple[Any, ...]:
    """What changes in a group's row, in the order of the queries."""
    return (
        group.state.value,
        group.generation,
        group.highest_generation,
        group.lease,
        group.provider,
        group.price_asset,
        group.price_micros_per_hour,
        [
            {
                "service": endpoint.service,
                "container_port": endpoint.container_port,
                "uri": endpoint.uri,
                "replica": endpoint.replica,
            }
            for endpoint in group.endpoints
        ],
    )
