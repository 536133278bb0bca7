"""`fallow logs`: log lines of an order's containers, straight from their provider."""

import asyncio
from typing import Annotated

import typer

from fallow_sdk.commands.connection import signed_in
from fallow_sdk.errors import FallowError


def logs(
    order: Annotated[str, typer.Argument(help="Order, `orders/{order}`.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
    tail: Annotated[int, typer.Option(help="Last lines to show first; 0 shows all.", min=0, max=10_000)] = 0,
) -> None:
    """Print the log of an order's newest lease."""

    async def run() -> None:
        async with signed_in() as (client, _):
            leases = await client.list_leases(order)
            if not leases:
                raise FallowError(
                    "NOT_FOUND",
                    "LEASE_NOT_FOUND",
                    f"{order} has no lease yet",
                    action=f"See what it waits for by `fallow order explain {order}`.",
                )
            async for line in client.stream_logs(leases[0].name, follow=follow, tail=tail):
                typer.echo(f"{line.service}/{line.replica}  {line.line}")

    asyncio.run(run())
