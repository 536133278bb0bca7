"""Facts of bidding and settlement, folded into orders. An order that is not (or no longer) here is passed over."""

from collections.abc import Callable
from datetime import datetime
from typing import Final

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from fallow.bidding.v1 import events_pb2 as bidding_events
from fallow.order.v1 import order_pb2
from fallow.settlement.v1 import charge_pb2
from fallow.settlement.v1 import events_pb2 as settlement_events
from fallow.type.v1 import lease_pb2
from fallow_chassis.events import ReceivedEvent
from fallow_chassis.inbox import Handler
from fallow_chassis.logging import get_logger
from fallow_chassis.postgres import UnitOfWork
from fallow_chassis.wire import from_timestamp
from fallow_order import convert, store, update_store
from fallow_order.commands import emit
from fallow_order.domain import order as orders
from fallow_order.domain import update as updates
from fallow_order.domain.order import Order, OrderState
from fallow_order.domain.update import PendingUpdate
from fallow_order.intake_update import limits_of

LEASES_TOPIC: Final = "fallow.bidding.leases.v1"
ESCROWS_TOPIC: Final = "fallow.settlement.escrows.v1"

_log = get_logger(__name__)


async def lease_created(unit: UnitOfWork, _event: ReceivedEvent, message: bidding_events.LeaseCreated) -> None:
    """A group has a provider."""
    lease = message.lease
    await _fold(
        unit,
        lease.key.order,
        lambda order, now: orders.lease_created(
            order,
            lease.key.group,
            lease.key.generation,
            lease.name,
            lease.provider,
            (lease.price.asset, lease.price.micros_per_hour),
            _instant(lease.create_time, now),
        ),
    )
    # A lease that was made before workloads had revisions is on the first.
    order_id, revision = lease.key.order.removeprefix("orders/"), max(1, lease.group_revision)
    await update_store.note_lease_revision(unit.connection, order_id, lease.key.group, lease.key.generation, revision)


async def auction_opened(unit: UnitOfWork, _event: ReceivedEvent, message: bidding_events.AuctionOpened) -> None:
    """A round of bids has begun."""
    if message.match_mode == order_pb2.MATCH_MODE_MANUAL:
        what = "bids may be picked until"
    else:
        what = f"round {message.round} of sealed bids until"
    told = f"{message.group_id}: {what} {message.close_time.ToJsonString()} ({message.auction})"
    await _fold(unit, message.order, lambda order, now: orders.noted(order, told, _instant(message.create_time, now)))


async def auction_closed(unit: UnitOfWork, _event: ReceivedEvent, message: bidding_events.AuctionClosed) -> None:
    """A round of bids is over."""
    outcome = f"won by {message.winning_bid}" if message.winning_bid else f"nobody won: {message.detail}"
    told = f"{message.group_id}: round {message.round} closed with {message.bids} bids, {outcome}"
    await _fold(unit, message.order, lambda order, now: orders.noted(order, told, _instant(message.decide_time, now)))


async def lease_running(unit: UnitOfWork, _event: ReceivedEvent, message: bidding_events.LeaseRunning) -> None:
    """A group is ready."""
    endpoints = tuple(convert.endpoint_from_proto(endpoint) for endpoint in message.endpoints)
    await _fold(
        unit,
        message.key.order,
        lambda order, now: orders.lease_running(
            order, message.key.group, message.key.generation, endpoints, _instant(message.ready_time, now)
        ),
    )
    order_id = message.key.order.removeprefix("orders/")
    await update_store.delete_older_workloads(unit.connection, order_id, message.key.group, message.key.generation)


async def lease_preemption_announced(
    unit: UnitOfWork, _event: ReceivedEvent, message: bidding_events.LeasePreemptionAnnounced
) -> None:
    """A spot lease will give way to another order."""
    until = message.preempt_time.ToJsonString()
    await _note_of_lease(
        unit, message.key, f"{message.lease} gives way at {until} to an order that pays as much", message.notice_time
    )


async def lease_preemption_withdrawn(
    unit: UnitOfWork, _event: ReceivedEvent, message: bidding_events.LeasePreemptionWithdrawn
) -> None:
    """A spot lease goes on after all."""
    await _note_of_lease(unit, message.key, f"{message.lease} runs on: nobody needs its room", message.withdraw_time)


async def lease_suspended(unit: UnitOfWork, _event: ReceivedEvent, message: bidding_events.LeaseSuspended) -> None:
    """A group is paused for want of funds."""
    await _fold(
        unit,
        message.key.order,
        lambda order, now: orders.lease_suspended(
            order, message.key.group, message.key.generation, _instant(message.suspend_time, now)
        ),
    )


async def lease_ended(unit: UnitOfWork, _event: ReceivedEvent, message: bidding_events.LeaseEnded) -> None:
    """A lease is over; the group may be on its way to another."""
    evidence = message.evidence
    await _fold(
        unit,
        message.key.order,
        lambda order, now: orders.lease_ended(
            order,
            message.key.group,
            message.key.generation,
            convert.end_reason_from_proto(evidence.reason),
            evidence.detail,
            releasing=message.releasing,
            now=_instant(evidence.observe_time, now),
        ),
    )


