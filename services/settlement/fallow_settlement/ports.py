"""What settlement needs from others."""

from typing import Protocol


class OrderEnder(Protocol):
    """Bidding's door for ending an order."""

    async def end_order(self, order_id: str) -> None:
        """Ask to end matching and leases of an order for want of funds; idempotent. Raises what the call raises."""
        ...
