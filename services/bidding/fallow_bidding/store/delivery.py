"""Commands to providers as rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from fallow_bidding.channels import COMMAND_CHANNEL
from fallow_bidding.domain.leases import EndReason, Lease
from fallow_bidding.store import QUERIES
from fallow_chassis.postgres import Connection, notify


@dataclass(frozen=True, slots=True)
class CommandRow:
    """A command on its way. ``stop_reason`` is None for RUN."""

    command_id: str
    lease_id: str
    provider_id: str
    stop_reason: EndReason | None


async def insert_run(connection: Connection, command_id: str, lease: Lease, now: datetime) -> None:
    """Ask for a lease's generation to be run."""
    await connection.execute(
        QUERIES.get("insert_command"), command_id, lease.lease_id, lease.provider_id, "RUN", "", now
    )
    await notify(connection, COMMAND_CHANNEL)


async def insert_stop(connection: Connection, command_id: str, lease: Lease, reason: EndReason, now: datetime) -> None:
    """Ask for a lease's generation to be stopped; a command to run it that was not acknowledged is dropped."""
    await connection.execute(QUERIES.get("drop_run_command"), lease.lease_id, now)
    await connection.execute(
        QUERIES.get("insert_command"), command_id, lease.lease_id, lease.provider_id, "STOP", reason, now
    )
    await notify(connection, COMMAND_CHANNEL)


async def take_due(connection: Connection, now: datetime, next_send_time: datetime, limit: int) -> list[CommandRow]:
    """Take commands that are due; each is due again at ``next_send_time`` unless it is acknowledged before."""
    rows = await connection.fetch(QUERIES.get("take_due_commands"), now, next_send_time, limit)
    return [
        CommandRow(
            row["command_id"],
            row["lease_id"],
            row["provider_id"],
            EndReason(row["stop_reason"]) if row["kind"] == "STOP" else None,
        )
        for row in rows
    ]


async def record_outcome(
    connection: Connection, command_id: str, *, accepted: bool, reason: str, detail: str, now: datetime
) -> bool:
    """Note how the agent answered; False where the command was answered or dropped before."""
    outcome = "ACCEPTED" if accepted else "REFUSED"
    found = await connection.fetchval(QUERIES.get("record_outcome"), command_id, outcome, now, reason, detail)
    return found is not None


async def acknowledge_run(connection: Connection, lease_id: str, now: datetime) -> None:
    """Note that a heartbeat showed that the command to run was taken."""
    await connection.execute(QUERIES.get("acknowledge_run_command"), lease_id, now)


async def drop_commands(connection: Connection, lease_id: str, now: datetime) -> None:
    """Send nothing more about a lease of which nothing runs."""
    await connection.execute(QUERIES.get("drop_commands"), lease_id, now)


async def load_stop_times(connection: Connection, lease_ids: Sequence[str]) -> dict[str, datetime]:
    """When agents acknowledged commands to stop, by lease."""
    rows = await connection.fetch(QUERIES.get("load_stop_times"), list(lease_ids))
    return {row["lease_id"]: row["outcome_time"] for row in rows}
