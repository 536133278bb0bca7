"""Rounds of bids: who wins, what is paid, what each bidder is told."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fallow_bidding.domain.auctions import (
    MIN_WINDOW,
    Auction,
    AuctionMode,
    AuctionRule,
    AuctionState,
    Bid,
    BidState,
    next_close,
    settle,
    why_nobody,
    with_bids,
    with_choices,
)
from fallow_bidding.domain.demand import OrderDemand
from fallow_bidding.domain.matching import Decision, Market, decide, decide_in_full, fitting, obstacle
from fallow_bidding.domain.supply import Supplier
from tests.unit.bidding.market import device, group, node, order, supplier

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIMIT = 1_000


def auction(**fields: object) -> Auction:
    """A round of 30 seconds that has just opened."""
    defaults: dict[str, object] = {
        "auction_id": "a",
        "order_id": "o1",
        "group_index": 0,
        "round_number": 1,
        "mode": AuctionMode.AUCTION,
        "rule": AuctionRule.FIRST_PRICE,
        "create_time": NOW,
        "close_time": NOW + timedelta(seconds=30),
    }
    return Auction(**defaults | fields)  # type: ignore[arg-type]


def bid(provider_id: str, price: int, **fields: object) -> Bid:
    """An explicit bid."""
    defaults: dict[str, object] = {
        "auction_id": "a",
        "bid_id": f"bid-{provider_id}",
        "provider_id": provider_id,
        "asset": "usdc",
        "price_micros": price,
        "create_time": NOW,
    }
    return Bid(**defaults | fields)  # type: ignore[arg-type]


def run(
    sellers: list[Supplier], bids: list[Bid], *, second_price: bool = False, limit: int = LIMIT, **fields: object
) -> Decision:
    """The decision of a round over one group."""
    demand = with_bids(order(group(price_limit_micros=limit), **fields), {0: bids}, second_price=second_price)
    return decide(demand, Market(sellers))


def paid(decision: Decision) -> tuple[str, int] | None:
    """Who won, at what price."""
    return (decision.matches[0].provider_id, decision.matches[0].price_micros) if decision.matches else None


TABLE = [
    ("the least bid wins and is paid", {"p1": 300, "p2": 200}, False, ("p2", 200)),
    ("the least bid wins and is paid the next", {"p1": 300, "p2": 200}, True, ("p2", 300)),
    ("alone, the limit is the reserve", {"p1": 300, "p2": 1_001}, True, ("p1", LIMIT)),
    ("alone at first price, its bid", {"p1": 300, "p2": 1_001}, False, ("p1", 300)),
    ("a bid at the limit is within it", {"p1": 1_000, "p2": 1_001}, False, ("p1", 1_000)),
    ("nobody within the limit", {"p1": 1_001, "p2": 2_000}, False, None),
    ("nobody within the limit", {"p1": 1_001, "p2": 2_000}, True, None),
    ("a bid of nothing", {"p1": 0, "p2": 5}, False, ("p1", 0)),
    ("equal bids: the lesser id", {"p1": 300, "p2": 300}, True, ("p1", 300)),
    ("a standing offer takes part", {"p1": 900}, False, ("p2", 500)),
    ("a standing offer sets the second price", {"p1": 400}, True, ("p1", 500)),
    ("a bid stands in the place of the own offer", {"p1": 700, "p2": 900}, False, ("p1", 700)),
]


@pytest.mark.parametrize(("_", "prices", "second_price", "expected"), TABLE)
def test_who_wins_and_what_is_paid(
    _: str, prices: dict[str, int], *, second_price: bool, expected: tuple[str, int] | None
) -> None:
    """Goal: both rules, the reserve and standing offers. Method: two providers that ask 500 by their schedules."""
    sellers = [supplier("p1", micros=500), supplier("p2", micros=500)]
    assert (
        paid(run(sellers, [bid(name, price) for name, price in prices.items()], second_price=second_price)) == expected
    )


def test_ties_go_to_reputation_then_age_then_id() -> None:
    """Goal: equal bids are told apart as equal offers are. Method: three providers, one advantage taken after another."""
    sellers = [
        supplier("p1", create_time_ms=2, reputation_milli=10),
        supplier("p2", create_time_ms=1, reputation_milli=10),
        supplier("p3", create_time_ms=3, reputation_milli=11),
    ]
    bids = [bid(name, 5) for name in ("p1", "p2", "p3")]
    assert paid(run(sellers, bids)) == ("p3", 5)
    assert paid(run(sellers[:2], bids)) == ("p2", 5)


def test_a_bid_that_does_not_fit_never_wins_and_sets_no_price() -> None:
    """Goal: the constraints hold for bids. Method: the cheapest bidder has no free device; second price."""
    full = supplier("p1", node(devices=(device("taken", free_milli=0),)))
    sellers = [full, supplier("p2"), supplier("p3")]
    decision = run(sellers, [bid("p1", 1), bid("p2", 100), bid("p3", 200)], second_price=True)
    assert paid(decision) == ("p2", 200)
    assert obstacle(order(), group(), Market([full])) == "device_free"
    assert obstacle(order(), group(price_limit_micros=1), Market([supplier("p2")])) == "", "the limit is not looked at"
    assert [(item.provider_id, models) for item, models in fitting(order(), group(), Market(sellers))] == [
        ("p2", frozenset({"h100"})),
        ("p3", frozenset({"h100"})),
    ]


def test_all_groups_or_none_of_bids() -> None:
    """Goal: a winner of one group gets nothing where another group found nobody. Method: one device, two groups."""
    groups = (group(index=0, price_limit_micros=LIMIT), group(index=1, price_limit_micros=LIMIT))
    demand = with_bids(order(*groups), {0: [bid("p1", 5)], 1: [bid("p1", 6)]}, second_price=False)
    decision = decide(demand, Market([supplier("p1")]))
    assert decision.matches == ()
    settled = settle(auction(), decision.explanations[0], [bid("p1", 5)], winner="", now=NOW)
    assert [(item.state, item.reason) for item in settled] == [(BidState.LOST, "other_group")]
    assert why_nobody(decision.explanations[0]) == "another group of the order found no provider"


def test_each_bidder_is_told_why() -> None:
    """Goal: every bid ends, with its reason, and standing offers leave a trace. Method: one round of all kinds."""
    sellers = [
        supplier("p1"),
        supplier("p2"),
        supplier("p3", micros=700),
        supplier("p4"),
        supplier("p5", node(devices=(device("taken", free_milli=0),))),
        supplier("p6", micros=2_000),
    ]
    bids = [bid("p1", 300), bid("p2", 200), bid("p4", 1_500), bid("p5", 1), bid("gone", 1)]
    decision = run(sellers, bids)
    settled = settle(auction(), decision.explanations[0], bids, winner="p2", now=NOW)
    told = {item.provider_id: (item.state, item.reason, item.from_offer) for item in settled}
    assert told == {
        "p1": (BidState.LOST, "dearer", False),
        "p2": (BidState.WON, "", False),
        "p3": (BidState.LOST, "dearer", True),
        "p4": (BidState.LOST, "price_limit", False),
        "p5": (BidState.LOST, "device_free", False),
        "p6": (BidState.LOST, "price_limit", True),
        "gone": (BidState.LOST, "asset", False),
    }
    assert {item.bid_id for item in settled if item.from_offer} == {"offer-p3", "offer-p6"}


def test_a_tenants_choice_is_the_only_one_that_may_win() -> None:
    """Goal: MANUAL pays the bid that was picked, though another is cheaper, and never one above the limit. Method: picks
    of a bid, of a standing offer, and of one that is too dear.
    """
    sellers = [supplier("p1", micros=500), supplier("p2", micros=400)]
    demand = order(group(price_limit_micros=LIMIT))
    names = ["p1", "p2"]
    picked = decide(with_choices(demand, {0: bid("p1", 800)}, names), Market(sellers))
    assert paid(picked) == ("p1", 800)
    standing = bid("p1", 0, from_offer=True)
    assert paid(decide(with_choices(demand, {0: standing}, names), Market(sellers))) == ("p1", 500)
    assert paid(decide(with_choices(demand, {0: bid("p1", 1_001)}, names), Market(sellers))) is None
    manual = auction(mode=AuctionMode.MANUAL)
    settled = settle(manual, picked.explanations[0], [bid("p1", 800), bid("p2", 1)], winner="p1", now=NOW)
    assert [(item.state, item.reason) for item in settled] == [(BidState.WON, ""), (BidState.LOST, "not_chosen")]


def test_when_a_round_takes_bids_and_when_it_is_decided() -> None:
    """Goal: the close is one instant: before it bids, from it on the decision. Method: a millisecond on either side."""
    opened, close = auction(), NOW + timedelta(seconds=30)
    before = close - timedelta(milliseconds=1)
    assert (opened.takes_bids(before), opened.is_due(before), opened.is_sealed) == (True, False, True)
    assert (opened.takes_bids(close), opened.is_due(close)) == (False, True)
    decided = auction(state=AuctionState.WON)
    assert (decided.takes_bids(before), decided.is_due(close), decided.is_sealed) == (False, False, False)
    manual = auction(mode=AuctionMode.MANUAL)
    assert (manual.is_due(close), manual.is_sealed) == (False, False)


def test_the_last_round_ends_with_the_wait() -> None:
    """Goal: no round outlives the order's wait, and none is too short to bid in. Method: deadlines near and far."""
    window = timedelta(seconds=30)
    assert next_close(NOW, window, NOW + timedelta(hours=1)) == NOW + window
    assert next_close(NOW, window, NOW + timedelta(seconds=20)) == NOW + timedelta(seconds=20)
    assert next_close(NOW, window, NOW + MIN_WINDOW) == NOW + MIN_WINDOW
    assert next_close(NOW, window, NOW + MIN_WINDOW - timedelta(milliseconds=1)) is None
    assert next_close(NOW, window, NOW - window) is None


