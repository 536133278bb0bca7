"""Counts how long devices are online, and tells of each hour once it is over."""

from datetime import datetime, timedelta
from itertools import groupby
from typing import Final

from fallow.bidding.v1 import events_pb2
from fallow_bidding.domain.online import COUNT_EVERY, EVERYBODY, OnlineTime, by_auditor, counted_ms
from fallow_bidding.domain.policy import Policy
from fallow_bidding.store import online_time, providers
from fallow_bidding.topics import MARKET_TOPIC
from fallow_chassis.events import EventDraft
from fallow_chassis.postgres import Database, UnitOfWork
from fallow_chassis.wire import to_duration, to_timestamp

BATCH: Final = 200
"""The most providers whose hours one transaction tells of."""
TOLD_AFTER: Final = timedelta(minutes=2)
"""How long after its end an hour is told of: no count that is still on its way belongs to it then."""

FORSAKEN_AFTER: Final = timedelta(days=1)
"""How long an hour is kept for its own market's service; after that any other tells of it, so that none is kept for ever."""


class OnlineCommands:
    """Run by a timer; every pass is safe to repeat and to run in several processes."""

    def __init__(self, database: Database, policy: Policy) -> None:
        """Take the database and the market's rules."""
        self._database = database
        self._policy = policy

    async def run_once(self) -> None:
        """Count what is online where a minute is over; tell of the hours that are."""
        await self._count()
        while await self._tell() == BATCH:
            pass

    async def _count(self) -> None:
        """Count every device on offer, once a minute whoever runs this."""
        async with self._database.transaction() as unit:
            now = unit.clock.now()
            last = await online_time.lock_count(unit.connection, self._policy.market, now)
            passed_ms = counted_ms(last, now)
            if passed_ms is None:
                return
            await online_time.save_count(unit.connection, self._policy.market, now)
            if not passed_ms:
                return
            found = await online_time.load_online(unit.connection, self._policy.market, now - COUNT_EVERY, now)
            hour = _hour_of(now)
            counted = [
                OnlineTime(one.provider_id, one.model, one.asset, auditor, hour, devices * passed_ms, one.ask_micros)
                for one in found
                for auditor, devices in by_auditor(one).items()
            ]
            await online_time.add_time(unit.connection, counted, hour)

    async def _tell(self) -> int:
        """State some hours that are over; returns of how many providers' hours."""
        async with self._database.transaction() as unit:
            before = _hour_of(unit.clock.now() - TOLD_AFTER)
            taken = await online_time.take_hours(
                unit.connection, self._policy.market, before, before - FORSAKEN_AFTER, BATCH
            )
            taken.sort(key=lambda one: (one.start_time, one.provider_id, one.model, one.asset, one.auditor))
            for _, same in groupby(taken, key=lambda one: (one.start_time, one.provider_id, one.model, one.asset)):
                await self._state(unit, list(same))
            return len({(one.start_time, one.provider_id) for one in taken})

    async def _state(self, unit: UnitOfWork, same: list[OnlineTime]) -> None:
        """State one hour of a provider's devices of one model."""
        everybody = next(one for one in same if one.auditor == EVERYBODY)
        provider = await providers.load_provider(unit.connection, everybody.provider_id)
        assert provider is not None, "providers are never deleted"
        audited = [
            events_pb2.OnlineTimeCounted.AuditedTime(auditor=one.auditor, online_duration=to_duration(one.online_ms))
            for one in same
            if one.auditor != EVERYBODY
        ]
        event = events_pb2.OnlineTimeCounted(
            provider=f"providers/{everybody.provider_id}",
            account=provider.account,
            model=everybody.model,
            asset=everybody.asset,
            ask_micros_per_hour=everybody.ask_micros,
            start_time=to_timestamp(everybody.start_time),
            online_duration=to_duration(everybody.online_ms),
            audited=audited,
        )
        version = await providers.next_market_version(unit.connection, everybody.provider_id)
        unit.emit(EventDraft(MARKET_TOPIC, everybody.provider_id, version, event, f"providers/{everybody.provider_id}"))


def _hour_of(instant: datetime) -> datetime:
    """When the hour of an instant began."""
    return instant.replace(minute=0, second=0, microsecond=0)
