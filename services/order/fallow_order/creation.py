"""Creating orders: many at a time, each promised to its own caller.

An order is made in three steps: store it PENDING with the claim on its request id; let settlement hold its funds, outside
any transaction; mark it OPEN and tell the market. Each step is a group commit of its own, so that concurrent calls share
two transactions here and one call to settlement (which commits its part as a group too), and one group is stored while
another is funded. A call that comes alone makes a group of one.

What is promised to one order does not depend on its group. Whoever repeats the request, or the sweeper, goes on where the
last one stopped: settlement answers a repeated hold with the same escrow. Where settlement refuses, the order and the
claim are forgotten in one transaction, which also leaves a note to release the escrow: a repeat that ran at the same
time may have opened it. So a repeat after a refusal starts anew, and no funds stay behind. An order beyond its account's
quota is refused with its claim taken back in the same transaction.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import Message

from fallow_chassis.errors import DomainError
from fallow_chassis.group_commit import GroupCommit
from fallow_chassis.idempotency import ClaimWish, claim_many, forget
from fallow_chassis.logging import get_logger
from fallow_chassis.postgres import Database, UnitOfWork
from fallow_chassis.telemetry import current_traceparent
from fallow_order import convert, store
from fallow_order.commands import emit
from fallow_order.domain import order as orders
from fallow_order.domain.draft import OrderDraft
from fallow_order.domain.hold import hold_micros
from fallow_order.domain.order import Group, Order, OrderState
from fallow_order.domain.quota import LIVE_ORDERS, over_quota, quota_exceeded
from fallow_order.domain.reasons import ORDER_WITHDRAWN
from fallow_order.ports import Escrows
from fallow_order.vault import Vault

CREATE_METHOD: Final = "fallow.order.v1.OrderService/CreateOrder"
REFUSALS: Final = frozenset({"FAILED_PRECONDITION", "INVALID_ARGUMENT", "NOT_FOUND", "OUT_OF_RANGE"})
"""Codes by which settlement says that it will not hold these funds, however often it is asked."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """An order that a call wants; ``wish`` names it."""

    wish: ClaimWish
    order_id: str
    account: str
    draft: OrderDraft
    hold: int


@dataclass(frozen=True, slots=True)
class _Funded:
    """A PENDING order whose funds are held, and the trace of the call that goes on with it."""

    order: Order
    held: int
    trace: str


class OrderCreation:
    """The use-case of creating orders; ``run`` it in the background while orders are created."""

    def __init__(self, database: Database, escrows: Escrows, vault: Vault, *, max_live_orders: int) -> None:
        """Work on a database, with settlement behind its port; 0 live orders set no limit."""
        self._database = database
        self._escrows = escrows
        self._vault = vault
        self._max_live_orders = max_live_orders
        self._storing = GroupCommit[_Wanted, Order]("store_orders", self._store)
        self._funding = GroupCommit[Order, int]("fund_orders", escrows.open)
        self._opening = GroupCommit[_Funded, Order]("open_orders", self._open)

    async def run(self) -> None:
        """Serve the groups until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._storing.run())
            tasks.create_task(self._funding.run())
            tasks.create_task(self._opening.run())

    async def create(self, account: str, request_id: str, request: Message, draft: OrderDraft) -> Order:
        """Store, fund and open an order; a repeat goes on with, or answers, the order of the first call."""
        hold = hold_micros(draft.limits, draft.term_ms, draft.budget_micros)
        order_id = self._database.ids.new()
        wish = ClaimWish.of(
            caller=f"accounts/{account}",
            method=CREATE_METHOD,
            request_id=request_id,
            request=request,
            resource=f"orders/{order_id}",
        )
        order = await self._storing.submit(_Wanted(wish, order_id, account, draft, hold))
        return await self.finish(order) if order.state is OrderState.PENDING else order

    async def finish(self, order: Order) -> Order:
        """Hold the funds of a PENDING order and open it; where settlement refuses, forget it and raise why."""
        try:
            held = await self._funding.submit(order)
        except DomainError as error:
            if error.code in REFUSALS:
                await self.withdraw(order.id)
            raise
        return await self._opening.submit(_Funded(order, held, current_traceparent()))

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

    async def _store(self, group: Sequence[_Wanted]) -> list[Order | Exception]:
        """Claim the requests and store the orders of those that are new, in one transaction."""
        async with self._database.transaction() as unit:
            claims = await claim_many(unit, [wanted.wish for wanted in group])
            firsts = [
                wanted
                for wanted, claim in zip(group, claims, strict=True)
                if not isinstance(claim, DomainError) and claim.first
            ]
            known: dict[str, Order | DomainError] = {}
            known |= await self._refuse_beyond_quota(unit, firsts)
            known |= await self._insert(unit, [wanted for wanted in firsts if wanted.order_id not in known])
            repeated = {
                _id_of(claim.resource) for claim in claims if not isinstance(claim, DomainError) and not claim.first
            }
            known |= await store.load_orders(unit.connection, repeated - known.keys())
        return [
            claim
            if isinstance(claim, DomainError)
            else known.get(_id_of(claim.resource)) or _withdrawn(_id_of(claim.resource))
            for claim in claims
        ]

    async def _refuse_beyond_quota(self, unit: UnitOfWork, firsts: Sequence[_Wanted]) -> dict[str, DomainError]:
        """The new orders that their accounts have no room for, each with its error; their claims are taken back."""
        limit = self._max_live_orders
        if limit == 0 or not firsts:
            return {}
        accounts = [wanted.account for wanted in firsts]
        live = await store.lock_and_count_live(unit.connection, set(accounts))
        refused: dict[str, DomainError] = {}
        for wanted, used in zip(firsts, over_quota(accounts, live, limit), strict=True):
            if used is not None:
                refused[wanted.order_id] = quota_exceeded(LIVE_ORDERS, limit=limit, used=used)
                wish = wanted.wish
                await forget(unit, caller=wish.caller, method=wish.method, resource=wish.resource)
        return refused

    async def _insert(self, unit: UnitOfWork, group: Sequence[_Wanted]) -> dict[str, Order]:
        """Store new orders with their workloads, encrypted; the orders by id."""
        now = unit.clock.now()
        new = [
            orders.start(
                Order(
                    id=wanted.order_id,
                    account=wanted.account,
                    state=OrderState.PENDING,
                    specification=wanted.draft.specification,
                    labels=wanted.draft.labels,
                    groups=tuple(Group(index, group_id) for index, group_id in enumerate(wanted.draft.group_ids)),
                    asset=wanted.draft.asset,
                    hold_micros=wanted.hold,
                    budget_micros=wanted.draft.budget_micros,
                    auto_top_up=wanted.draft.auto_top_up,
                    match_timeout_ms=wanted.draft.match_timeout_ms,
                    term_ms=wanted.draft.term_ms,
                    created_at=now,
                    updated_at=now,
                ),
                now,
            )
            for wanted in group
        ]
        workloads = [
            self._vault.seal(wanted.order_id, index, workload)
            for wanted in group
            for index, workload in enumerate(wanted.draft.workloads)
        ]
        stored = await store.insert_orders(unit.connection, new, workloads)
        return {order.id: order for order in stored}

    async def _open(self, group: Sequence[_Funded]) -> list[Order | Exception]:
        """Mark funded orders OPEN and state so, in one transaction; what changed meanwhile is looked at again."""
        funded = {item.order.id: item for item in group}
        async with self._database.transaction() as unit:
            now = unit.clock.now()
            revisions = await store.lock_revisions(unit.connection, list(funded))
            unchanged = [item for item in funded.values() if revisions.get(item.order.id) == item.order.revision]
            pairs = [
                (item.order, emit(unit, orders.opened(item.order, item.held, now), convert.order_opened, item.trace))
                for item in unchanged
            ]
            known: dict[str, Order | DomainError] = {}
            known |= {order.id: order for order in await store.save_opened(unit.connection, pairs, now)}
            for item in funded.values():
                if item.order.id not in known:
                    known[item.order.id] = await self._open_changed(unit, item)
        for order_id in funded:
            if isinstance(order := known[order_id], Order) and order.state is OrderState.OPEN:
                _log.info("order_opened", order=f"orders/{order_id}", held_micros=order.held_micros, asset=order.asset)
        return [known[item.order.id] for item in group]

    async def _open_changed(self, unit: UnitOfWork, item: _Funded) -> Order | DomainError:
        """Open an order that is not as it was when its funds were asked for: opened, ended, withdrawn or relabelled."""
        order = await store.lock_order(unit.connection, item.order.id)
        now = unit.clock.now()
        if order is None:
            await store.add_escrow_release(unit.connection, item.order.id, now)
            return _withdrawn(item.order.id)
        after = orders.opened(order, item.held, now)
        if order.state is OrderState.PENDING:
            after = emit(unit, after, convert.order_opened, item.trace)
        return await store.save_order(unit.connection, order, after, now)


def _id_of(resource: str) -> str:
    """The id in an order's name."""
    return resource.removeprefix("orders/")


def _withdrawn(order_id: str) -> DomainError:
    """The error for a call that lost a race with a refusal."""
    return DomainError(
        ORDER_WITHDRAWN,
        "the order was withdrawn meanwhile; repeat the call",
        metadata={"order": f"orders/{order_id}"},
        retry_after_ms=100,
    )
