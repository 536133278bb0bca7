"""`fallow bid`: auctions to bid in, and bids, for owners of providers."""

import asyncio
from typing import Annotated

import typer

from fallow.bidding.v1 import market_service_pb2
from fallow.type.v1 import money_pb2
from fallow_sdk.commands.bid_tables import auctions_table, bids_table, round_title
from fallow_sdk.commands.connection import as_json, console, show_rows, signed_in
from fallow_sdk.commands.options import Json
from fallow_sdk.money import parse_amount

app = typer.Typer(no_args_is_help=True, help="Look for auctions and bid in them, as the owner of a provider.")
Auction = Annotated[str, typer.Argument(help="Auction, `auctions/{auction}`.")]


@app.command()
def auctions(
    everything: Annotated[bool, typer.Option("--all", help="Also those that are over.")] = False, json: Json = False
) -> None:
    """Show auctions that take bids, newest first."""

    async def run() -> None:
        async with signed_in() as (client, _):
            found = await client.list_auctions()
            shown = [item for item in found if everything or item.state == market_service_pb2.AUCTION_STATE_OPEN]
            if json:
                typer.echo(as_json(shown))
            else:
                show_rows(auctions_table(shown))

    asyncio.run(run())


@app.command()
def create(
    auction: Auction,
    provider: Annotated[str, typer.Option(help="Provider of yours that bids, `providers/{provider}`.")],
    price: Annotated[str, typer.Option(help="Price of the whole group for one hour, such as 1.25.")],
    asset: Annotated[str, typer.Option(help="Asset that the order is paid in.")] = "usdc",
    request_id: Annotated[str, typer.Option(help="Id of this request; the same id never bids twice.")] = "",
    json: Json = False,
) -> None:
    """Place a sealed bid; a new one takes the place of the provider's last."""
    try:
        micros = parse_amount(price, asset).micros
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--price") from None

    async def run() -> None:
        async with signed_in() as (client, _):
            asked = money_pb2.Price(asset=asset, micros_per_hour=micros)
            bid = await client.create_bid(auction, provider, asked, request_id=request_id)
            typer.echo(as_json(bid) if json else f"{bid.name} is placed; nobody else reads it before the close")

    asyncio.run(run())


@app.command("list")
def list_bids(auction: Auction, json: Json = False) -> None:
    """Show the bids of an auction that you may read: your own, and all of your own order's once it is over."""

    async def run() -> None:
        async with signed_in() as (client, _):
            found = await client.list_bids(auction)
            if json:
                typer.echo(as_json(found))
                return
            console.print(round_title(await client.get_auction(auction)))
            show_rows(bids_table(found))

    asyncio.run(run())
