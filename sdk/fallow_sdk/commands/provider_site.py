"""`fallow provider drain` and `earnings`: what an owner does with a site that runs."""

import asyncio
import json as json_module
from typing import Annotated

import typer
from rich.table import Table

from fallow.bidding.v1 import provider_pb2
from fallow_sdk.commands.connection import as_json, show_rows, signed_in
from fallow_sdk.commands.options import Json, parse_span
from fallow_sdk.commands.order_tables import name_column
from fallow_sdk.earnings import Earning, Span, add_up, totals
from fallow_sdk.money import show_micros


def drain(
    provider: Annotated[str, typer.Argument(help="One of yours, `providers/{provider}`.")],
    undo: Annotated[bool, typer.Option("--undo", help="Take new leases again.")] = False,
    json: Json = False,
) -> None:
    """Take no new leases at one of your sites; what runs goes on until it ends. Lasts until `--undo`, also over restarts."""

    async def run() -> provider_pb2.Provider:
        async with signed_in() as (client, _):
            return await client.set_draining(provider, draining=not undo)

    changed = asyncio.run(run())
    if json:
        typer.echo(as_json(changed))
    elif undo:
        typer.echo(f"{changed.name} takes new leases again")
    else:
        typer.echo(
            f"{changed.name} takes no new leases; what runs goes on. To undo: fallow provider drain --undo {changed.name}"
        )


def earnings(
    by: Annotated[Span, typer.Option(help="What a line adds up.")] = Span.DAY,
    since: Annotated[str, typer.Option(help="How far back, such as 12h or 30d.")] = "30d",
    json: Json = False,
) -> None:
    """Show what your sites earned: charges without the platform's fee and the community pool's part, newest first."""
    span = parse_span(since, "--since")

    async def run() -> list[Earning]:
        async with signed_in() as (client, profile):
            return add_up(await client.list_charges(within=span), profile.account, by)

    lines = asyncio.run(run())
    if json:
        typer.echo(json_module.dumps([line.as_dict() for line in lines], indent=2))
    elif not lines:
        typer.echo(f"nothing was earned in the last {since}")
    else:
        show_rows(earnings_table(lines, by))


def earnings_table(lines: list[Earning], by: Span) -> Table:
    """Lines, with one a total for each asset at the end."""
    table = Table(name_column(by.value.upper()), "HOURS", "CHARGED", "FEE", "POOL", "EARNED", box=None)
    for line in [*lines, *totals(lines)]:
        sums = (line.charged_micros, line.fee_micros, line.pool_micros, line.earned_micros)
        shown = (show_micros(micros, line.asset) for micros in sums)
        table.add_row(line.key, f"{line.running_ms / 3_600_000:.3f}", *shown)
    return table
