"""What may be done with an order, each as load, decide, write, emit in one transaction; no network inside.

Creating one takes three steps: store it PENDING with the claim on its request id; let settlement hold its funds, outside
any transaction; mark it OPEN and tell the market. Whoever repeats the request, or the sweeper, goes on where the last
one stopped: settlement answers a repeated hold with the same escrow. Where settlement refuses, the order and the claim
are forgotten in one transaction, which also leaves a note to release the escrow: a repeat that ran at the same time may
have opened it. So a repeat after a refusal starts anew, and no funds stay behind.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Final

from google.protobuf.message import Message

from fallow_chassis.errors import DomainError
from fallow_chassis.events import EventDraft
from fallow_chassis.idempotency import claim, forget
from fallow_chassis.logging import get_logger
from fallow_chassis.postgres import Database, UnitOfWork
from fallow_order import convert, store
from fallow_order.domain import order as orders
from fallow_order.domain.draft import OrderDraft
from fallow_order.domain.hold import hold_micros
from fallow_order.domain.order import ENDING, EndReason, Group, Order, OrderState
from fallow_order.domain.reasons import (
    ETAG_MISMATCH,
    GENERATION_OLD,
    LEASE_NOT_FOUND,
    ORDER_CLOSED,
    ORDER_NOT_FOUND,
    ORDER_WITHDRAWN,
)
from fallow_order.ports import Escrows
from fallow_order.vault import Vault

ORDERS_TOPIC: Final = "fallow.order.orders.v1"
CREATE_METHOD: Final = "fallow.order.v1.OrderService/CreateOrder"
UPDATE_METHOD: Final = "fallow.order.v1.OrderService/UpdateOrder"
CLOSE_METHOD: Final = "fallow.order.v1.OrderService/CloseOrder"
_REFUSALS: Final = frozenset({"FAILED_PRECONDITION", "INVALID_ARGUMENT", "NOT_FOUND", "OUT_OF_RANGE"})
"""Codes by which settlement says that it will not hold these funds, however often it is asked."""

_log = get_logger(__name__)


class OrderCommands:
    """The use-cases of orders."""

    def __init__(self, database: Database, escrows: Escrows, vault: Vault) -> None:
        """Work on a database, with settlement behind its port."""
        self._database = database
        self._escrows = escrows
        self._vault = vault

    async def create(self, account: str, request_id: str, request: Message, draft: OrderDraft) -> Order:
        """Store, fund and open an order; a repeat goes on with, or answers, the order of the first call."""
        hold = hold_micros(draft.limits, draft.term_ms, draft.budget_micros)
        async with self._database.transaction() as unit:
            taken = await claim(
                unit,
                caller=f"accounts/{account}",
                method=CREATE_METHOD,
                request_id=request_id,
                request=request,
                resource=f"orders/{unit.ids.new()}",
            )
            order_id = taken.resource.removeprefix("orders/")
            if taken.first:
                order = await self._insert(unit, order_id, account, draft, hold)
            else:
                found = await store.load_order(unit.connection, order_id)
                if found is None:
                    raise _withdrawn(order_id)
                order = found
        return await self.finish(order) if order.state is OrderState.PENDING else order

    async def finish(self, order: Order) -> Order:
        """Hold the funds of a PENDING order and open it; where settlement refuses, forget it and raise why."""
        try:
            held = await self._escrows.open(order)
        except DomainError as error:
            if error.code in _REFUSALS:
                await self.withdraw(order.id)
            raise
        async with self._database.transaction() as unit:
            locked = await store.lock_order(unit.connection, order.id)
            if locked is None:
                await store.add_escrow_release(unit.connection, order.id, unit.clock.now())
            else:
                now = unit.clock.now()
                after = orders.opened(locked, held, now)
                if after.state is OrderState.OPEN and locked.state is OrderState.PENDING:
                    after = emit(unit, after, convert.order_opened)
                order = await store.save_order(unit.connection, locked, after, now)
        if locked is None:
            raise _withdrawn(order.id)
        if order.state is OrderState.OPEN:
            _log.info("order_opened", order=f"orders/{order.id}", held_micros=held, asset=order.asset)
        return order

    async def withdraw(self, order_id: str) -> None:
        """Forget an order that is still PENDING; one that has gone on stays."""
        async with self._database.transaction() as unit:
            order = await store.lock_order(unit.connection, order_id)
            if order is None or order.state is not OrderState.PENDING:
                return
            await store.delete_order(unit.connection, order, unit.clock.now())
            caller, resource = f"accounts/{order.account}", f"orders/{order.id}"
            await forget(unit, caller=caller, method=CREATE_METHOD, resource=resource)
        _log.info("order_withdrawn", order=f"orders/{order_id}")

    async def close(self, account: str, order_id: str, reason: str, request_id: str, request: Message) -> Order:
        """Ask for the end of an order; the market is told by a job. An ended order is answered as it is."""
        async with self._database.transaction() as unit:
            order = await _own(unit, account, order_id)
            await claim(
                unit,
                caller=f"accounts/{account}",
                method=CLOSE_METHOD,
                request_id=request_id,
                request=request,
                resource=f"orders/{order_id}",
            )
            return await request_end(unit, order, EndReason.TENANT, reason)

    async def relabel(
        self,
        account: str,
        order_id: str,
        *,
        labels: Mapping[str, str],
        etag: str,
        request_id: str,
        request: Message,
    ) -> Order:
        """Give an order other labels; a repeat answers the order as it is."""
        async with self._database.transaction() as unit:
            order = await _own(unit, account, order_id)
            taken = await claim(
                unit,
                caller=f"accounts/{account}",
                method=UPDATE_METHOD,
                request_id=request_id,
                request=request,
                resource=f"orders/{order_id}",
            )
            if not taken.first:
                return order
            if order.state in ENDING:
                raise DomainError(ORDER_CLOSED, "the order is ending or has ended")
            if etag and etag != order.etag:
                raise DomainError(ETAG_MISMATCH, "the order changed since the etag was read")
            after = orders.labelled(order, tuple(sorted(labels.items())))
            if after != order and order.opened_at is not None:
                after = emit(unit, after, convert.order_updated)
            return await store.save_order(unit.connection, order, after, unit.clock.now())

    async def end_overdue(self, order_id: str, states: frozenset[OrderState], reason: EndReason, detail: str) -> None:
        """End an order whose time is over, if it is still in one of the states and still due."""
        async with self._database.transaction() as unit:
            order = await store.lock_order(unit.connection, order_id)
            now = unit.clock.now()
            if order is None or order.state not in states:
                return
            due_at = store.due_time(order, now)
            if due_at is None or due_at > now:
                return
            await request_end(unit, order, reason, detail)

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

    async def workload(self, order_id: str, index: int, lease: str, generation: int) -> bytes:
        """The workload of a generation for the holder of a grant on it; the caller has checked the grant.

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
            sealed = await store.load_workload(unit.connection, order_id, index)
        if sealed is None:
            # It closed between the two statements.
            raise DomainError(LEASE_NOT_FOUND, "the lease's order has ended")
        return self._vault.open(order_id, index, sealed)

    async def _insert(self, unit: UnitOfWork, order_id: str, account: str, draft: OrderDraft, hold: int) -> Order:
        """Store a new order with its workloads, encrypted."""
        now = unit.clock.now()
        order = Order(
            id=order_id,
            account=account,
            state=OrderState.PENDING,
            specification=draft.specification,
            labels=draft.labels,
            groups=tuple(Group(index, group_id) for index, group_id in enumerate(draft.group_ids)),
            asset=draft.asset,
            hold_micros=hold,
            budget_micros=draft.budget_micros,
            auto_top_up=draft.auto_top_up,
            match_timeout_ms=draft.match_timeout_ms,
            term_ms=draft.term_ms,
            created_at=now,
            updated_at=now,
        )
        stored = await store.insert_order(unit.connection, orders.start(order, now))
        for index, workload in enumerate(draft.workloads):
            await store.insert_workload(unit.connection, order_id, index, self._vault.seal(order_id, index, workload))
        return stored


