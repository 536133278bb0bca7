"""``python -m fallow_settlement vetoes``: payout roots that the guardian has stopped, and their release.

Release them once it is known why they were stopped and the books are right: ``fallow ledger audit`` says whether they are.
Status 0 is done, 1 says that there was nothing to release, 2 that the service is set up wrongly.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence

from fallow_chassis.clock import SystemClock
from fallow_chassis.ids import RandomIds
from fallow_chassis.postgres import Database
from fallow_settlement import vetoes
from fallow_settlement.settings import SettlementSettings


def run(argv: Sequence[str]) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="fallow_settlement vetoes", description=__doc__)
    parser.add_argument(
        "release", nargs="?", choices=["release"], help="let withdrawals go on; without it, list vetoes"
    )
    options = parser.parse_args(argv)
    return asyncio.run(_run(SettlementSettings().required("database_url"), releases=options.release is not None))


async def _run(url: str, *, releases: bool) -> int:
    """List, or release."""
    clock = SystemClock()
    database = await Database.connect(url, pool_size=1, ids=RandomIds(clock), clock=clock, source="services/settlement")
    try:
        if releases:
            async with database.transaction() as unit:
                count = await vetoes.release(unit)
            sys.stdout.write(f"{count} released: the next batch pays by a root of its own\n")
            return 0 if count else 1
        for veto in await vetoes.list_vetoes(database):
            state = "stops withdrawals" if veto.release_time is None else f"released {veto.release_time.isoformat()}"
            sys.stdout.write(
                f"batches/{veto.batch_number} to batches/{veto.next_batch - 1}  {state}  "
                f"since {veto.create_time.isoformat()}  {veto.transaction_hash}\n"
            )
        return 0
    finally:
        await database.close()
