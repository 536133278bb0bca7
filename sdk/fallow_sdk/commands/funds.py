"""`fallow funds`: what the account has, and the ways in and out over the chain."""

import asyncio
from json import dumps as json_text
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf import json_format
from rich.table import Table

from fallow.settlement.v1 import ledger_pb2, settlement_service_pb2
from fallow.type.v1 import money_pb2
from fallow_sdk.chain import ChainClient
from fallow_sdk.client import Client, may_be_claimed
from fallow_sdk.commands.connection import as_json, console, show_rows, signed_in
from fallow_sdk.commands.options import Json
from fallow_sdk.money import parse_amount, show_amount, show_micros
from fallow_sdk.profile import load_profile
from fallow_sdk.wallet import Wallet

app = typer.Typer(help="Balances, deposits, withdrawals and charges.", no_args_is_help=True)
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
                    await client.set_balance_payee(Wallet.load(Path(profile.wallet_key_file)).address, keep=True)
            console.print(f"deposited by {transaction}; free now {show_amount(present.free)}")

    asyncio.run(run())


@app.command()
def withdraw(
    amount: Annotated[str, typer.Argument(help="How much, such as 12.5.")],
    to: Annotated[str, typer.Option(help="The address to be paid; the profile's wallet by default.")] = "",
    json: Json = False,
) -> None:
    """Take earnings, then free balance, out to the chain; claim it once a batch with it is anchored."""

    async def run() -> None:
        async with signed_in() as (client, profile):
            try:
                wanted = parse_amount(amount, profile.asset)
            except ValueError as error:
                raise typer.BadParameter(str(error)) from error
            made = await client.withdraw(wanted, to or Wallet.load(Path(profile.wallet_key_file)).address)
            if json:
                typer.echo(as_json(made))
                return
            console.print(f"{made.name}: {show_amount(made.amount)} to {made.payee}; then `fallow funds claim`")

    asyncio.run(run())


@app.command()
def withdrawals(json: Json = False) -> None:
    """Show withdrawals, newest first."""

    async def run() -> None:
        async with signed_in() as (client, _):
            found = await client.list_withdrawals()
            if json:
                typer.echo(as_json(found))
                return
            table = Table("WITHDRAWAL", "AMOUNT", "PAYEE", "STATE", "BATCH", box=None)
            for one in found:
                state = ledger_pb2.WithdrawalState.Name(one.state).removeprefix("WITHDRAWAL_STATE_")
                name = one.name.rpartition("/")[2]
                table.add_row(name, show_amount(one.amount), one.payee, state, one.batch or "-")
            show_rows(table)

    asyncio.run(run())


@app.command()
def claim(
    wait: Annotated[float, typer.Option(help="How many seconds to wait for an anchored batch and its window.")] = 0.0,
) -> None:
    """Have the vault pay what was withdrawn; the profile's wallet sends the transaction and pays its fee."""

    async def run() -> None:
        async with signed_in() as (client, profile):
            with console.status("waiting for a payout root that can be claimed against", spinner="line"):
                present = await _claimable(client, wait)
            async with ChainClient(present.rpc_url) as chain:
                with console.status("claiming at the vault", spinner="line"):
                    transaction = await chain.claim(Wallet.load(Path(profile.wallet_key_file)), present)
            total = money_pb2.Amount(asset=profile.asset, micros=present.cumulative_micros)
            console.print(
                f"claimed by {transaction}; {present.payee} is owed {show_amount(total)} in all "
                "(a vault pays so much a day at most: claim again if some is left)"
            )

    asyncio.run(run())


@app.command()
def payee(
    address: Annotated[str, typer.Argument(help="0x and 40 digits; the profile's wallet by default.")] = "",
    json: Json = False,
) -> None:
    """Name who gets your whole balance at the vault if the operator falls silent for good."""

    async def run() -> None:
        async with signed_in() as (client, profile):
            named = await client.set_balance_payee(address or Wallet.load(Path(profile.wallet_key_file)).address)
            if json:
                typer.echo(json_text({"payee": named}))
            else:
                console.print(f"{named} gets the balance; keep `fallow funds escape-kit FILE` for that day")

    asyncio.run(run())


@app.command("escape-kit")
def escape_kit(file: Annotated[Path, typer.Argument(help="File to write, over an older one.", dir_okay=False)]) -> None:
    """Keep what a claim of your balance needs, by the newest root: with it you need nobody."""

    async def run() -> None:
        async with signed_in() as (client, profile):
            kit = await client.get_balance_claim()
            draft = file.with_name(f".{file.name}.new")
            draft.write_text(as_json(kit), "utf-8")
            draft.replace(file)
            held = money_pb2.Amount(asset=profile.asset, micros=kit.cumulative_micros)
            console.print(
                f"{file}: {show_amount(held)} for {kit.payee} by batches/{kit.header.batch_id}, less what was claimed; "
                "good while that is the last batch: write it again now and then"
            )

    asyncio.run(run())


