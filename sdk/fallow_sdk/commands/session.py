"""`fallow login`: sign in with the profile's wallet."""

import asyncio
from typing import Annotated

import typer

from fallow_sdk.commands.connection import signed_in


def login(
    print_token: Annotated[bool, typer.Option("--print-token", help="Print the access token alone.")] = False,
) -> None:
    """Sign in with the profile's wallet and keep the access token (15 min)."""

    async def run() -> None:
        async with signed_in() as (_, profile):
            typer.echo(profile.access_token if print_token else f"signed in as {profile.account}")

    asyncio.run(run())
