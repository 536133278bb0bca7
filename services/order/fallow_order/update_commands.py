"""Changing a live order in three steps, each safe against a kill and a repeat (docs/adr/0009).

Claim the request id and write the change down; let settlement hold another sum, outside any transaction; make the change
and tell the market. A change that needs no other sum takes one transaction. Whoever repeats the request, or the sweeper,
goes on where the last one stopped. Where settlement refuses, the change and the claim are forgotten, and a restoring
change is left: whoever asked at the same time may have been granted it, so settlement is told under a higher number what
the order still is. An order that ends meanwhile drops its change: its money returns whole.
"""

from dataclasses import replace
from datetime import timedelta
from typing import Final

from fallow.order.v1 import order_service_pb2
from fallow_chassis.errors import DomainError
from fallow_chassis.idempotency import claim, forget
from fallow_chassis.logging import get_logger
from fallow_chassis.postgres import Database, UnitOfWork
from fallow_chassis.wire import resource_id
from fallow_order import convert, intake_update, store, update_store
from fallow_order.commands import emit, own_order
from fallow_order.creation import REFUSALS
from fallow_order.domain import update as updates
from fallow_order.domain.order import ENDING, Order, OrderState
from fallow_order.domain.reasons import ETAG_MISMATCH, ORDER_CLOSED, UPDATE_IN_PROGRESS, UPDATE_WITHDRAWN
from fallow_order.domain.update import PendingUpdate, Update
from fallow_order.ports import Escrows
from fallow_order.vault import Vault

UPDATE_METHOD: Final = "fallow.order.v1.OrderService/UpdateOrder"
BATCH_UPDATES: Final = 100
RETRY_WAIT: Final = timedelta(seconds=2)
RETRY_MS: Final = 1_000
_NOTHING_HELD: Final = frozenset({"ESCROW_CLOSED", "ESCROW_NOT_FOUND"})
"""Settlement's reasons that leave nothing to restore."""

_log = get_logger(__name__)


