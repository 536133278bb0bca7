"""How `fallow order create` and `fallow bid` read what people write."""

from datetime import timedelta

import pytest
import typer
from google.protobuf import text_format

from fallow.bidding.v1 import market_service_pb2
from fallow.order.v1 import order_pb2
from fallow.type.v1 import money_pb2, resources_pb2
from fallow_sdk.client import Mode
from fallow_sdk.commands.bid_tables import auctions_table, bids_table, round_title
from fallow_sdk.commands.connection import console
from fallow_sdk.commands.options import parse_span
from fallow_sdk.commands.order_modes import TermWishes, mode_of, terms_of


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("250ms", 250), ("30s", 30_000), ("10m", 600_000), ("12h", 43_200_000), ("30d", 2_592_000_000)],
)
def test_spans(text: str, milliseconds: int) -> None:
    """Goal: every unit means itself. Method: one span of each."""
    assert parse_span(text, "--window") == timedelta(milliseconds=milliseconds)


@pytest.mark.parametrize("text", ["", "30", "-1s", "0s", "1w", "1.5h", "s", "36501d", "999999999d"])
def test_what_is_no_span_is_wrong_usage(text: str) -> None:
    """Goal: no guess. Method: texts of other shapes."""
    with pytest.raises(typer.BadParameter):
        parse_span(text, "--window")


def test_modes() -> None:
    """Goal: each option means one mode, none leaves it to the order. Method: all that go together."""
    window = timedelta(seconds=30)
    auction = order_pb2.MATCH_MODE_AUCTION
    assert mode_of("", "", manual=False) is None
    assert mode_of("", "", manual=True) == Mode(order_pb2.MATCH_MODE_MANUAL)
    assert mode_of("first", "30s", manual=False) == Mode(auction, order_pb2.AUCTION_RULE_FIRST_PRICE, window)
    assert mode_of("second", "30s", manual=False) == Mode(auction, order_pb2.AUCTION_RULE_SECOND_PRICE, window)


@pytest.mark.parametrize(
    ("auction", "window", "manual"),
    [("first", "", False), ("third", "30s", False), ("", "30s", False), ("first", "30s", True), ("", "30s", True)],
)
def test_modes_that_make_no_sense_are_wrong_usage(auction: str, window: str, *, manual: bool) -> None:
    """Goal: no option is passed over in silence. Method: pairs that exclude each other, and half of one."""
    with pytest.raises(typer.BadParameter):
        mode_of(auction, window, manual=manual)


def test_terms() -> None:
    """Goal: spot, reserved with its duration, or none. Method: each, and both at once."""
    assert terms_of(TermWishes(spot=False, reserved="")) is None
    spot = terms_of(TermWishes(spot=True, reserved=""))
    assert spot is not None
    assert spot.kind == order_pb2.TERM_KIND_SPOT
    reserved = terms_of(TermWishes(spot=False, reserved="30d"))
    assert reserved is not None
    assert (reserved.kind, reserved.duration.seconds) == (order_pb2.TERM_KIND_RESERVED, 30 * 86_400)
    with pytest.raises(typer.BadParameter):
        terms_of(TermWishes(spot=True, reserved="30d"))


def test_tables_show_what_a_bidder_and_a_tenant_need() -> None:
    """Goal: names whole, prices, outcome and reason. Method: print one round with two bids, and the list of auctions."""
    gpu = resources_pb2.GpuRequirement(count=2, models=["h100"])
    auction = market_service_pb2.Auction(
        name="auctions/a",
        state=market_service_pb2.AUCTION_STATE_WON,
        match_mode=order_pb2.MATCH_MODE_AUCTION,
        round=1,
        asset="usdc",
        replica_sets=[
            order_pb2.ReplicaSet(replicas=3, resources=resources_pb2.ResourceRequirement(cpu_milli=500, gpu=gpu))
        ],
    )
    price = money_pb2.Price(asset="usdc", micros_per_hour=1_250_000)
    bids = [
        market_service_pb2.Bid(
            name="auctions/a/bids/b", provider="providers/p", price=price, state=market_service_pb2.BID_STATE_WON
        ),
        market_service_pb2.Bid(
            name="auctions/a/bids/o",
            provider="providers/q",
            price=price,
            state=market_service_pb2.BID_STATE_LOST,
            reason="dearer",
            from_offer=True,
        ),
    ]
    with console.capture() as capture:
        console.print(round_title(auction))
        console.print(bids_table(bids))
        console.print(auctions_table([auction]))
    text = " ".join(capture.get().split())
    for part in (
        "auctions/a: auction, group 0, round 1, won",
        "auctions/a/bids/b providers/p 1.250000 USDC/h won -",
        "auctions/a/bids/o providers/q 1.250000 USDC/h lost (standing offer) dearer",
        "usdc 3 x 0.5 CPU with 2 GPU h100",
    ):
        assert part in text


def test_bounds_in_time_and_money_are_terms_too() -> None:
    """Goal: each option sets its own field and no other. Method: one option each, then all."""
    for wishes, text in (
        (TermWishes(duration="2h"), "duration { seconds: 7200 }"),
        (TermWishes(match_timeout="500ms"), "match_timeout { nanos: 500000000 }"),
        (TermWishes(budget="1.5"), 'budget { asset: "usdc" micros: 1500000 }'),
        (TermWishes(auto_top_up=True), "auto_top_up: true"),
        (TermWishes(spot=True, duration="2h"), "kind: TERM_KIND_SPOT duration { seconds: 7200 }"),
    ):
        assert terms_of(wishes) == text_format.Parse(text, order_pb2.Terms())


@pytest.mark.parametrize(
    "wishes",
    [
        TermWishes(duration="2h", reserved="30d"),
        TermWishes(duration="none"),
        TermWishes(budget="x"),
        TermWishes(budget="-1"),
        TermWishes(match_timeout="1w"),
    ],
)
def test_terms_that_make_no_sense_are_wrong_usage(wishes: TermWishes) -> None:
    """Goal: no guess. Method: what excludes each other, and texts of other shapes."""
    with pytest.raises(typer.BadParameter):
        terms_of(wishes)
