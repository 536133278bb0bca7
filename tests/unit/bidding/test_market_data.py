"""The open market's numbers, from stocks and leases."""

from datetime import UTC, datetime

import pytest

from fallow_bidding.domain.leases import GenerationKey, Lease
from fallow_bidding.domain.market_data import (
    Ask,
    Stock,
    Trade,
    Traded,
    book_of,
    index_of,
    trades_of,
    utilisation_of,
)
from fallow_bidding.domain.placement import DeviceShare, Placement

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def stock(provider_id: str, model: str = "h100", free: int = 1, *prices: int, region: str = "eu") -> Stock:
    """Free devices at these prices, one asset each, and as many leased ones."""
    asks = tuple(Ask(f"offer-{provider_id}-{n}", f"asset{n}", micros) for n, micros in enumerate(prices))
    return Stock(provider_id, region, model, 2 * free, free, free, free * 1_000, asks)


def lease(price: int, *shares: tuple[str, int]) -> Lease:
    """A lease of devices (model, milli)."""
    placements = tuple(
        Placement("web", n, "n1", (DeviceShare("n1", f"d{n}", milli),) if milli else (), model)
        for n, (model, milli) in enumerate(shares)
    )
    return Lease(
        "lease", GenerationKey("order", 0, 1), "g", "t", "p", "a", "", "offer", "usdc", price, placements, 1, NOW
    )


def test_the_book_is_best_first_and_holds_what_can_be_leased() -> None:
    """Goal: whoever reads the book from the top buys best. Method: prices whose digits sort otherwise than their
    values, a stock that is sold out, one whose provider takes no lease.
    """
    stocks = [
        stock("p1", "h100", 1, 10_000_000),
        stock("p2", "h100", 2, 9_000_000),
        stock("p3", "h100", 0, 1),
        stock("p4", "h100", 5),
        stock("p5", "a100", 1, 7, 6),
        stock("p0", "h100", 1, 9_000_000),
    ]
    book = book_of(stocks)
    assert [(entry.model, entry.ask.asset, entry.provider_id, entry.free_devices) for entry in book] == [
        ("a100", "asset0", "p5", 1),
        ("a100", "asset1", "p5", 1),
        ("h100", "asset0", "p0", 1),
        ("h100", "asset0", "p2", 2),
        ("h100", "asset0", "p1", 1),
    ]
    assert [entry.place for entry in book] == sorted(entry.place for entry in book)


@pytest.mark.parametrize(
    ("free_by_price", "median"),
    [
        ({}, None),
        ({5: 1}, 5),
        ({1: 1, 2: 1}, 1),
        ({1: 1, 2: 1, 9: 1}, 2),
        ({1: 1, 9: 3}, 9),
        ({9: 1, 1: 3}, 1),
        ({1: 2, 9: 2}, 1),
    ],
)
def test_the_median_counts_devices(free_by_price: dict[int, int], median: int | None) -> None:
    """Goal: a large provider weighs more than a small one. Method: a table of prices with their free devices."""
    book = book_of([stock(f"p{price}", "h100", free, price) for price, free in free_by_price.items()])
    found = {entry.model: entry for entry in index_of(book, {})}
    assert (found["h100"].median_micros if found else None) == median
    if found:
        assert found["h100"].best_micros == min(free_by_price)


def test_the_index_has_what_is_offered_or_was_traded() -> None:
    """Goal: a model that is sold out keeps its last price, one that was never traded has none. Method: one of each."""
    traded = {("a100", "asset0"): Traded(3, NOW, 4, 5)}
    entries = index_of(book_of([stock("p1", "h100", 1, 8)]), traded)
    assert [(entry.model, entry.best_micros, entry.traded) for entry in entries] == [
        ("a100", None, traded["a100", "asset0"]),
        ("h100", 8, None),
    ]


def test_utilisation_counts_all_devices_known() -> None:
    """Goal: devices of providers that are away count too. Method: two regions, together and apart."""
    stocks = [stock("p1", "h100", 1), stock("p2", "h100", 2, 5), stock("p3", "h100", 4, region="us")]
    (together,) = utilisation_of(stocks, by_region=False)
    assert (together.region, together.devices, together.healthy_devices, together.leased_milli) == ("", 14, 7, 7_000)
    apart = utilisation_of(stocks, by_region=True)
    assert [(entry.region, entry.devices) for entry in apart] == [("eu", 6), ("us", 8)]


@pytest.mark.parametrize(
    ("made", "offered", "expected"),
    [
        (lease(4_000_000, ("h100", 1_000), ("h100", 1_000)), {}, [Trade("h100", "usdc", 2_000, 2_000_000)]),
        (lease(1_000_000, ("h100", 250)), {"h100": 1}, [Trade("h100", "usdc", 250, 4_000_000)]),
        (lease(1_000_000, ("h100", 300)), {}, [Trade("h100", "usdc", 300, 3_333_333)]),
        (lease(1_000_000, ("", 0)), {}, []),
        (
            lease(3_000_000, ("h100", 1_000), ("", 0), ("l4", 500)),
            {"h100": 2_000_000, "l4": 1_000_000},
            [Trade("h100", "usdc", 1_000, 2_400_000), Trade("l4", "usdc", 500, 1_200_000)],
        ),
        (
            lease(3_000_000, ("h100", 1_000), ("l4", 500)),
            {},
            [Trade("h100", "usdc", 1_000, 2_000_000), Trade("l4", "usdc", 500, 2_000_000)],
        ),
        (lease(0, ("h100", 1_000)), {"h100": 0}, [Trade("h100", "usdc", 1_000, 0)]),
    ],
)
def test_a_lease_is_a_trade_for_each_model(made: Lease, offered: dict[str, int], expected: list[Trade]) -> None:
    """Goal: the price of one device for an hour, never more than was paid. Method: a table of leases: whole devices,
    shares, none, several models with and without offered prices.
    """
    trades = trades_of(made, offered)
    assert trades == expected
    assert sum(trade.price_micros * trade.devices_milli for trade in trades) <= made.price_micros * 1_000
