"""Orders and their groups as rows."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

import asyncpg

from fallow_bidding.domain.auctions import AuctionMode
from fallow_bidding.domain.explanation import GroupExplanation
from fallow_bidding.domain.leases import EndReason, GenerationKey
from fallow_bidding.domain.orders import GroupState, MarketGroup, MarketOrder
from fallow_bidding.store import QUERIES
from fallow_chassis.postgres import Connection

MATCH_SAMPLES_MAX: Final = 1_000
"""The most orders, the newest, that a median is taken of."""


async def insert_order(connection: Connection, order: MarketOrder, groups: Sequence[MarketGroup]) -> bool:
    """Store an order with its groups; False, and nothing stored, where it is known already."""
    inserted = await connection.fetchval(
        QUERIES.get("insert_order"),
        order.order_id,
        order.tenant,
        order.market,
        order.body,
        "ENDED" if order.ended else "OPEN",
        order.term_ms,
        order.forbids_overlap,
        order.end_reason or "",
        order.end_detail,
        order.end_time,
        order.create_time,
        order.open_time,
        order.match_timeout_ms,
        order.match_deadline,
        order.together,
        list(order.gpu_models),
        order.auction_mode,
    )
    if inserted is None:
        return False
    rows = [(group.order_id, group.group_index, group.group_id, group.revision) for group in groups]
    await connection.executemany(QUERIES.get("insert_group"), rows)
    return True


async def update_body(connection: Connection, order: MarketOrder, revisions: Sequence[int]) -> None:
    """Store what an update of the order changed; ``revisions`` are those of its groups' workloads."""
    for index, revision in enumerate(revisions):
        await connection.execute(QUERIES.get("raise_revision"), order.order_id, index, revision)
    await connection.execute(
        QUERIES.get("update_order_body"),
        order.order_id,
        order.body,
        order.term_ms,
        order.forbids_overlap,
        list(order.gpu_models),
    )


async def load_order(connection: Connection, order_id: str) -> MarketOrder | None:
    """An order, or None."""
    row = await connection.fetchrow(QUERIES.get("load_order"), order_id)
    return None if row is None else _order_of(row)


async def lock_orders(connection: Connection, order_ids: Sequence[str]) -> dict[str, MarketOrder]:
    """Orders whose rows are held until the transaction ends, taken in the order of their ids."""
    rows = await connection.fetch(QUERIES.get("lock_orders"), sorted(set(order_ids)))
    return {row["order_id"]: _order_of(row) for row in rows}


async def list_looking_orders(connection: Connection, market: str, now: datetime, after: str, limit: int) -> list[str]:
    """Ids, from after ``after`` and oldest first, of open orders with a group that looks for a provider now, or runs an
    older workload than it should. A group whose round of bids still runs does not look yet.
    """
    rows = await connection.fetch(QUERIES.get("list_looking_orders"), market, after, limit, now)
    return [row["order_id"] for row in rows]


async def lock_open_orders(connection: Connection, market: str, order_ids: Collection[str]) -> list[MarketOrder]:
    """Those of ``order_ids`` that are open, oldest id first (as everybody locks them), their rows held; with them the
    orders whose leases are to give way, and those for whom.
    """
    rows = await connection.fetch(QUERIES.get("lock_open_orders"), market, sorted(order_ids))
    return [_order_of(row) for row in rows]


async def load_groups(connection: Connection, order_ids: Sequence[str]) -> dict[str, list[MarketGroup]]:
    """The groups of orders, by order, in their own order."""
    groups: dict[str, list[MarketGroup]] = {order_id: [] for order_id in order_ids}
    for row in await connection.fetch(QUERIES.get("load_groups"), list(order_ids)):
        groups[row["order_id"]].append(_group_of(row))
    return groups


async def save_group(connection: Connection, group: MarketGroup) -> None:
    """Store how far a group is."""
    await connection.execute(
        QUERIES.get("save_group"),
        group.order_id,
        group.group_index,
        group.state,
        group.generation,
        sorted(group.excluded_providers),
        group.failures,
        group.hold_until,
        group.return_time,
    )


async def set_leased_revision(connection: Connection, key: GenerationKey, revision: int) -> None:
    """Note which revision of its workload a group's newest lease was matched with."""
    await connection.execute(QUERIES.get("set_leased_revision"), key.order_id, key.group, revision)


async def clear_hold(connection: Connection, key: GenerationKey) -> None:
    """Let a group be leased again at once, if this is still its newest generation."""
    await connection.execute(QUERIES.get("clear_hold"), key.order_id, key.group, key.generation)


async def save_decision(connection: Connection, order_id: str, explanation: GroupExplanation) -> None:
    """Store why a group was matched, or not; writes nothing where the story is the same as the last one."""
    await connection.execute(QUERIES.get("save_decision"), order_id, explanation.group_index, explanation.to_json())


