"""What reputation is made of, as rows."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime

from fallow_bidding.convert.leases import OBSERVER
from fallow_bidding.domain.leases import EndReason
from fallow_bidding.domain.reputation import RAN_ELSEWHERE_WITHIN, LeaseFact, Reputation, Tally
from fallow_bidding.domain.silence import Outage
from fallow_bidding.store import QUERIES
from fallow_chassis.postgres import Connection


async def load_due(connection: Connection, market: str, before: datetime, limit: int) -> Sequence[str]:
    """Providers of which the reputation was last computed before an instant, longest ago first."""
    rows = await connection.fetch(QUERIES.get("load_reputation_due"), market, before, limit)
    return [row["provider_id"] for row in rows]


async def load_facts(connection: Connection, provider_id: str, ended_since: datetime) -> list[LeaseFact]:
    """What counts of a provider's leases that are live, or ended at an instant or later."""
    query = QUERIES.get("load_lease_facts")
    facts = []
    for row in await connection.fetch(query, provider_id, ended_since, RAN_ELSEWHERE_WITHIN):
        evidence = row["evidence"]
        facts.append(
            LeaseFact(
                create_time=row["create_time"],
                accept_time=row["accept_time"],
                ready_time=row["ready_time"],
                end_time=row["end_time"],
                end_reason=None if evidence is None else EndReason(evidence["reason"]),
                seen_by_market=evidence is not None and evidence["observer"] == OBSERVER,
                running_ms=row["proof_running_ms"],
                price_micros=row["price_micros"],
                ran_elsewhere=row["ran_elsewhere"],
            )
        )
    return facts


async def load_tallies(connection: Connection, provider_id: str, after: date) -> dict[date, Tally]:
    """The tallies of settled days after a day."""
    rows = await connection.fetch(QUERIES.get("load_tallies"), provider_id, after)
    return {
        row["day"]: Tally(row["leases"], row["early_closes"], row["starts_milli"], row["starts_failed"], row["paid_ms"])
        for row in rows
    }


async def save_tallies(connection: Connection, provider_id: str, days: Mapping[date, Tally]) -> None:
    """Store the tallies of settled days."""
    rows = [
        (provider_id, day, one.leases, one.early_closes, one.starts_milli, one.starts_failed, one.paid_ms)
        for day, one in sorted(days.items())
    ]
    await connection.executemany(QUERIES.get("save_tally"), rows)


async def load_tallied_day(connection: Connection, provider_id: str) -> date | None:
    """The last day that is tallied, or None."""
    day: date | None = await connection.fetchval(QUERIES.get("load_tallied_day"), provider_id)
    return day


async def reopen_day(connection: Connection, provider_id: str, day: date) -> None:
    """Let a day be tallied again, and those after it: something of its leases has changed."""
    await connection.execute(QUERIES.get("reopen_day"), provider_id, day)


async def save_reputation(
    connection: Connection, provider_id: str, reputation: Reputation, now: datetime, tallied_day: date
) -> None:
    """Store a provider's reputation, when it was computed, and up to which day its leases are tallied."""
    await connection.execute(
        QUERIES.get("save_reputation"),
        provider_id,
        reputation.score_milli,
        reputation.reliability_milli,
        reputation.uptime_week_milli,
        reputation.uptime_month_milli,
        reputation.start_success_milli,
        reputation.time_to_start_ms,
        reputation.early_closes,
        reputation.leases,
        now,
        tallied_day,
    )


async def insert_silence(connection: Connection, provider_id: str, silence: Outage) -> None:
    """Store a time in which a provider was not heard."""
    await connection.execute(QUERIES.get("insert_silence"), provider_id, silence.start_time, silence.end_time)


async def load_silences(connection: Connection, provider_id: str, since: datetime) -> list[Outage]:
    """A provider's silences that ended after an instant."""
    rows = await connection.fetch(QUERIES.get("load_silences"), provider_id, since)
    return [Outage(row["start_time"], row["end_time"]) for row in rows]


async def forget(connection: Connection, provider_id: str, before: datetime, day: date) -> None:
    """Drop silences that ended before an instant, and tallies up to a day: nothing of them counts any more."""
    await connection.execute(QUERIES.get("delete_silences"), provider_id, before)
    await connection.execute(QUERIES.get("delete_tallies"), provider_id, day)
