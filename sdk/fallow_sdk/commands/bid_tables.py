"""Auctions and bids as tables for people."""

from rich.table import Table

from fallow.bidding.v1 import market_service_pb2
from fallow.order.v1 import order_pb2
from fallow_sdk.commands.order_tables import name_column, show_time
from fallow_sdk.money import show_price


def round_title(auction: market_service_pb2.Auction) -> str:
    """What a round is, in one line."""
    mode = order_pb2.MatchMode.Name(auction.match_mode).removeprefix("MATCH_MODE_").lower()
    state = market_service_pb2.AuctionState.Name(auction.state).removeprefix("AUCTION_STATE_").lower()
    place = f"group {auction.group}, round {auction.round}"
    return f"{auction.name}: {mode}, {place}, {state}, closes {show_time(auction.close_time)}"


def bids_table(bids: list[market_service_pb2.Bid]) -> Table:
    """Bids, one a line, best first."""
    table = Table(name_column("BID"), name_column("PROVIDER"), "PRICE", "STATE", "WHY", box=None)
    for bid in bids:
        outcome = market_service_pb2.BidState.Name(bid.state).removeprefix("BID_STATE_").lower()
        kind = " (standing offer)" if bid.from_offer else ""
        table.add_row(bid.name, bid.provider, show_price(bid.price), outcome + kind, bid.reason or "-")
    return table


def auctions_table(auctions: list[market_service_pb2.Auction]) -> Table:
    """Auctions, one a line, with what they ask for."""
    table = Table(name_column("AUCTION"), "STATE", "CLOSES", "ASSET", "ASKS FOR", box=None)
    for auction in auctions:
        state = market_service_pb2.AuctionState.Name(auction.state).removeprefix("AUCTION_STATE_").lower()
        wanted = []
        for replica_set in auction.replica_sets:
            gpu = replica_set.resources.gpu
            models = gpu.models or [kind.model or kind.vendor or "any" for kind in gpu.alternatives]
            gpus = f" with {gpu.count} GPU {'/'.join(models) or 'of any model'}" if gpu.count else ""
            wanted.append(f"{replica_set.replicas} x {replica_set.resources.cpu_milli / 1_000:g} CPU{gpus}")
        table.add_row(auction.name, state, show_time(auction.close_time), auction.asset, "; ".join(wanted))
    return table