async def group_ended(unit: UnitOfWork, _event: ReceivedEvent, message: bidding_events.GroupEnded) -> None:
    """A group of an order goes on no more; the others do, and what was held for it alone returns."""
    reason = convert.end_reason_from_proto(message.reason)
    await _fold(
        unit,
        message.order,
        lambda order, now: orders.group_ended(
            order, message.group, reason, message.detail, _instant(message.end_time, now)
        ),
    )
    await _hold_less(unit, message.order.removeprefix("orders/"))


async def order_ended(unit: UnitOfWork, _event: ReceivedEvent, message: bidding_events.OrderEnded) -> None:
    """Nothing of the order runs on."""
    reason = convert.end_reason_from_proto(message.reason)
    await _fold(
        unit,
        message.order,
        lambda order, now: orders.order_ended(order, reason, message.detail, _instant(message.end_time, now)),
    )


async def escrow_changed(
    unit: UnitOfWork,
    _event: ReceivedEvent,
    message: settlement_events.EscrowToppedUp
    | settlement_events.EscrowResized
    | settlement_events.EscrowLow
    | settlement_events.EscrowResumed,
) -> None:
    """The escrow holds another sum."""
    escrow = message.escrow
    await _fold(
        unit,
        _order_of(escrow),
        lambda order, _now: orders.escrow_changed(
            order, escrow.charged.micros, escrow.held.micros, escrow.refunded.micros
        ),
    )


async def charge_posted(unit: UnitOfWork, _event: ReceivedEvent, message: settlement_events.ChargePosted) -> None:
    """The order has cost more."""
    await _fold(
        unit, message.charge.key.order, lambda order, _now: orders.charge_posted(order, message.charge.amount.micros)
    )


async def escrow_closed(unit: UnitOfWork, _event: ReceivedEvent, message: settlement_events.EscrowClosed) -> None:
    """The money has returned."""
    escrow = message.escrow
    await _fold(
        unit,
        _order_of(escrow),
        lambda order, now: orders.escrow_closed(order, escrow.charged.micros, escrow.refunded.micros, now),
    )


def handlers() -> dict[type[Message], Handler]:
    """Which message goes where."""
    return {
        bidding_events.AuctionOpened: auction_opened,
        bidding_events.AuctionClosed: auction_closed,
        bidding_events.LeaseCreated: lease_created,
        bidding_events.LeaseRunning: lease_running,
        bidding_events.LeasePreemptionAnnounced: lease_preemption_announced,
        bidding_events.LeasePreemptionWithdrawn: lease_preemption_withdrawn,
        bidding_events.LeaseSuspended: lease_suspended,
        bidding_events.LeaseEnded: lease_ended,
        bidding_events.GroupEnded: group_ended,
        bidding_events.OrderEnded: order_ended,
        settlement_events.EscrowToppedUp: escrow_changed,
        settlement_events.EscrowResized: escrow_changed,
        settlement_events.EscrowLow: escrow_changed,
        settlement_events.EscrowResumed: escrow_changed,
        settlement_events.ChargePosted: charge_posted,
        settlement_events.EscrowClosed: escrow_closed,
    }


async def _note_of_lease(unit: UnitOfWork, key: lease_pb2.GenerationKey, what: str, instant: Timestamp) -> None:
    """Note something that changes no state of a group, with its name."""

    def note(order: Order, now: datetime) -> Order:
        names = {group.index: group.group_id for group in order.groups}
        return orders.noted(order, f"{names.get(key.group, 'a group')}: {what}", _instant(instant, now))

    await _fold(unit, key.order, note)


async def _hold_less(unit: UnitOfWork, order_id: str) -> None:
    """Let the sweeper ask settlement for what the groups that go on need, unless a change of the order asks anyway."""
    order = await store.lock_order(unit.connection, order_id)
    pending = await update_store.load_update(unit.connection, order_id)
    if order is None or (pending is not None and not pending.restoring):
        return
    after = updates.without_ended(order, limits_of(order))
    if after.hold_micros == order.hold_micros:
        return
    await update_store.apply_update(
        unit.connection, order, after, await update_store.load_applied(unit.connection, order_id)
    )
    number = await update_store.take_number(unit.connection, order_id)
    asking = PendingUpdate(order_id, number, "", restoring=True, update=updates.present(after))
    await update_store.save_update(unit.connection, asking, unit.clock.now())


async def _fold(unit: UnitOfWork, name: str, change: Callable[[Order, datetime], Order]) -> None:
    """Apply a fact to its order and state what follows of it."""
    order_id = name.removeprefix("orders/")
    order = await store.lock_order(unit.connection, order_id)
    if order is None:
        _log.warning("fact_of_unknown_order", order=name)
        return
    now = unit.clock.now()
    after = change(order, now)
    if after.state is OrderState.CLOSED and order.state is not OrderState.CLOSED and order.opened_at is not None:
        after = emit(unit, after, convert.order_closed)
    await store.save_order(unit.connection, order, after, now)
    if after.state is not order.state:
        _log.info("order_moved", order=name, source=order.state.value, target=after.state.value)


def _instant(timestamp: Timestamp, now: datetime) -> datetime:
    """When a fact was seen; now, where it does not say."""
    return from_timestamp(timestamp) if timestamp.seconds else now


def _order_of(escrow: charge_pb2.Escrow) -> str:
    """The order of an escrow; both have one id."""
    return escrow.name.removeprefix("escrows/")
