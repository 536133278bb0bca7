"""`fallow order`: place, look at, watch, explain, change and close orders, and pick among bids."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

import fallow_sdl
from fallow.order.v1 import order_pb2
from fallow_sdk.commands.bid_tables import bids_table, round_title
from fallow_sdk.commands.connection import as_json, as_json_line, console, show_rows, signed_in
from fallow_sdk.commands.options import Json, parse_pairs
from fallow_sdk.commands.order_change import Wishes, change_of
from fallow_sdk.commands.order_filters import parse_states, parse_time
from fallow_sdk.commands.order_modes import TermWishes, mode_of, terms_of
from fallow_sdk.commands.order_tables import (
    estimate_tables,
    explanation_tables,
    history_table,
    order_tables,
    orders_table,
    show_time,
    state_name,
    transition_cells,
)
from fallow_sdk.money import parse_amount, show_amount

app = typer.Typer(help="Place, look at, watch, explain, change and close orders.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Order, `orders/{order}`.")]
WAIT_SECONDS = 600.0


def show_one(order: order_pb2.Order, *, json: bool) -> None:
    """One order in full, for people or for programs."""
    if json:
        typer.echo(as_json(order))
        return
    for table in order_tables(order):
        console.print(table)
    if order.state == order_pb2.ORDER_STATE_SUSPENDED:
        console.print(f"paused for want of funds: `fallow order top-up {order.name} AMOUNT`, or it ends")


def read_sdl(file: Path) -> str:
    """The text of an SDL file; what of it has no effect goes to standard error. Problems are for the service to tell."""
    try:
        text = fallow_sdl.read_text(file.read_bytes())
    except fallow_sdl.SdlError as error:
        raise typer.BadParameter(f"{file}:{error}") from None
    try:
        warnings = fallow_sdl.convert(text).warnings
    except fallow_sdl.SdlError as error:
        warnings = error.warnings
    for warning in warnings:
        typer.echo(f"{file}:{warning} (warning)", err=True)
    return text


@app.command()
def create(
    file: Annotated[Path, typer.Argument(help="SDL file.", exists=True, dir_okay=False, readable=True)],
    wait: Annotated[
        bool | None, typer.Option("--wait/--no-wait", help="Wait until the order runs; not by default with --manual.")
    ] = None,
    auction: Annotated[str, typer.Option(help="Take sealed bids: `first` or `second` price.")] = "",
    window: Annotated[str, typer.Option(help="How long bids are taken, such as 30s or 500ms; with --auction.")] = "",
    manual: Annotated[bool, typer.Option("--manual", help="Pick a bid yourself: `fallow order bids`.")] = False,
    spot: Annotated[bool, typer.Option("--spot", help="Cheaper; others may take the devices after notice.")] = False,
    reserved: Annotated[str, typer.Option(help="Fixed term at the tier's discount, such as 30d.")] = "",
    duration: Annotated[str, typer.Option(help="Longest running time, such as 12h.")] = "",
    budget: Annotated[str, typer.Option(help="Most that the order may ever cost, such as 20.")] = "",
    match_timeout: Annotated[str, typer.Option(help="Longest wait for a match, such as 10m.")] = "",
    auto_top_up: Annotated[
        bool, typer.Option("--auto-top-up", help="Top up a low escrow from the free balance.")
    ] = False,
    label: Annotated[list[str] | None, typer.Option(help="Label, key=value; repeat it.")] = None,
    request_id: Annotated[str, typer.Option(help="Id of this request; the same id never orders twice.")] = "",
    json: Json = False,
) -> None:
    """Place the order that an SDL file describes."""
    text = read_sdl(file)
    mode = mode_of(auction, window, manual=manual)
    terms = terms_of(TermWishes(spot, reserved, duration, budget, match_timeout, auto_top_up))
    labels = parse_pairs(label or (), "--label")
    waits = not manual if wait is None else wait

    async def run() -> None:
        async with signed_in() as (client, _):
            order = await client.create_order(sdl=text, mode=mode, terms=terms, labels=labels, request_id=request_id)
            if waits:
                with console.status(f"{order.name}: looking for a match", spinner="line") as status:
                    order = await client.wait_order(
                        order.name,
                        [order_pb2.ORDER_STATE_RUNNING],
                        seconds=WAIT_SECONDS,
                        on_step=lambda state: status.update(f"{order.name}: {state.lower()}"),
                    )
            if json:
                typer.echo(as_json(order))
            else:
                show_rows(orders_table([order]))

    asyncio.run(run())


@app.command()
def estimate(
    file: Annotated[Path, typer.Argument(help="SDL file.", exists=True, dir_okay=False, readable=True)],
    auction: Annotated[str, typer.Option(help="By sealed bids: `first` or `second` price.")] = "",
    window: Annotated[str, typer.Option(help="How long bids are taken, such as 30s or 500ms; with --auction.")] = "",
    manual: Annotated[bool, typer.Option("--manual", help="With a bid that you pick yourself.")] = False,
    spot: Annotated[bool, typer.Option("--spot", help="Cheaper; others may take the devices after notice.")] = False,
    reserved: Annotated[str, typer.Option(help="Fixed term at the tier's discount, such as 30d.")] = "",
    duration: Annotated[str, typer.Option(help="Longest running time, such as 12h.")] = "",
    budget: Annotated[str, typer.Option(help="Most that the order may ever cost, such as 20.")] = "",
    json: Json = False,
) -> None:
    """Show what an SDL file's order would cost now, on each kind of term, and the funds that it needs.

    Nothing is stored or held.
    """
    text = read_sdl(file)
    mode = mode_of(auction, window, manual=manual)
    terms = terms_of(TermWishes(spot, reserved, duration, budget))

    async def run() -> None:
        async with signed_in() as (client, _):
            found = await client.estimate_order(text, mode=mode, terms=terms)
            if json:
                typer.echo(as_json(found))
            else:
                for table in estimate_tables(found):
                    console.print(table)

    asyncio.run(run())


@app.command()
def get(name: Name, json: Json = False) -> None:
    """Show one order: state, money, and where each group runs."""

    async def run() -> None:
        async with signed_in() as (client, _):
            show_one(await client.get_order(name), json=json)

    asyncio.run(run())


@app.command("list")
def list_orders(
    state: Annotated[
        list[str] | None, typer.Option(help="Only orders in this state, such as running; repeat it.")
    ] = None,
    label: Annotated[list[str] | None, typer.Option(help="Only orders with this label, key=value; repeat it.")] = None,
    since: Annotated[str, typer.Option(help="Only orders created since then: 2h, 7d, or a time of ISO 8601.")] = "",
    until: Annotated[str, typer.Option(help="Only orders created before then, as for --since.")] = "",
    json: Json = False,
) -> None:
    """Show orders, newest first."""
    states, labels = parse_states(state or []), parse_pairs(label or (), "--label")
    earliest, latest = parse_time(since, "--since"), parse_time(until, "--until")

    async def run() -> None:
        async with signed_in() as (client, _):
            orders = await client.list_orders(states=states, labels=labels, earliest=earliest, latest=latest)
            if json:
                typer.echo(as_json(orders))
            else:
                show_rows(orders_table(orders))

    asyncio.run(run())


@app.command()
def history(name: Name, json: Json = False) -> None:
    """Show what happened to an order so far: each change, each lease, why, and when."""

    async def run() -> None:
        async with signed_in() as (client, _):
            found = await client.order_history(name)
            if json:
                typer.echo(as_json(found))
            else:
                show_rows(history_table(found))

    asyncio.run(run())


@app.command()
def watch(
    name: Name,
    after: Annotated[int, typer.Option(help="Number of the last change already seen.", min=0)] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Print the state of an order, then each change of it and its groups until it closes."""

    async def run() -> None:
        async with signed_in() as (client, _):
            async for step in client.watch_order(name, after=after):
                if json:
                    typer.echo(as_json_line(step))
                elif step.HasField("transition"):
                    number, when, what, change, lease, provider, why = transition_cells(step.transition)
                    by = f"  ({lease} of {provider})" if step.transition.lease else ""
                    typer.echo(f"{number:>4}  {when}  {what}: {change}  {why}{by}")
                else:
                    typer.echo(f"{name} is {state_name(step.order.state)}")

    asyncio.run(run())


