"""`fallow logs`: log lines of an order's containers, straight from their provider."""

import asyncio
from typing import Annotated

import typer

from fallow_sdk.commands.connection import signed_in
from fallow_sdk.commands.leases import newest_lease
from fallow_sdk.commands.order_filters import parse_time


def logs(
    target: Annotated[str, typer.Argument(help="Order or lease, `orders/{order}` or `leases/{lease}`.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
    tail: Annotated[int, typer.Option(help="Last lines to show first; 0 shows all.", min=0, max=10_000)] = 0,
    since: Annotated[str, typer.Option(help="Only lines after this: `10m` ago, or a date or time of ISO 8601.")] = "",
    service: Annotated[str, typer.Option(help="Only this service's lines.")] = "",
) -> None:
    """Print the log of a lease, or of an order's newest."""
    after = parse_time(since, "--since")

    async def run() -> None:
        async with signed_in() as (client, _):
            lease = await newest_lease(client, target)
            lines = client.stream_logs(lease, service=service, follow=follow, tail=tail, since=after)
            async for line in lines:
                typer.echo(f"{line.service}/{line.replica}  {line.line}")

    asyncio.run(run())
