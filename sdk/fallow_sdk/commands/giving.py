"""`fallow programme|promotion|grant`: what the platform gives. Everybody may look; operators start, propose and approve."""

import asyncio
import csv
import io
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Annotated, Any

import typer
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.table import Table

from fallow.settlement.v1 import programme_service_pb2 as messages
from fallow.type.v1 import money_pb2
from fallow_sdk.client import Client
from fallow_sdk.commands.connection import as_json, ask_anybody, show_rows, signed_in
from fallow_sdk.commands.options import Json, parse_span
from fallow_sdk.commands.order_tables import name_column, show_time
from fallow_sdk.money import parse_amount, show_amount, show_price

programme = typer.Typer(no_args_is_help=True, help="Incentive programmes: what they pay, and for what.")
promotion = typer.Typer(no_args_is_help=True, help="Promotional fees of accounts.")
grant = typer.Typer(no_args_is_help=True, help="Grants from the community pool.")

HOUR_SECONDS = 3_600
Asset = Annotated[str, typer.Option("--asset", help="Asset of the sums.")]
Account = Annotated[str, typer.Option("--account", help="Account, accounts/{account}.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for people.")]
BASIS_POINTS = 100
"""Basis points in a per cent."""


def _write(write: Callable[[Client], Awaitable[Any]]) -> Any:
    """What an operator does."""

    async def run() -> Any:
        async with signed_in() as (client, _):
            return await write(client)

    return asyncio.run(run())


