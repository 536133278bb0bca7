"""Matching and auctions as gRPC."""

from typing import Any

from fallow.bidding.v1 import market_service_pb2, market_service_pb2_grpc
from fallow_bidding.queries import Queries
from fallow_chassis.errors import not_yet_available


class MatchServicer(market_service_pb2_grpc.MatchServiceServicer):
    """What orders would cost, and why they match or not; for the order service."""

    def __init__(self, queries: Queries) -> None:
        """Take the reads."""
        self._queries = queries

    async def EstimateMatch(
        self, request: market_service_pb2.EstimateMatchRequest, context: Any
    ) -> market_service_pb2.EstimateMatchResponse:
        """Price an order that is not stored."""
        return await self._queries.estimate(request.order)

    async def ExplainMatch(
        self, request: market_service_pb2.ExplainMatchRequest, context: Any
    ) -> market_service_pb2.ExplainMatchResponse:
        """Explain the last decision about an order."""
        return await self._queries.explain(request.order)


class AuctionServicer(market_service_pb2_grpc.AuctionServiceServicer):
    """Sealed rounds of bids: not built yet, and every method says so."""

    async def GetAuction(
        self, request: market_service_pb2.GetAuctionRequest, context: Any
    ) -> market_service_pb2.Auction:
        """Not built yet."""
        raise not_yet_available("GetAuction")

    async def ListAuctions(
        self, request: market_service_pb2.ListAuctionsRequest, context: Any
    ) -> market_service_pb2.ListAuctionsResponse:
        """Not built yet."""
        raise not_yet_available("ListAuctions")

    async def CreateBid(self, request: market_service_pb2.CreateBidRequest, context: Any) -> market_service_pb2.Bid:
        """Not built yet."""
        raise not_yet_available("CreateBid")

    async def ListBids(
        self, request: market_service_pb2.ListBidsRequest, context: Any
    ) -> market_service_pb2.ListBidsResponse:
        """Not built yet."""
        raise not_yet_available("ListBids")

    async def AcceptBid(self, request: market_service_pb2.AcceptBidRequest, context: Any) -> market_service_pb2.Auction:
        """Not built yet."""
        raise not_yet_available("AcceptBid")