@app.command()
def explain(name: Name, json: Json = False) -> None:
    """Say why an order has its match, or none."""

    async def run() -> None:
        async with signed_in() as (client, _):
            explanation = await client.explain_order(name)
            if json:
                typer.echo(as_json(explanation))
            else:
                for table in explanation_tables(explanation):
                    console.print(table)
                for group in explanation.groups:
                    if group.advice:
                        console.print(f"{group.group_id}: {group.advice}")
                    if group.HasField("free_time"):
                        console.print(f"{group.group_id}: as it is, it would match at {show_time(group.free_time)}")

    asyncio.run(run())


@app.command()
def bids(name: Name, json: Json = False) -> None:
    """Show the bids for an order: of auctions that are over, and those that you may pick from."""

    async def run() -> None:
        async with signed_in() as (client, _):
            auctions = await client.list_auctions(name)
            found = [(auction, await client.list_bids(auction.name)) for auction in auctions]
            if json:
                typer.echo(as_json([bid for _, offered in found for bid in offered]))
            else:
                for auction, offered in found:
                    console.print(round_title(auction))
                    show_rows(bids_table(offered))

    asyncio.run(run())


@app.command()
def accept(
    bid: Annotated[str, typer.Argument(help="Bid, `auctions/{auction}/bids/{bid}`.")],
    request_id: Annotated[str, typer.Option(help="Id of this request; the same id never picks twice.")] = "",
    json: Json = False,
) -> None:
    """Pick a bid for an order that was created with --manual."""

    async def run() -> None:
        async with signed_in() as (client, _):
            auction = await client.accept_bid(bid, request_id=request_id)
            if json:
                typer.echo(as_json(auction))
            elif auction.winning_bid:
                console.print(f"{auction.winning_bid} won; `fallow order watch {auction.order}` shows the start")
            else:
                console.print(f"{bid} is picked; pick one for each other group of {auction.order} too")

    asyncio.run(run())


