"""Auctions and bids as rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from fallow_bidding.domain.auctions import Auction, AuctionMode, AuctionRule, AuctionState, Bid, BidState
from fallow_bidding.store import QUERIES
from fallow_chassis.postgres import Connection


@dataclass(frozen=True, slots=True)
class AuctionOfOrder:
    """An auction with its order's tenant, market and body; an order that was opened has one."""

    auction: Auction
    tenant: str
    market: str
    body: bytes


async def insert_auction(connection: Connection, auction: Auction) -> None:
    """Store a round that opens."""
    await connection.execute(
        QUERIES.get("insert_auction"),
        auction.auction_id,
        auction.order_id,
        auction.group_index,
        auction.round_number,
        auction.mode,
        auction.rule,
        auction.create_time,
        auction.close_time,
    )


async def load_auction(connection: Connection, auction_id: str) -> AuctionOfOrder | None:
    """An auction with its order, or None."""
    row = await connection.fetchrow(QUERIES.get("load_auction"), auction_id)
    return None if row is None else _with_order(row)


async def share_auction(connection: Connection, auction_id: str) -> Auction | None:
    """An auction that nobody decides until the transaction ends, or None."""
    row = await connection.fetchrow(QUERIES.get("share_auction"), auction_id)
    return None if row is None else _auction_of(row)


async def lock_open_auctions(connection: Connection, order_ids: Sequence[str]) -> dict[str, dict[int, Auction]]:
    """The open rounds of orders, by order and group, their rows held; bids on their way come before or are too late."""
    found: dict[str, dict[int, Auction]] = {order_id: {} for order_id in order_ids}
    for row in await connection.fetch(QUERIES.get("lock_open_auctions"), list(order_ids)):
        found[row["order_id"]][row["group_index"]] = _auction_of(row)
    return found


async def list_auctions(
    connection: Connection, account: str, order_id: str, before: str, limit: int
) -> list[AuctionOfOrder]:
    """Auctions, newest first, that an account may see: of one of its orders, or of all."""
    rows = await connection.fetch(QUERIES.get("list_auctions"), account, order_id, before, limit)
    return [_with_order(row) for row in rows]


async def account_sells(connection: Connection, account: str, market: str) -> bool:
    """Whether an account owns a provider of a market."""
    return bool(await connection.fetchval(QUERIES.get("account_sells"), account, market))


async def choose_bid(connection: Connection, auction_id: str, bid_id: str) -> None:
    """Note which bid the tenant picked."""
    await connection.execute(QUERIES.get("choose_bid"), auction_id, bid_id)


async def close_auction(connection: Connection, auction_id: str, winning_bid_id: str, now: datetime) -> None:
    """Store how a round ended; an empty id means without a winner."""
    state = AuctionState.WON if winning_bid_id else AuctionState.FAILED
    await connection.execute(QUERIES.get("close_auction"), auction_id, state, winning_bid_id, now)


async def fail_open_auctions(
    connection: Connection, order_id: str, group_index: int | None, reason: str, now: datetime
) -> None:
    """End the open rounds of an order, or of one of its groups, without a winner; their bids are lost for a reason."""
    await connection.execute(QUERIES.get("fail_open_auctions"), order_id, group_index, reason, now)


async def has_sealed_auction(connection: Connection, order_id: str) -> bool:
    """Whether a round of an order is still to be decided by the engine."""
    return bool(await connection.fetchval(QUERIES.get("has_sealed_auction"), order_id))


async def next_close_time(connection: Connection, market: str, after: datetime) -> datetime | None:
    """When, after an instant, the next round of a market closes that its engine decides."""
    instant: datetime | None = await connection.fetchval(QUERIES.get("next_close_time"), market, after)
    return instant


async def load_unannounced(connection: Connection, market: str, limit: int) -> list[AuctionOfOrder]:
    """Rounds of a market of which providers were not told yet."""
    return [_with_order(row) for row in await connection.fetch(QUERIES.get("load_unannounced"), market, limit)]


async def set_announced(connection: Connection, auction_ids: Sequence[str]) -> None:
    """Note that providers were told."""
    await connection.execute(QUERIES.get("set_announced"), list(auction_ids))


async def save_bids(connection: Connection, bids: Sequence[Bid]) -> None:
    """Store new bids, and the states of those that are there."""
    rows = [
        (
            bid.auction_id,
            bid.bid_id,
            bid.provider_id,
            bid.asset,
            bid.price_micros,
            bid.from_offer,
            bid.state,
            bid.reason,
            bid.create_time,
        )
        for bid in bids
    ]
    await connection.executemany(QUERIES.get("insert_bid"), rows)


async def replace_bid(connection: Connection, auction_id: str, provider_id: str, reason: str) -> None:
    """Take a provider's present bid out of a round."""
    await connection.execute(QUERIES.get("replace_bid"), auction_id, provider_id, reason)


async def load_bid(connection: Connection, auction_id: str, bid_id: str) -> Bid | None:
    """A bid, or None."""
    row = await connection.fetchrow(QUERIES.get("load_bid"), auction_id, bid_id)
    return None if row is None else _bid_of(row)


async def load_placed_bids(connection: Connection, auction_ids: Sequence[str]) -> dict[str, list[Bid]]:
    """The bids that stand in open rounds, by auction."""
    found: dict[str, list[Bid]] = {auction_id: [] for auction_id in auction_ids}
    for row in await connection.fetch(QUERIES.get("load_placed_bids"), list(auction_ids)):
        found[row["auction_id"]].append(_bid_of(row))
    return found


async def load_bids(connection: Connection, auction_id: str, account: str) -> list[Bid]:
    """The bids of an auction, best first, of an account's providers or ("") of all."""
    return [_bid_of(row) for row in await connection.fetch(QUERIES.get("load_bids"), auction_id, account)]


def _with_order(row: asyncpg.Record) -> AuctionOfOrder:
    """The auction of a row with its order."""
    return AuctionOfOrder(_auction_of(row), row["tenant"], row["market"], row["body"])


def _auction_of(row: asyncpg.Record) -> Auction:
    """The auction of a row."""
    return Auction(
        auction_id=row["auction_id"],
        order_id=row["order_id"],
        group_index=row["group_index"],
        round_number=row["round_number"],
        mode=AuctionMode(row["mode"]),
        rule=AuctionRule(row["rule"]),
        create_time=row["create_time"],
        close_time=row["close_time"],
        state=AuctionState(row["state"]),
        decide_time=row["decide_time"],
        chosen_bid_id=row["chosen_bid_id"],
        winning_bid_id=row["winning_bid_id"],
    )


def _bid_of(row: asyncpg.Record) -> Bid:
    """The bid of a row."""
    return Bid(
        auction_id=row["auction_id"],
        bid_id=row["bid_id"],
        provider_id=row["provider_id"],
        asset=row["asset"],
        price_micros=row["price_micros"],
        create_time=row["create_time"],
        from_offer=row["from_offer"],
        state=BidState(row["state"]),
        reason=row["reason"],
    )
