"""The time that devices were online as rows."""

from collections.abc import Sequence
from datetime import datetime

from fallow_bidding.domain.online import OnlineDevices, OnlineTime
from fallow_bidding.store import QUERIES
from fallow_bidding.store.providers import signatures_of
from fallow_chassis.postgres import Connection


async def lock_count(connection: Connection, market: str, now: datetime) -> datetime:
    """When a market's devices were counted last, its row held until the transaction ends; ``now`` where they never were."""
    last: datetime = await connection.fetchval(QUERIES.get("lock_online_count"), market, now)
    return last


async def save_count(connection: Connection, market: str, now: datetime) -> None:
    """Note that a market's devices are counted."""
    await connection.execute(QUERIES.get("save_online_count"), market, now)


async def load_online(connection: Connection, market: str, heard_since: datetime, now: datetime) -> list[OnlineDevices]:
    """The healthy devices on offer of providers that were heard lately, by provider, model and asset."""
    rows = await connection.fetch(QUERIES.get("load_online_devices"), market, heard_since, now)
    return [
        OnlineDevices(
            provider_id=row["provider_id"],
            model=row["model"],
            asset=row["asset"],
            devices=row["devices"],
            ask_micros=row["ask_micros"],
            attributes=row["attributes"],
            signatures=signatures_of(row),
        )
        for row in rows
    ]


async def add_time(connection: Connection, counted: Sequence[OnlineTime], hour: datetime) -> None:
    """Add what was counted to its hour."""
    await connection.execute(
        QUERIES.get("add_online_time"),
        [one.provider_id for one in counted],
        [one.model for one in counted],
        [one.asset for one in counted],
        [one.auditor for one in counted],
        [one.online_ms for one in counted],
        [one.ask_micros for one in counted],
        hour,
    )


async def take_hours(
    connection: Connection, market: str, before: datetime, forsaken: datetime, limit: int
) -> list[OnlineTime]:
    """The oldest hours that began before an instant, of some providers; they are kept no longer.

    Of other markets those too that began before ``forsaken``: whoever was to take them did not.
    """
    rows = await connection.fetch(QUERIES.get("take_online_hours"), market, before, forsaken, limit)
    return [
        OnlineTime(
            row["provider_id"],
            row["model"],
            row["asset"],
            row["auditor"],
            row["start_time"],
            row["online_ms"],
            row["ask_micros"],
        )
        for row in rows
    ]
