"""Matching as gRPC."""

from typing import Any

from fallow.bidding.v1 import market_service_pb2, market_service_pb2_grpc
from fallow_bidding.queries import Queries


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
