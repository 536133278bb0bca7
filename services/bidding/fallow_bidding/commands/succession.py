"""A changed workload takes the place of the one that runs: the old lease ends, and the next one waits until nothing of
it runs any more.

In each pass, before other orders are decided, every group whose workload is newer than its lease's is tried on a market in
which that lease's share is free. If it would match, the lease ends as superseded, which nobody is blamed for; if not, it
runs on, and the story of the decision says what the change waits for. What successors will need beyond what their
predecessors hold is kept from everybody else until they are matched.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from fallow.order.v1 import order_pb2
from fallow_bidding.commands import lifecycle
from fallow_bidding.convert import market as convert
from fallow_bidding.convert.leases import OBSERVER
from fallow_bidding.domain.leases import EndReason, Evidence, Lease
from fallow_bidding.domain.matching import Decision, Market, decide
from fallow_bidding.domain.orders import UNTIL_RELEASED, GroupState, MarketGroup, MarketOrder
from fallow_bidding.domain.policy import Policy
from fallow_bidding.domain.providers import Provider
from fallow_bidding.store import leases, orders
from fallow_chassis.postgres import UnitOfWork


class Succession:
    """The successions of one pass; the rows of all orders concerned are held."""

    def __init__(self, unit: UnitOfWork, policy: Policy, market: Market, providers: Mapping[str, Provider]) -> None:
        """``market`` is what other orders are decided on afterwards."""
        self._unit = unit
        self._policy = policy
        self._market = market
        self._providers = providers
        self._planned = market.fork()

    async def run(
        self, found: Sequence[MarketOrder], groups: Mapping[str, Sequence[MarketGroup]]
    ) -> dict[str, list[MarketGroup]]:
        """Decide about all groups that are to succeed themselves; the groups as they are afterwards."""
        if not any(group.is_changed or group.awaits_release for order in found for group in groups[order.order_id]):
            return {order_id: list(entries) for order_id, entries in groups.items()}
        after: dict[str, list[MarketGroup]] = {}
        for order in found:
            after[order.order_id] = [
                await self._look(order, group) if group.is_changed or group.awaits_release else group
                for group in groups[order.order_id]
            ]
        self._market.limit_to(self._planned)
        return after

    async def _look(self, order: MarketOrder, group: MarketGroup) -> MarketGroup:
        """Decide about one group."""
        now = self._unit.clock.now()
        lease = await leases.load_generation(self._unit.connection, order.order_id, group.group_index, group.generation)
        assert lease is not None, "a group that succeeds itself had a lease"
        if group.awaits_release and self._has_surely_stopped(lease, now):
            free = replace(group, hold_until=None)
            await orders.save_group(self._unit.connection, free)
            return free
        decision, tried = await self._try(order, group, lease)
        if not decision.matches:
            if group.is_changed:
                told = f"Revision {group.revision} of the workload waits, and revision {lease.group_revision} runs on."
                await self._tell(order, decision, told)
            return group
        self._planned.adopt(tried)
        if group.awaits_release:
            return group
        await self._tell(order, decision, f"Waits until generation {group.generation} has stopped.")
        detail = f"revision {group.revision} of the workload takes the place of revision {lease.group_revision}"
        await lifecycle.end_lease(
            self._unit,
            lease,
            Evidence(EndReason.SUPERSEDED, detail, OBSERVER, now),
            now,
            lost=False,
            nothing_runs=False,
            releasing=True,
        )
        waiting = replace(group, state=GroupState.OPEN, hold_until=UNTIL_RELEASED)
        await orders.save_group(self._unit.connection, waiting)
        return waiting

    async def _try(self, order: MarketOrder, group: MarketGroup, lease: Lease) -> tuple[Decision, Market]:
        """What would be decided if the lease's share were free, and the market after that."""
        assert order.body is not None, "an open order has a body"
        tried = self._planned.fork()
        uses = await leases.load_node_uses_of_lease(self._unit.connection, lease.lease_id)
        shares = [share for placement in lease.placements for share in placement.devices]
        tried.give_back(lease.provider_id, shares, uses)
        demand = convert.order_demand(order_pb2.Order.FromString(order.body), {group.group_index: group})
        return decide(demand, tried), tried

    async def _tell(self, order: MarketOrder, decision: Decision, what: str) -> None:
        """Store the stories of a decision for those who ask why, with what it means for the change."""
        for story in decision.explanations:
            told = replace(story, advice=" ".join(part for part in (what, story.advice) if part))
            await orders.save_decision(self._unit.connection, order.order_id, told)

    def _has_surely_stopped(self, lease: Lease, now: datetime) -> bool:
        """Whether a generation that nobody told the end of has stopped: its agent was silent for too long to go on."""
        provider = self._providers.get(lease.provider_id)
        if provider is None or provider.heartbeat_time is None:
            return False
        return provider.heartbeat_time + self._policy.overlap_wait <= now