def _in(lasts: str) -> Timestamp:
    """The instant that is so far ahead."""
    end = Timestamp()
    end.GetCurrentTime()
    end.FromMilliseconds(end.ToMilliseconds() + parse_span(lasts, "--for") // timedelta(milliseconds=1))
    return end


def _show(found: Sequence[Message], table: Table, *, json: bool) -> None:
    """Print what was found for people or for programs."""
    if json:
        typer.echo(as_json(found))
    else:
        show_rows(table)


def programmes_table(found: Sequence[messages.Programme]) -> Table:
    """Programmes, newest first."""
    table = Table(name_column("PROGRAMME"), "MODEL", "STATE", "REFERENCE", "TARGET", "BUDGET", "PAID", "ENDS", box=None)
    for one in found:
        table.add_row(
            one.name,
            one.model,
            messages.ProgrammeState.Name(one.state).removeprefix("PROGRAMME_STATE_"),
            show_price(one.reference_price),
            f"{one.target_utilisation_milli / 10:g} %",
            show_amount(one.budget),
            show_amount(one.paid),
            show_time(one.end_time),
        )
    return table


def shares_table(found: Sequence[messages.ProgrammeShare]) -> Table:
    """What a programme counted and paid; times are device hours since its start."""
    columns = ("ONLINE H", "RELATED H", "EARNED", "DUE", "PAID", "SHORT")
    table = Table("DAY", name_column("PROVIDER"), *columns, box=None)
    for share in found:
        hours = (share.online_duration.ToSeconds() / HOUR_SECONDS, share.related_duration.ToSeconds() / HOUR_SECONDS)
        sums = (share.earned, share.due, share.paid, share.short)
        table.add_row(share.day, share.provider, *(f"{time:.2f}" for time in hours), *map(show_amount, sums))
    return table


def shares_csv(found: Sequence[messages.ProgrammeShare]) -> str:
    """A programme's report as CSV; sums in micros, times in milliseconds, both since the programme's start but for ``paid``."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["day", "provider", "account", "online_ms", "related_ms", "earned", "due", "paid", "short", "asset"])
    for share in found:
        sums = (share.earned, share.due, share.paid, share.short)
        times = (share.online_duration.ToMilliseconds(), share.related_duration.ToMilliseconds())
        micros = [amount.micros for amount in sums]
        lines.writerow([share.day, share.provider, share.account, *times, *micros, share.due.asset])
    return text.getvalue()


@programme.command("list")
def list_programmes(json: Json = False) -> None:
    """List programmes, newest first; without signing in."""
    found = ask_anybody(lambda client: client.list_programmes())
    _show(found, programmes_table(found), json=json)


@programme.command()
def report(
    name: Annotated[str, typer.Argument(help="Programme, programmes/{programme}.")],
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    json: Json = False,
) -> None:
    """Show for each day and provider what a programme counted and paid; without signing in."""
    found = ask_anybody(lambda client: client.programme_report(name))
    if as_csv:
        typer.echo(shares_csv(found), nl=False)
    else:
        _show(found, shares_table(found), json=json)


@programme.command()
def start(
    model: Annotated[str, typer.Argument(help="Device model, such as h100.")],
    budget: Annotated[str, typer.Option("--budget", help="Budget out of the community pool, such as 5000.")],
    reference: Annotated[str, typer.Option("--reference", help="Reference rate of a device for an hour, such as 2.5.")],
    lasts: Annotated[str, typer.Option("--for", help="How long it runs, such as 90d.")],
    auditor: Annotated[list[str], typer.Option("--auditor", help="Whose word verifies devices; repeat it.")],
    target: Annotated[int, typer.Option("--target", help="Target utilisation in per cent.", min=1, max=100)] = 95,
    asset: Asset = "usdc",
    json: Json = False,
) -> None:
    """Start a programme, as an operator."""
    wanted = messages.Programme(
        model=model,
        target_utilisation_milli=target * 10,
        reference_price=money_pb2.Price(asset=asset, micros_per_hour=parse_amount(reference, asset).micros),
        budget=parse_amount(budget, asset),
        auditors=auditor,
    )
    wanted.end_time.CopyFrom(_in(lasts))
    made = _write(lambda client: client.create_programme(wanted))
    _show([made], programmes_table([made]), json=json)


@programme.command("end")
def end_programme(
    name: Annotated[str, typer.Argument(help="Programme, programmes/{programme}.")], json: Json = False
) -> None:
    """End a programme now, as an operator; what is due is paid within the next day."""
    ended = _write(lambda client: client.end_programme(name))
    _show([ended], programmes_table([ended]), json=json)


def promotions_table(found: Sequence[messages.Promotion]) -> Table:
    """Promotions, newest first."""
    table = Table(
        name_column("PROMOTION"), name_column("ACCOUNT"), "ASSET", "TAKE", "FROM", "UNTIL", "REASON", box=None
    )
    for one in found:
        times = (show_time(one.start_time), show_time(one.end_time))
        take = f"{one.take_basis_points / BASIS_POINTS:g} %"
        table.add_row(one.name, one.account, one.asset, take, *times, one.reason)
    return table


@promotion.command("list")
def list_promotions(json: Json = False) -> None:
    """List your promotions, newest first; an operator sees everybody's."""
    found = _write(lambda client: client.list_promotions())
    _show(found, promotions_table(found), json=json)


@promotion.command("start")
def start_promotion(
    account: Account,
    take: Annotated[float, typer.Option("--take", help="The take in per cent.", min=0, max=100)],
    lasts: Annotated[str, typer.Option("--for", help="How long it runs, such as 30d.")],
    reason: Reason,
    asset: Asset = "usdc",
    json: Json = False,
) -> None:
    """Set another take for an account's leases that are made from now on, as an operator."""
    points = round(take * BASIS_POINTS)
    wanted = messages.Promotion(account=account, asset=asset, take_basis_points=points, reason=reason)
    wanted.end_time.CopyFrom(_in(lasts))
    made = _write(lambda client: client.create_promotion(wanted))
    _show([made], promotions_table([made]), json=json)


@promotion.command("end")
def end_promotion(
    name: Annotated[str, typer.Argument(help="Promotion, promotions/{promotion}.")], json: Json = False
) -> None:
    """End a promotion for leases that are made from now on, as an operator."""
    ended = _write(lambda client: client.end_promotion(name))
    _show([ended], promotions_table([ended]), json=json)


def grants_table(found: Sequence[messages.CommunityGrant]) -> Table:
    """Grants, newest first."""
    columns = ("AMOUNT", "STATE", "APPROVALS", "EXPIRES", "REASON")
    table = Table(name_column("GRANT"), name_column("ACCOUNT"), *columns, box=None)
    for one in found:
        state = messages.CommunityGrantState.Name(one.state).removeprefix("COMMUNITY_GRANT_STATE_")
        approvals = f"{len(one.approvers)} of 2"
        table.add_row(
            one.name, one.account, show_amount(one.amount), state, approvals, show_time(one.expire_time), one.reason
        )
    return table


@grant.command("list")
def list_grants(json: Json = False) -> None:
    """List grants from the community pool, newest first; without signing in."""
    found = ask_anybody(lambda client: client.list_grants())
    _show(found, grants_table(found), json=json)


@grant.command()
def propose(
    account: Account,
    amount: Annotated[str, typer.Argument(help="How much, such as 250.")],
    reason: Reason,
    asset: Asset = "usdc",
    json: Json = False,
) -> None:
    """Propose a grant, as an operator; two operators must approve it within 30 days."""
    wanted = messages.CommunityGrant(account=account, amount=parse_amount(amount, asset), reason=reason)
    made = _write(lambda client: client.propose_grant(wanted))
    _show([made], grants_table([made]), json=json)


@grant.command()
def approve(name: Annotated[str, typer.Argument(help="Grant, communityGrants/{grant}.")], json: Json = False) -> None:
    """Approve a grant, as an operator; the second approval pays it."""
    approved = _write(lambda client: client.approve_grant(name))
    _show([approved], grants_table([approved]), json=json)
