"""Orders come in, change, and end."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from fallow.order.v1 import order_pb2
from fallow_bidding.channels import MARKET_CHANNEL
from fallow_bidding.commands import lifecycle, rounds
from fallow_bidding.convert import leases as convert
from fallow_bidding.convert.auctions import mode_of
from fallow_bidding.convert.market import gpu_models, order_demand, order_market
from fallow_bidding.domain.leases import EndReason, Lease
from fallow_bidding.domain.orders import MarketGroup, MarketOrder
from fallow_bidding.domain.policy import Policy
from fallow_bidding.domain.reasons import ORDER_NOT_FOUND
from fallow_bidding.store import orders
from fallow_chassis.errors import DomainError
from fallow_chassis.postgres import Database, UnitOfWork, notify
from fallow_chassis.wire import from_duration

DEFAULT_MATCH_TIMEOUT_MS: Final = 600_000
"""How long an order waits for a match where it does not say."""
TERM_BATCH: Final = 100
"""The most orders whose term is looked at in one pass."""


async def open_order(unit: UnitOfWork, policy: Policy, message: order_pb2.Order, open_time: datetime) -> bool:
    """Take a funded order to the market; False where it is known, or was ended before it was heard of.

    One that cannot be read is ended, so that its money returns: nobody will ever match it.
    """
    problem = _problem(message)
    if problem:
        detail = f"the market cannot read the order: {problem}"
        await end_named_order(unit, policy, message.name.removeprefix("orders/"), EndReason.EXPIRED, detail)
        return False
    order = _order_of(policy, message, unit, open_time)
    groups = [
        MarketGroup(order.order_id, index, group.group_id, revision=_revision(group))
        for index, group in enumerate(message.groups)
    ]
    assert groups, "an order has a group"
    is_new = await orders.insert_order(unit.connection, order, groups)
    if is_new:
        await rounds.open_rounds(unit, order, message, groups)
        await notify(unit.connection, MARKET_CHANNEL)
    return is_new


async def update_order(unit: UnitOfWork, policy: Policy, message: order_pb2.Order) -> None:
    """Take over what a tenant changed: limits and terms for leases made from now on, workloads as soon as they fit."""
    order = _order_of(policy, message, unit, unit.clock.now())
    known = (await orders.lock_orders(unit.connection, [order.order_id])).get(order.order_id)
    if known is not None and not known.ended:
        groups = (await orders.load_groups(unit.connection, [order.order_id]))[order.order_id]
        waiting = [group for group in groups if group.waits]
        is_other = any(_revision(message.groups[group.group_index]) > group.revision for group in waiting)
        await orders.update_body(unit.connection, order, [_revision(group) for group in message.groups])
        if is_other:
            await rounds.restart_rounds(unit, known, message, waiting)
        await notify(unit.connection, MARKET_CHANNEL)


async def end_named_order(
    unit: UnitOfWork, policy: Policy, order_id: str, reason: EndReason, detail: str
) -> list[Lease]:
    """End an order by its id; one that was never heard of is remembered as ended, and that is a fact too."""
    now = unit.clock.now()
    unheard = MarketOrder(
        order_id, "", policy.markets.default, None, now, ended=True, end_reason=reason, end_detail=detail, end_time=now
    )
    if await orders.insert_order(unit.connection, unheard, []):
        fact = convert.order_ended(order_id, reason, detail, now)
        await lifecycle.emit_fact(unit, order_id, fact)
        return []
    known = await orders.lock_orders(unit.connection, [order_id])
    return await lifecycle.end_order(unit, known[order_id], reason, detail)


class OrderCommands:
    """Use-cases that begin a transaction of their own."""

    def __init__(self, database: Database, policy: Policy) -> None:
        """Take the database and the market's rules."""
        self._database = database
        self._policy = policy

    async def end(self, order_id: str, reason: EndReason, detail: str) -> list[Lease]:
        """End an order; a repeat changes nothing and answers with the same leases."""
        async with self._database.transaction() as unit:
            return await end_named_order(unit, self._policy, order_id, reason, detail)

    async def set_suspended(self, order_id: str, number: int, *, suspended: bool) -> None:
        """Pause an order, or let it go on; a repeat, a word that a later one has overtaken, and an order that has ended
        change nothing. Agents hear of it with the answer to their next heartbeat. Raises ORDER_NOT_FOUND.
        """
        async with self._database.transaction() as unit:
            order = (await orders.lock_orders(unit.connection, [order_id])).get(order_id)
            if order is None:
                raise DomainError(ORDER_NOT_FOUND, "no such order", metadata={"name": f"orders/{order_id}"})
            if order.ended or number <= order.suspension_number:
                return
            await orders.set_suspended(unit.connection, replace(order, suspended=suspended, suspension_number=number))
            if not suspended:
                await notify(unit.connection, MARKET_CHANNEL)

    async def end_terms(self) -> int:
        """End the orders whose longest running time is over; returns how many."""
        async with self._database.read() as connection:
            due: Sequence[str] = await orders.load_expired_terms(connection, self._database.clock.now(), TERM_BATCH)
        for order_id in due:
            await self.end(order_id, EndReason.TERM, "the longest running time is over")
        return len(due)


def _revision(group: order_pb2.Group) -> int:
    """The revision of a group's workload; an order that was opened before there were revisions is at the first."""
    return max(1, group.revision)


def _problem(message: order_pb2.Order) -> str:
    """Why the engine could not read an order; empty where it can."""
    try:
        order_demand(message)
    except (AssertionError, ValueError) as error:
        return str(error) or repr(error)
    return "" if message.groups else "it has no group"


def _order_of(policy: Policy, message: order_pb2.Order, unit: UnitOfWork, open_time: datetime) -> MarketOrder:
    """The order that an event carries; workloads are never stored here, whatever the event holds.

    What the engine will ask is made once already here, so that an order that makes no sense fails as an event and never
    in the engine, where it would stop every other.
    """
    order_demand(message)
    body = order_pb2.Order()
    body.CopyFrom(message)
    for group in body.groups:
        group.ClearField("workload")
    terms = body.terms
    return MarketOrder(
        order_id=body.name.removeprefix("orders/"),
        tenant=body.account,
        market=order_market(policy.markets, body),
        body=body.SerializeToString(deterministic=True),
        create_time=unit.clock.now(),
        open_time=min(open_time, unit.clock.now()),
        match_timeout_ms=from_duration(terms.match_timeout) or DEFAULT_MATCH_TIMEOUT_MS,
        together=message.group_binding != order_pb2.GROUP_BINDING_EACH,
        gpu_models=gpu_models(message),
        term_ms=from_duration(terms.duration) or None if terms.HasField("duration") else None,
        auction_mode=mode_of(body),
        forbids_overlap=terms.overlap == order_pb2.OVERLAP_FORBIDDEN,
    )
