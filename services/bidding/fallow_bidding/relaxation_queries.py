"""What would let a group match that looks for a provider: read the market, try changes on a copy of it, tell.

The trying is pure and bounded in number and time; it runs in a thread, so that nobody else waits for it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from fallow.order.v1 import order_pb2
from fallow_bidding.convert.market import order_demand
from fallow_bidding.domain.demand import OrderDemand
from fallow_bidding.domain.matching import Market
from fallow_bidding.domain.orders import UNTIL_RELEASED, GroupState, MarketGroup, MarketOrder
from fallow_bidding.domain.policy import Policy
from fallow_bidding.domain.relaxation import Freeing, Relaxation, Trials, find_free_time, find_relaxations
from fallow_bidding.store import leases
from fallow_bidding.store.suppliers import load_suppliers
from fallow_chassis.clock import Clock
from fallow_chassis.postgres import Connection

TRYING_MS: Final = 1_000
"""How long changes are tried for all groups of one order."""
FREEINGS_MAX: Final = 200
"""The most leases with a fixed end that are looked at, the soonest."""
RELAXATIONS_MAX: Final = 32
"""The most changes that are told of a group."""

Told = tuple[tuple[Relaxation, ...], datetime | None]


@dataclass(frozen=True, slots=True)
class Prospect:
    """The market before those groups of one order that look for a provider, as of one instant."""

    demand: OrderDemand
    hold_until: dict[int, datetime | None]
    market: Market
    freeings: list[Freeing]
    now: datetime

    def asset(self, index: int) -> str:
        """What a group pays in."""
        return next(group.asset for group in self.demand.groups if group.index == index)

    async def find(self, clock: Clock) -> dict[int, Told]:
        """By group, what would let it match, and when it would by itself."""
        until_ms = clock.monotonic_ms() + TRYING_MS
        return await asyncio.to_thread(self._find_all, lambda: clock.monotonic_ms() < until_ms)

    def _find_all(self, may_go_on: Callable[[], bool]) -> dict[int, Told]:
        """Look at one group after the other, each by itself."""
        return {
            group.index: self._find(
                replace(self.demand, groups=(group,), together=True), Trials(self.market, may_go_on)
            )
            for group in self.demand.groups
        }

    def _find(self, alone: OrderDemand, trials: Trials) -> Told:
        """What would let one group match."""
        hold_until = self.hold_until[alone.groups[0].index]
        held = hold_until if hold_until is not None and self.now < hold_until < UNTIL_RELEASED else None
        if trials.match(alone) is not None:
            return (), held
        changes = find_relaxations(alone, trials)[:RELAXATIONS_MAX]
        free_time = find_free_time(alone, trials, self.freeings)
        return changes, None if free_time is None else max(free_time, held or free_time, self.now)


async def load_prospect(
    connection: Connection, policy: Policy, now: datetime, order: MarketOrder, groups: list[MarketGroup]
) -> Prospect | None:
    """What the groups of an order look at; None where none looks for a provider, or where it takes bids."""
    looking = {group.group_index: group for group in groups if group.state is GroupState.OPEN}
    if order.ended or order.body is None or order.auction_mode is not None or not looking:
        return None
    loaded = await load_suppliers(connection, replace(policy, market=order.market), now)
    return Prospect(
        demand=order_demand(order_pb2.Order.FromString(order.body), looking),
        hold_until={index: group.hold_until for index, group in looking.items()},
        market=Market([supplier for _, supplier in loaded]),
        freeings=await leases.load_freeings(connection, order.market, FREEINGS_MAX),
        now=now,
    )
