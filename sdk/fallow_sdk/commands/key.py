"""`fallow key`: API keys, for programs."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from fallow.order.v1 import session_service_pb2
from fallow_sdk.commands.connection import as_json, console, signed_in
from fallow_sdk.commands.options import parse_span
from fallow_sdk.profile import save_secret

app = typer.Typer(no_args_is_help=True, help="API keys, for programs.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="A name for people.")],
    scope: Annotated[list[str] | None, typer.Option("--scope", help="A scope; repeat it. None: all of yours.")] = None,
    expires: Annotated[str, typer.Option("--expires", help="When it runs out, such as 90d. Empty: never.")] = "",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the secret to a file (0600).")] = None,
) -> None:
    """Make an API key. Its secret is shown once and stored nowhere."""
    lasts = parse_span(expires, "--expires") if expires else None

    async def run() -> None:
        async with signed_in() as (client, _):
            key = await client.create_api_key(name, scope or (), lasts=lasts)
        if output is None:
            typer.echo(key.secret)
        else:
            save_secret(f"{key.secret}\n", output)
        typer.echo(f"{key.name}: {', '.join(key.scopes)}; the secret is not shown again", err=True)

    asyncio.run(run())


@app.command("list")
def list_keys(json_output: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """List API keys, newest first."""

    async def run() -> list[session_service_pb2.ApiKey]:
        async with signed_in() as (client, _):
            return await client.list_api_keys()

    keys = asyncio.run(run())
    if json_output:
        typer.echo(as_json(keys))
        return
    table = Table("key", "name", "scopes", "last used", "runs out")
    for key in keys:
        used = key.last_use_time.ToJsonString() if key.HasField("last_use_time") else "never"
        ends = key.expire_time.ToJsonString() if key.HasField("expire_time") else "never"
        table.add_row(key.name, key.display_name, " ".join(key.scopes), used, ends)
    console.print(table)


@app.command()
def delete(key: Annotated[str, typer.Argument(help="Name, accounts/{account}/apiKeys/{key}.")]) -> None:
    """Revoke an API key; tokens already traded for it last 15 min at most."""

    async def run() -> None:
        async with signed_in() as (client, _):
            await client.delete_api_key(key)
        typer.echo(f"revoked {key}")

    asyncio.run(run())
