"""Programmes, promotions and grants in Postgres."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import asyncpg

from fallow_chassis.paging import TimePlace
from fallow_chassis.postgres import Connection
from fallow_settlement.domain.grant import Grant
from fallow_settlement.domain.programme import Programme, Share, Sums
from fallow_settlement.domain.promotion import Promotion
from fallow_settlement.ledger_store import QUERIES


@dataclass(frozen=True, slots=True)
class OnlineTime:
    """How long a provider's devices of a model were online in one hour, by the auditors who vouch for them; milliseconds."""

    provider_id: str
    account_id: str
    model: str
    asset: str
    start_time: datetime
    ask_micros_per_hour: int
    by_auditor: Mapping[str, int]


async def insert_promotion(connection: Connection, promotion: Promotion) -> None:
    """Write a new promotion."""
    await connection.execute(
        QUERIES.get("insert_promotion"),
        promotion.id,
        promotion.account_id,
        promotion.asset,
        promotion.take_basis_points,
        promotion.start_time,
        promotion.end_time,
        promotion.reason,
        promotion.creator,
        promotion.create_time,
    )


async def load_promotion(connection: Connection, promotion_id: str) -> Promotion | None:
    """A promotion, or None."""
    row = await connection.fetchrow(QUERIES.get("load_promotion"), promotion_id)
    return None if row is None else _promotion(row)


async def end_promotion(connection: Connection, promotion_id: str, now: datetime) -> None:
    """End a promotion for leases that are made from now on."""
    await connection.execute(QUERIES.get("end_promotion"), promotion_id, now)


async def list_promotions(
    connection: Connection, account_id: str, before: TimePlace | None, limit: int
) -> list[Promotion]:
    """Promotions, newest first; ``account_id`` filters, empty lists all."""
    time, identifier = (None, "") if before is None else before
    rows = await connection.fetch(QUERIES.get("list_promotions"), account_id, time, identifier, limit)
    return [_promotion(row) for row in rows]


async def load_promoted_take(
    connection: Connection, accounts: Collection[str], asset: str, instant: datetime
) -> int | None:
    """The least take in basis points that promotions give the leases of some accounts at an instant; None for none."""
    take: int | None = await connection.fetchval(QUERIES.get("load_promoted_take"), list(accounts), asset, instant)
    return take


async def insert_grant(connection: Connection, grant: Grant) -> None:
    """Write a new grant."""
    await connection.execute(
        QUERIES.get("insert_grant"),
        grant.id,
        grant.account_id,
        grant.asset,
        grant.amount,
        grant.reason,
        grant.creator,
        grant.create_time,
        grant.expire_time,
    )


async def load_grant(connection: Connection, grant_id: str, *, lock: bool = False) -> Grant | None:
    """A grant with its approvals, or None; ``lock`` holds it until the transaction ends."""
    if lock:
        await connection.execute(QUERIES.get("lock_grant"), grant_id)
    rows = await connection.fetch(QUERIES.get("load_grants"), grant_id, None, "", 1)
    return _grant(rows[0]) if rows and grant_id else None


async def list_grants(connection: Connection, before: TimePlace | None, limit: int) -> list[Grant]:
    """Grants, newest first."""
    time, identifier = (None, "") if before is None else before
    return [_grant(row) for row in await connection.fetch(QUERIES.get("load_grants"), "", time, identifier, limit)]


async def approve_grant(connection: Connection, grant_id: str, account_id: str, now: datetime) -> None:
    """Note an operator's approval; the second of one operator changes nothing."""
    await connection.execute(QUERIES.get("approve_grant"), grant_id, account_id, now)


async def pay_grant(connection: Connection, grant_id: str, now: datetime) -> None:
    """Note that a grant is paid."""
    await connection.execute(QUERIES.get("pay_grant"), grant_id, now)


async def insert_programme(connection: Connection, programme: Programme) -> None:
    """Write a new programme."""
    await connection.execute(
        QUERIES.get("insert_programme"),
        programme.id,
        programme.model,
        programme.asset,
        programme.target_milli,
        programme.reference_micros_per_hour,
        programme.budget,
        list(programme.auditors),
        programme.creator,
        programme.create_time,
        programme.end_time,
        programme.next_day,
    )


async def load_programme(connection: Connection, programme_id: str, *, lock: bool = False) -> Programme | None:
    """A programme, or None; ``lock`` holds it until the transaction ends."""
    if lock:
        await connection.execute(QUERIES.get("lock_programme"), programme_id)
    rows = await connection.fetch(QUERIES.get("load_programmes"), programme_id, None, "", 1)
    return _programme(rows[0]) if rows and programme_id else None


