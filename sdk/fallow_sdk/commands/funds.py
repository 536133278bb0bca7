"""`fallow funds`: what the account has, and deposits on the chain."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from fallow_sdk.chain import ChainClient
from fallow_sdk.commands.connection import as_json, console, show_rows, signed_in
from fallow_sdk.commands.options import Json
from fallow_sdk.money import parse_amount, show_amount
from fallow_sdk.wallet import Wallet

app = typer.Typer(help="Balances, deposits and charges.", no_args_is_help=True)
CREDIT_SECONDS = 120.0


@app.command()
def balance(json: Json = False) -> None:
    """Show what is free, held, earned and on its way."""

    async def run() -> None:
        async with signed_in() as (client, profile):
            present = await client.balance(profile.asset)
            if json:
                typer.echo(as_json(present))
                return
            table = Table("FREE", "HELD", "EARNED", "PENDING DEPOSITS", box=None)
            parts = (present.free, present.held, present.earned, present.pending_deposits)
            table.add_row(*(show_amount(part) for part in parts))
            console.print(table)

    asyncio.run(run())


@app.command()
def deposit(amount: Annotated[str, typer.Argument(help="How much, such as 12.5.")]) -> None:
    """Pay tokens of the profile's wallet into the vault, and wait until they are credited."""

    async def run() -> None:
        async with signed_in() as (client, profile):
            try:
                wanted = parse_amount(amount, profile.asset)
            except ValueError as error:
                raise typer.BadParameter(str(error)) from error
            instructions = await client.deposit_instructions(profile.asset)
            free = (await client.balance(profile.asset)).free.micros
            async with ChainClient(instructions.rpc_url) as chain:
                with console.status("paying into the vault", spinner="line") as status:
                    transaction = await chain.deposit(
                        Wallet.load(Path(profile.wallet_key_file)),
                        token=instructions.token_address,
                        vault=instructions.vault_address,
                        account_reference=instructions.account_reference,
                        micros=wanted.micros,
                    )
                    status.update(f"{transaction}: waiting for {instructions.confirmations} confirmations")
                    wanted.micros += free
                    present = await client.wait_balance(wanted, seconds=CREDIT_SECONDS)
            console.print(f"deposited by {transaction}; free now {show_amount(present.free)}")

    asyncio.run(run())


@app.command()
def charges(
    order: Annotated[str, typer.Option(help="Only those of `orders/{order}`.")] = "", json: Json = False
) -> None:
    """Show charges, newest first."""

    async def run() -> None:
        async with signed_in() as (client, _):
            found = await client.list_charges(order)
            if json:
                typer.echo(as_json(found))
                return
            table = Table("CHARGE", "ORDER", "SECONDS", "AMOUNT", "FEE", "BATCH", box=None)
            for charge in found:
                seconds = f"{(charge.to_running_ms - charge.from_running_ms) / 1000:.3f}"
                table.add_row(
                    charge.name,
                    charge.key.order,
                    seconds,
                    show_amount(charge.amount),
                    show_amount(charge.fee),
                    charge.batch or "-",
                )
            show_rows(table)

    asyncio.run(run())
