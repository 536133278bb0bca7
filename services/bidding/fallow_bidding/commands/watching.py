"""What time does to leases: silence, commands that nobody answers, starts that never end, waits for a match that
are over, and our own outages.
"""

from datetime import datetime, timedelta
from typing import Final

from fallow_bidding.commands import lifecycle
from fallow_bidding.commands.rounds import away_ms
from fallow_bidding.convert.leases import OBSERVER
from fallow_bidding.domain.leases import EndReason, Evidence, Lease, LeaseState
from fallow_bidding.domain.orders import GroupState, judge_wait
from fallow_bidding.domain.policy import Policy
from fallow_bidding.domain.silence import OUTAGE_AFTER, Outage, heard_since, outages_with_present
from fallow_bidding.store import auctions, leases, orders, outages, providers
from fallow_chassis.postgres import Connection, Database, UnitOfWork

ROUND_PAUSE: Final = timedelta(seconds=1)
"""How long an order whose round is about to be decided is left alone."""
BATCH: Final = 200
"""The most providers or leases that one pass looks at."""


class WatchCommands:
    """Run by timers; every pass is safe to repeat and to run in several processes."""

    def __init__(self, database: Database, policy: Policy) -> None:
        """Take the database and the market's rules."""
        self._database = database
        self._policy = policy

    async def beat(self) -> None:
        """Note the market's own pulse; a gap since the last one is recorded as an outage."""
        async with self._database.transaction() as unit:
            now = unit.clock.now()
            last = await outages.lock_pulse(unit.connection)
            if last is not None and now - last >= OUTAGE_AFTER:
                await outages.insert_outage(unit.connection, Outage(last, now))
            await outages.save_pulse(unit.connection, now)

    async def find_silent(self) -> int:
        """Mark providers that have fallen silent; take the leases of those beyond their grace. Returns leases lost."""
        now = self._database.clock.now()
        async with self._database.read() as connection:
            away = await self._outages(connection, now)
            silent = await providers.load_silent_providers(
                connection, now - timedelta(milliseconds=self._policy.unreachable_ms), BATCH
            )
        lost = 0
        for provider_id, heartbeat_time, reachable in silent:
            silence = now - heard_since(away, heartbeat_time)
            if silence >= timedelta(milliseconds=self._policy.unreachable_ms) and reachable:
                await self._mark_unreachable(provider_id, heartbeat_time)
            if silence >= timedelta(milliseconds=self._policy.grace_ms):
                lost += await self._lose(provider_id, heartbeat_time)
        return lost

    async def find_overdue(self) -> int:
        """Take leases whose command nobody answered, or whose start never ended. Returns how many."""
        now = self._database.clock.now()
        accept = timedelta(milliseconds=self._policy.accept_timeout_ms)
        start = timedelta(milliseconds=self._policy.start_timeout_ms + self._policy.start_margin_ms)
        async with self._database.read() as connection:
            away = await self._outages(connection, now)
            overdue = await leases.load_overdue(connection, now - accept, now - start, BATCH)
        taken = 0
        for lease_id, order_id in overdue:
            async with self._database.transaction() as unit:
                order = (await orders.lock_orders(unit.connection, [order_id]))[order_id]
                lease = await leases.load_lease(unit.connection, lease_id)
                assert lease is not None, "leases are never deleted"
                evidence = _overdue_evidence(lease, away, now, accept, start)
                if evidence is None:
                    continue
                await lifecycle.fail_lease(
                    unit, self._policy, order, lease, evidence, heard_time=now, nothing_runs=False
                )
                taken += 1
        return taken

    async def end_preempted(self) -> int:
        """End the spot leases whose notice is over, where somebody still waits for their room. Returns how many."""
        async with self._database.read() as connection:
            due = await leases.load_preemptions_due(connection, self._database.clock.now(), BATCH)
        ended = 0
        for named in due:
            assert named.preemption is not None, "what is due has a notice"
            gainer = named.preemption.order_id
            async with self._database.transaction() as unit:
                held = await orders.lock_orders(unit.connection, [named.key.order_id, gainer])
                lease = await leases.load_lease(unit.connection, named.lease_id)
                groups = (await orders.load_groups(unit.connection, [gainer]))[gainer]
                waits = not held[gainer].ended and groups[named.preemption.group_index].state is GroupState.OPEN
                # Where nobody waits any more the engine withdraws the notice.
                if lease is None or not lease.is_live or lease.preemption != named.preemption or not waits:
                    continue
                await lifecycle.preempt_lease(unit, self._policy, held[named.key.order_id], lease)
                ended += 1
        return ended

    async def find_unmatched(self) -> int:
        """End what found no first match in time, and say so. Returns how many orders or groups ended."""
        now = self._database.clock.now()
        async with self._database.read() as connection:
            due = await orders.load_match_due(connection, now, BATCH)
        ended = 0
        for order_id in due:
            async with self._database.transaction() as unit:
                ended += await self._end_unmatched(unit, order_id)
        return ended

    async def _end_unmatched(self, unit: UnitOfWork, order_id: str) -> int:
        """End the groups of one order that waited too long, or note when to look again."""
        now = unit.clock.now()
        order = (await orders.lock_orders(unit.connection, [order_id]))[order_id]
        groups = (await orders.load_groups(unit.connection, [order_id]))[order_id]
        if await auctions.has_sealed_auction(unit.connection, order_id):
            # The last round closes with the wait, and the engine decides it before anything ends.
            await orders.set_match_due(unit.connection, order_id, now + ROUND_PAUSE)
            return 0
        wait = judge_wait(order, groups, await away_ms(unit, order), now)
        await orders.set_match_due(unit.connection, order_id, wait.next_time)
        if not wait.over:
            return 0
        assert order.match_timeout_ms is not None, "a wait that is over had a length"
        detail = f"no match within {order.match_timeout_ms / 1_000:g} s"
        if order.together:
            await lifecycle.end_order(unit, order, EndReason.EXPIRED, detail)
            return 1
        for group in wait.over:
            await lifecycle.end_group(unit, order, group, EndReason.EXPIRED, detail)
        return len(wait.over)

    async def _outages(self, connection: Connection, now: datetime) -> list[Outage]:
        """Our own outages that can matter to any wait that is now over."""
        longest = max(self._policy.grace_ms, self._policy.start_timeout_ms + self._policy.start_margin_ms)
        recorded = await outages.load_outages(connection, now - timedelta(milliseconds=longest))
        return outages_with_present(recorded, await outages.load_pulse(connection), now)

    async def _mark_unreachable(self, provider_id: str, heartbeat_time: datetime) -> None:
        """Give a silent provider no new lease, unless it was heard meanwhile."""
        async with self._database.transaction() as unit:
            provider = await providers.lock_provider(unit.connection, provider_id)
            if provider is not None and provider.heartbeat_time == heartbeat_time:
                await providers.set_unreachable(unit.connection, provider_id)

    async def _lose(self, provider_id: str, heartbeat_time: datetime) -> int:
        """Take all live leases of a provider that was silent beyond its grace, unless it was heard meanwhile."""
        async with self._database.transaction() as unit:
            provider = await providers.lock_provider(unit.connection, provider_id)
            if provider is None or provider.heartbeat_time != heartbeat_time:
                return 0
            held = await leases.load_holding_leases(unit.connection, provider_id)
            await orders.lock_orders(unit.connection, [lease.key.order_id for lease in held])
            now = unit.clock.now()
            detail = f"no heartbeat for {(now - heartbeat_time).total_seconds():.0f} s"
            evidence = Evidence(EndReason.UNREACHABLE, detail, OBSERVER, now)
            lost = 0
            for named in held:
                lease = await leases.load_lease(unit.connection, named.lease_id)
                order = await orders.load_order(unit.connection, named.key.order_id)
                if lease is None or order is None or not lease.is_live:
                    continue
                await lifecycle.fail_lease(
                    unit, self._policy, order, lease, evidence, heard_time=heartbeat_time, nothing_runs=False
                )
                lost += 1
            return lost


def _overdue_evidence(
    lease: Lease, away: list[Outage], now: datetime, accept: timedelta, start: timedelta
) -> Evidence | None:
    """Why a lease is overdue, or nothing; a wait starts again at the end of an outage of our own."""
    if lease.state is LeaseState.RESERVED and now - heard_since(away, lease.create_time) >= accept:
        detail = f"the provider did not answer the command within {accept.total_seconds():.0f} s"
        return Evidence(EndReason.REFUSED, detail, OBSERVER, now)
    if lease.state is LeaseState.STARTING:
        assert lease.accept_time is not None, "a starting lease was accepted"
        if now - heard_since(away, lease.accept_time) >= start:
            detail = f"the workload was not ready within {start.total_seconds():.0f} s"
            return Evidence(EndReason.WORKLOAD, detail, OBSERVER, now)
    return None
