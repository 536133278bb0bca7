"""How long one tick takes that charges many active leases, beside the same rows written plainly in the same run.

    python -m benchmarks.metering [--leases 10000] [--rounds 5]

Postgres with the settings of `fallow up` (each commit synced) in a temporary folder; nothing else runs. Each lease is an order of
its own with funds, at one of 500 providers, and has proven one more minute before each round. A tick is settlement's own
`Charging.charge_due`: charges, ledger transfers, sums of escrows and generations, one event a charge, all committed. The
ceiling writes as many rows of charges, transfers (two a charge) and events into tables without keys, checks and triggers, by COPY in
one transaction. After the last round every escrow, generation and account must add up. The last line is one JSON object.
"""

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import uvloop

from fallow_chassis.application import GARBAGE_OBJECTS
from fallow_chassis.clock import SystemClock
from fallow_chassis.ids import RandomIds
from fallow_chassis.migrations import migrate
from fallow_chassis.postgres import Database
from fallow_settlement import escrow_store, metering_store
from fallow_settlement.charging import Charging
from fallow_settlement.domain.charge import Metering
from fallow_settlement.domain.escrow import opened
from fallow_settlement.domain.ledger import AccountKind, Transfer, TransferReason, new_account
from fallow_settlement.domain.metering import Meter
from fallow_settlement.domain.rules import Rules
from fallow_settlement.escrow_store import Opened
from fallow_settlement.ledger_store import MAX_TRANSFERS, must_post
from fallow_stack.engines import Postgres

ASSET = "usdc"
FUNDS = 10**9
PRICE = 1_234_567
PROVIDERS = 500
ROUND_MS = 60_000
RULES = Rules({ASSET: 2_000}, pool_basis_points=0, final_wait_ms=60_000, low_runway_ms=0, grace_ms=60_000)
TABLES = {"charge": 1, "transfer": 2, "outbox": 1}
"""Rows a charge of each table that a tick writes to."""
PROVE = "UPDATE metering SET proven_ms = proven_ms + $1"
CHECK = """
    SELECT count(*) FROM escrow JOIN metering USING (order_id)
    JOIN ledger_account ON ledger_account.kind = 'ESCROW' AND ledger_account.owner = order_id
    WHERE escrow.charged = metering.charged_micros AND ledger_account.debits_posted = escrow.charged
      AND metering.charged_ms = metering.proven_ms
      AND metering.charged_micros = metering.price_micros_per_hour * metering.charged_ms / 3600000
"""


def identifier(kind: int, number: int) -> str:
    """An id of 26 characters."""
    return f"{kind}{number:025d}"


async def fill(database: Database, leases: int) -> None:
    """Make the orders' escrows with their funds and generations that run."""
    now = database.clock.now()
    vault = new_account(AccountKind.VAULT, "", ASSET)
    escrows = [
        opened(identifier(1, number), identifier(2, number), ASSET, FUNDS, budget=0, auto_top_up=False, now=now)
        for number in range(leases)
    ]
    for start in range(0, leases, MAX_TRANSFERS):
        part = escrows[start : start + MAX_TRANSFERS]
        accounts = [new_account(AccountKind.ESCROW, escrow.order_id, ASSET) for escrow in part]
        moves = [
            Transfer(f"fund-{account.id}", vault.id, account.id, ASSET, FUNDS, TransferReason.DEPOSIT, "benchmark")
            for account in accounts
        ]
        async with database.transaction() as unit:
            await must_post(unit.connection, [vault, *accounts], moves, now)
            await escrow_store.insert_escrows(unit.connection, [Opened(escrow, {}) for escrow in part])
            for number, escrow in enumerate(part, start):
                await metering_store.insert_metering(unit.connection, metering(number, escrow.order_id, now))
            await unit.connection.execute("UPDATE metering SET ready = true")


def metering(number: int, order_id: str, now: datetime) -> Metering:
    """One generation."""
    return Metering(
        order_id=order_id,
        group=0,
        generation=1,
        lease_id=identifier(3, number),
        tenant_id=identifier(2, number),
        provider_id=identifier(4, number % PROVIDERS),
        provider_account_id=identifier(5, number % PROVIDERS),
        provider_public_key=bytes(32),
        asset=ASSET,
        price_micros_per_hour=PRICE,
        rates=RULES.rates(ASSET),
        meter=Meter(now, 5_000),
    )


async def ceiling(
    database: Database, rows: dict[str, list[tuple[object, ...]]], columns: dict[str, list[str]]
) -> float:
    """Seconds that COPY takes for the same rows, in one transaction."""
    start = time.monotonic()
    async with database.transaction() as unit:
        for table, records in rows.items():
            await unit.connection.copy_records_to_table(f"plain_{table}", records=records, columns=columns[table])
    return time.monotonic() - start


async def measure(folder: Path, leases: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each round's tick and of its ceiling; the sums must be right afterwards."""
    postgres = Postgres(folder / "postgres")
    await postgres.start()
    try:
        url = await postgres.ensure_database("metering")
        await migrate(url, "fallow_settlement")
        clock = SystemClock()
        database = await Database.connect(url, pool_size=4, ids=RandomIds(clock), clock=clock)
        try:
            await fill(database, leases)
            charging = Charging(database, RULES)
            found: dict[str, list[float]] = {"tick": [], "ceiling": []}
            async with database.transaction() as unit:
                for table in TABLES:
                    await unit.connection.execute(f"CREATE TABLE plain_{table} AS SELECT * FROM {table} WITH NO DATA")
            for number in range(rounds):
                async with database.transaction() as unit:
                    await unit.connection.execute(PROVE, ROUND_MS)
                start = time.monotonic()
                await charging.charge_due()
                found["tick"].append(time.monotonic() - start)
                rows: dict[str, list[tuple[object, ...]]] = {}
                columns: dict[str, list[str]] = {}
                async with database.read() as connection:
                    for table, times in TABLES.items():
                        newest = await connection.fetch(f"SELECT * FROM {table} LIMIT {leases * times}")
                        # COPY knows no jsonb here: the headers of events are left out.
                        columns[table] = [name for name, value in newest[0].items() if not isinstance(value, dict)]
                        rows[table] = [tuple(row[name] for name in columns[table]) for row in newest]
                found["ceiling"].append(await ceiling(database, rows, columns))
                sys.stdout.write(
                    f"round {number + 1}: tick {found['tick'][-1]:.2f} s, COPY {found['ceiling'][-1]:.2f} s\n"
                )
            async with database.read() as connection:
                right = await connection.fetchval(CHECK)
                charges = await connection.fetchval("SELECT count(*) FROM charge")
            if (right, charges) != (leases, leases * rounds):
                raise SystemExit(f"{right} of {leases} leases add up, with {charges} charges")
        finally:
            await database.close()
    finally:
        await postgres.stop()
    return found


def main() -> int:
    """Measure, print each round and the result last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leases", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if not 1 <= options.leases <= 100_000 or not 1 <= options.rounds <= 50:
        parser.error("1 to 100,000 leases, 1 to 50 rounds")
    with tempfile.TemporaryDirectory(prefix="fallow-metering-") as folder:
        # As the service runs.
        gc.set_threshold(GARBAGE_OBJECTS)
        found = uvloop.run(measure(Path(folder), options.leases, options.rounds))
    seconds = {name: round(statistics.median(values), 3) for name, values in found.items()}
    slowest = round(max(found["tick"]), 3)
    rate = round(options.leases / seconds["tick"])
    sys.stdout.write(
        json.dumps({"leases": options.leases, "seconds": seconds, "slowest_tick": slowest, "charges_per_second": rate})
        + "\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
