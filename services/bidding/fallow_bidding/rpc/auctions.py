"""Auctions and bids as gRPC."""

from typing import Any

from fallow.bidding.v1 import market_service_pb2, market_service_pb2_grpc
from fallow_bidding.auction_queries import AuctionQueries
from fallow_bidding.commands.auctions import AuctionCommands
from fallow_bidding.convert import auctions as convert
from fallow_bidding.store.auctions import AuctionOfOrder
from fallow_chassis.context import current_identity
from fallow_chassis.paging import Page


class AuctionServicer(market_service_pb2_grpc.AuctionServiceServicer):
    """Sealed rounds of bids, and manual ones."""

    def __init__(self, commands: AuctionCommands, queries: AuctionQueries) -> None:
        """Take the use-cases and the reads."""
        self._commands = commands
        self._queries = queries

    async def GetAuction(
        self, request: market_service_pb2.GetAuctionRequest, context: Any
    ) -> market_service_pb2.Auction:
        """Return an auction."""
        return _shown(await self._queries.auction(request.name, current_identity().subject))

    async def ListAuctions(
        self, request: market_service_pb2.ListAuctionsRequest, context: Any
    ) -> market_service_pb2.ListAuctionsResponse:
        """List auctions, newest first."""
        page = Page(request)
        account = current_identity().subject
        found = await self._queries.auctions(account, request.order, page.after_text(), page.limit)
        shown, token = page.cut(found, lambda item: item.auction.auction_id)
        return market_service_pb2.ListAuctionsResponse(auctions=[_shown(item) for item in shown], next_page_token=token)

    async def CreateBid(self, request: market_service_pb2.CreateBidRequest, context: Any) -> market_service_pb2.Bid:
        """Place a bid."""
        return convert.bid_message(await self._commands.create_bid(request, current_identity().subject))

    async def ListBids(
        self, request: market_service_pb2.ListBidsRequest, context: Any
    ) -> market_service_pb2.ListBidsResponse:
        """List the bids that the caller may read, best first."""
        page = Page(request)
        bids = await self._queries.bids(request.parent, current_identity().subject)
        numbered = list(enumerate(bids, start=1))[page.after_number() :][: page.limit]
        shown, token = page.cut(numbered, lambda item: item[0])
        return market_service_pb2.ListBidsResponse(
            bids=[convert.bid_message(bid) for _, bid in shown], next_page_token=token
        )

    async def AcceptBid(self, request: market_service_pb2.AcceptBidRequest, context: Any) -> market_service_pb2.Auction:
        """Pick a bid of a manual auction."""
        return _shown(await self._commands.accept_bid(request, current_identity().subject))


def _shown(item: AuctionOfOrder) -> market_service_pb2.Auction:
    """An auction as the caller may see it."""
    shows_order = current_identity().subject == item.tenant
    return convert.auction_message(item.auction, item.body, shows_order=shows_order)
