"""`fallow order`: place, look at, watch, explain and close orders."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

import fallow_sdl
from fallow.order.v1 import order_pb2, order_service_pb2
from fallow_sdk.commands.connection import as_json, console, signed_in
from fallow_sdk.money import show_amount, show_price

app = typer.Typer(help="Place, look at, watch, explain and close orders.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Name = Annotated[str, typer.Argument(help="Order, `orders/{order}`.")]
WAIT_SECONDS = 600.0


def state_name(order: order_pb2.Order) -> str:
    """The order's state in one word."""
    return order_pb2.OrderState.Name(order.state).removeprefix("ORDER_STATE_")


def order_table(orders: list[order_pb2.Order]) -> Table:
    """Orders, one a line."""
    table = Table("ORDER", "STATE", "GROUPS", "PRICE", "CHARGED", "ENDPOINTS", box=None)
    for order in orders:
        prices = [show_price(group.price) for group in order.groups if group.HasField("price")]
        places = [endpoint.uri for group in order.groups for endpoint in group.endpoints]
        charged = show_amount(order.totals.charged) if order.totals.HasField("charged") else "-"
        table.add_row(
            order.name,
            state_name(order),
            str(len(order.groups)),
            ", ".join(prices) or "-",
            charged,
            " ".join(places) or "-",
        )
    return table


def explanation_tables(explanation: order_service_pb2.ExplainOrderResponse) -> list[Table]:
    """Funnel and offers of each group; constraints that removed nothing are counted, not listed."""
    tables: list[Table] = []
    for group in explanation.groups:
        removing = [step for step in group.funnel if step.devices_after < step.devices_before]
        silent = len(group.funnel) - len(removing)
        funnel = Table(
            "CONSTRAINT", "DEVICES BEFORE", "AFTER", "PROVIDERS LEFT", title=f"{group.group_id}: funnel", box=None,
            title_justify="left", caption=f"{silent} other constraints removed nothing", caption_justify="left",
        )  # fmt: skip
        for step in removing:
            funnel.add_row(
                step.constraint, str(step.devices_before), str(step.devices_after), str(step.providers_after)
            )
        offers = Table("PROVIDER", "PRICE", "RESULT", title=f"{group.group_id}: offers", box=None, title_justify="left")
        for offer in group.offers:
            price = show_price(offer.price) if offer.HasField("price") else "-"
            offers.add_row(offer.provider, price, "won" if offer.won else f"lost: {offer.loss_reason}")
        tables += [funnel, offers]
    return tables


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
    wait: Annotated[bool, typer.Option(help="Wait until the order runs.")] = True,
    request_id: Annotated[str, typer.Option(help="Id of this request; the same id never orders twice.")] = "",
    json: Json = False,
) -> None:
    """Place the order that an SDL file describes."""
    text = read_sdl(file)

    async def run() -> None:
        async with signed_in() as (client, _):
            order = await client.create_order(sdl=text, request_id=request_id)
            if wait:
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
                console.print(order_table([order]))

    asyncio.run(run())


@app.command()
def get(name: Name, json: Json = False) -> None:
    """Show one order."""

    async def run() -> None:
        async with signed_in() as (client, _):
            order = await client.get_order(name)
            if json:
                typer.echo(as_json(order))
            else:
                console.print(order_table([order]))

    asyncio.run(run())


@app.command("list")
def list_orders(json: Json = False) -> None:
    """Show all orders, newest first."""

    async def run() -> None:
        async with signed_in() as (client, _):
            orders = await client.list_orders()
            if json:
                typer.echo(as_json(list(orders)))
            else:
                console.print(order_table(orders))

    asyncio.run(run())


@app.command()
def watch(name: Name) -> None:
    """Print each change of an order until it closes."""

    async def run() -> None:
        async with signed_in() as (client, _):
            async for step in client.watch_order(name):
                when = step.transition.transition_time.ToJsonString() if step.HasField("transition") else "now"
                typer.echo(f"{when}  {state_name(step.order):<10}  {step.transition.reason}")

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
                console.print(order_table([order]))
                if order.totals.HasField("refunded"):
                    console.print(f"refunded {show_amount(order.totals.refunded)}")

    asyncio.run(run())
