"""Handlers of the order service's events: rows only, in the inbox's own transaction."""

from google.protobuf.message import Message

from fallow.order.v1 import events_pb2
from fallow_bidding.commands import orders
from fallow_bidding.convert.leases import end_detail, end_reason_of
from fallow_bidding.domain.leases import EndReason
from fallow_bidding.domain.policy import Policy
from fallow_chassis.events import ReceivedEvent
from fallow_chassis.inbox import Handler
from fallow_chassis.logging import get_logger
from fallow_chassis.postgres import UnitOfWork
from fallow_chassis.wire import resource_id

_log = get_logger(__name__)


class OrderHandlers:
    """What order events cause on the market."""

    def __init__(self, policy: Policy) -> None:
        """Take the market's rules."""
        self._policy = policy

    async def opened(self, unit: UnitOfWork, event: ReceivedEvent, message: events_pb2.OrderOpened) -> None:
        """A funded order comes to the market, unless it was ended before it was heard of."""
        is_new = await orders.open_order(unit, self._policy, message.order, event.time)
        _log.info("order_opened", order=message.order.name, taken=is_new)

    async def updated(self, unit: UnitOfWork, event: ReceivedEvent, message: events_pb2.OrderUpdated) -> None:
        """A tenant changed limits or terms; they hold for leases made from now on."""
        await orders.update_order(unit, self._policy, message.order)

    async def close_requested(
        self, unit: UnitOfWork, event: ReceivedEvent, message: events_pb2.OrderCloseRequested
    ) -> None:
        """A tenant asked for the end; the order service asks by EndOrder too, and whoever comes first does it."""
        reason = end_reason_of(message.reason, EndReason.TENANT)
        order_id = resource_id(message.order, "orders", field="order")
        await orders.end_named_order(unit, self._policy, order_id, reason, end_detail(reason, "services/order"))

    def by_type(self) -> dict[type[Message], Handler]:
        """The handlers by the type of their event; others are passed over."""
        return {
            events_pb2.OrderOpened: self.opened,
            events_pb2.OrderUpdated: self.updated,
            events_pb2.OrderCloseRequested: self.close_requested,
        }
