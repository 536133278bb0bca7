"""Auctions and bids on the wire."""

from datetime import datetime, timedelta

from fallow.bidding.v1 import events_pb2, market_service_pb2
from fallow.order.v1 import order_pb2
from fallow.type.v1 import money_pb2
from fallow_bidding.domain.auctions import Auction, AuctionMode, AuctionRule, Bid
from fallow_chassis.errors import invalid_field
from fallow_chassis.wire import from_duration, to_timestamp


def mode_of(order: order_pb2.Order) -> AuctionMode | None:
    """How an order's first leases are found; None is against standing offers at once."""
    by_number = {
        order_pb2.MATCH_MODE_AUCTION: AuctionMode.AUCTION,
        order_pb2.MATCH_MODE_MANUAL: AuctionMode.MANUAL,
    }
    return by_number.get(order.match_mode)


def rule_of(order: order_pb2.Order) -> AuctionRule:
    """What a winner is paid; none said means its bid."""
    if order.auction_rule == order_pb2.AUCTION_RULE_SECOND_PRICE:
        return AuctionRule.SECOND_PRICE
    return AuctionRule.FIRST_PRICE


def window_of(order: order_pb2.Order) -> timedelta:
    """How long an auction takes bids."""
    return timedelta(milliseconds=from_duration(order.auction_window))


def auction_name(auction: Auction) -> str:
    """An auction's resource name."""
    return f"auctions/{auction.auction_id}"


def bid_name(auction_id: str, bid_id: str) -> str:
    """A bid's resource name; empty for no bid."""
    return f"auctions/{auction_id}/bids/{bid_id}" if bid_id else ""


def bid_ids(name: str) -> tuple[str, str]:
    """The ids of auction and bid in a bid's name; INVALID_FIELD for any other text."""
    match name.split("/"):
        case ["auctions", auction_id, "bids", bid_id] if auction_id and bid_id:
            return auction_id, bid_id
    raise invalid_field("name", "must have the form auctions/{auction}/bids/{bid}")


def auction_message(auction: Auction, body: bytes, *, shows_order: bool) -> market_service_pb2.Auction:
    """An auction as its viewer sees it: never the price limit or an image, the order only for its tenant."""
    order = order_pb2.Order.FromString(body)
    group = order.groups[auction.group_index]
    message = market_service_pb2.Auction(
        name=auction_name(auction),
        order=f"orders/{auction.order_id}" if shows_order else "",
        group=auction.group_index,
        rule=order_pb2.AuctionRule.Value(f"AUCTION_RULE_{auction.rule}"),
        state=market_service_pb2.AuctionState.Value(f"AUCTION_STATE_{auction.state}"),
        create_time=to_timestamp(auction.create_time),
        close_time=to_timestamp(auction.close_time),
        winning_bid=bid_name(auction.auction_id, auction.winning_bid_id),
        replica_sets=group.replica_sets,
        match_mode=order_pb2.MatchMode.Value(f"MATCH_MODE_{auction.mode}"),
        round=auction.round_number,
        term_kind=order.terms.kind or order_pb2.TERM_KIND_ON_DEMAND,
        duration=order.terms.duration if order.terms.HasField("duration") else None,
        asset=group.price_limit.asset,
    )
    for replica_set in message.replica_sets:
        replica_set.ClearField("image")
    return message


def bid_message(bid: Bid) -> market_service_pb2.Bid:
    """A bid as those who may read it see it."""
    return market_service_pb2.Bid(
        name=bid_name(bid.auction_id, bid.bid_id),
        provider=f"providers/{bid.provider_id}",
        price=money_pb2.Price(asset=bid.asset, micros_per_hour=bid.price_micros),
        state=market_service_pb2.BidState.Value(f"BID_STATE_{bid.state}"),
        reason=bid.reason,
        create_time=to_timestamp(bid.create_time),
        from_offer=bid.from_offer,
    )


def auction_opened(auction: Auction, group_id: str) -> events_pb2.AuctionOpened:
    """The fact that a round has opened."""
    return events_pb2.AuctionOpened(
        auction=auction_name(auction),
        order=f"orders/{auction.order_id}",
        group=auction.group_index,
        group_id=group_id,
        round=auction.round_number,
        match_mode=order_pb2.MatchMode.Value(f"MATCH_MODE_{auction.mode}"),
        rule=order_pb2.AuctionRule.Value(f"AUCTION_RULE_{auction.rule}"),
        create_time=to_timestamp(auction.create_time),
        close_time=to_timestamp(auction.close_time),
    )


def auction_closed(
    auction: Auction, group_id: str, winning_bid_id: str, bids: int, detail: str, now: datetime
) -> events_pb2.AuctionClosed:
    """The fact that a round is over."""
    return events_pb2.AuctionClosed(
        auction=auction_name(auction),
        order=f"orders/{auction.order_id}",
        group=auction.group_index,
        group_id=group_id,
        round=auction.round_number,
        winning_bid=bid_name(auction.auction_id, winning_bid_id),
        bids=bids,
        detail=detail,
        decide_time=to_timestamp(now),
    )
