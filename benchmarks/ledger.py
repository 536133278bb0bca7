"""How many transfers a second the ledger takes, one by one and by lists, beside plain INSERT and COPY of the same rows.

    python -m benchmarks.ledger [--seconds 3] [--rounds 3]

Postgres with the settings of `fallow up` (each commit synced) in a temporary folder; nothing else runs. A list of transfers
is one transaction: accounts locked, transfers decided, written, and checked by the database at commit. 1,000 accounts with
money move it at random among themselves. The ceilings write the same rows into a table without keys, checks and triggers:
one INSERT a transaction, one INSERT of a whole list, one COPY. All take turns, each for `--seconds` a round; lists and lone
transfers are made by `CLIENTS` connections at once. The last line is one JSON object.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from fallow_chassis.clock import SystemClock
from fallow_chassis.ids import RandomIds
from fallow_chassis.migrations import migrate
from fallow_chassis.postgres import Database
from fallow_settlement.domain.ledger import AccountKind, Result, Transfer, TransferReason, new_account
from fallow_settlement.ledger_store import post_transfers
from fallow_stack.engines import Postgres

ASSET = "usdc"
ACCOUNTS = [new_account(AccountKind.BALANCE, f"{number:026d}", ASSET) for number in range(1_000)]
CLIENTS = 8
LISTS = (1, 100, 8_190)
FUNDS = 10**12
PLAIN = "CREATE TABLE plain AS SELECT * FROM transfer WITH NO DATA"
INSERT = """
    INSERT INTO plain (id, debit_account, credit_account, asset, amount, phase, reason, subject, debit_version,
                       credit_version, create_time)
    SELECT id, debit_account, credit_account, 'usdc', amount, 'POSTED', 'HOLD', 'benchmark', 1, 1, $5
    FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS new (id, debit_account, credit_account, amount)
"""
COLUMNS = ["id", "debit_account", "credit_account", "asset", "amount", "phase", "reason", "subject", "debit_version"]
COLUMNS += ["credit_version", "create_time"]
Write = Callable[[Sequence[Transfer]], Awaitable[None]]


class Numbers:
    """Transfers at random, each with an id of its own."""

    def __init__(self) -> None:
        self._random = random.Random(1)
        self._next = 0

    def transfers(self, count: int) -> list[Transfer]:
        """Some more."""
        made = []
        for _ in range(count):
            debit, credit = self._random.sample(ACCOUNTS, 2)
            self._next += 1
            amount = self._random.randint(1, 1_000)
            identifier = f"benchmark-{self._next:017d}"
            made.append(Transfer(identifier, debit.id, credit.id, ASSET, amount, TransferReason.HOLD, "benchmark"))
        return made


async def fund(database: Database) -> None:
    """Give each account money."""
    vault = new_account(AccountKind.VAULT, "", ASSET)
    moves = [
        Transfer(f"fund-{account.id}", vault.id, account.id, ASSET, FUNDS, TransferReason.DEPOSIT, "benchmark")
        for account in ACCOUNTS
    ]
    async with database.transaction() as unit:
        await post_transfers(unit.connection, [vault, *ACCOUNTS], moves, unit.clock.now())


async def rate(write: Write, size: int, numbers: Numbers, seconds: float) -> float:
    """Transfers a second, written by lists of a size."""
    end, written = time.monotonic() + seconds, 0

    async def client() -> None:
        nonlocal written
        while time.monotonic() < end:
            await write(numbers.transfers(size))
            written += size

    start = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS if size < max(LISTS) else 1):
            group.create_task(client())
    return written / (time.monotonic() - start)


def writers(database: Database) -> dict[str, Write]:
    """The ledger, and the ceilings."""

    async def ledger(transfers: Sequence[Transfer]) -> None:
        async with database.transaction() as unit:
            results = await post_transfers(unit.connection, (), transfers, unit.clock.now())
            if set(results) != {Result.OK}:
                raise SystemExit(f"transfers were answered {set(results)}")

    async def insert(transfers: Sequence[Transfer]) -> None:
        async with database.transaction() as unit:
            columns = [
                [getattr(one, name) for one in transfers]
                for name in ("id", "debit_account", "credit_account", "amount")
            ]
            await unit.connection.execute(INSERT, *columns, datetime.now(UTC))

    async def copy(transfers: Sequence[Transfer]) -> None:
        now = datetime.now(UTC)
        rows = [
            (one.id, one.debit_account, one.credit_account, ASSET, one.amount, "POSTED", "HOLD", "benchmark", 1, 1, now)
            for one in transfers
        ]
        async with database.transaction() as unit:
            await unit.connection.copy_records_to_table("plain", records=rows, columns=COLUMNS)

    return {"ledger": ledger, "insert": insert, "copy": copy}


async def measure(folder: Path, seconds: float, rounds: int) -> dict[str, dict[str, float]]:
    """Medians of transfers a second, by writer and size of list; the books must balance afterwards."""
    postgres = Postgres(folder / "postgres")
    await postgres.start()
    try:
        url = await postgres.ensure_database("ledger")
        await migrate(url, "fallow_settlement")
        clock = SystemClock()
        database = await Database.connect(url, pool_size=CLIENTS, ids=RandomIds(clock), clock=clock)
        try:
            await fund(database)
            async with database.transaction() as unit:
                await unit.connection.execute(PLAIN)
            numbers, found = Numbers(), dict[tuple[str, int], list[float]]()
            for number in range(rounds):
                for size in LISTS:
                    for name, write in writers(database).items():
                        value = await rate(write, size, numbers, seconds)
                        found.setdefault((name, size), []).append(value)
                        sys.stdout.write(f"round {number + 1}: {name} by {size}: {value:,.0f}/s\n")
            async with database.read() as connection:
                uneven = await connection.fetchval(
                    "SELECT sum(debits_posted) - sum(credits_posted) FROM ledger_account"
                )
            if uneven != 0:
                raise SystemExit("the books do not balance")
        finally:
            await database.close()
    finally:
        await postgres.stop()
    return {
        str(size): {name: round(statistics.median(found[name, size])) for name in ("ledger", "insert", "copy")}
        for size in LISTS
    }


def main() -> int:
    """Measure, print each round and the result last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if not 0 < options.seconds <= 60 or not 1 <= options.rounds <= 20:
        parser.error("up to 60 seconds, 1 to 20 rounds")
    with tempfile.TemporaryDirectory(prefix="fallow-ledger-") as folder:
        found = asyncio.run(measure(Path(folder), options.seconds, options.rounds))
    ratios = {size: round(rates["ledger"] / rates["insert"], 2) for size, rates in found.items()}
    sys.stdout.write(
        json.dumps({"transfers_per_second": found, "ratio_to_insert": ratios, "rounds": options.rounds}) + "\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
