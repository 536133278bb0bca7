"""Spot leases give way to orders that fit nowhere else: notice, the room that is kept meanwhile, and its withdrawal.

A notice is a mark on the lease: when it ends, and for which group of which order. The pass of the engine that follows looks
first whether that order fits without it; then it is leased, and the notices are withdrawn. Otherwise the room that the order
will have is kept from everybody else. An order that has ended, or that would not fit even then, withdraws its notices. The
rows of all orders concerned are held by the caller.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from fallow.order.v1 import order_pb2
from fallow_bidding.commands import lifecycle
from fallow_bidding.convert import leases as convert_leases
from fallow_bidding.convert import market as convert
from fallow_bidding.domain.demand import OrderDemand, TermKind
from fallow_bidding.domain.leases import Lease, Preemption
from fallow_bidding.domain.matching import Market
from fallow_bidding.domain.orders import MarketGroup, MarketOrder
from fallow_bidding.domain.policy import Policy
from fallow_bidding.domain.preemption import SpotLease, displace, without
from fallow_bidding.store import leases, orders
from fallow_chassis.postgres import UnitOfWork

CANDIDATES_MAX: Final = 200
"""The most spot leases, the cheapest, that are looked at in one pass."""


@dataclass(frozen=True, slots=True)
class Part:
    """Groups of one order that are decided together."""

    order: MarketOrder
    groups: dict[int, MarketGroup]

    @property
    def key(self) -> tuple[str, int]:
        """The order and the first of the groups: what a notice names."""
        return self.order.order_id, min(self.groups)

    @property
    def demand(self) -> OrderDemand:
        """What the groups ask."""
        assert self.order.body is not None, "an open order has a body"
        return convert.order_demand(order_pb2.Order.FromString(self.order.body), self.groups)


class Preemptions:
    """The notices of one pass."""

    def __init__(self, unit: UnitOfWork, policy: Policy, market: Market) -> None:
        """``market`` is what orders are decided on; it loses what is kept for those that wait."""
        self._unit = unit
        self._policy = policy
        self._market = market
        self._noticed: dict[tuple[str, int], list[Lease]] = {}

    async def load(self) -> None:
        """Take up the notices that stand."""
        for lease in await leases.load_noticed(self._unit.connection, self._policy.market):
            assert lease.preemption is not None, "a notice says for whom"
            key = lease.preemption.order_id, lease.preemption.group_index
            self._noticed.setdefault(key, []).append(lease)

    def split(self, part: Part) -> list[Part]:
        """A part whose groups are leased each on its own, without those for which room is being made, and these alone."""
        order_id = part.order.order_id
        alone = [] if part.order.together else [index for index in part.groups if (order_id, index) in self._noticed]
        rest = {index: group for index, group in part.groups.items() if index not in alone}
        parts = [Part(part.order, {index: part.groups[index]}) for index in alone]
        return [Part(part.order, rest), *parts] if rest else parts

    def awaits(self, part: Part) -> bool:
        """Whether room is being made for a part."""
        return part.key in self._noticed

    async def withdraw_others(self, parts: Sequence[Part]) -> None:
        """Withdraw the notices for whoever does not look for room any more."""
        keys = {part.key for part in parts}
        for key in [key for key in self._noticed if key not in keys]:
            await self.withdraw(key)

    async def withdraw(self, key: tuple[str, int]) -> None:
        """Take back the notices for a part, which is leased, ended or does not fit anyhow."""
        for lease in self._noticed.pop(key):
            await leases.save_preemption(self._unit.connection, lease.lease_id, None)
            if lease.is_live:
                fact = convert_leases.lease_preemption_withdrawn(lease, self._unit.clock.now())
                await lifecycle.emit_fact(self._unit, lease.key.order_id, fact)

    async def keep_room(self, waiting: Sequence[Part]) -> None:
        """Keep from others what those will have for whom notice was given, or withdraw it where that helps no more."""
        planned = self._market.fork()
        for part in waiting:
            held = self._noticed[part.key]
            found = without(
                part.demand, planned, await self._spot_leases([lease for lease in held if lease.holds_devices])
            )
            if found is None:
                await self.withdraw(part.key)
            else:
                planned = found.market
                await self._tell(part, held)
        self._market.limit_to(planned)

    async def give_notice(self, parts: Sequence[Part], order_ids: Collection[str]) -> None:
        """Give notice to spot leases of these orders, where that makes room for parts that fit nowhere."""
        ready_before = self._unit.clock.now() - timedelta(milliseconds=self._policy.spot_run_ms_min)
        found = await leases.load_preemptible(self._unit.connection, self._policy.market, ready_before, CANDIDATES_MAX)
        by_id = {lease.lease_id: lease for lease in found if lease.key.order_id in order_ids}
        candidates = await self._spot_leases(list(by_id.values()))
        for part in parts:
            demand = part.demand
            if demand.term_kind is TermKind.SPOT or not candidates:
                continue
            taken = displace(demand, self._market, candidates)
            if taken is None:
                continue
            gone = {lease.lease_id for lease in taken.leases}
            candidates = [lease for lease in candidates if lease.lease_id not in gone]
            noticed = [await self._notice(by_id[lease_id], part) for lease_id in sorted(gone)]
            self._noticed[part.key] = noticed
            self._market.limit_to(taken.market)
            await self._tell(part, noticed)

    async def _notice(self, lease: Lease, part: Part) -> Lease:
        """Tell a lease when it ends."""
        now = self._unit.clock.now()
        order_id, group_index = part.key
        end = now + timedelta(milliseconds=self._policy.preempt_notice_ms)
        noticed = replace(lease, preemption=Preemption(end, order_id, group_index))
        await leases.save_preemption(self._unit.connection, lease.lease_id, noticed.preemption)
        await lifecycle.emit_fact(
            self._unit, lease.key.order_id, convert_leases.lease_preemption_announced(noticed, now)
        )
        return noticed

    async def _tell(self, part: Part, held: Sequence[Lease]) -> None:
        """Say in the stories of a part what it waits for."""
        last = max(lease.preemption.time for lease in held if lease.preemption is not None)
        told = f"Waits for the room of {len(held)} spot leases, which end by {last.isoformat(timespec='seconds')}."
        for story in await orders.load_decisions(self._unit.connection, part.order.order_id):
            if story.group_index in part.groups:
                waits = replace(story, advice=told)
                await orders.save_decision(self._unit.connection, part.order.order_id, waits)

    async def _spot_leases(self, found: Sequence[Lease]) -> list[SpotLease]:
        """Leases with what they hold."""
        uses = await leases.load_node_uses_of_leases(self._unit.connection, [lease.lease_id for lease in found])
        return [
            SpotLease(
                lease.lease_id,
                lease.provider_id,
                lease.price_micros,
                tuple(share for placement in lease.placements for share in placement.devices),
                tuple(uses[lease.lease_id]),
            )
            for lease in found
        ]
