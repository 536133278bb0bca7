"""What may be done with an order that exists, each as load, decide, write, emit in one transaction; no network inside.

How an order comes to be stands in ``creation``.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Final

from google.protobuf.message import Message

from fallow_chassis.errors import DomainError
from fallow_chassis.events import EventDraft
from fallow_chassis.idempotency import claim
from fallow_chassis.logging import get_logger
from fallow_chassis.postgres import Database, UnitOfWork
from fallow_order import convert, store
from fallow_order.domain import order as orders
from fallow_order.domain.order import ENDING, EndReason, Order, OrderState
from fallow_order.domain.reasons import (
    GENERATION_OLD,
    LEASE_NOT_FOUND,
    ORDER_NOT_FOUND,
)
from fallow_order.vault import Vault

ORDERS_TOPIC: Final = "fallow.order.orders.v1"
CLOSE_METHOD: Final = "fallow.order.v1.OrderService/CloseOrder"

_log = get_logger(__name__)


class OrderCommands:
    """The use-cases of orders."""

    def __init__(self, database: Database, vault: Vault) -> None:
        """Work on a database, with the keys of workloads."""
        self._database = database
        self._vault = vault

    async def close(self, account: str, order_id: str, reason: str, request_id: str, request: Message) -> Order:
        """Ask for the end of an order; the market is told by a job. An ended order is answered as it is."""
        async with self._database.transaction() as unit:
            order = await own_order(unit, account, order_id)
            await claim(
                unit,
                caller=f"accounts/{account}",
                method=CLOSE_METHOD,
                request_id=request_id,
                request=request,
                resource=f"orders/{order_id}",
            )
            return await request_end(unit, order, EndReason.TENANT, reason)

    async def close_unopened(self, order_id: str) -> None:
        """Close an ending order that never reached the market, after its escrow was released."""
        async with self._database.transaction() as unit:
            order = await store.lock_order(unit.connection, order_id)
            if order is None or order.state is not OrderState.CLOSING or order.opened_at is not None:
                return
            now = unit.clock.now()
            await store.save_order(unit.connection, order, orders.never_opened_closed(order, now), now)

    async def postpone(self, order_id: str, wait: timedelta) -> None:
        """Let the jobs look at an order again after a while."""
        async with self._database.transaction() as unit:
            await store.postpone_order(unit.connection, order_id, unit.clock.now() + wait)

    async def workload(self, order_id: str, index: int, lease: str, generation: int, revision: int) -> bytes:
        """The workload of a generation for the holder of a grant on it; the caller has checked the grant.

        It is the revision that the generation's lease was matched with, and never another.

        A grant may arrive before the event that tells of its lease; the generation counts as known from then on.
        """
        async with self._database.transaction() as unit:
            order = await store.load_order(unit.connection, order_id)
            if order is None or order.state in ENDING or not 0 <= index < len(order.groups):
                raise DomainError(LEASE_NOT_FOUND, "there is no such lease, or its order has ended")
            highest = await store.raise_generation(unit.connection, order_id, index, generation)
            assert highest is not None, "the group was just loaded"
            if generation < highest:
                raise DomainError(
                    GENERATION_OLD, "a newer generation exists", metadata={"highest_generation": str(highest)}
                )
            group = order.groups[index]
            if group.generation == generation and group.lease != lease:
                raise DomainError(LEASE_NOT_FOUND, "the generation belongs to another lease")
            sealed = await store.load_workload(unit.connection, order_id, index, revision)
        if sealed is None:
            # A newer revision runs, or the order closed between the two statements.
            raise DomainError(LEASE_NOT_FOUND, "the workload that the lease was made for is gone")
        return self._vault.open(order_id, index, sealed, revision)


async def request_end(unit: UnitOfWork, order: Order, reason: EndReason, detail: str) -> Order:
    """Note that a locked order is to end, and state it where the market knows the order."""
    now = unit.clock.now()
    after = orders.close_requested(order, reason, detail, now)
    if after == order:
        return order
    if order.opened_at is not None:
        after = emit(unit, after, convert.order_close_requested)
    return await store.save_order(unit.connection, order, after, now)


def emit(unit: UnitOfWork, order: Order, state: Callable[[Order], Message], trace: str = "") -> Order:
    """State a fact about an order as its next event; returns the order that counts it.

    ``trace`` is the traceparent of the call that the fact belongs to, where that is not the present span.
    """
    counted = replace(order, event_version=order.event_version + 1)
    subject = f"orders/{order.id}"
    unit.emit(EventDraft(ORDERS_TOPIC, order.id, counted.event_version, state(counted), subject=subject, trace=trace))
    return counted


async def own_order(unit: UnitOfWork, account: str, order_id: str) -> Order:
    """An order of the account, locked; ORDER_NOT_FOUND for another's as for none."""
    order = await store.lock_order(unit.connection, order_id)
    if order is None or order.account != account:
        raise DomainError(ORDER_NOT_FOUND, "there is no such order", metadata={"order": f"orders/{order_id}"})
    return order