@app.command()
def update(
    name: Name,
    file: Annotated[
        Path | None,
        typer.Argument(
            help="SDL file whose workloads take the place of the order's; its prices are not read.",
            exists=True,
            dir_okay=False,
            readable=True,
        ),
    ] = None,
    replicas: Annotated[list[str] | None, typer.Option(help="SERVICE=N; may stand several times.")] = None,
    price_limit: Annotated[
        list[str] | None, typer.Option(help="Most that an hour may cost, such as 1.5, or GROUP=1.5.")
    ] = None,
    duration: Annotated[str | None, typer.Option(help="Longest running time, such as 12h, or `none`.")] = None,
    budget: Annotated[str | None, typer.Option(help="Most that the order may ever cost, or `none`.")] = None,
    auto_top_up: Annotated[
        bool | None, typer.Option("--auto-top-up/--no-auto-top-up", help="Top up a low escrow from the free balance.")
    ] = None,
    label: Annotated[list[str] | None, typer.Option(help="KEY=VALUE; KEY= takes the label away.")] = None,
    request_id: Annotated[str, typer.Option(help="Id of this request; the same id never changes twice.")] = "",
    json: Json = False,
) -> None:
    """Change a live order: replicas, workload, price limit, term, budget, labels."""
    wishes = Wishes(
        sdl=None if file is None else read_sdl(file),
        replicas=replicas or (),
        price_limits=price_limit or (),
        duration=duration,
        budget=budget,
        auto_top_up=auto_top_up,
        labels=label or (),
    )

    async def run() -> None:
        async with signed_in() as (client, _):
            present = await client.get_order(name)
            changed, paths = change_of(present, wishes)
            order = await client.update_order(changed, paths, request_id=request_id)
            show_one(order, json=json)
            if json:
                return
            for before, after in zip(present.groups, order.groups, strict=True):
                if after.revision > before.revision and after.lease:
                    console.print(
                        f"{after.group_id}: revision {after.revision} takes over once it has a match; "
                        f"`fallow order watch {name}` shows when, `fallow order explain {name}` what it waits for"
                    )

    asyncio.run(run())


@app.command()
def top_up(
    name: Name,
    amount: Annotated[str, typer.Argument(help="How much to add, such as 12.5.")],
    request_id: Annotated[str, typer.Option(help="Id of this request; the same id never adds twice.")] = "",
    json: Json = False,
) -> None:
    """Hold more of the free balance for an order; one that is paused for want of funds goes on."""

    async def run() -> None:
        async with signed_in() as (client, profile):
            try:
                wanted = parse_amount(amount, profile.asset)
            except ValueError as error:
                raise typer.BadParameter(str(error)) from error
            escrow = await client.top_up_order(name, wanted, request_id=request_id)
            if json:
                typer.echo(as_json(escrow))
            else:
                console.print(f"{name}: {show_amount(escrow.held)} held")

    asyncio.run(run())


@app.command()
def close(
    name: Name,
    reason: Annotated[str, typer.Option(help="Why, for people.")] = "",
    wait: Annotated[bool, typer.Option(help="Wait until the money is back.")] = True,
    json: Json = False,
) -> None:
    """End an order; the rest of its money returns."""

    async def run() -> None:
        async with signed_in() as (client, _):
            order = await client.close_order(name, reason=reason)
            if wait:
                with console.status(f"{name}: stopping, settling", spinner="line"):
                    order = await client.wait_order(name, [order_pb2.ORDER_STATE_CLOSED], seconds=WAIT_SECONDS)
            if json:
                typer.echo(as_json(order))
            else:
                show_rows(orders_table([order]))
                if order.totals.HasField("refunded"):
                    console.print(f"refunded {show_amount(order.totals.refunded)}")

    asyncio.run(run())