async def request_end(unit: UnitOfWork, order: Order, reason: EndReason, detail: str) -> Order:
    """Note that a locked order is to end, and state it where the market knows the order."""
    now = unit.clock.now()
    after = orders.close_requested(order, reason, detail, now)
    if after == order:
        return order
    if order.opened_at is not None:
        after = emit(unit, after, convert.order_close_requested)
    return await store.save_order(unit.connection, order, after, now)


def emit(unit: UnitOfWork, order: Order, state: Callable[[Order], Message]) -> Order:
    """State a fact about an order as its next event; returns the order that counts it."""
    counted = replace(order, event_version=order.event_version + 1)
    unit.emit(EventDraft(ORDERS_TOPIC, order.id, counted.event_version, state(counted), subject=f"orders/{order.id}"))
    return counted


async def _own(unit: UnitOfWork, account: str, order_id: str) -> Order:
    """An order of the account, locked; ORDER_NOT_FOUND for another's as for none."""
    order = await store.lock_order(unit.connection, order_id)
    if order is None or order.account != account:
        raise DomainError(ORDER_NOT_FOUND, "there is no such order", metadata={"order": f"orders/{order_id}"})
    return order


def _withdrawn(order_id: str) -> DomainError:
    """The error for a call that lost a race with a refusal."""
    return DomainError(
        ORDER_WITHDRAWN,
        "the order was withdrawn meanwhile; repeat the call",
        metadata={"order": f"orders/{order_id}"},
        retry_after_ms=100,
    )
