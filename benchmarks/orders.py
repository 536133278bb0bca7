"""How many orders a second are created durably, with their escrow, beside what a bare server commits in the same run.

`python -m benchmarks.orders [--orders 4000] [--concurrency 64] [--rounds 4] [--tenants 64] [--profile FOLDER]` starts
Postgres, NATS with JetStream, the order service and settlement as processes in a temporary folder, all with the
settings of `fallow up` (fsync and synchronous_commit on, JetStream synced at each write), and a ceiling beside them.
Rounds of the two take turns, so that they share the machine's moods. There is no bidding service (creating an order asks
it nothing) and no chain: the tenants sign in with wallets, and their deposits are posted in settlement's ledger by its
own code, as a deposit on a chain would be.

Beside rates and times it tells what a call costs: the processor time (user and system) of every process that had a part in
it, which other work on the machine changes far less than the rates.

An order counts once CreateOrder has answered OPEN. Afterwards it is checked in both databases that each request made
one order, each order is OPEN with one escrow of the right sum, one OrderOpened was stated, the
books balance, and a repeat answers the same order. The last line is one JSON object. Bounded by `--orders`; whatever
fails ends it with status 1; it stops what it starts.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks.order_path import percentile
from benchmarks.orders_client import CEILING_METHOD, CREATE_METHOD, LIMIT_MICROS_PER_HOUR, Load
from fallow_chassis.clock import SystemClock
from fallow_chassis.ids import RandomIds
from fallow_chassis.postgres import Database
from fallow_sdk.client import Client, Endpoints
from fallow_sdk.wallet import Wallet
from fallow_settlement.domain import moves
from fallow_settlement.ledger_store import must_post
from fallow_stack.engines import Nats, Postgres
from fallow_stack.home import Home
from fallow_stack.keys import make_keys
from fallow_stack.loopback_ports import free_port
from fallow_stack.member import Service

ORDERS_MAX = 200_000
WARM_UP_CALLS = 200
REPEATS = 50
ROUND_SECONDS = 300.0
DRAIN_SECONDS = 300.0
DEPOSIT_MICROS = 10**14
HOLD_MICROS = LIMIT_MICROS_PER_HOUR
ASSET = "usdc"
SERVICES = ("settlement", "order")
METHODS = {"order": CREATE_METHOD, "ceiling": CEILING_METHOD}
DURABLE = ("SHOW fsync", "SHOW synchronous_commit", "SHOW full_page_writes")
NOBODY = "127.0.0.1:9"
"""Bidding's address: nothing is asked of it when an order is created."""


class CheckError(Exception):
    """What the run left behind is not what it should be."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    orders: int
    concurrency: int
    rounds: int
    clients: int
    tenants: int
    profile: Path | None


@dataclass(slots=True)
class Series:
    """What the rounds of one side measured."""

    seconds: float = 0.0
    milliseconds: list[float] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    rounds: list[float] = field(default_factory=list)
    cpu_seconds: dict[str, float] = field(default_factory=dict)

    def add(self, answers: list[dict[str, Any]], cpu_seconds: dict[str, float]) -> None:
        """Count one round: the clients of it ran side by side."""
        calls = sum(len(answer["milliseconds"]) for answer in answers)
        seconds = max(answer["seconds"] for answer in answers)
        self.seconds += seconds
        self.rounds.append(round(calls / seconds, 1))
        for answer in answers:
            self.milliseconds += answer["milliseconds"]
            self.names += answer["names"]
        for name, spent in cpu_seconds.items():
            self.cpu_seconds[name] = self.cpu_seconds.get(name, 0.0) + spent

    @property
    def cpu_ms(self) -> float:
        """Milliseconds of a processor for each call, in all processes together, the client's included."""
        return sum(self.cpu_seconds.values()) * 1_000 / len(self.milliseconds)

    @property
    def cpu_ms_by_process(self) -> dict[str, float]:
        """The same by process, and together."""
        calls = len(self.milliseconds)
        return {
            **{name: round(spent * 1_000 / calls, 2) for name, spent in self.cpu_seconds.items()},
            "total": round(self.cpu_ms, 2),
        }

    @property
    def per_second(self) -> float:
        """Calls that were answered, by the time that the rounds took."""
        return len(self.milliseconds) / self.seconds


