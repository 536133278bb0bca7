"""``python -m fallow_settlement gaps``: confirmed deposits that left the chain, and an operator's decision about one.

Status 0 is done, 1 says that there is no such open gap, 2 that the service is set up wrongly.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence

from fallow_chassis.clock import SystemClock
from fallow_chassis.ids import RandomIds
from fallow_chassis.postgres import Database
from fallow_settlement import gaps
from fallow_settlement.gaps import GapState
from fallow_settlement.settings import SettlementSettings

DECISIONS = {"write-off": GapState.WRITTEN_OFF, "recover": GapState.RECOVERED}


def run(argv: Sequence[str]) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="fallow_settlement gaps", description=__doc__)
    parser.add_argument(
        "decision", nargs="?", choices=sorted(DECISIONS), help="how to end a gap; without it, list them"
    )
    parser.add_argument("gap", nargs="?", help="the gap, as the list names it")
    options = parser.parse_args(argv)
    if (options.decision is None) != (options.gap is None):
        parser.error("a decision is about one gap: name it after the decision")
    return asyncio.run(_run(SettlementSettings().required("database_url"), options.decision, options.gap))


async def _run(url: str, decision: str | None, gap_id: str | None) -> int:
    """List, or decide."""
    clock = SystemClock()
    database = await Database.connect(url, pool_size=1, ids=RandomIds(clock), clock=clock, source="services/settlement")
    try:
        if decision is None or gap_id is None:
            for gap in await gaps.list_gaps(database):
                sys.stdout.write(
                    f"{gap.id}  {gap.state}  accounts/{gap.account_id}  {gap.amount} micros of {gap.asset}, "
                    f"{gap.frozen} held back  since {gap.create_time.isoformat()}  {gap.transaction_hash}\n"
                )
            return 0
        async with database.transaction() as unit:
            ended = await gaps.decide(unit, gap_id, DECISIONS[decision])
        sys.stdout.write(f"{gap_id}: {'ended' if ended else 'no such open gap; run without arguments to list them'}\n")
        return 0 if ended else 1
    finally:
        await database.close()
