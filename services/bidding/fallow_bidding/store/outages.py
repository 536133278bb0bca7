"""The market's pulse and its outages as rows."""

from datetime import datetime

from fallow_bidding.domain.silence import Outage
from fallow_bidding.store import QUERIES
from fallow_chassis.postgres import Connection


async def load_pulse(connection: Connection) -> datetime | None:
    """When the market was last surely there; None before its first pulse."""
    instant: datetime | None = await connection.fetchval(QUERIES.get("load_pulse"))
    return instant


async def lock_pulse(connection: Connection) -> datetime | None:
    """The last pulse, its row held so that two processes do not record one outage twice."""
    instant: datetime | None = await connection.fetchval(QUERIES.get("lock_pulse"))
    return instant


async def save_pulse(connection: Connection, now: datetime) -> None:
    """Note that the market is there."""
    await connection.execute(QUERIES.get("save_pulse"), now)


async def insert_outage(connection: Connection, outage: Outage) -> None:
    """Record a time in which the market was away."""
    await connection.execute(QUERIES.get("insert_outage"), outage.start_time, outage.end_time)


async def load_outages(connection: Connection, since: datetime) -> list[Outage]:
    """Outages that ended after an instant."""
    rows = await connection.fetch(QUERIES.get("load_outages"), since)
    return [Outage(row["start_time"], row["end_time"]) for row in rows]
