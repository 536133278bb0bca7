"""The engine's pass: decide about all open orders in one transaction.

A transaction-level advisory lock lets one pass run at a time, whoever believes to lead; everything is read after it is
held, so two writers can never sell one device twice. The database's own check stands behind that.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from fallow.order.v1 import order_pb2
from fallow_bidding.commands import lifecycle
from fallow_bidding.commands.mix import ArrivalMix
from fallow_bidding.commands.preemption import CANDIDATES_MAX, Part, Preemptions
from fallow_bidding.commands.rounds import close_rounds, load_bids
from fallow_bidding.commands.succession import Succession
from fallow_bidding.commands.trades import state_trades
from fallow_bidding.convert import leases as convert_leases
from fallow_bidding.convert import market as convert
from fallow_bidding.domain.auctions import Auction, AuctionRule, with_bids
from fallow_bidding.domain.demand import GroupDemand, OrderDemand, ReplicaSet, TermKind
from fallow_bidding.domain.leases import GenerationKey, Lease
from fallow_bidding.domain.matching import Decision, GroupMatch, Market, decide
from fallow_bidding.domain.orders import GroupState, MarketGroup, MarketOrder
from fallow_bidding.domain.policy import Policy
from fallow_bidding.domain.providers import Provider
from fallow_bidding.domain.rested import Rested
from fallow_bidding.records import DecisionFolder
from fallow_bidding.store import QUERIES, auctions, delivery, leases, orders
from fallow_bidding.store.suppliers import load_suppliers
from fallow_chassis.errors import UNAVAILABLE, DomainError
from fallow_chassis.postgres import Database, UnitOfWork

ORDER_BATCH: Final = 500
"""The most open orders in one pass; what looks for a provider beyond them comes in the passes that follow."""

OVERDUE: Final = timedelta(seconds=1)
"""How long after its close a round may still be decided out of turn."""
MIN_PAUSE_SECONDS: Final = 0.005
"""The engine never looks again sooner than this."""


class MatchingCommands:
    """Matches open orders; ``lock_key`` is the market's own advisory lock for decisions."""

    def __init__(
        self, database: Database, policy: Policy, lock_key: int, decisions: DecisionFolder | None = None
    ) -> None:
        """Take the database, the market's rules, its lock, and where decisions are kept as files, if anywhere.

        ``decide`` is ``matching.decide``, or the same with what was decided kept.
        """
        self.decide = decide if decisions is None else decisions.decide
        self._mix = ArrivalMix(policy.market)
        self._rested = Rested()
        self._database = database
        self._policy = policy
        self.lock_key = lock_key

    @property
    def market(self) -> str:
        """The market that it decides for."""
        return self._policy.market

    async def match_open_orders(self, term: int | None = None) -> int:
        """Decide about all that looks for a provider, oldest first; returns how many leases that made.

        ``term`` is the leader's: UNAVAILABLE, and nothing written, once another leads by a later one.

        Where something fits nowhere and spot leases might give way, a second tour looks at those too.
        """
        made, rests = await self._tour(frozenset(), term)
        if rests:
            before = self._database.clock.now() - timedelta(milliseconds=self._policy.spot_run_ms_min)
            async with self._database.read() as connection:
                found = await leases.load_preemptible(connection, self._policy.market, before, CANDIDATES_MAX)
            if found:
                made += (await self._tour(frozenset(lease.key.order_id for lease in found), term))[0]
        return made

    async def _tour(self, spot_orders: frozenset[str], term: int | None) -> tuple[int, bool]:
        """Passes over all that looks for a provider; how many leases they made, and whether something rests that others
        might give way to. However many orders fit nowhere, those behind them have their turn.
        """
        made, rests, after = 0, False, ""
        while True:
            leased, rested, last = await self._pass(spot_orders, after, term)
            made, rests = made + leased, rests or rested
            if not last:
                return made, rests
            after = last

    async def _pass(self, spot_orders: frozenset[str], after: str, term: int | None) -> tuple[int, bool, str]:
        """One pass in one transaction, over orders from after ``after``; spot leases of ``spot_orders`` may be told to
        give way. Returns how many leases it made, whether something rests, and the last order where more may follow.
        """
        async with self._database.transaction() as unit:
            await self.lock(unit)
            if term is not None and await unit.connection.fetchval(QUERIES.get("load_term"), self.market) != term:
                raise DomainError(UNAVAILABLE, f"another process leads the market {self.market}")
            now = unit.clock.now()
            looking_ids = await orders.list_looking_orders(
                unit.connection, self._policy.market, now, after, ORDER_BATCH
            )
            found = await orders.lock_open_orders(unit.connection, self._policy.market, {*looking_ids, *spot_orders})
            ids = [order.order_id for order in found]
            groups = await orders.load_groups(unit.connection, ids)
            rounds = await auctions.lock_open_auctions(unit.connection, ids)
            market, providers = Market([]), dict[str, Provider]()
            looking = [order for order in found if any(_needs_decision(group, now) for group in groups[order.order_id])]
            if looking:
                self._mix.count(looking)
                market, providers = await self.load_market(unit)
                groups = await Succession(unit, self._policy, market, providers).run(found, groups)
            preemptions = Preemptions(unit, self._policy, market)
            await preemptions.load()
            parts = [
                part
                for order in found
                for together in _parts(order, groups[order.order_id], rounds[order.order_id], now)
                for part in preemptions.split(Part(order, together))
            ]
            await preemptions.withdraw_others(parts)
            # Who was promised room comes before all others, then a group that has given up its lease for a new workload.
            parts.sort(key=lambda part: (not preemptions.awaits(part), not _succeeds(part)))
            waiting = [part for part in parts if preemptions.awaits(part)]
            made, unmatched, resting = 0, list[Part](), list[Part]()
            if looking and not spot_orders:
                self._rested.look(market)
            for part in waiting:
                if matches := await self._match(unit, market, providers, part, rounds[part.order.order_id]):
                    made += len(matches)
                    await preemptions.withdraw(part.key)
            await preemptions.keep_room([part for part in waiting if preemptions.awaits(part)])
            for part in parts[len(waiting) :]:
                may_rest = not spot_orders and _may_rest(part)
                if may_rest and self._rested.holds(part.order, part.groups):
                    unmatched += _rest(part, (), rounds[part.order.order_id])
                    continue
                matches = await self._match(unit, market, providers, part, rounds[part.order.order_id])
                made += len(matches)
                unmatched += _rest(part, matches, rounds[part.order.order_id])
                if may_rest and not matches:
                    resting.append(part)
            if spot_orders:
                await preemptions.give_notice(unmatched, spot_orders & set(ids))
        if looking and not spot_orders:
            # Only what was committed is remembered.
            self._rested.keep(market, ((part.order, part.groups) for part in resting))
        return made, bool(unmatched), looking_ids[-1] if len(looking_ids) == ORDER_BATCH else ""

    async def seconds_to_close(self) -> float:
        """How long until the next round closes that the engine decides; without any, for ever.

        One whose close has just passed is decided at once; one that is long overdue waits for the usual look.
        """
        after = self._database.clock.now() - OVERDUE
        async with self._database.read() as connection:
            close_time = await auctions.next_close_time(connection, self._policy.market, after)
        if close_time is None:
            return math.inf
        return max(MIN_PAUSE_SECONDS, (close_time - self._database.clock.now()).total_seconds())

    async def lock(self, unit: UnitOfWork) -> None:
        """Hold the market's decisions until the transaction ends."""
        await unit.connection.execute(QUERIES.get("lock_decisions"), self.lock_key)

    async def load_market(self, unit: UnitOfWork) -> tuple[Market, dict[str, Provider]]:
        """The market as it is now, and its providers by their ids."""
        loaded = await load_suppliers(unit.connection, self._policy, unit.clock.now())
        market = Market([supplier for _, supplier in loaded], mix=await self._mix.snapshot(unit.connection))
        return market, {provider.provider_id: provider for provider, _ in loaded}

    async def _match(
        self,
        unit: UnitOfWork,
        market: Market,
        providers: Mapping[str, Provider],
        wanted: Part,
        rounds: Mapping[int, Auction],
    ) -> tuple[GroupMatch, ...]:
        """Decide about groups of one order and write what was decided; those with a round are decided by its bids."""
        order, part = wanted.order, wanted.groups
        assert order.body is not None, "an open order has a body"
        body = order_pb2.Order.FromString(order.body)
        demand = convert.order_demand(body, part)
        due = {index: rounds[index] for index in part if index in rounds}
        bids = await load_bids(unit, due)
        if due:
            second_price = any(auction.rule is AuctionRule.SECOND_PRICE for auction in due.values())
            demand = with_bids(demand, bids, second_price=second_price)
        decision: Decision = self.decide(demand, market)
        if not decision.matches and any(group.may_return(unit.clock.now()) for group in part.values()):
            assert len(part) == 1, "a group that lost its lease is decided alone"
            forgiven = {index: replace(group, excluded_providers=frozenset()) for index, group in part.items()}
            demand = convert.order_demand(body, forgiven)
            decision = self.decide(demand, market)
        await close_rounds(unit, order, body, part, due, bids, decision)
        await self.write(unit, providers, order, part, demand, decision)
        return decision.matches

    async def write(
        self,
        unit: UnitOfWork,
        providers: Mapping[str, Provider],
        order: MarketOrder,
        part: Mapping[int, MarketGroup],
        demand: OrderDemand,
        decision: Decision,
    ) -> None:
        """Write what was decided about groups of one order."""
        for story in decision.explanations:
            await orders.save_decision(unit.connection, order.order_id, story)
        wanted = {group.index: group for group in demand.groups}
        for match in decision.matches:
            group = part[match.group_index]
            spot = demand.term_kind is TermKind.SPOT
            await self._lease(
                unit, providers[match.provider_id], order, group, match, wanted[match.group_index], spot=spot
            )
        if decision.matches:
            await orders.set_match_time(unit.connection, order.order_id, unit.clock.now())

    async def _lease(
        self,
        unit: UnitOfWork,
        provider: Provider,
        order: MarketOrder,
        group: MarketGroup,
        match: GroupMatch,
        wanted: GroupDemand,
        *,
        spot: bool,
    ) -> None:
        """Write one lease with its devices, its command and its event."""
        now = unit.clock.now()
        lease = Lease(
            lease_id=unit.ids.new(),
            key=GenerationKey(order.order_id, group.group_index, group.generation + 1),
            group_id=group.group_id,
            tenant=order.tenant,
            provider_id=provider.provider_id,
            provider_account=provider.account,
            provider_address=provider.address,
            offer_id=match.offer_id,
            asset=match.asset,
            price_micros=match.price_micros,
            placements=match.placements,
            self_stop_ms=self._policy.self_stop_ms,
            create_time=now,
            group_revision=group.revision,
            spot=spot,
        )
        await leases.insert_lease(unit.connection, lease, wanted.price_limit_micros)
        await leases.insert_node_uses(unit.connection, lease, _node_uses(lease, wanted.replica_sets))
        await state_trades(unit, self._policy.market, lease)
        await delivery.insert_run(unit.connection, unit.ids.new(), lease, now)
        leased = replace(group, state=GroupState.LEASED, generation=lease.key.generation, hold_until=None)
        await orders.save_group(unit.connection, leased)
        await orders.set_leased_revision(unit.connection, lease.key, lease.group_revision)
        fact = convert_leases.lease_created(lease, provider.public_key, self._policy.heartbeat_interval_ms)
        await lifecycle.emit_fact(unit, order.order_id, fact)


