"""The engine as a process of its own on a service's database: what leads, is killed, stopped, and takes over.

python -m tests.component.bidding.engine_process DATABASE_URL NAME
"""

import asyncio
import sys

from fallow_bidding.app import lock_key
from fallow_bidding.commands.matching import MatchingCommands
from fallow_bidding.domain.policy import Policy
from fallow_bidding.jobs import Engine
from fallow_chassis.clock import SystemClock
from fallow_chassis.ids import RandomIds
from fallow_chassis.postgres import Database
from fallow_chassis.signals import Signals


async def run(url: str, name: str) -> None:
    """Run the engine until killed."""
    clock = SystemClock()
    policy = Policy()
    database = await Database.connect(url, ids=RandomIds(clock), clock=clock, source=name, pool_size=4)
    signals = Signals(database)
    matching = MatchingCommands(database, policy, lock_key("decisions", policy.market))
    engine = Engine(database, signals, matching, lock_key("leader", policy.market))
    async with asyncio.TaskGroup() as group:
        group.create_task(signals.run())
        group.create_task(engine.run())


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], sys.argv[2]))