_PRICES = st.lists(st.integers(0, 1_200), min_size=1, max_size=6)


@settings(deadline=None)
@given(prices=_PRICES, second_price=st.booleans(), limit=st.integers(0, 1_000))
def test_a_winner_is_paid_between_its_bid_and_the_limit(prices: list[int], *, second_price: bool, limit: int) -> None:
    """Goal: never below the bid, never above the limit; the least bid within the limit wins. Method: any bids."""
    sellers = [supplier(f"p{number}", micros=5_000) for number in range(len(prices))]
    bids = [bid(f"p{number}", price) for number, price in enumerate(prices)]
    outcome = paid(run(sellers, bids, second_price=second_price, limit=limit))
    within = sorted(price for price in prices if price <= limit)
    if not within:
        assert outcome is None
        return
    assert outcome is not None
    own = prices[int(outcome[0].removeprefix("p"))]
    assert own == within[0]
    expected = own if not second_price else within[1] if len(within) > 1 else limit
    assert outcome[1] == expected
    assert own <= outcome[1] <= limit


@settings(deadline=None)
@given(prices=_PRICES, order_of=st.randoms(use_true_random=False), second_price=st.booleans())
def test_the_sequence_of_bids_does_not_matter(prices: list[int], order_of: object, *, second_price: bool) -> None:
    """Goal: who bids earlier has no advantage. Method: the same bids and sellers, shuffled."""
    sellers = [supplier(f"p{number}") for number in range(len(prices))]
    bids = [bid(f"p{number}", price) for number, price in enumerate(prices)]
    first = run(sellers, bids, second_price=second_price)
    order_of.shuffle(bids)  # type: ignore[attr-defined]
    order_of.shuffle(sellers)  # type: ignore[attr-defined]
    assert run(sellers, bids, second_price=second_price) == first