class UpdateCommands:
    """The use-cases of changes."""

    def __init__(self, database: Database, escrows: Escrows, vault: Vault, finish_after: timedelta) -> None:
        """``finish_after`` is when the sweeper takes over a change whose caller has not come back."""
        self._database = database
        self._escrows = escrows
        self._vault = vault
        self._finish_after = finish_after

    async def update(self, account: str, request: order_service_pb2.UpdateOrderRequest) -> Order:
        """Change an order; a repeat goes on with, or answers, the order as it is. The mask was checked."""
        order_id = resource_id(request.order.name, "orders", field="order.name")
        async with self._database.transaction() as unit:
            order = await own_order(unit, account, order_id)
            number = await update_store.next_number(unit.connection, order_id)
            taken = await claim(
                unit,
                caller=f"accounts/{account}",
                method=UPDATE_METHOD,
                request_id=request.request_id,
                request=request,
                resource=_resource(order_id, number),
            )
            pending = await update_store.load_update(unit.connection, order_id)
            if taken.first:
                order, pending = await self._begin(unit, order, pending, request)
        if pending is None or pending.restoring or pending.request_id != request.request_id:
            return order
        return await self.finish(pending)

    async def finish(self, pending: PendingUpdate) -> Order:
        """Let settlement hold what a change asks for, and make the change; where it refuses, forget it and raise why."""
        try:
            await self._escrows.resize(pending.order_id, pending.number, pending.update.holding)
        except DomainError as error:
            if error.code in REFUSALS:
                restoring = await self._refuse(pending)
                if restoring is not None:
                    await self._attempt(restoring)
            raise
        return await self._make(pending)

    async def sweep(self) -> None:
        """Go on with changes that were left half-way; one that fails is put off and holds up no other."""
        now = self._database.clock.now()
        async with self._database.read() as connection:
            due = await update_store.list_due(connection, now, BATCH_UPDATES)
        for pending in due:
            await self._attempt(pending)

    async def _begin(
        self,
        unit: UnitOfWork,
        order: Order,
        pending: PendingUpdate | None,
        request: order_service_pb2.UpdateOrderRequest,
    ) -> tuple[Order, PendingUpdate | None]:
        """The first transaction: check, and make the change, or write it down where it needs another sum."""
        if order.state in ENDING:
            raise DomainError(ORDER_CLOSED, "the order is ending or has ended")
        if request.order.etag and request.order.etag != order.etag:
            raise DomainError(ETAG_MISMATCH, "the order changed since the etag was read")
        if pending is not None and not pending.restoring:
            raise _in_progress(
                "another change of the order is on its way; get the order again, and repeat this one then"
            )
        update, workloads = await self._plan(unit, order, request)
        number = await update_store.take_number(unit.connection, order.id)
        if not update.summary:
            return order, None
        needs_market = replace(update, labels=order.labels, summary="") != updates.present(order)
        if order.state is OrderState.PENDING and needs_market:
            raise _in_progress("the order is being opened; repeat the change in a moment")
        for index, workload in workloads.items():
            revision = update.revisions[index]
            sealed = self._vault.seal(order.id, index, workload, revision)
            await update_store.insert_workload(unit.connection, order.id, index, sealed, revision)
        if update.holding == updates.holding(order):
            return await _apply(unit, order, update, number), None
        begun = PendingUpdate(order.id, number, request.request_id, restoring=False, update=update)
        await update_store.save_update(unit.connection, begun, unit.clock.now() + self._finish_after)
        return order, begun

    async def _plan(
        self, unit: UnitOfWork, order: Order, request: order_service_pb2.UpdateOrderRequest
    ) -> tuple[Update, dict[int, bytes]]:
        """What the order is to be, and the workloads that are new, by group."""
        present: list[bytes] = []
        for group in order.groups:
            sealed = await store.load_workload(unit.connection, order.id, group.index, group.revision)
            assert sealed is not None, "a live order has its newest workloads"
            present.append(self._vault.open(order.id, group.index, sealed, group.revision))
        draft = intake_update.draft_of_update(request, order, present)
        changed = {
            index: workload
            for index, (workload, before) in enumerate(zip(draft.workloads, present, strict=True))
            if workload != before
        }
        limits = intake_update.limits_of(order)
        try:
            return updates.planned(order, draft, limits, changed.keys(), unit.clock.now()), changed
        except DomainError as error:
            raise intake_update.in_request(error, intake_update.places_of(request, order)) from None

    async def _make(self, pending: PendingUpdate) -> Order:
        """The last transaction: make the change that settlement has agreed to, unless that is done or undone."""
        async with self._database.transaction() as unit:
            order = await store.lock_order(unit.connection, pending.order_id)
            assert order is not None, "an order that was opened is never forgotten"
            current = await update_store.load_update(unit.connection, order.id)
            if current != pending:
                if await update_store.load_applied(unit.connection, order.id) == pending.number:
                    return order
                raise DomainError(
                    UPDATE_WITHDRAWN,
                    "the change was withdrawn meanwhile; repeat the call",
                    metadata={"order": f"orders/{order.id}"},
                    retry_after_ms=RETRY_MS,
                )
            await update_store.delete_update(unit.connection, pending)
            if order.state not in ENDING:
                return await _apply(unit, order, pending.update, pending.number)
            await update_store.delete_newer_workloads(unit.connection, order.id)
        raise DomainError(ORDER_CLOSED, "the order ended before it could be changed")

    async def _refuse(self, pending: PendingUpdate) -> PendingUpdate | None:
        """Forget a change that settlement refused; returns what restores the escrow, None where another did all this."""
        async with self._database.transaction() as unit:
            order = await store.lock_order(unit.connection, pending.order_id)
            if order is None or await update_store.load_update(unit.connection, order.id) != pending:
                return None
            caller, resource = f"accounts/{order.account}", _resource(order.id, pending.number)
            await forget(unit, caller=caller, method=UPDATE_METHOD, resource=resource)
            await update_store.delete_newer_workloads(unit.connection, order.id)
            number = await update_store.take_number(unit.connection, order.id)
            restoring = PendingUpdate(order.id, number, "", restoring=True, update=updates.present(order))
            await update_store.save_update(unit.connection, restoring, unit.clock.now())
        _log.info("order_update_refused", order=f"orders/{order.id}", number=pending.number)
        return restoring

    async def _restore(self, pending: PendingUpdate) -> None:
        """Tell settlement what the order still holds; a newer change takes this one's place."""
        try:
            await self._escrows.resize(pending.order_id, pending.number, pending.update.holding)
        except DomainError as error:
            if error.reason.reason not in _NOTHING_HELD:
                raise
        async with self._database.transaction() as unit:
            await update_store.delete_update(unit.connection, pending)

    async def _attempt(self, pending: PendingUpdate) -> None:
        """Go on with one change; where it fails or is refused, put it off."""
        try:
            await (self._restore(pending) if pending.restoring else self.finish(pending))
        except DomainError as error:
            _log.warning("order_update_failed", order=f"orders/{pending.order_id}", error=str(error))
            async with self._database.transaction() as unit:
                await update_store.postpone(unit.connection, pending, unit.clock.now() + RETRY_WAIT)


async def _apply(unit: UnitOfWork, order: Order, update: Update, number: int) -> Order:
    """Make a change of a locked order and state it where the market knows the order."""
    now = unit.clock.now()
    after = updates.applied(order, update, now)
    if order.opened_at is not None:
        after = emit(unit, after, convert.order_updated)
    await update_store.apply_update(unit.connection, order, after, number)
    _log.info("order_updated", order=f"orders/{order.id}", number=number, what=update.summary)
    return await store.save_order(unit.connection, order, after, now)


def _resource(order_id: str, number: int) -> str:
    """What a claim of one change stands for."""
    return f"orders/{order_id}/updates/{number}"


def _in_progress(why: str) -> DomainError:
    """The error for a change that comes too early."""
    return DomainError(UPDATE_IN_PROGRESS, why, retry_after_ms=RETRY_MS)
