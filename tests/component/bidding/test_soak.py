"""The market never leases one device twice: a long walk with concurrent reservations, crashes and take-overs.

make soak STEPS=1000000     # no limit of time
make soak SOAK_SECONDS=600  # as far as ten minutes go
"""

import os
import sys
from pathlib import Path

import asyncpg
import pytest

from fallow_bidding.store import QUERIES
from fallow_chassis.testing import DatabaseFactory, ManualClock, TestIdentity
from tests.component.bidding.walker import Walk

STEPS = int(os.environ.get("FALLOW_SOAK_STEPS", "100000"))
SECONDS = float(os.environ.get("FALLOW_SOAK_SECONDS", "60"))
SEED = int(os.environ.get("FALLOW_SOAK_SEED", "1"))
FAULT_SECONDS = 60.0
FAULTS = {
    "lock_decisions": "SELECT $1::bigint",
    "lock_open_orders": QUERIES.get("lock_open_orders") + " SKIP LOCKED",
}


async def make_walk(database_factory: DatabaseFactory, folder: Path, seed: int) -> Walk:
    """A walk on a market of its own."""
    clock = ManualClock()
    identity = TestIdentity(folder / "identity", clock=clock)
    return Walk(await database_factory("fallow_bidding"), seed, identity, clock)


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 120 if SECONDS else 0)
async def test_no_device_is_leased_twice(database_factory: DatabaseFactory, tmp_path: Path) -> None:
    """Goal: whatever crashes, whoever leads: no device is sold twice, no group has two leases, no generation and no event
    is missing, and in the end nothing is held. Method: the walk, as far as its steps and its time go.
    """
    walk = await make_walk(database_factory, tmp_path, SEED)
    await walk.run(STEPS, SECONDS)
    sys.stdout.write(f"soak: seed {SEED}, {walk.steps} steps: {dict(sorted(walk.counted.items()))}\n")
    for what in ("opened", "leased", "ready", "failed", "refused", "stopped", "ended", "crashed"):
        assert walk.counted[what], f"the walk never saw this: {what}"


@pytest.mark.slow
@pytest.mark.timeout(FAULT_SECONDS + 60)
async def test_a_planted_fault_is_found(
    database_factory: DatabaseFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: the walk would see it if a device were sold twice. Method: take away all three guards, the decisions lock,
    the wait for orders that another pass holds, and the database's own check, and walk until it is found.
    """
    get = type(QUERIES).get
    monkeypatch.setattr(type(QUERIES), "get", lambda self, name: FAULTS.get(name) or get(self, name))
    walk = await make_walk(database_factory, tmp_path, SEED)
    connection = await asyncpg.connect(walk.url)
    await connection.execute("ALTER TABLE device_capacity DROP CONSTRAINT device_not_oversold")
    await connection.close()
    with pytest.raises(BaseExceptionGroup) as found:
        await walk.run(10**9, FAULT_SECONDS)
    assert found.group_contains(AssertionError), found.value
