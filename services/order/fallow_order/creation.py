"""Creating orders: many at a time, each promised to its own caller.

An order is made in three steps: store it PENDING with the claim on its request id; let settlement hold its funds, outside
any transaction; mark it OPEN and tell the market. Concurrent calls go through them as a group (``group_commit``): two
transactions here and one call to settlement, which commits its part as a group too. The next group is gathered while
one is on its way, so that groups are as large as the load makes them, and a call that comes alone goes at once.

What is promised to one order does not depend on its group. Whoever repeats the request, or the sweeper, goes on where the
last one stopped: settlement answers a repeated hold with the same escrow. Where settlement refuses, the order and the
claim are forgotten in one transaction, that which opens the others of the group, and which also leaves a note to release
the escrow: a repeat that ran at the same time may have opened it. So a repeat after a refusal starts anew, and no funds stay behind. An order beyond its account's
quota is refused with its claim taken back in the same transaction.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import Message

from fallow_chassis.errors import DomainError
from fallow_chassis.group_commit import GroupCommit
from fallow_chassis.idempotency import ClaimWish, claim_many, forget_many
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
    """An order that a call wants; ``wish`` names it, ``trace`` is the call's."""

    wish: ClaimWish
    order_id: str
    account: str
    draft: OrderDraft
    hold: int
    trace: str


@dataclass(frozen=True, slots=True)
class _Pending:
    """An order that is to be funded and opened, and the trace of the call that goes on with it."""

    order: Order
    trace: str


@dataclass(frozen=True, slots=True)
class _Funded(_Pending):
    """A PENDING order whose funds are held."""

    held: int


class OrderCreation:
    """The use-case of creating orders; ``run`` it in the background while orders are created."""

    def __init__(self, database: Database, escrows: Escrows, vault: Vault, *, max_live_orders: int) -> None:
        """Work on a database, with settlement behind its port; 0 live orders set no limit."""
        self._database = database
        self._escrows = escrows
        self._vault = vault
        self._max_live_orders = max_live_orders
        self._creating = GroupCommit[_Wanted, Order]("create_orders", self._create)
        self._finishing = GroupCommit[_Pending, Order]("finish_orders", self._finish)

    async def run(self) -> None:
        """Serve the groups until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._creating.run())
            tasks.create_task(self._finishing.run())

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
        return await self._creating.submit(_Wanted(wish, order_id, account, draft, hold, current_traceparent()))

    async def finish(self, order: Order) -> Order:
        """Hold the funds of a PENDING order and open it; where settlement refuses, forget it and raise why."""
        return await self._finishing.submit(_Pending(order, current_traceparent()))

    async def withdraw(self, order_id: str) -> None:
        """Forget an order that is still PENDING; one that has gone on stays."""
        async with self._database.transaction() as unit:
            await _withdraw(unit, [order_id])

    async def _create(self, group: Sequence[_Wanted]) -> list[Order | Exception]:
        """Store the orders of a group, and finish those that are PENDING."""
        outcomes = await self._store(group)
        pending = {
            place: _Pending(order, group[place].trace)
            for place, order in enumerate(outcomes)
            if isinstance(order, Order) and order.state is OrderState.PENDING
        }
        finished = await self._finishing.submit_many(list(pending.values()))
        for place, outcome in zip(pending, finished, strict=True):
            outcomes[place] = outcome
        return outcomes

    async def _finish(self, group: Sequence[_Pending]) -> list[Order | Exception]:
        """Have the funds of a group held; open what is funded and forget what is refused, in one transaction."""
        answers = await self._ask(group)
        funded: list[_Funded] = []
        refused: list[str] = []
        for pending, answer in zip(group, answers, strict=True):
            if not isinstance(answer, Exception):
                funded.append(_Funded(pending.order, pending.trace, answer))
            elif isinstance(answer, DomainError) and answer.code in REFUSALS:
                refused.append(pending.order.id)
        opened: dict[str, Order | DomainError] = {}
        if funded or refused:
            async with self._database.transaction() as unit:
                # All in one order, so that two groups which share orders never wait for each other.
                revisions = await store.lock_revisions(unit.connection, [pending.order.id for pending in group])
                opened = await self._open(unit, funded, revisions)
                await _withdraw(unit, refused)
        _tell_opened(opened)
        return [
            answer if isinstance(answer, Exception) else opened[pending.order.id]
            for pending, answer in zip(group, answers, strict=True)
        ]

    async def _ask(self, group: Sequence[_Pending]) -> Sequence[int | Exception]:
        """Settlement's answer for each order; a call that it refuses as a whole is asked again for each alone."""
        try:
            return await self._escrows.open([pending.order for pending in group])
        except DomainError as error:
            if len(group) == 1 and error.code in REFUSALS:
                return [error]
            raise

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
        refused = [
            (wanted, quota_exceeded(LIVE_ORDERS, limit=limit, used=used))
            for wanted, used in zip(firsts, over_quota(accounts, live, limit), strict=True)
            if used is not None
        ]
        if refused:
            made = [(wanted.wish.caller, wanted.wish.resource) for wanted, _ in refused]
            await forget_many(unit, method=CREATE_METHOD, made=made)
        return {wanted.order_id: error for wanted, error in refused}

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

    async def _open(
        self, unit: UnitOfWork, group: Sequence[_Funded], revisions: Mapping[str, int]
    ) -> dict[str, Order | DomainError]:
        """Mark funded orders OPEN and state so; what changed since they were loaded is looked at again.

        Their rows are locked; ``revisions`` says how they are now.
        """
        now = unit.clock.now()
        funded = {item.order.id: item for item in group}
        pairs = [
            (item.order, emit(unit, orders.opened(item.order, item.held, now), convert.order_opened, item.trace))
            for item in funded.values()
            if revisions.get(item.order.id) == item.order.revision
        ]
        known: dict[str, Order | DomainError] = {}
        known |= {order.id: order for order in await store.save_opened(unit.connection, pairs, now)}
        for item in funded.values():
            if item.order.id not in known:
                known[item.order.id] = await self._open_changed(unit, item)
        return known

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


async def _withdraw(unit: UnitOfWork, order_ids: Sequence[str]) -> None:
    """Forget orders that are still PENDING, and the claims that made them; those that have gone on stay."""
    if not order_ids:
        return
    gone = await store.withdraw_orders(unit.connection, order_ids, unit.clock.now())
    made = [(f"accounts/{account}", f"orders/{order_id}") for order_id, account in gone.items()]
    await forget_many(unit, method=CREATE_METHOD, made=made)
    _log.info("orders_withdrawn", orders=len(gone), ids=" ".join(gone))


def _tell_opened(opened: Mapping[str, Order | DomainError]) -> None:
    """One line for a group: with a line for each order, telling costs more than storing."""
    ids = [name for name, order in opened.items() if isinstance(order, Order) and order.state is OrderState.OPEN]
    if ids:
        _log.info("orders_opened", orders=len(ids), ids=" ".join(ids))


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
