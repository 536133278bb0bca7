"""Rounds of bids open with an order, close by the engine's decision, and open again while the order may wait.

The rows of the orders concerned are held by the caller. A bid that is on its way when a round is decided was either
committed before the round's row could be held, and counts, or finds the round closed.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from fallow.order.v1 import order_pb2
from fallow_bidding.commands import lifecycle
from fallow_bidding.convert import auctions as convert
from fallow_bidding.domain.auctions import (
    ORDER_CHANGED,
    Auction,
    AuctionMode,
    Bid,
    BidState,
    next_close,
    settle,
    why_nobody,
)
from fallow_bidding.domain.matching import Decision
from fallow_bidding.domain.orders import MarketGroup, MarketOrder
from fallow_bidding.domain.silence import OUTAGE_AFTER, Outage, outage_ms, outages_with_present
from fallow_bidding.store import auctions, outages
from fallow_chassis.postgres import UnitOfWork


async def away_ms(unit: UnitOfWork, order: MarketOrder) -> int:
    """For how much of an order's wait the market itself was away, which does not count.

    An order that came late waited for our own event stream.
    """
    if order.open_time is None:
        return 0
    now = unit.clock.now()
    recorded = await outages.load_outages(unit.connection, order.open_time)
    present = outages_with_present(recorded, await outages.load_pulse(unit.connection), now)
    late = [Outage(order.open_time, order.create_time)] if order.create_time - order.open_time >= OUTAGE_AFTER else []
    return outage_ms([*present, *late], order.open_time, now)


async def open_rounds(
    unit: UnitOfWork,
    order: MarketOrder,
    body: order_pb2.Order,
    groups: Sequence[MarketGroup],
    *,
    rounds_before: Mapping[int, int] | None = None,
) -> None:
    """Open a round for each of these groups, all with one close, unless the order takes no bids or can wait no longer."""
    if order.auction_mode is None or not groups:
        return
    assert order.match_deadline is not None, "an order that takes bids was opened"
    now = unit.clock.now()
    deadline = order.match_deadline + timedelta(milliseconds=await away_ms(unit, order))
    window = deadline - now if order.auction_mode is AuctionMode.MANUAL else convert.window_of(body)
    close_time = next_close(now, window, deadline)
    if close_time is None:
        return
    for group in groups:
        auction = Auction(
            auction_id=unit.ids.new(),
            order_id=order.order_id,
            group_index=group.group_index,
            round_number=(rounds_before or {}).get(group.group_index, 0) + 1,
            mode=order.auction_mode,
            rule=convert.rule_of(body),
            create_time=now,
            close_time=close_time,
        )
        await auctions.insert_auction(unit.connection, auction)
        await lifecycle.emit_fact(unit, order.order_id, convert.auction_opened(auction, group.group_id))


async def restart_rounds(
    unit: UnitOfWork, order: MarketOrder, body: order_pb2.Order, waiting: Sequence[MarketGroup]
) -> None:
    """Begin the rounds of an order anew, because what its groups ask for has changed: old bids were for something else."""
    opened = (await auctions.lock_open_auctions(unit.connection, [order.order_id]))[order.order_id]
    if not opened:
        return
    await auctions.fail_open_auctions(unit.connection, order.order_id, None, ORDER_CHANGED, unit.clock.now())
    names = {group.group_index: group.group_id for group in waiting}
    for index, auction in sorted(opened.items()):
        fact = convert.auction_closed(auction, names[index], "", 0, "the order was changed", unit.clock.now())
        await lifecycle.emit_fact(unit, order.order_id, fact)
    again = [group for group in waiting if group.group_index in opened]
    before = {index: auction.round_number for index, auction in opened.items()}
    await open_rounds(unit, order, body, again, rounds_before=before)


async def load_bids(unit: UnitOfWork, rounds: Mapping[int, Auction]) -> dict[int, list[Bid]]:
    """The bids that stand in rounds, by group; the rounds' rows must be held."""
    found = await auctions.load_placed_bids(unit.connection, [auction.auction_id for auction in rounds.values()])
    return {index: found[auction.auction_id] for index, auction in rounds.items()}


async def close_rounds(
    unit: UnitOfWork,
    order: MarketOrder,
    body: order_pb2.Order,
    part: Mapping[int, MarketGroup],
    due: Mapping[int, Auction],
    bids: Mapping[int, Sequence[Bid]],
    decision: Decision,
) -> None:
    """Write how rounds ended by a decision, and open the next for groups that found nobody."""
    now = unit.clock.now()
    winners = {match.group_index: match.provider_id for match in decision.matches}
    stories = {story.group_index: story for story in decision.explanations}
    for index, auction in sorted(due.items()):
        story = stories[index]
        settled = settle(auction, story, bids[index], winner=winners.get(index, ""), now=now)
        await auctions.save_bids(unit.connection, settled)
        winning = next((bid.bid_id for bid in settled if bid.state is BidState.WON), "")
        await auctions.close_auction(unit.connection, auction.auction_id, winning, now)
        detail = "" if winning else why_nobody(story)
        fact = convert.auction_closed(auction, part[index].group_id, winning, len(settled), detail, now)
        await lifecycle.emit_fact(unit, order.order_id, fact)
    losers = [part[index] for index in sorted(due) if index not in winners]
    before = {index: auction.round_number for index, auction in due.items()}
    await open_rounds(unit, order, body, losers, rounds_before=before)
