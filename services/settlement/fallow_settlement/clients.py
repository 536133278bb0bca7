"""Other services behind settlement's ports."""

from grpc.aio import Channel

from fallow.bidding.v1 import lease_service_pb2, lease_service_pb2_grpc
from fallow.type.v1 import lease_pb2


class BiddingClient:
    """Bidding's LeaseService."""

    def __init__(self, channel: Channel) -> None:
        """Take a channel that carries settlement's own token."""
        self._leases = lease_service_pb2_grpc.LeaseServiceStub(channel)

    async def set_order_suspended(self, order_id: str, *, suspended: bool, number: int) -> None:
        """Pause an order or let it go on; a repeat changes nothing."""
        await self._leases.SetOrderSuspended(
            lease_service_pb2.SetOrderSuspendedRequest(order=f"orders/{order_id}", suspended=suspended, number=number)
        )

    async def end_order(self, order_id: str) -> None:
        """End an order for want of funds; a repeat answers the same."""
        await self._leases.EndOrder(
            lease_service_pb2.EndOrderRequest(
                order=f"orders/{order_id}",
                reason=lease_pb2.END_REASON_FUNDS,
                request_id=f"settlement-funds-{order_id}",
            )
        )
