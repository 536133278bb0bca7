"""Settlement and bidding behind the ports. Request ids are made of the order's id, so a repeat is known as one."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import grpc

from fallow.bidding.v1 import lease_service_pb2, lease_service_pb2_grpc, market_service_pb2, market_service_pb2_grpc
from fallow.order.v1 import order_pb2
from fallow.settlement.v1 import settlement_service_pb2, settlement_service_pb2_grpc
from fallow.type.v1 import money_pb2
from fallow_chassis.status_details import RemoteError, from_status
from fallow_order import convert
from fallow_order.domain.order import EndReason, Order
from fallow_order.domain.update import Holding

_PATHS: Final = {
    "amount.asset": "order.groups[0].price_limit.asset",
    "amount.micros": "order.groups[0].price_limit.micros_per_hour",
}
"""Which field of an order decides on a field of OpenEscrow."""


class EscrowClient:
    """Settlement's EscrowService."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Use a channel with this service's own token."""
        self._stub = settlement_service_pb2_grpc.EscrowServiceStub(channel)

    async def open(self, orders: Sequence[Order]) -> list[int | Exception]:
        """Hold the funds of orders; for each the micros held, or the error with settlement's reason where it refuses."""
        request = settlement_service_pb2.BatchOpenEscrowsRequest(requests=[_opening(order) for order in orders])
        response = await self._stub.BatchOpenEscrows(request)
        assert len(response.results) == len(orders), "settlement answers each request once"
        return [
            _in_words_of_orders(from_status(result.error))
            if result.HasField("error")
            else int(result.escrow.held.micros)
            for result in response.results
        ]

    async def resize(self, order_id: str, number: int, wanted: Holding) -> None:
        """Hold another sum for an order from now on."""
        request = settlement_service_pb2.ResizeEscrowRequest(
            name=f"escrows/{order_id}",
            amount=money_pb2.Amount(asset=wanted.asset, micros=wanted.hold_micros),
            auto_top_up=wanted.auto_top_up,
            number=number,
            request_id=f"resize-{order_id}-{number}",
        )
        if wanted.budget_micros is not None:
            request.budget.CopyFrom(money_pb2.Amount(asset=wanted.asset, micros=wanted.budget_micros))
        await self._stub.ResizeEscrow(request)

    async def release(self, order_id: str) -> None:
        """Return all funds of an order that never opened."""
        await self._stub.ReleaseEscrow(
            settlement_service_pb2.ReleaseEscrowRequest(name=f"escrows/{order_id}", request_id=f"release-{order_id}")
        )


def _in_words_of_orders(error: RemoteError) -> RemoteError:
    """Settlement's refusal of a hold, with the paths of the order that it was computed from."""
    error.violations = tuple(replace(item, field=_PATHS.get(item.field, item.field)) for item in error.violations)
    return error


def _opening(order: Order) -> settlement_service_pb2.OpenEscrowRequest:
    """What opens the escrow of an order."""
    request = settlement_service_pb2.OpenEscrowRequest(
        name=f"escrows/{order.id}",
        account=f"accounts/{order.account}",
        amount=money_pb2.Amount(asset=order.asset, micros=order.hold_micros),
        auto_top_up=order.auto_top_up,
        request_id=f"open-{order.id}",
    )
    if order.budget_micros is not None:
        request.budget.CopyFrom(money_pb2.Amount(asset=order.asset, micros=order.budget_micros))
    return request


class MarketClient:
    """Bidding's LeaseService and MatchService."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Use a channel with this service's own token."""
        self._leases = lease_service_pb2_grpc.LeaseServiceStub(channel)
        self._matches = market_service_pb2_grpc.MatchServiceStub(channel)

    async def end_order(self, order_id: str, reason: EndReason) -> None:
        """End matching and all leases of an order."""
        await self._leases.EndOrder(
            lease_service_pb2.EndOrderRequest(
                order=f"orders/{order_id}",
                reason=convert.end_reason_to_proto(reason),
                request_id=f"end-{order_id}",
            )
        )

    async def estimate(self, order: order_pb2.Order) -> market_service_pb2.EstimateMatchResponse:
        """Price an order that is not stored."""
        return await self._matches.EstimateMatch(market_service_pb2.EstimateMatchRequest(order=order))

    async def explain(self, order_id: str) -> market_service_pb2.ExplainMatchResponse:
        """Explain the last decision about an order."""
        return await self._matches.ExplainMatch(market_service_pb2.ExplainMatchRequest(order=f"orders/{order_id}"))