async def load_decisions(connection: Connection, order_id: str) -> list[GroupExplanation]:
    """The stories of an order's groups, of those that were decided."""
    rows = await connection.fetch(QUERIES.get("load_groups"), [order_id])
    return [GroupExplanation.from_json(row["decision"]) for row in rows if row["decision"] is not None]


async def next_lease_version(connection: Connection, order_id: str) -> int:
    """Take the number of the order's next event on the leases' topic; the order's row must be held."""
    version = await connection.fetchval(QUERIES.get("next_lease_version"), order_id)
    assert isinstance(version, int), "the order of an event is there"
    return version


async def set_ready(connection: Connection, order_id: str, now: datetime) -> None:
    """Note when all groups of an order were first ready."""
    await connection.execute(QUERIES.get("set_order_ready"), order_id, now)


async def end_order(connection: Connection, order_id: str, reason: EndReason, detail: str, now: datetime) -> None:
    """End an order and all its groups."""
    await connection.execute(QUERIES.get("end_order"), order_id, reason, detail, now)
    await connection.execute(QUERIES.get("end_groups"), order_id)


async def set_suspended(connection: Connection, order: MarketOrder) -> None:
    """Store whether an order is paused."""
    await connection.execute(QUERIES.get("set_suspended"), order.order_id, order.suspended, order.suspension_number)


async def load_match_due(connection: Connection, now: datetime, limit: int) -> list[str]:
    """Orders of which the wait for a first match may be over."""
    return [row["order_id"] for row in await connection.fetch(QUERIES.get("load_match_due"), now, limit)]


async def set_match_due(connection: Connection, order_id: str, due_time: datetime | None) -> None:
    """Note when to look next whether an order's wait is over; None where nothing waits."""
    await connection.execute(QUERIES.get("set_match_due"), order_id, due_time)


async def set_match_time(connection: Connection, order_id: str, now: datetime) -> None:
    """Note when the first lease of an order was made; a later one changes nothing."""
    await connection.execute(QUERIES.get("set_match_time"), order_id, now)


async def load_match_wait(
    connection: Connection, market: str, since: datetime, gpu_models: Sequence[str] | None
) -> tuple[int, int | None]:
    """How many orders were matched since an instant, at most MATCH_SAMPLES_MAX, and their median wait in ms.

    With ``gpu_models`` only those that asked for exactly these.
    """
    if gpu_models is None:
        row = await connection.fetchrow(QUERIES.get("load_match_wait"), market, since, MATCH_SAMPLES_MAX)
    else:
        query = QUERIES.get("load_match_wait_of_models")
        row = await connection.fetchrow(query, market, since, list(gpu_models), MATCH_SAMPLES_MAX)
    assert row is not None, "a count is always there"
    return row["samples"], row["median_ms"]


async def load_recent_bodies(connection: Connection, market: str, limit: int) -> list[tuple[str, bytes]]:
    """The newest orders of a market, newest first: ids, and the orders as their last events carried them."""
    rows = await connection.fetch(QUERIES.get("load_recent_bodies"), market, limit)
    return [(row["order_id"], row["body"]) for row in rows]


async def load_expired_terms(connection: Connection, now: datetime, limit: int) -> list[str]:
    """Orders whose longest running time is over."""
    return [row["order_id"] for row in await connection.fetch(QUERIES.get("load_expired_terms"), now, limit)]


def _order_of(row: asyncpg.Record) -> MarketOrder:
    """The order of a row."""
    return MarketOrder(
        order_id=row["order_id"],
        tenant=row["tenant"],
        market=row["market"],
        body=row["body"],
        create_time=row["create_time"],
        ended=row["state"] == "ENDED",
        term_ms=row["term_ms"],
        forbids_overlap=row["forbids_overlap"],
        ready_time=row["ready_time"],
        end_reason=EndReason(row["end_reason"]) if row["end_reason"] else None,
        end_detail=row["end_detail"],
        end_time=row["end_time"],
        open_time=row["open_time"],
        match_timeout_ms=row["match_timeout_ms"],
        together=row["together"],
        gpu_models=tuple(row["gpu_models"]),
        auction_mode=AuctionMode(row["auction_mode"]) if row["auction_mode"] else None,
        suspended=row["suspended"],
        suspension_number=row["suspension_number"],
    )


def _group_of(row: asyncpg.Record) -> MarketGroup:
    """The group of a row."""
    return MarketGroup(
        order_id=row["order_id"],
        group_index=row["group_index"],
        group_id=row["group_id"],
        state=GroupState(row["state"]),
        generation=row["generation"],
        excluded_providers=frozenset(row["excluded_providers"]),
        failures=row["failures"],
        hold_until=row["hold_until"],
        return_time=row["return_time"],
        decision=row["decision"],
        revision=row["revision"],
        leased_revision=row["leased_revision"],
    )
