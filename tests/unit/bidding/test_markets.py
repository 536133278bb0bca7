"""Which market providers and orders belong to."""

from typing import Any

import pytest
from pydantic import ValidationError

from fallow_bidding.domain.markets import Markets
from fallow_bidding.settings import BiddingSettings

MARKETS = Markets.parse("world", "eu-west=eu, eu-north = eu,us-east=us,")


@pytest.mark.parametrize(
    ("region", "market"), [("eu-west", "eu"), ("eu-north", "eu"), ("us-east", "us"), ("mars", "world")]
)
def test_a_region_is_in_one_market(region: str, market: str) -> None:
    """Goal: every provider is in exactly one market. Method: named regions, and one that is not."""
    assert MARKETS.of_region(region) == market
    assert Markets().of_region(region) == "world"


@pytest.mark.parametrize(
    ("groups", "market"),
    [
        ([], "world"),
        ([[]], "world"),
        ([["eu-west"]], "eu"),
        ([["eu-west"], []], "eu"),
        ([["eu-west"], ["eu-north"]], "eu"),
        ([["eu-west", "us-east"], ["us-east"]], "us"),
        ([["us-east", "eu-west"]], "eu"),
        ([["us-east", "mars"]], "world"),
        ([["eu-west"], ["us-east"]], "world"),
    ],
)
def test_an_order_is_in_one_market(groups: list[list[str]], market: str) -> None:
    """Goal: all groups of an order lie in the market where each has a region. Method: a table."""
    assert MARKETS.of_order(groups) == market


@pytest.mark.parametrize("text", ["eu-west", "=eu", "eu-west=", "a=b,a=c"])
def test_nonsense_is_refused(text: str) -> None:
    """Goal: a mistyped setting does not start a market. Method: what is no pair, and a region in two markets."""
    with pytest.raises(ValueError, match=r"region=market|stands twice"):
        Markets.parse("world", text)


def test_the_settings_hold_together() -> None:
    """Goal: an engine that could never match anything does not start. Method: a market of regions, the default, and one that is
    neither; pairs that are none.
    """
    regions: dict[str, Any] = {"markets": "eu-west=eu"}
    assert BiddingSettings(**regions, market="eu").policy().markets.of_region("eu-west") == "eu"
    assert BiddingSettings(market="test", default_market="test").policy().market == "test"
    wrong: list[dict[str, Any]] = [{**regions, "market": "us"}, {"market": "test"}, {"markets": "eu-west"}]
    for fields in wrong:
        with pytest.raises(ValidationError, match=r"no region is in the market|region=market"):
            BiddingSettings(**fields)
