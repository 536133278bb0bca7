"""``python -m fallow_settlement anchors``: what the chain has of the batches, and an operator's word to send lost ones again.

``anchors resend`` is for a chain that was rolled back below what was final. It marks what is lost; the running service sends
it again, one after the other, and this command without an argument shows how far it is.
Status 0 is done, 1 says that nothing may be sent again and why, 2 that the service is set up wrongly or the chain is away.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fallow_chassis.clock import SystemClock
from fallow_chassis.ids import RandomIds
from fallow_chassis.postgres import Database
from fallow_chassis.settings import SettingsError
from fallow_settlement import resending
from fallow_settlement.chain import ChainUnavailableError, JsonRpcNode, NodeError, WrongChainError
from fallow_settlement.resending import AnchorLine, ResendRefusedError, Standing
from fallow_settlement.settings import Contracts, SettlementSettings

REFUSED = 1
UNUSABLE = 2
_console = Console(highlight=False, soft_wrap=True, width=140)
TOLD = {
    Standing.STANDS: "stands",
    Standing.NOT_YET: "not yet",
    Standing.LOST: "LOST",
    Standing.OTHER: "ANOTHER HEADER",
}


def run(argv: Sequence[str]) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="fallow_settlement anchors", description=__doc__)
    parser.add_argument(
        "resend", nargs="?", choices=["resend"], help="send the lost ones again; without it, list batches"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(argv)
    try:
        return asyncio.run(_run(SettlementSettings(), resends=options.resend is not None, as_json=options.json))
    except ResendRefusedError as error:
        sys.stderr.write(f"{error}\n")
        return REFUSED
    except (OSError, SettingsError, ChainUnavailableError, WrongChainError, NodeError) as error:
        # A database that is away answers no better than with an OSError.
        sys.stderr.write(f"the anchors cannot be looked at: {error}\n")
        return UNUSABLE


async def _run(settings: SettlementSettings, *, resends: bool, as_json: bool) -> int:
    """List, or send again."""
    url, rpc_url = settings.required("database_url"), settings.required("chain_rpc_url")
    contracts = Contracts.load(Path(settings.required("contracts_file")))
    clock = SystemClock()
    database = await Database.connect(url, pool_size=1, ids=RandomIds(clock), clock=clock, source="services/settlement")
    try:
        async with JsonRpcNode(rpc_url, contracts.chain_id) as node:
            if not resends:
                _show(await resending.list_anchors(database, node, contracts), as_json=as_json)
                return 0
            numbers = await resending.resend(database, node, contracts)
    finally:
        await database.close()
    if as_json:
        sys.stdout.write(json.dumps({"resend": [f"batches/{number}" for number in numbers]}) + "\n")
    elif numbers:
        sys.stdout.write(
            f"batches/{numbers[0]} to batches/{numbers[-1]} are sent again by the running service, one after the other; "
            "run `anchors` to see how far it is\n"
        )
    else:
        sys.stdout.write("those that were lost are being sent again already; run `anchors` to see how far it is\n")
    return 0


def _show(lines: Sequence[AnchorLine], *, as_json: bool) -> None:
    """A row for each batch, and what to do where one is lost."""
    if as_json:
        rows = [
            {
                "batch": f"batches/{line.batch.number}",
                "state": line.batch.state.value,
                "chain": line.standing.value,
                "charges": line.batch.header.count,
                "block": line.batch.block_number,
                "transaction_hash": line.batch.transaction_hash,
            }
            for line in lines
        ]
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        return
    table = Table("BATCH", "STATE", "CHAIN", "CHARGES", "BLOCK", "TRANSACTION", box=None)
    for line in lines:
        batch = line.batch
        table.add_row(
            f"batches/{batch.number}",
            batch.state.value,
            TOLD[line.standing],
            str(batch.header.count),
            str(batch.block_number or "-"),
            batch.transaction_hash or "-",
        )
    _console.print(table)
    if lost := sum(line.standing is Standing.LOST for line in lines):
        _console.print(
            f"{lost} lost: the chain was rolled back below what was final. `anchors resend` sends them again."
        )
