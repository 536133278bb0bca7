"""Rounds of bids: what a bid is, how a round ends, and what each bidder is told.

A round is for one group of an order. Its winner is whoever the engine's own decision picks, through the same constraints
and placement as any match, with explicit bids in the place of schedules' prices (``with_bids``). A provider with a
standing offer that fits takes part at its schedule's price unless it has placed a bid. The winner is paid its bid, or,
under the second-price rule, the next best price that fits; alone, the price limit, which is the tenant's reserve. Hence
it is never paid below its bid, and the tenant never pays above its limit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from fallow_bidding.domain.demand import OrderDemand
from fallow_bidding.domain.explanation import MAX_OFFERS_EXPLAINED, GroupExplanation

NOT_CHOSEN: Final = "not_chosen"
REPLACED: Final = "replaced"
ORDER_CHANGED: Final = "order_changed"
ORDER_ENDED: Final = "order_ended"
MIN_WINDOW: Final = timedelta(milliseconds=250)
"""No round is shorter."""


class AuctionMode(StrEnum):
    """Who decides: the engine at the close, or the tenant before it."""

    AUCTION = "AUCTION"
    MANUAL = "MANUAL"


class AuctionRule(StrEnum):
    """What the winner is paid."""

    FIRST_PRICE = "FIRST_PRICE"
    SECOND_PRICE = "SECOND_PRICE"


class AuctionState(StrEnum):
    """State of an auction."""

    OPEN = "OPEN"
    WON = "WON"
    FAILED = "FAILED"


class BidState(StrEnum):
    """State of a bid."""

    PLACED = "PLACED"
    WON = "WON"
    LOST = "LOST"


@dataclass(frozen=True, slots=True)
class Auction:
    """One round for one group. ``chosen_bid_id`` is the tenant's choice in a manual one, until all is decided."""

    auction_id: str
    order_id: str
    group_index: int
    round_number: int
    mode: AuctionMode
    rule: AuctionRule
    create_time: datetime
    close_time: datetime
    state: AuctionState = AuctionState.OPEN
    decide_time: datetime | None = None
    chosen_bid_id: str = ""
    winning_bid_id: str = ""

    def takes_bids(self, now: datetime) -> bool:
        """Whether a bid may still be placed."""
        return self.state is AuctionState.OPEN and now < self.close_time

    def is_due(self, now: datetime) -> bool:
        """Whether the engine is to decide it."""
        return self.state is AuctionState.OPEN and self.mode is AuctionMode.AUCTION and self.close_time <= now

    @property
    def is_sealed(self) -> bool:
        """Whether nobody but a bidder may read its bids yet."""
        return self.state is AuctionState.OPEN and self.mode is AuctionMode.AUCTION


@dataclass(frozen=True, slots=True)
class Bid:
    """One provider's price for the whole group. One ``from_offer`` stands for a standing offer and bears its id."""

    auction_id: str
    bid_id: str
    provider_id: str
    asset: str
    price_micros: int
    create_time: datetime
    from_offer: bool = False
    state: BidState = BidState.PLACED
    reason: str = ""


def with_bids(demand: OrderDemand, bids: Mapping[int, Sequence[Bid]], *, second_price: bool) -> OrderDemand:
    """What is asked, with the bids of each group, by its index, in the place of schedules' prices."""
    groups = tuple(
        replace(group, bids={bid.provider_id: bid.price_micros for bid in bids.get(group.index, ())})
        for group in demand.groups
    )
    return replace(demand, groups=groups, second_price=second_price, in_full=True)


def with_choices(demand: OrderDemand, choices: Mapping[int, Bid], provider_ids: Sequence[str]) -> OrderDemand:
    """What is asked where the tenant has chosen one bid for each group: of ``provider_ids`` only the chosen may win."""
    groups = []
    for group in demand.groups:
        chosen = choices[group.index]
        others = group.excluded | (frozenset(provider_ids) - {chosen.provider_id})
        bids = {} if chosen.from_offer else {chosen.provider_id: chosen.price_micros}
        groups.append(replace(group, excluded=others, bids=bids))
    return replace(demand, groups=tuple(groups), second_price=False, in_full=True)


def settle(
    auction: Auction, story: GroupExplanation, placed: Sequence[Bid], *, winner: str, now: datetime
) -> tuple[Bid, ...]:
    """The bids of a round as its decision left them: those that were placed, and the standing offers that took part.

    ``winner`` is a provider's id; empty where nobody won.
    """
    weighed = {offer.provider_id: offer for offer in story.offers}
    settled: list[Bid] = []
    for bid in placed:
        assert bid.state is BidState.PLACED, "a bid is decided once"
        if bid.provider_id == winner:
            settled.append(replace(bid, state=BidState.WON))
        elif auction.mode is AuctionMode.MANUAL and winner:
            settled.append(replace(bid, state=BidState.LOST, reason=NOT_CHOSEN))
        else:
            offer = weighed.get(bid.provider_id)
            # Who bid and has no offer any more sells for no asset; the story leaves such providers out.
            settled.append(replace(bid, state=BidState.LOST, reason="asset" if offer is None else offer.loss_reason))
    explicit = {bid.provider_id for bid in placed}
    for offer in story.offers[:MAX_OFFERS_EXPLAINED]:
        if offer.provider_id not in explicit and offer.price_micros is not None:
            won = offer.provider_id == winner
            settled.append(
                Bid(
                    auction_id=auction.auction_id,
                    bid_id=offer.offer_id,
                    provider_id=offer.provider_id,
                    asset=story.asset,
                    price_micros=offer.price_micros,
                    create_time=now,
                    from_offer=True,
                    state=BidState.WON if won else BidState.LOST,
                    reason="" if won else offer.loss_reason,
                )
            )
    assert sum(bid.state is BidState.WON for bid in settled) == bool(winner), "a round has one winner or none"
    return tuple(settled)


def next_close(now: datetime, window: timedelta, deadline: datetime) -> datetime | None:
    """When a round that opens now closes; None where too little of the wait for a match is left for one."""
    close = min(now + window, deadline)
    return close if close - now >= MIN_WINDOW else None


def why_nobody(story: GroupExplanation) -> str:
    """Why a round found no winner, in one sentence."""
    if not any(offer.price_micros is not None for offer in story.offers):
        return "no bid that fits"
    within = any(offer.price_micros is not None and offer.loss_reason != "price_limit" for offer in story.offers)
    return "another group of the order found no provider" if within else "all that fit asked more than the price limit"