@app.command()
def escape(
    file: Annotated[Path, typer.Argument(help="What `fallow funds escape-kit` wrote.", exists=True, dir_okay=False)],
    rpc_url: Annotated[str, typer.Option(help="A node of the chain; the one in the file by default.")] = "",
) -> None:
    """Claim your balance at the vault without the operator, once it has been silent for too long."""

    async def run() -> None:
        profile = load_profile()
        try:
            kit = json_format.Parse(file.read_text("utf-8"), settlement_service_pb2.Claim())
        except (json_format.ParseError, UnicodeDecodeError) as error:
            raise typer.BadParameter(f"{file} is nothing that `fallow funds escape-kit` wrote: {error}") from error
        async with ChainClient(rpc_url or kit.rpc_url) as chain:
            with console.status("claiming at the vault", spinner="line"):
                transaction = await chain.escape(Wallet.load(Path(profile.wallet_key_file)), kit)
        total = show_micros(kit.cumulative_micros, profile.asset)
        console.print(f"claimed by {transaction}; {kit.payee} was owed {total} in all, with what was claimed before")

    asyncio.run(run())


async def _claimable(client: Client, seconds: float) -> settlement_service_pb2.Claim:
    """What may be claimed, waited for as long as is said. Raises FallowError NOTHING_TO_CLAIM, or BadParameter."""
    if seconds > 0:
        try:
            return await client.wait_claim(seconds=seconds)
        except TimeoutError:
            raise typer.BadParameter(f"what was withdrawn cannot be claimed yet, after {seconds:.0f} s") from None
    present = await client.get_claim()
    if not may_be_claimed(present):
        opens = present.claimable_time.ToJsonString()
        raise typer.BadParameter(f"the challenge window is open until {opens}; come back then, or wait with --wait")
    return present


@app.command()
def statement(
    month: Annotated[str, typer.Argument(help="The month in UTC, such as 2026-11.")],
    csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values, sums in micros.")] = False,
    json: Json = False,
) -> None:
    """Show what the account had at both ends of a month, and all that moved it in between."""

    async def run() -> None:
        async with signed_in() as (client, _):
            found = await client.statement(month)
        if json:
            typer.echo(as_json(found))
        elif csv:
            typer.echo("\n".join(_csv_lines(found)))
        else:
            table = Table("TIME", "WHAT", "OF", "FREE", "HELD", "EARNED", "OWED", box=None)
            for parts in found.opening:
                table.add_row("", "OPENING", "", *_shown(parts))
            for movement in found.movements:
                reason = ledger_pb2.TransferReason.Name(movement.reason).removeprefix("TRANSFER_REASON_")
                time = movement.create_time.ToJsonString()
                table.add_row(time, reason, movement.subject, *_shown(movement.change, blank=True))
            for parts in found.closing:
                table.add_row("", "CLOSING", "", *_shown(parts))
            show_rows(table)

    asyncio.run(run())


def _micros(parts: settlement_service_pb2.MoneyParts) -> tuple[int, int, int, int]:
    """Free, held, earned, owed."""
    return parts.free_micros, parts.held_micros, parts.earned_micros, parts.owed_micros


def _shown(parts: settlement_service_pb2.MoneyParts, *, blank: bool = False) -> list[str]:
    """Four sums for people; ``blank`` leaves out those that are 0."""
    return ["" if blank and micros == 0 else show_micros(micros, parts.asset) for micros in _micros(parts)]


def _csv_lines(found: settlement_service_pb2.Statement) -> list[str]:
    """A statement as comma-separated values; no value holds a comma."""
    head = [
        "time",
        "what",
        "subject",
        "transfer",
        "asset",
        "free_micros",
        "held_micros",
        "earned_micros",
        "owed_micros",
    ]
    rows = [["", "OPENING", "", "", parts.asset, *map(str, _micros(parts))] for parts in found.opening]
    for movement in found.movements:
        reason = ledger_pb2.TransferReason.Name(movement.reason).removeprefix("TRANSFER_REASON_")
        facts = [movement.create_time.ToJsonString(), reason, movement.subject, movement.transfer]
        rows.append([*facts, movement.change.asset, *map(str, _micros(movement.change))])
    rows += [["", "CLOSING", "", "", parts.asset, *map(str, _micros(parts))] for parts in found.closing]
    return [",".join(row) for row in [head, *rows]]


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
