"""`fallow market book|prices|utilisation|trades`: the open market's numbers, without signing in."""

from collections.abc import Sequence
from contextlib import aclosing
from typing import Annotated

import typer
from google.protobuf.message import Message
from rich.table import Table

from fallow.bidding.v1 import market_service_pb2
from fallow.type.v1 import money_pb2
from fallow_sdk.client import Client
from fallow_sdk.commands.connection import as_json, as_json_line, ask_anybody, show_rows
from fallow_sdk.commands.options import Json
from fallow_sdk.commands.order_tables import name_column, show_time
from fallow_sdk.money import show_price

MILLI = 1_000
Model = Annotated[str, typer.Option("--model", help="GPU model, such as h100; all where it is not said.")]


def show_milli(milli: int) -> str:
    """Thousandths of devices as devices."""
    return f"{milli // MILLI}.{milli % MILLI:03d}"


def share_percent(part_milli: int, devices: int) -> str:
    """Which part of devices is leased, in per cent, rounded down to a tenth."""
    tenths = part_milli // devices if devices else 0
    return f"{tenths // 10}.{tenths % 10} %"


def book_table(entries: list[market_service_pb2.Book.Entry]) -> Table:
    """The book, best first within a model."""
    table = Table("MODEL", "PRICE", "FREE", "REGION", name_column("PROVIDER"), name_column("OFFER"), box=None)
    for entry in entries:
        price = show_price(entry.price)
        table.add_row(entry.model, price, str(entry.free_devices), entry.region, entry.provider, entry.offer)
    return table


def prices_table(entries: list[market_service_pb2.PriceIndex.Entry]) -> Table:
    """Prices by model; what nothing is known of is a dash."""
    table = Table("MODEL", "BEST", "MEDIAN", "LAST", "24 H", "7 D", "LAST TRADE", box=None)

    def shown(entry: market_service_pb2.PriceIndex.Entry, field: str) -> str:
        price: money_pb2.Price = getattr(entry, field)
        return show_price(price) if price.asset else "-"

    for entry in entries:
        when = show_time(entry.last_trade_time) if entry.HasField("last_trade_time") else "-"
        fields = ("best", "median", "last", "mean_day", "mean_week")
        table.add_row(entry.model, *(shown(entry, field) for field in fields), when)
    return table


def utilisation_table(entries: list[market_service_pb2.Utilisation.Entry], *, by_region: bool) -> Table:
    """Utilisation by model, and by region where it was asked for."""
    regions = ("REGION",) if by_region else ()
    table = Table("MODEL", *regions, "DEVICES", "HEALTHY", "LEASED", "SHARE", box=None)
    for entry in entries:
        region = (entry.region,) if by_region else ()
        leased, share = show_milli(entry.leased_milli), share_percent(entry.leased_milli, entry.devices)
        table.add_row(entry.model, *region, str(entry.devices), str(entry.healthy_devices), leased, share)
    return table


def trade_line(trade: market_service_pb2.StreamTradesResponse) -> str:
    """One trade on one line."""
    when, devices = show_time(trade.trade_time), show_milli(trade.devices_milli)
    return f"{trade.sequence:>8}  {when}  {devices} × {trade.model} at {show_price(trade.price)}"


def _show(entries: Sequence[Message], table: Table, *, json: bool) -> None:
    """Print entries for people or for programs."""
    if json:
        typer.echo(as_json(entries))
    else:
        show_rows(table)


def book(model: Model = "", json: Json = False) -> None:
    """Show what could be leased now, best first: the price of one device for an hour, without anything else."""
    entries = ask_anybody(lambda client: client.market_book(model))
    _show(entries, book_table(entries), json=json)


def prices(model: Model = "", json: Json = False) -> None:
    """Show prices by model: on offer now, of the last trade, and of what was leased over a day and a week."""
    entries = ask_anybody(lambda client: client.price_index(model))
    _show(entries, prices_table(entries), json=json)


def utilisation(
    model: Model = "",
    by_region: Annotated[bool, typer.Option("--by-region", help="Show each region on its own.")] = False,
    json: Json = False,
) -> None:
    """Show how many devices are known, healthy and leased."""
    entries = ask_anybody(lambda client: client.utilisation(model, by_region=by_region))
    _show(entries, utilisation_table(entries, by_region=by_region), json=json)


def trades(
    model: Model = "",
    after: Annotated[int, typer.Option("--after", help="Number of the last trade already seen.", min=0)] = 0,
    count: Annotated[int, typer.Option("--count", help="End after so many trades; 0 goes on until Ctrl-C.", min=0)] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Print trades as they happen: what was leased, and for how much a device and hour."""

    async def follow(client: Client) -> None:
        seen = 0
        async with aclosing(client.stream_trades(model, after=after)) as stream:
            async for trade in stream:
                typer.echo(as_json_line(trade) if json else trade_line(trade))
                seen += 1
                if seen == count:
                    return

    ask_anybody(follow)
