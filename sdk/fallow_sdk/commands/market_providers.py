"""`fallow market providers`: who sells, and how well they have done."""

import asyncio
from typing import Annotated

import typer
from rich.table import Table

from fallow.bidding.v1 import provider_pb2, provider_service_pb2
from fallow_sdk.client import Client
from fallow_sdk.commands.connection import as_json, show_rows
from fallow_sdk.commands.options import Json
from fallow_sdk.commands.order_tables import name_column
from fallow_sdk.profile import load_profile


def parse_states(names: list[str]) -> list["provider_pb2.ProviderState.ValueType"]:
    """States by their names, in any case. Raises a usage error that says what there is."""
    known = {
        name.removeprefix("PROVIDER_STATE_"): number for name, number in provider_pb2.ProviderState.items() if number
    }
    for name in names:
        if name.upper() not in known:
            raise typer.BadParameter(f"no state {name!r}; there are: {', '.join(known).lower()}", param_hint="--state")
    return [known[name.upper()] for name in names]


def show_percent(milli: int) -> str:
    """Thousandths as a percentage."""
    return f"{milli // 10}.{milli % 10} %"


def providers_table(providers: list[provider_pb2.Provider]) -> Table:
    """Providers, one a line, with the parts of their reputation."""
    table = Table(
        name_column("PROVIDER"), "NAME", "STATE", "REGION", "SCORE", "RELIABLE", "UP 7 D", "UP 30 D", "STARTS", "TIME TO START",
        "LEASES", "EARLY CLOSES", "AUDITORS", box=None,
    )  # fmt: skip
    for provider in providers:
        reputation = provider.reputation
        start = (
            f"{reputation.time_to_start.ToMilliseconds() / 1_000:g} s" if reputation.HasField("time_to_start") else "-"
        )
        table.add_row(
            provider.name,
            provider.display_name or "-",
            provider_pb2.ProviderState.Name(provider.state).removeprefix("PROVIDER_STATE_"),
            provider.region,
            str(reputation.score_milli),
            show_percent(reputation.reliability_milli),
            show_percent(reputation.uptime_week_milli),
            show_percent(reputation.uptime_milli),
            show_percent(reputation.start_success_milli),
            start,
            str(reputation.leases),
            str(reputation.early_closes),
            " ".join(sorted({item.auditor for item in provider.auditor_signatures})) or "-",
        )
    return table


def providers(
    state: Annotated[list[str] | None, typer.Option("--state", help="State, such as online; repeat it.")] = None,
    region: Annotated[list[str] | None, typer.Option("--region", help="Region; repeat it.")] = None,
    model: Annotated[list[str] | None, typer.Option("--model", help="GPU model, such as h100; repeat it.")] = None,
    reputation: Annotated[int, typer.Option("--reputation", help="Least score.", min=0, max=1_000)] = 0,
    auditor: Annotated[str, typer.Option("--auditor", help="Who vouches for an attribute of theirs.")] = "",
    json: Json = False,
) -> None:
    """List providers, newest first, with the parts of their reputation; docs/reputation.md tells the formula."""
    request = provider_service_pb2.ListProvidersRequest(
        states=parse_states(state or []),
        regions=region or [],
        gpu_models=[name.lower() for name in model or []],
        reputation_milli_min=reputation,
        auditor=auditor,
    )

    async def run() -> list[provider_pb2.Provider]:
        async with Client(load_profile().endpoints) as client:
            return await client.list_providers(request)

    found = asyncio.run(run())
    if json:
        typer.echo(as_json(found))
    else:
        show_rows(providers_table(found))
