"""`fallow market`: what anybody may know of the market."""

import typer

from fallow_sdk.commands.market_data import book, prices, trades, utilisation
from fallow_sdk.commands.market_providers import providers

app = typer.Typer(no_args_is_help=True, help="What anybody may know of the market.")
for command in (book, prices, providers, trades, utilisation):
    app.command()(command)
