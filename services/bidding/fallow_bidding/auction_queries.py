"""Reads of auctions and bids: who may see what, and when."""

from dataclasses import replace

from fallow.order.v1 import order_pb2
from fallow_bidding.convert.market import order_demand
from fallow_bidding.domain.auctions import AuctionMode, AuctionState, Bid, with_bids
from fallow_bidding.domain.matching import Market, weigh
from fallow_bidding.domain.policy import Policy
from fallow_bidding.domain.reasons import AUCTION_NOT_FOUND
from fallow_bidding.store import auctions
from fallow_bidding.store.auctions import AuctionOfOrder
from fallow_bidding.store.suppliers import load_suppliers
from fallow_chassis.errors import DomainError
from fallow_chassis.postgres import Connection, Database
from fallow_chassis.wire import resource_id


class AuctionQueries:
    """An auction shows to its order's tenant and to owners of providers; a bid to its owner, and to the tenant once the
    round is over or while it is a manual one.
    """

    def __init__(self, database: Database, policy: Policy) -> None:
        """Take the database and the market's rules."""
        self._database = database
        self._policy = policy

    async def auction(self, name: str, account: str, *, field: str = "name") -> AuctionOfOrder:
        """An auction that the account may see, or AUCTION_NOT_FOUND."""
        auction_id = resource_id(name, "auctions", field=field)
        async with self._database.read() as connection:
            found = await auctions.load_auction(connection, auction_id)
            sells = found is not None and await auctions.account_sells(connection, account, found.market)
        if found is None or (account != found.tenant and not sells):
            raise DomainError(AUCTION_NOT_FOUND, "there is no such auction of yours", metadata={"auction": name})
        return found

    async def auctions(self, account: str, order: str, before: str, limit: int) -> list[AuctionOfOrder]:
        """Auctions, newest first, that the account may see: of one of its orders, or of all."""
        order_id = resource_id(order, "orders", field="order") if order else ""
        async with self._database.read() as connection:
            return await auctions.list_auctions(connection, account, order_id, before, limit)

    async def bids(self, name: str, account: str) -> list[Bid]:
        """The bids of an auction that the account may read, best first."""
        found = await self.auction(name, account, field="parent")
        auction = found.auction
        sees_all = account == found.tenant and not auction.is_sealed
        async with self._database.read() as connection:
            if sees_all and auction.mode is AuctionMode.MANUAL and auction.state is AuctionState.OPEN:
                return await self._present_bids(connection, found)
            return await auctions.load_bids(connection, auction.auction_id, "" if sees_all else account)

    async def _present_bids(self, connection: Connection, found: AuctionOfOrder) -> list[Bid]:
        """The bids that could be picked now: those that were placed, and the standing offers that fit."""
        auction = found.auction
        placed = (await auctions.load_placed_bids(connection, [auction.auction_id]))[auction.auction_id]
        policy = replace(self._policy, market=found.market)
        loaded = await load_suppliers(connection, policy, self._database.clock.now())
        demand = order_demand(order_pb2.Order.FromString(found.body))
        demand = with_bids(demand, {auction.group_index: placed}, second_price=False)
        story = weigh(
            demand, demand.groups[auction.group_index], Market([supplier for _, supplier in loaded])
        ).explanation
        by_provider = {bid.provider_id: bid for bid in placed}
        shown: list[Bid] = []
        for offer in story.offers:
            bid = by_provider.pop(offer.provider_id, None)
            if offer.price_micros is None and bid is None:
                continue
            stops = "" if offer.price_micros is not None and offer.loss_reason != "price_limit" else offer.loss_reason
            if bid is None:
                assert offer.price_micros is not None, "only what has a price is shown"
                bid = Bid(
                    auction_id=auction.auction_id,
                    bid_id=offer.offer_id,
                    provider_id=offer.provider_id,
                    asset=story.asset,
                    price_micros=offer.price_micros,
                    create_time=auction.create_time,
                    from_offer=True,
                )
            shown.append(replace(bid, reason=stops))
        # A bidder whose offer was withdrawn meanwhile sells for no asset.
        shown += [replace(bid, reason="asset") for bid in by_provider.values()]
        return sorted(shown, key=lambda bid: (bool(bid.reason), bid.price_micros, bid.bid_id))
