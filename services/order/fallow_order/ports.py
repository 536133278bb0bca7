"""What the use-cases need of other services."""

from collections.abc import Sequence
from typing import Protocol

from fallow.bidding.v1 import market_service_pb2
from fallow.order.v1 import order_pb2
from fallow_order.domain.order import EndReason, Order
from fallow_order.domain.update import Holding


class Escrows(Protocol):
    """Settlement's escrows. Every call may be repeated."""

    async def open(self, orders: Sequence[Order]) -> list[int | Exception]:
        """Hold the funds of orders; for each the micros held, or the error with settlement's reason where it refuses."""
        ...

    async def resize(self, order_id: str, number: int, wanted: Holding) -> None:
        """Hold another sum for an order from now on; a number that is not above the last changes nothing.

        DomainError with settlement's reason where it refuses.
        """
        ...

    async def release(self, order_id: str) -> None:
        """Return all funds of an order that never opened; one that is unknown can never be opened afterwards."""
        ...


class Market(Protocol):
    """Bidding: the end of orders, and what it would or did decide. Every call may be repeated."""

    async def end_order(self, order_id: str, reason: EndReason) -> None:
        """End matching and all leases of an order."""
        ...

    async def estimate(self, order: order_pb2.Order) -> market_service_pb2.EstimateMatchResponse:
        """Price an order that is not stored."""
        ...

    async def explain(self, order_id: str) -> market_service_pb2.ExplainMatchResponse:
        """Explain the last decision about an order."""
        ...
