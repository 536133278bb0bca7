"""``fallow ledger audit``: work the books out again, from scratch, and say where the first difference is."""

import asyncio
import json as plain_json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from fallow_chassis.clock import SystemClock
from fallow_chassis.ids import RandomIds
from fallow_chassis.postgres import Database
from fallow_chassis.settings import SettingsError
from fallow_settlement.audit import CHECKS, Finding, audit
from fallow_settlement.chain import ChainUnavailableError, JsonRpcNode, WrongChainError
from fallow_settlement.settings import Contracts

app = typer.Typer(help="The ledger, for those who run the platform.", no_args_is_help=True)
_console = Console(highlight=False)
_errors = Console(stderr=True, highlight=False)
USAGE = 2
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def ledger() -> None:
    """The ledger, for those who run the platform."""


@app.command("audit")
def audit_books(
    database_url: Annotated[
        str, typer.Option(envvar="FALLOW_DATABASE_URL", help="Settlement's database; reading is enough.")
    ] = "",
    contracts_file: Annotated[
        str, typer.Option(envvar="FALLOW_CONTRACTS_FILE", help="The addresses that deploy-contracts wrote.")
    ] = "",
    rpc_url: Annotated[
        str, typer.Option(envvar="FALLOW_CHAIN_RPC_URL", help="A node of the chain; without it the chain is not asked.")
    ] = "",
    json: Json = False,  # noqa: FBT002 - typer reads it by its name
) -> None:
    """Work out every balance, charge, header, root and anchor again. Exit status 1 where something differs."""
    if not database_url or not contracts_file:
        missing = "--database-url" if not database_url else "--contracts-file"
        _errors.print(f"{missing} is needed, or its variable in the environment", style="red", markup=False)
        raise typer.Exit(USAGE)
    try:
        findings = asyncio.run(_run(database_url, Contracts.load(Path(contracts_file)), rpc_url))
    except (OSError, SettingsError, ChainUnavailableError, WrongChainError, ValueError) as error:
        _errors.print(f"the audit could not be made: {error}", style="red", markup=False)
        raise typer.Exit(USAGE) from None
    if json:
        typer.echo(plain_json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        _show(findings)
    if any(finding.difference for finding in findings):
        raise typer.Exit(1)


async def _run(database_url: str, contracts: Contracts, rpc_url: str) -> list[Finding]:
    """All findings, with a bar that shows how far it is."""
    clock = SystemClock()
    database = await Database.connect(database_url, pool_size=1, ids=RandomIds(clock), clock=clock, source="audit")
    node = JsonRpcNode(rpc_url, contracts.chain_id) if rpc_url else None
    findings: list[Finding] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=_errors, transient=True, disable=not sys.stderr.isatty()) as progress:
            task = progress.add_task("", total=len(CHECKS))

            def step(what: str) -> None:
                progress.update(task, description=what)

            async for finding in audit(database, node, contracts.vault, step):
                findings.append(finding)
                progress.advance(task)
    finally:
        if node is not None:
            await node.close()
        await database.close()
    return findings


def _show(findings: list[Finding]) -> None:
    """A line for each check, then the differences."""
    table = Table("CHECK", "RESULT", box=None)
    for finding in findings:
        result = "not made: no node was given" if not finding.is_made else "differs" if finding.difference else "holds"
        table.add_row(finding.check, result)
    _console.print(table)
    for finding in findings:
        if (difference := finding.difference) is not None:
            for line in (
                f"{finding.check}: {difference.place}",
                f"  expected {difference.expected}",
                f"  found    {difference.found}",
                f"  {difference.advice}",
            ):
                _console.print(line, markup=False, soft_wrap=True)