async def list_programmes(connection: Connection, before: TimePlace | None, limit: int) -> list[Programme]:
    """Programmes, newest first."""
    time, identifier = (None, "") if before is None else before
    rows = await connection.fetch(QUERIES.get("load_programmes"), "", time, identifier, limit)
    return [_programme(row) for row in rows]


async def list_running(connection: Connection) -> list[str]:
    """The ids of all programmes that run."""
    return [row["id"] for row in await connection.fetch(QUERIES.get("list_running_programmes"))]


async def end_programme(connection: Connection, programme_id: str, now: datetime) -> None:
    """Let a programme count nothing from now on."""
    await connection.execute(QUERIES.get("end_programme"), programme_id, now)


async def save_programme(
    connection: Connection, programme_id: str, next_day: date, close_time: datetime | None
) -> None:
    """Note up to when a programme is paid, and that it is over."""
    await connection.execute(QUERIES.get("save_programme"), programme_id, next_day, close_time)


async def load_sums(connection: Connection, programme: Programme, until: datetime) -> list[Sums]:
    """What a programme counts from its start until an instant, by provider."""
    rows = await connection.fetch(
        QUERIES.get("load_programme_sums"),
        programme.id,
        programme.model,
        programme.asset,
        programme.reference_micros_per_hour,
        list(programme.auditors),
        programme.create_time,
        until,
    )
    return [
        Sums(row["provider_id"], row["account_id"], row["online_ms"], row["related_ms"], row["earned"], row["paid"])
        for row in rows
    ]


async def insert_shares(connection: Connection, programme_id: str, shares: Sequence[Share]) -> None:
    """Write the payments of one day."""
    await connection.copy_records_to_table(
        "programme_share",
        columns=(
            "programme_id",
            "day",
            "provider_id",
            "account_id",
            "online_ms",
            "related_ms",
            "earned",
            "due",
            "paid",
            "short",
        ),
        records=[
            (
                programme_id,
                share.day,
                share.sums.provider_id,
                share.sums.account_id,
                share.sums.online_ms,
                share.sums.related_ms,
                share.sums.earned,
                share.due,
                share.paid,
                share.short,
            )
            for share in shares
        ],
    )


async def list_shares(
    connection: Connection, programme_id: str, before: tuple[date, str] | None, limit: int
) -> list[Share]:
    """A programme's payments, newest day first."""
    day, provider_id = (None, "") if before is None else before
    rows = await connection.fetch(QUERIES.get("list_shares"), programme_id, day, provider_id, limit)
    return [
        Share(
            row["day"],
            Sums(row["provider_id"], row["account_id"], row["online_ms"], row["related_ms"], row["earned"], 0),
            row["due"],
            row["paid"],
            row["short"],
        )
        for row in rows
    ]


async def insert_online_time(connection: Connection, online: OnlineTime) -> None:
    """Write what bidding says of an hour."""
    await connection.execute(
        QUERIES.get("insert_online_time"),
        online.provider_id,
        online.model,
        online.asset,
        online.start_time,
        online.account_id,
        online.ask_micros_per_hour,
        list(online.by_auditor),
        list(online.by_auditor.values()),
    )


async def insert_lease_models(connection: Connection, lease_id: str, milli_by_model: Mapping[str, int]) -> None:
    """Write which models a lease's devices are of."""
    await connection.execute(
        QUERIES.get("insert_lease_models"), lease_id, list(milli_by_model), list(milli_by_model.values())
    )


def _promotion(row: asyncpg.Record) -> Promotion:
    """A promotion from its row."""
    return Promotion(
        id=row["id"],
        account_id=row["account_id"],
        asset=row["asset"],
        take_basis_points=row["take_basis_points"],
        start_time=row["start_time"],
        end_time=row["end_time"],
        reason=row["reason"],
        creator=row["creator"],
        create_time=row["create_time"],
    )


def _grant(row: asyncpg.Record) -> Grant:
    """A grant from its row."""
    return Grant(
        id=row["id"],
        account_id=row["account_id"],
        asset=row["asset"],
        amount=row["amount"],
        reason=row["reason"],
        creator=row["creator"],
        create_time=row["create_time"],
        expire_time=row["expire_time"],
        pay_time=row["pay_time"],
        approvers=tuple(row["approvers"]),
    )


def _programme(row: asyncpg.Record) -> Programme:
    """A programme from its row."""
    return Programme(
        id=row["id"],
        model=row["model"],
        asset=row["asset"],
        target_milli=row["target_milli"],
        reference_micros_per_hour=row["reference_micros_per_hour"],
        budget=row["budget"],
        auditors=tuple(row["auditors"]),
        creator=row["creator"],
        create_time=row["create_time"],
        end_time=row["end_time"],
        next_day=row["next_day"],
        close_time=row["close_time"],
        paid=row["paid"],
    )