def _may_rest(part: Part) -> bool:
    """Whether time alone changes nothing for a part that finds nobody: no bids are due, and no provider that failed it may return."""
    return part.order.auction_mode is None and all(group.waits for group in part.groups.values())


def _succeeds(part: Part) -> bool:
    """Whether a group of a part has given up its lease for a new workload."""
    return any(group.succeeds for group in part.groups.values())


def _rest(part: Part, matches: Sequence[GroupMatch], rounds: Mapping[int, Auction]) -> list[Part]:
    """What of a part found no provider, in the parts that would be leased alone; a round that failed begins anew instead."""
    left = {index: group for index, group in part.groups.items() if index not in rounds}
    for match in matches:
        left.pop(match.group_index, None)
    if not left or part.order.together:
        return [Part(part.order, left)] if left else []
    return [Part(part.order, {index: group}) for index, group in left.items()]


def _needs_decision(group: MarketGroup, now: datetime) -> bool:
    """Whether anything may be done for a group now."""
    return group.is_matchable(now) or group.is_changed or group.awaits_release


def _parts(
    order: MarketOrder, groups: list[MarketGroup], rounds: Mapping[int, Auction], now: datetime
) -> list[dict[int, MarketGroup]]:
    """What is decided together: the groups that never had a lease; each group that lost its lease on its own.

    In an order that takes bids a group's first lease is decided only when its round is due.
    """
    open_groups = [group for group in groups if group.is_matchable(now)]
    first = {group.group_index: group for group in open_groups if group.generation == 0}
    if order.auction_mode is not None:
        first = {index: group for index, group in first.items() if index in rounds and rounds[index].is_due(now)}
    again = [{group.group_index: group} for group in open_groups if group.generation > 0]
    return [first, *again] if first else again


def _node_uses(lease: Lease, replica_sets: tuple[ReplicaSet, ...]) -> list[tuple[str, int, int, dict[str, int]]]:
    """What a lease takes of each node."""
    by_service = {replica_set.service: replica_set for replica_set in replica_sets}
    uses: dict[str, tuple[int, int, dict[str, int]]] = {}
    for placement in lease.placements:
        replica_set = by_service[placement.service]
        cpu, memory, storage = uses.get(placement.node_id, (0, 0, {}))
        for name, size in replica_set.disk_bytes_by_class.items():
            storage[name] = storage.get(name, 0) + size
        uses[placement.node_id] = (cpu + replica_set.cpu_milli, memory + replica_set.memory_bytes_taken, storage)
    return [(node_id, *use) for node_id, use in sorted(uses.items())]