class Bench:
    """The processes of one run, in one folder."""

    def __init__(self, folder: Path, options: Options) -> None:
        self._options = options
        self._home = Home(folder)
        self._keys = make_keys(self._home, [])
        self._postgres = Postgres(self._home.folder("postgres"))
        self._nats = Nats(self._home.folder("nats"))
        self._ports = {name: free_port() for name in (*SERVICES, "ceiling")}
        self._numbers = 0
        self._processes: dict[str, int] = {}
        self.tokens: list[str] = []

    def address(self, name: str) -> str:
        """`host:port` of a process."""
        return f"127.0.0.1:{self._ports[name]}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Everything up; stopped in the end, the last started first."""
        async with AsyncExitStack() as closing:
            for engine in (self._postgres, self._nats):
                closing.push_async_callback(engine.stop)
                await engine.start()
            self._processes = {"postgres": self._postgres.pid, "nats": self._nats.pid}
            for name in SERVICES:
                await self._service(name, "migrate", await self._environment(name)).run()
            for name in SERVICES:
                service = self._service(name, "serve", await self._environment(name))
                closing.push_async_callback(service.stop)
                await service.start()
                self._processes[name] = service.pid
            await closing.enter_async_context(self._ceiling())
            self.tokens = [await self._tenant(number) for number in range(self._options.tenants)]
            yield

    async def _environment(self, name: str) -> dict[str, str]:
        """What a service is told: what `fallow up` tells it, without bidding and chain."""
        return {
            "FALLOW_LISTEN": self.address(name),
            "FALLOW_JWKS": str(self._keys.jwks),
            "FALLOW_LOG_FORMAT": "json",
            "FALLOW_DATABASE_URL": await self._postgres.ensure_database(f"fallow_{name}"),
            "FALLOW_NATS_URL": self._nats.url,
            "FALLOW_NATS_CREDENTIALS_FILE": str(self._nats.service_credentials_file(name)),
            "FALLOW_IDENTITY_KEY_FILE": str(self._keys.identity(name)),
            "FALLOW_WORKLOAD_KEYS": self._keys.workload.read_text("utf-8").strip(),
            "FALLOW_SETTLEMENT_ADDRESS": self.address("settlement"),
            "FALLOW_BIDDING_ADDRESS": NOBODY if name == "order" else "",
        }

    def _service(self, name: str, command: str, environment: dict[str, str]) -> Service:
        """A service's process, under cProfile where that is asked for."""
        module, arguments = f"fallow_{name}", [command]
        if self._options.profile is not None and command == "serve":
            target = self._options.profile.resolve() / f"{name}.prof"
            module, arguments = "cProfile", ["-o", str(target), "-m", module, command]
        return Service(f"{name} {command}", module, arguments, environment, self._home.logs / f"{name}-{command}.log")

    @asynccontextmanager
    async def _ceiling(self) -> AsyncIterator[None]:
        """The bare server."""
        url = await self._postgres.ensure_database("ceiling")
        command = [sys.executable, "-m", "benchmarks.orders_ceiling", self.address("ceiling"), url]
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        try:
            assert await process.stdout.readline(), "the ceiling did not start"
            self._processes["ceiling"] = process.pid
            yield
        finally:
            process.terminate()
            await process.wait()

    async def _tenant(self, number: int) -> str:
        """A tenant with money: signs in as any would, gets a deposit; its access token."""
        endpoints = Endpoints(self.address("order"), NOBODY, self.address("settlement"))
        async with Client(endpoints) as client:
            session = await client.sign_in(Wallet.load_or_create(self._keys.wallet(f"tenant-{number}")))
        account = session.account.removeprefix("accounts/")
        clock = SystemClock()
        url = await self._postgres.ensure_database("fallow_settlement")
        database = await Database.connect(url, ids=RandomIds(clock), clock=clock)
        try:
            async with database.transaction() as unit:
                for move in (moves.deposit_seen, moves.deposit_confirmed):
                    made = move(f"benchmark-{number}", account, ASSET, DEPOSIT_MICROS)
                    await must_post(unit.connection, made.accounts, made.transfers, clock.now())
        finally:
            await database.close()
        return session.access_token

    async def load(self, name: str, calls: int) -> list[dict[str, Any]]:
        """One round of calls to the order service or the ceiling, from the client processes."""
        clients = self._options.clients
        shares = [calls // clients + (index < calls % clients) for index in range(clients)]
        concurrencies = [
            self._options.concurrency // clients + (index < self._options.concurrency % clients)
            for index in range(clients)
        ]
        loads = []
        for share, concurrency in zip(shares, concurrencies, strict=True):
            loads.append(Load(self.address(name), METHODS[name], self.tokens, self._numbers, share, concurrency))
            self._numbers += share
        async with asyncio.timeout(ROUND_SECONDS), asyncio.TaskGroup() as group:
            tasks = [group.create_task(_client(one)) for one in loads]
        answers = [task.result() for task in tasks]
        failures = [failure for answer in answers for failure in answer["failures"]]
        if failures:
            raise CheckError(f"{len(failures)} calls failed: {failures[:3]}")
        return answers

    async def round(self, series: Series, name: str, calls: int) -> None:
        """One measured round, with what it cost the processors."""
        before = {process: cpu_seconds(pid) for process, pid in self._processes.items()}
        answers = await self.load(name, calls)
        spent = {process: cpu_seconds(pid) - before[process] for process, pid in self._processes.items()}
        spent["client"] = sum(answer["cpu_seconds"] for answer in answers)
        series.add(answers, spent)

    @asynccontextmanager
    async def database(self, name: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
        """A connection to a service's database."""
        connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
            self._postgres.database_url(f"fallow_{name}")
        )
        try:
            yield connection
        finally:
            await connection.close()

    async def drain_seconds(self) -> float:
        """How long after the load the outboxes were sent."""
        started = time.monotonic()
        query = "SELECT EXISTS (SELECT 1 FROM outbox WHERE sent_at IS NULL)"
        async with self.database("order") as order, self.database("settlement") as settlement:
            async with asyncio.timeout(DRAIN_SECONDS):
                while await order.fetchval(query) or await settlement.fetchval(query):
                    await asyncio.sleep(0.05)
        return time.monotonic() - started

    async def check(self, names: list[str]) -> None:
        """Hold what a run must leave behind. Raises CheckError."""
        ids = sorted(name.removeprefix("orders/") for name in names)
        async with self.database("order") as order, self.database("settlement") as settlement:
            for query in DURABLE:
                for connection in (order, settlement):
                    _hold(await connection.fetchval(query) == "on", f"{query} says on")
            await _check_order(order, ids)
            await _check_settlement(settlement, ids)

    async def check_repeats(self, series: list[dict[str, Any]], first: int) -> None:
        """Repeat the first requests; each must answer the order that it made. Raises CheckError."""
        self._numbers = first
        again = [name for answer in await self.load("order", REPEATS) for name in answer["names"]]
        before = {name for answer in series for name in answer["names"]}
        _hold(len(set(again)) == len(again) == REPEATS and set(again) <= before, "a repeat answers the same order")


async def _check_order(connection: "asyncpg.Connection[asyncpg.Record]", ids: list[str]) -> None:
    """Each request made one order that is OPEN, with its group, its workload, its changes and its event."""
    rows = await connection.fetch(
        "SELECT id FROM orders WHERE state = 'OPEN' AND held_micros = $1 ORDER BY id", HOLD_MICROS
    )
    _hold([row["id"] for row in rows] == ids, "the answered orders are the orders, and all are OPEN")
    for table, column, each in (
        ("order_group", "order_id", 1),
        ("workload", "order_id", 1),
        ("order_transition", "order_id", 2),
    ):
        wrong = await connection.fetchval(
            f"SELECT count(*) FROM (SELECT 1 FROM {table} GROUP BY {column} HAVING count(*) <> $1) AS other", each
        )
        found = await connection.fetchval(f"SELECT count(DISTINCT {column}) FROM {table}")
        _hold(wrong == 0 and found == len(ids), f"each order has {each} of {table}")
    claims = await connection.fetch(
        "SELECT resource FROM idempotency WHERE method LIKE '%/CreateOrder' ORDER BY resource"
    )
    _hold([row["resource"] for row in claims] == [f"orders/{order_id}" for order_id in ids], "one claim for each order")
    keys = await connection.fetch("SELECT key FROM outbox WHERE type = 'fallow.order.v1.OrderOpened' ORDER BY key")
    _hold([row["key"] for row in keys] == ids, "one OrderOpened for each order")


async def _check_settlement(connection: "asyncpg.Connection[asyncpg.Record]", ids: list[str]) -> None:
    """Each order has one escrow of the right sum, and the books balance."""
    rows = await connection.fetch(
        "SELECT order_id FROM escrow WHERE state = 'OPEN' AND deposited = $1 AND charged + refunded = 0 ORDER BY order_id",
        HOLD_MICROS,
    )
    _hold([row["order_id"] for row in rows] == ids, "each order has one escrow, and no other is there")
    total = await connection.fetchrow(
        "SELECT sum(debits_posted) = sum(credits_posted) AS balances, "
        "sum(credits_posted - debits_posted) FILTER (WHERE kind = 'ESCROW') AS held, "
        "sum(debits_posted) FILTER (WHERE kind = 'BALANCE') AS paid FROM ledger_account"
    )
    moved = await connection.fetchval("SELECT sum(amount) FROM transfer WHERE reason = 'HOLD'")
    expected = HOLD_MICROS * len(ids)
    _hold(total is not None and total["balances"], "debits equal credits")
    _hold(total is not None and total["held"] == total["paid"] == moved == expected, "what was paid is what is held")


def _hold(condition: bool, claim: str) -> None:  # noqa: FBT001 - a claim and whether it holds
    """Hold a claim about the outcome."""
    if not condition:
        raise CheckError(f"this should hold and does not: {claim}")


def cpu_seconds(pid: int) -> float:
    """What a process and its children have worked so far, those that have ended included."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    ticks = 0
    for number in (str(pid), *children):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # Fields 14 to 17: own and waited-for children's ticks, after the name in brackets.
            values = Path(f"/proc/{number}/stat").read_text("utf-8").rpartition(")")[2].split()[11:15]
            ticks += sum(int(value) for value in values)
    return ticks / os.sysconf("SC_CLK_TCK")


async def _client(load: Load) -> dict[str, Any]:
    """One client process, run to its end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.orders_client", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        output, _ = await process.communicate(json.dumps(asdict(load)).encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    answer: dict[str, Any] = json.loads(output)
    return answer


async def machine(bench: Bench) -> dict[str, object]:
    """What the numbers were measured on."""
    async with bench.database("order") as connection:
        postgres = await connection.fetchval("SHOW server_version")
    information = Path("/proc/cpuinfo").read_text("utf-8")
    models = [line.partition(":")[2].strip() for line in information.splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": models[0] if models else platform.processor(),
        "memory_gib": round(memory, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "postgres": postgres,
        "load_before": round(os.getloadavg()[0], 2),
    }


async def run(options: Options) -> dict[str, object]:
    """Rounds of both sides in turn, then the checks."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options)
        async with bench.running():
            described = await machine(bench)
            series = {name: Series() for name in METHODS}
            warm = {name: await bench.load(name, WARM_UP_CALLS) for name in METHODS}
            for index in range(options.rounds):
                calls = options.orders // options.rounds + (index < options.orders % options.rounds)
                for name in METHODS:
                    await bench.round(series[name], name, calls)
                    sys.stderr.write(f"round {index + 1}: {name} {series[name].rounds[-1]}/s\n")
            drained = await bench.drain_seconds()
            orders, ceiling = series["order"], series["ceiling"]
            await bench.check([*orders.names, *(name for answer in warm["order"] for name in answer["names"])])
            await bench.check_repeats(warm["order"], 0)
            await bench.check([*orders.names, *(name for answer in warm["order"] for name in answer["names"])])
    return {
        "orders_per_second": round(orders.per_second, 1),
        "p50_ms": round(percentile(orders.milliseconds, 50), 1),
        "p99_ms": round(percentile(orders.milliseconds, 99), 1),
        "ceiling_per_second": round(ceiling.per_second, 1),
        "ceiling_p50_ms": round(percentile(ceiling.milliseconds, 50), 1),
        "ceiling_p99_ms": round(percentile(ceiling.milliseconds, 99), 1),
        "ratio": round(orders.per_second / ceiling.per_second, 2),
        "concurrency": options.concurrency,
        "clients": options.clients,
        "tenants": options.tenants,
        "orders": len(orders.milliseconds),
        "rounds": {"orders": orders.rounds, "ceiling": ceiling.rounds},
        "cpu_ms_per_order": orders.cpu_ms_by_process,
        "cpu_ms_per_call": ceiling.cpu_ms_by_process,
        "cpu_ratio": round(orders.cpu_ms / ceiling.cpu_ms, 2),
        "events_sent_after_seconds": round(drained, 1),
        "machine": described,
    }


def parse() -> Options:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--orders", type=int, default=4_000, choices=range(1, ORDERS_MAX + 1), metavar="N")
    parser.add_argument("--concurrency", type=int, default=64, choices=range(1, 1_001), metavar="C")
    parser.add_argument("--rounds", type=int, default=4, choices=range(1, 101), metavar="R")
    parser.add_argument("--clients", type=int, default=1, choices=range(1, 17), metavar="P", help="client processes")
    parser.add_argument("--tenants", type=int, default=64, choices=range(1, 1_001), metavar="T", help="funded accounts")
    parser.add_argument("--profile", type=Path, help="a folder for cProfile's files of the two services")
    given = parser.parse_args()
    return Options(given.orders, given.concurrency, given.rounds, given.clients, given.tenants, given.profile)


def main() -> None:
    """Parse, run, print."""
    sys.stdout.write(f"{json.dumps(asyncio.run(run(parse())))}\n")


if __name__ == "__main__":
    main()