@settings(deadline=None)
@given(cost=st.integers(0, 1_000), other=st.integers(0, 1_200), rivals=_PRICES, limit=st.integers(0, 1_000))
def test_under_the_second_price_bidding_the_truth_is_no_worse(
    cost: int, other: int, rivals: list[int], limit: int
) -> None:
    """Goal: no bid gains more than one's own cost does (Vickrey 1961). Method: any rivals, any other bid."""
    sellers = [supplier("me", create_time_ms=2), *(supplier(f"p{number}") for number in range(len(rivals)))]
    against = [bid(f"p{number}", price) for number, price in enumerate(rivals)]

    def gain(price: int) -> int:
        outcome = paid(run(sellers, [bid("me", price), *against], second_price=True, limit=limit))
        return outcome[1] - cost if outcome is not None and outcome[0] == "me" else 0

    assert gain(cost) >= gain(other)
    assert gain(cost) >= 0


@settings(deadline=None)
@given(entries=st.lists(st.tuples(st.integers(0, 1_200), st.booleans()), max_size=5), second_price=st.booleans())
def test_every_bid_of_a_round_is_decided_once(entries: list[tuple[int, bool]], *, second_price: bool) -> None:
    """Goal: one winner or none, nobody left waiting, no loss without a reason. Method: bids and standing offers."""
    sellers = [supplier(f"p{number}", micros=price) for number, (price, _) in enumerate(entries)]
    bids = [bid(f"p{number}", price) for number, (price, explicit) in enumerate(entries) if explicit]
    decision = run(sellers, bids, second_price=second_price)
    winner = decision.matches[0].provider_id if decision.matches else ""
    settled = settle(auction(), decision.explanations[0], bids, winner=winner, now=NOW)
    assert sorted(item.provider_id for item in settled) == sorted(item.provider_id for item in sellers)
    assert [item.provider_id for item in settled if item.state is BidState.WON] == ([winner] if winner else [])
    assert all(bool(item.reason) == (item.state is BidState.LOST) for item in settled)


def test_an_order_without_bids_is_decided_as_before() -> None:
    """Goal: instant orders know nothing of all this. Method: the same demand with no bids at all."""
    demand: OrderDemand = order(group(price_limit_micros=LIMIT))
    sellers = [supplier("p1", micros=500), supplier("p2", micros=400)]
    assert decide(with_bids(demand, {}, second_price=False), Market(sellers)) == decide_in_full(demand, Market(sellers))
