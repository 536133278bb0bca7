"""Computes reputations again, a provider at a time, from what happened since."""

from datetime import UTC, datetime, time, timedelta
from typing import Final

from fallow_bidding.domain.policy import Policy
from fallow_bidding.domain.providers import Provider
from fallow_bidding.domain.reputation import (
    DAY,
    HORIZON_DAYS,
    MONTH,
    SETTLED_AFTER_DAYS,
    Reputation,
    Uptime,
    judge,
    tally_days,
    time_to_start_ms,
)
from fallow_bidding.domain.silence import Outage, outages_with_present
from fallow_bidding.store import outages, providers
from fallow_bidding.store import reputation as store
from fallow_chassis.postgres import Database, UnitOfWork

BATCH: Final = 200
"""The most providers in one pass."""
EVERY: Final = timedelta(seconds=60)
"""How old a reputation gets before it is computed again."""


class ReputationCommands:
    """Run by a timer; every pass is safe to repeat and to run in several processes."""

    def __init__(self, database: Database, policy: Policy) -> None:
        """Take the database and the market's rules."""
        self._database = database
        self._policy = policy

    async def compute_due(self) -> int:
        """Compute what is due again; returns how many providers' reputations."""
        before = self._database.clock.now() - EVERY
        async with self._database.read() as connection:
            due = await store.load_due(connection, self._policy.market, before, BATCH)
        for provider_id in due:
            await self.compute(provider_id)
        return len(due)

    async def compute(self, provider_id: str) -> Reputation:
        """Compute one provider's reputation; days that have settled meanwhile are tallied for good."""
        async with self._database.transaction() as unit:
            provider = await providers.lock_provider(unit.connection, provider_id)
            assert provider is not None, "providers are never deleted"
            now = unit.clock.now()
            oldest = now.date() - timedelta(days=HORIZON_DAYS)
            settled = now.date() - timedelta(days=SETTLED_AFTER_DAYS)
            tallied = max(oldest, await store.load_tallied_day(unit.connection, provider_id) or oldest)
            since = min(tallied + DAY, (now - MONTH).date())
            away = await self._outages(unit, datetime.combine(oldest, time(), UTC), now)
            facts = await store.load_facts(unit.connection, provider_id, datetime.combine(since, time(), UTC))
            fresh = {day: one for day, one in tally_days(facts, away, now.date()).items() if day > tallied}
            await store.save_tallies(
                unit.connection, provider_id, {day: one for day, one in fresh.items() if day <= settled}
            )
            await store.forget(unit.connection, provider_id, now - MONTH, oldest)
            days = await store.load_tallies(unit.connection, provider_id, oldest) | fresh
            uptime = await self._uptime(unit, provider, away, now)
            found = judge(days, uptime, time_to_start_ms(facts, now), now)
            await store.save_reputation(unit.connection, provider_id, found, now, max(tallied, settled))
            return found

    async def _uptime(self, unit: UnitOfWork, provider: Provider, away: list[Outage], now: datetime) -> Uptime:
        """When a provider was silent, the silence that goes on included."""
        silences = await store.load_silences(unit.connection, provider.provider_id, now - MONTH)
        silent_after = timedelta(milliseconds=self._policy.unreachable_ms)
        present = Outage(min(provider.heard_time, now), now)
        return Uptime(provider.create_time, [*silences, present], away, silent_after)

    async def _outages(self, unit: UnitOfWork, since: datetime, now: datetime) -> list[Outage]:
        """The market's own outages since an instant."""
        recorded = await outages.load_outages(unit.connection, since)
        return outages_with_present(recorded, await outages.load_pulse(unit.connection), now)
