"""The servicers of orders and workloads: read the request, call a use-case, write the answer."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, TypeVar

from fallow.order.v1 import order_pb2, order_service_pb2, order_service_pb2_grpc
from fallow.type.v1 import money_pb2, workload_pb2
from fallow_chassis.context import current_identity
from fallow_chassis.errors import PERMISSION_DENIED, DomainError
from fallow_chassis.paging import Page
from fallow_chassis.retry import is_retryable, wait_seconds
from fallow_chassis.signals import Signals
from fallow_chassis.wire import resource_id
from fallow_order import convert, intake, intake_update
from fallow_order.channels import ORDER_CHANNEL
from fallow_order.commands import OrderCommands
from fallow_order.creation import OrderCreation
from fallow_order.domain.hold import hold_micros
from fallow_order.domain.order import Change, Order, OrderState
from fallow_order.ports import Market
from fallow_order.queries import OrderQueries
from fallow_order.update_commands import UpdateCommands
from fallow_sdl import SdlSettings

CHANGES_PER_READ: Final = 100
Source = TypeVar("Source", order_service_pb2.CreateOrderRequest, order_service_pb2.EstimateOrderRequest)
"""A request that holds an order or spells it in SDL."""
Drafted = TypeVar("Drafted")
WATCH_POLL_SECONDS: Final = 2.0
"""How long a change waits at most to be shown if its signal is lost."""
WATCH_ATTEMPTS: Final = 10
"""How often a watch asks a database that is away, with growing waits, before it ends as UNAVAILABLE."""


def caller_account() -> str:
    """The id of the account that calls."""
    return resource_id(current_identity().subject, "accounts")


class OrderServicer(order_service_pb2_grpc.OrderServiceServicer):
    """OrderService."""

    def __init__(
        self,
        creation: OrderCreation,
        commands: OrderCommands,
        updates: UpdateCommands,
        queries: OrderQueries,
        market: Market,
        signals: Signals,
        sdl: SdlSettings,
    ) -> None:
        """Serve use-cases and reads."""
        self._creation = creation
        self._commands = commands
        self._updates = updates
        self._queries = queries
        self._market = market
        self._signals = signals
        self._sdl = sdl

    async def CreateOrder(self, request: order_service_pb2.CreateOrderRequest, context: Any) -> order_pb2.Order:
        """Check, store, fund and open an order."""
        draft = await _drafted(intake.draft_of_create, request, self._sdl)
        order = await self._creation.create(caller_account(), request.request_id, request, draft)
        return convert.order_to_proto(order)

    async def GetOrder(self, request: order_service_pb2.GetOrderRequest, context: Any) -> order_pb2.Order:
        """Return an order."""
        return convert.order_to_proto(await self._queries.get(caller_account(), resource_id(request.name, "orders")))

    async def ListOrders(
        self, request: order_service_pb2.ListOrdersRequest, context: Any
    ) -> order_service_pb2.ListOrdersResponse:
        """List the caller's orders, newest first."""
        page = Page(request)
        found = await self._queries.list(
            caller_account(),
            before_id=page.after_text(),
            wanted=convert.filter_from_proto(request),
            limit=page.limit,
        )
        shown, token = page.cut(found, lambda order: order.id)
        return order_service_pb2.ListOrdersResponse(
            orders=[convert.order_to_proto(order) for order in shown], next_page_token=token
        )

    async def UpdateOrder(self, request: order_service_pb2.UpdateOrderRequest, context: Any) -> order_pb2.Order:
        """Change an order; the answer comes once its money is held."""
        intake_update.check_request(request)
        return convert.order_to_proto(await self._updates.update(caller_account(), request))

    async def CloseOrder(self, request: order_service_pb2.CloseOrderRequest, context: Any) -> order_pb2.Order:
        """Ask for the end of an order."""
        order = await self._commands.close(
            caller_account(), resource_id(request.name, "orders"), request.reason, request.request_id, request
        )
        return convert.order_to_proto(order)

    async def WatchOrder(
        self, request: order_service_pb2.WatchOrderRequest, context: Any
    ) -> AsyncIterator[order_service_pb2.WatchOrderResponse]:
        """Stream the order as it is, then each change after ``after_sequence``, until it is closed.

        The order in an answer is the order when the answer was read, which may be later than the change beside it.
        Nothing is held while a slow reader takes its time; a database that is away for a while is waited for.
        """
        account, order_id = caller_account(), resource_id(request.name, "orders")
        with self._signals.bell(ORDER_CHANNEL, order_id) as bell:
            order, _ = await self._read(account, order_id, 0, limit=0)
            # Nobody has seen what has not happened: a number beyond the newest change is one of another order.
            after = min(request.after_sequence, order.sequence)
            yield convert.watch_step(order)
            while True:
                order, changes = await self._read(account, order_id, after, limit=CHANGES_PER_READ)
                for change in changes:
                    after = change.sequence
                    yield convert.watch_step(order, change)
                if order.state is OrderState.CLOSED and after >= order.sequence:
                    return
                if len(changes) < CHANGES_PER_READ:
                    await bell.wait(WATCH_POLL_SECONDS)

    async def _read(self, account: str, order_id: str, after: int, *, limit: int) -> tuple[Order, list[Change]]:
        """An order and its next changes; what passes by itself is tried again for a while."""
        for attempt in range(1, WATCH_ATTEMPTS):
            try:
                return await self._queries.get_with_changes(account, order_id, after=after, limit=limit)
            except Exception as error:
                if not is_retryable(error):
                    raise
                await asyncio.sleep(wait_seconds(attempt))
        return await self._queries.get_with_changes(account, order_id, after=after, limit=limit)

    async def EstimateOrder(
        self, request: order_service_pb2.EstimateOrderRequest, context: Any
    ) -> order_service_pb2.EstimateOrderResponse:
        """Price an order against live offers; store nothing."""
        draft, warnings = await _drafted(intake.draft_of_estimate, request, self._sdl)
        hold = hold_micros(draft.limits, draft.term_ms, draft.budget_micros)
        match = await self._market.estimate(convert.draft_to_proto(draft))
        return order_service_pb2.EstimateOrderResponse(
            best_price=match.best_price if match.HasField("best_price") else None,
            worst_price=match.worst_price if match.HasField("worst_price") else None,
            fitting_providers=match.fitting_providers,
            funds_needed=money_pb2.Amount(asset=draft.asset, micros=hold),
            time_to_match=match.time_to_match if match.HasField("time_to_match") else None,
            matching_price=match.matching_price if match.HasField("matching_price") else None,
            candidate_providers=match.candidate_providers,
            terms=match.terms,
            early_close=match.early_close if match.HasField("early_close") else None,
            spot=match.spot if match.HasField("spot") else None,
            sdl_warnings=warnings,
        )

    async def ExplainOrder(
        self, request: order_service_pb2.ExplainOrderRequest, context: Any
    ) -> order_service_pb2.ExplainOrderResponse:
        """Explain the last decision about an order of the caller's."""
        order = await self._queries.get(caller_account(), resource_id(request.name, "orders"))
        explained = await self._market.explain(order.id)
        return order_service_pb2.ExplainOrderResponse(groups=explained.groups)


async def _drafted(read: Callable[[Source, SdlSettings], Drafted], request: Source, sdl: SdlSettings) -> Drafted:
    """The draft of a request. A long file takes a while to read, and other calls go on meanwhile."""
    if request.HasField("sdl"):
        return await asyncio.to_thread(read, request, sdl)
    return read(request, sdl)


class WorkloadServicer(order_service_pb2_grpc.WorkloadServiceServicer):
    """WorkloadService."""

    def __init__(self, commands: OrderCommands) -> None:
        """Serve use-cases."""
        self._commands = commands

    async def GetWorkload(
        self, request: order_service_pb2.GetWorkloadRequest, context: Any
    ) -> order_service_pb2.GetWorkloadResponse:
        """Return the workload that the caller's grant is on."""
        grant = current_identity().grant
        if grant is None or grant.lease != request.lease or grant.generation != request.generation:
            raise DomainError(PERMISSION_DENIED, "the grant is on another lease or generation")
        workload = await self._commands.workload(
            resource_id(grant.order, "orders", field="grant"),
            grant.group,
            grant.lease,
            grant.generation,
            grant.revision,
        )
        return order_service_pb2.GetWorkloadResponse(workload=workload_pb2.Workload.FromString(workload))
