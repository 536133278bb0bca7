"""Reads: what Get, List, Estimate and Explain answer. Nothing is written here."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from fallow.bidding.v1 import market_service_pb2, provider_pb2
from fallow.order.v1 import order_pb2
from fallow_bidding.convert import market as convert
from fallow_bidding.convert.auctions import rule_of
from fallow_bidding.convert.estimates import estimate_message
from fallow_bidding.convert.relaxations import add_relaxations
from fallow_bidding.domain.auctions import AuctionMode, AuctionRule
from fallow_bidding.domain.demand import TermKind
from fallow_bidding.domain.estimation import estimate
from fallow_bidding.domain.explanation import GroupExplanation
from fallow_bidding.domain.leases import EARLY_CLOSE_MS_MAX, Lease, LeaseState
from fallow_bidding.domain.matching import Market, decide_in_full, weigh
from fallow_bidding.domain.orders import GroupState, MarketGroup, MarketOrder
from fallow_bidding.domain.policy import Policy
from fallow_bidding.domain.providers import Offer, Provider, ProviderFilter
from fallow_bidding.domain.reasons import LEASE_NOT_FOUND, OFFER_NOT_FOUND, ORDER_NOT_FOUND, PROVIDER_NOT_FOUND
from fallow_bidding.relaxation_queries import load_prospect
from fallow_bidding.store import leases, orders, providers
from fallow_bidding.store.suppliers import load_suppliers
from fallow_chassis.errors import DomainError
from fallow_chassis.postgres import Connection, Database
from fallow_chassis.wire import resource_id, to_duration

MATCH_HISTORY: Final = timedelta(days=7)
"""How far back the usual time to a match is looked for."""
MATCH_SAMPLES_MIN: Final = 5
"""With fewer matches than these nobody knows what is usual."""
NOT_LOOKED_AT: Final = "The engine has not looked at the order yet."
WAITS_FOR: Final = {
    AuctionMode.AUCTION: "Sealed bids are taken until the round closes; standing offers, shown here as they are now, bid too.",
    AuctionMode.MANUAL: "It waits for your choice: fallow order bids shows the bids and the standing offers, fallow order accept picks one.",
}
"""What an order that takes bids waits for before its first decision."""


class Queries:
    """Reads of the service's own database. Callers that may see everything pass an empty account."""

    def __init__(self, database: Database, policy: Policy) -> None:
        """Take the database and the market's rules."""
        self._database = database
        self._policy = policy

    async def provider(self, name: str) -> Provider:
        """A provider, or PROVIDER_NOT_FOUND."""
        async with self._database.read() as connection:
            provider = await providers.load_provider(connection, resource_id(name, "providers"))
        if provider is None:
            raise DomainError(PROVIDER_NOT_FOUND, "there is no such provider", metadata={"provider": name})
        return provider

    async def owned_provider(self, name: str, account: str) -> Provider:
        """A provider of an account, or PROVIDER_NOT_FOUND, in the same words whoever else has it."""
        async with self._database.read() as connection:
            provider = await providers.load_provider(connection, resource_id(name, "providers"))
        if provider is None or provider.account != account:
            raise DomainError(PROVIDER_NOT_FOUND, "there is no such provider of yours", metadata={"provider": name})
        return provider

    async def providers(self, wanted: ProviderFilter, before: str, limit: int) -> list[Provider]:
        """The wanted providers, newest first."""
        async with self._database.read() as connection:
            return await providers.list_providers(connection, wanted, before, limit)

    async def inventory(self, name: str, account: str) -> provider_pb2.Inventory:
        """What a provider of the caller has and what is reserved of it."""
        provider_name = name.removesuffix("/inventory")
        provider = await self.owned_provider(provider_name, account)
        ids = [provider.provider_id]
        async with self._database.read() as connection:
            return convert.inventory_message(
                provider,
                await providers.load_nodes(connection, ids),
                await providers.load_devices(connection, ids),
                await leases.load_device_uses(connection, ids),
            )

    async def offer(self, name: str) -> Offer:
        """An offer, or OFFER_NOT_FOUND."""
        async with self._database.read() as connection:
            offer = await providers.load_offer(connection, resource_id(name, "offers"))
        if offer is None:
            raise DomainError(OFFER_NOT_FOUND, "there is no such offer", metadata={"offer": name})
        return offer

    async def offers(self, provider_id: str, before: str, limit: int) -> list[Offer]:
        """Offers, newest first, of one provider or of all."""
        async with self._database.read() as connection:
            return await providers.list_offers(connection, provider_id, before, limit)

    async def lease(self, name: str, account: str) -> Lease:
        """A lease that the account may see as tenant or owner, or LEASE_NOT_FOUND."""
        async with self._database.read() as connection:
            lease = await leases.load_lease(connection, resource_id(name, "leases"))
        if lease is None or (account and account not in {lease.tenant, lease.provider_account}):
            raise DomainError(LEASE_NOT_FOUND, "there is no such lease of yours", metadata={"lease": name})
        return lease

    async def leases(
        self,
        *,
        account: str,
        order_id: str,
        provider_id: str,
        states: Sequence[LeaseState],
        before: str,
        limit: int,
    ) -> list[Lease]:
        """Leases, newest first, that the account may see."""
        async with self._database.read() as connection:
            return await leases.list_leases(
                connection,
                account=account,
                order_id=order_id,
                provider_id=provider_id,
                states=states,
                before=before,
                limit=limit,
            )

    async def estimate(self, order: order_pb2.Order) -> market_service_pb2.EstimateMatchResponse:
        """What an order would be matched at now, from live inventory and offers."""
        now = self._database.clock.now()
        async with self._database.read() as connection:
            policy = replace(self._policy, market=convert.order_market(self._policy.markets, order))
            loaded = await load_suppliers(connection, policy, now)
            wait_ms = await _match_wait_ms(connection, policy.market, convert.gpu_models(order), now)
        demand = replace(convert.order_demand(order), second_price=rule_of(order) is AuctionRule.SECOND_PRICE)
        found = await asyncio.to_thread(estimate, demand, Market([supplier for _, supplier in loaded]))
        answer = estimate_message(found, demand)
        if wait_ms is not None:
            answer.time_to_match.CopyFrom(to_duration(wait_ms))
        if demand.term_kind is TermKind.SPOT:
            answer.spot.run_min.CopyFrom(to_duration(policy.spot_run_ms_min))
            answer.spot.notice.CopyFrom(to_duration(policy.preempt_notice_ms))
        if demand.term_kind is TermKind.RESERVED and demand.duration_ms is not None:
            answer.early_close.CopyFrom(to_duration(min(EARLY_CLOSE_MS_MAX, demand.duration_ms)))
        return answer

    async def explain(self, name: str) -> market_service_pb2.ExplainMatchResponse:
        """The last decision about each group of an order, or ORDER_NOT_FOUND.

        Of a group that was matched without bids the decision has the best offers alone: while its lease lives, the rest is told
        from the market as it is now.
        """
        order_id = resource_id(name, "orders", field="order")
        async with self._database.read() as connection:
            order = await orders.load_order(connection, order_id)
            groups = (await orders.load_groups(connection, [order_id]))[order_id]
            if order is None:
                raise DomainError(ORDER_NOT_FOUND, "bidding has not heard of this order", metadata={"order": name})
            now = self._database.clock.now()
            prospect = await load_prospect(connection, self._policy, now, order, groups)
            standing = await self._standing_stories(connection, order, groups, now)
            matched = await self._matched_stories(connection, order, groups, now)
        stories = [
            standing.get(
                group.group_index, GroupExplanation(group.group_index, group.group_id, "", advice=NOT_LOOKED_AT)
            )
            if group.decision is None
            else matched.get(group.group_index, GroupExplanation.from_json(group.decision))
            for group in groups
        ]
        told = {} if prospect is None else await prospect.find(self._database.clock)
        messages = [convert.explanation_message(story) for story in stories]
        for index, (changes, free_time) in told.items():
            assert prospect is not None, "it was asked"
            add_relaxations(messages[index], changes, free_time, prospect.asset(index))
        return market_service_pb2.ExplainMatchResponse(groups=messages)

    async def _standing_stories(
        self, connection: Connection, order: MarketOrder, groups: Sequence[MarketGroup], now: datetime
    ) -> dict[int, GroupExplanation]:
        """Of groups that take bids and were not decided yet: how the standing offers look now, and what they wait for."""
        waiting = {group.group_index: group for group in groups if group.waits and group.decision is None}
        if order.ended or order.body is None or order.auction_mode is None or not waiting:
            return {}
        loaded = await load_suppliers(connection, replace(self._policy, market=order.market), now)
        demand = convert.order_demand(order_pb2.Order.FromString(order.body), waiting)
        stories = decide_in_full(demand, Market([supplier for _, supplier in loaded])).explanations
        advice = WAITS_FOR[order.auction_mode]
        return {
            story.group_index: replace(
                story,
                offers=tuple(replace(offer, won=False) for offer in story.offers),
                advice=f"{advice} {story.advice}".strip(),
            )
            for story in stories
        }

    async def _matched_stories(
        self, connection: Connection, order: MarketOrder, groups: Sequence[MarketGroup], now: datetime
    ) -> dict[int, GroupExplanation]:
        """Of groups that have a lease, of which the best offers were stored: the story with what the market is now."""
        stored = {
            group.group_index: GroupExplanation.from_json(group.decision)
            for group in groups
            if group.state is GroupState.LEASED and group.decision is not None
        }
        told = {group.group_index: group for group in groups if group.group_index in stored}
        told = {index: group for index, group in told.items() if not stored[index].funnel}
        if order.body is None or not told:
            return {}
        loaded = await load_suppliers(connection, replace(self._policy, market=order.market), now)
        market = Market([supplier for _, supplier in loaded])
        for index, group in told.items():
            lease = await leases.load_generation(connection, order.order_id, index, group.generation)
            assert lease is not None, "a leased group has a lease"
            uses = await leases.load_node_uses_of_lease(connection, lease.lease_id)
            market.give_back(lease.provider_id, [share for one in lease.placements for share in one.devices], uses)
        demand = convert.order_demand(order_pb2.Order.FromString(order.body), told)

        def look() -> dict[int, GroupExplanation]:
            return {
                group.index: stored[group.index].at_present(weigh(demand, group, market).explanation)
                for group in demand.groups
            }

        return await asyncio.to_thread(look)


async def _match_wait_ms(connection: Connection, market: str, gpu_models: Sequence[str], now: datetime) -> int | None:
    """The usual wait from opening to first lease: of orders for the same models, else of all; None if too few."""
    for models in (gpu_models, None):
        samples, median_ms = await orders.load_match_wait(connection, market, now - MATCH_HISTORY, models)
        if samples >= MATCH_SAMPLES_MIN:
            return median_ms
    return None
