"""`fallow market book|prices|utilisation|trades`: what people read."""

from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Table

from fallow.bidding.v1 import market_service_pb2
from fallow.type.v1 import money_pb2
from fallow_sdk.commands.market_data import (
    book_table,
    prices_table,
    share_percent,
    trade_line,
    utilisation_table,
)

PRICE = money_pb2.Price(asset="usdc", micros_per_hour=1_250_000)


def words(table: Table) -> list[list[str]]:
    """The words of a table's lines below its titles."""
    console = Console(width=250)
    with console.capture() as capture:
        console.print(table)
    return [line.split() for line in capture.get().splitlines()[1:]]


def test_tables_hold_what_was_answered() -> None:
    """Goal: nothing is lost or made up on the way to the screen. Method: an entry of each kind, one with nothing known,
    and a price of nothing, which is a price.
    """
    free = money_pb2.Price(asset="usdc")
    book = [
        market_service_pb2.Book.Entry(
            model="h100", provider="providers/p", price=PRICE, free_devices=3, region="eu", offer="offers/o"
        )
    ]
    assert words(book_table(book)) == [["h100", "1.250000", "USDC/h", "3", "eu", "providers/p", "offers/o"]]
    prices = [
        market_service_pb2.PriceIndex.Entry(model="h100", last=PRICE, last_trade_time=Timestamp(seconds=0)),
        market_service_pb2.PriceIndex.Entry(model="l4", best=free, median=PRICE),
    ]
    assert words(prices_table(prices)) == [
        ["h100", "-", "-", "1.250000", "USDC/h", "-", "-", "1970-01-01", "00:00:00Z"],
        ["l4", "0.000000", "USDC/h", "1.250000", "USDC/h", "-", "-", "-", "-"],
    ]
    used = [
        market_service_pb2.Utilisation.Entry(model="h100", devices=8, healthy_devices=7, leased_milli=2_250, region="")
    ]
    assert words(utilisation_table(used, by_region=False)) == [["h100", "8", "7", "2.250", "28.1", "%"]]
    assert words(utilisation_table(used, by_region=True))[0][:2] == ["h100", "8"]


def test_a_trade_is_a_line() -> None:
    """Goal: one trade, one line. Method: a share of a device."""
    trade = market_service_pb2.StreamTradesResponse(
        model="h100", price=PRICE, trade_time=Timestamp(seconds=0), sequence=7, devices_milli=250
    )
    assert trade_line(trade).split() == [
        "7", "1970-01-01", "00:00:00Z", "0.250", "×", "h100", "at", "1.250000", "USDC/h",
    ]  # fmt: skip


def test_a_share_of_nothing_is_nothing() -> None:
    """Goal: no division by zero, no rounding up to full. Method: three shares."""
    assert [share_percent(*pair) for pair in ((0, 0), (999, 1), (1_000, 3))] == ["0.0 %", "99.9 %", "33.3 %"]
