"""How fast the engine matches, in memory and with each decision committed, and what a device costs it in memory.

`python -m benchmarks.engine --nodes CSV --pods CSV --offers CSV [--devices 100000] [--matches 20000] [--load 0.8] [--durable 10000]`.
The machines of the market are real offers drawn at random, each with its number of GPUs; offers say nothing of processor
time and memory, so each machine has those of a random node of the trace, by GPU. Eight machines make a provider, which
asks for each model the price of a real offer, jittered twice by up to 15 %. Needs are drawn from the trace's task list; a
share of those with GPUs (`--named`) names a model, drawn as often as there are devices of it.

The market is filled until `--load` of its GPUs is taken. Then leases end at random, as many as keep the load, and each
match is timed: arrival, decision and taking. This is the engine's own code, with the policy and setting of `benchmarks.placement`.
Rates count this process's processor seconds, everything between two matches included (ended leases, new tables as the mix
grows); percentiles are given on the clock, and in processor time for every sixth match, since other processes slow the clock.

With `--durable` the same decisions are also written to a Postgres with the settings of `fallow up`, into the tables of the bidding
service: the lease, its device uses under the check that no device is sold twice, and its node use, by COPY, one transaction for each group
of decisions. What the service writes besides (trade, command, event, the story of the decision) is not written, and
orders stand in the database before the clock starts. `service` holds decisions as the service makes them, from an order to its matches and
their story, in a market without leases and at the load, medians and 99th percentiles of the process's own time: through the lists, and with all providers weighed
(`_in_full`), which is how it was done for every order before there were lists. `lay_out_ms` is what each pass pays once. The last line is one JSON object.
"""

import argparse
import asyncio
import csv
import gc
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
from rich.console import Console
from rich.progress import Progress, TaskID

from benchmarks.trace import read_needs, read_nodes
from fallow_bidding.domain import matching
from fallow_bidding.domain.demand import GpuNeed, GroupDemand, OrderDemand, ReplicaSet
from fallow_bidding.domain.engine.asks import Asks
from fallow_bidding.domain.engine.book import Book
from fallow_bidding.domain.engine.engine import Engine
from fallow_bidding.domain.engine.inventory import Choice, Inventory
from fallow_bidding.domain.engine.mix import Mix
from fallow_bidding.domain.engine.needs import Need
from fallow_bidding.domain.engine.policies import POLICIES, make_policy
from fallow_bidding.domain.pricing import group_price_micros
from fallow_bidding.domain.supply import WHOLE_DEVICE_MILLI, Device, Node, PriceSchedule, StandingOffer, Supplier
from fallow_chassis.migrations import migrate
from fallow_stack.engines import Postgres

ASSET = "usdc"
JITTER = 0.15
MACHINES_A_PROVIDER = 8
MICROS = 1_000_000
TICK = 200
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
BLOCK = 100
"""Matches that are timed together. After each block one decision is made a second time by a look at all rows."""
STORIES = 30
DECISIONS = 500
STORIES_DEVICES_MAX = 100_000
"""How many decisions of the service are timed, in full and through the lists, and up to which size: those in full take as long as there are devices."""
RECENT_NEEDS = 2_000
"""Needs that the service's mix begins with."""
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Offer:
    """One line of the offers: a machine, and what one of its GPUs costs an hour."""

    model: str
    count: int
    vram_bytes: int
    micros: int


@dataclass
class Times:
    """How long single matches took, in nanoseconds, and all of it in processor seconds."""

    clock: list[int] = field(default_factory=list)
    processor: list[int] = field(default_factory=list)
    seconds: float = 0.0
    matches: int = 0
    arrivals: int = 0

    def milliseconds(self, name: str, share: float) -> float:
        """A percentile of a series."""
        ordered: list[int] = sorted(getattr(self, name))
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1e6, 3)


def read_offers(path: Path) -> list[Offer]:
    """The real offers of a file: `gpu_model,gpu_count,total_vram_mib,usd_per_hour,…`."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        Offer(
            model=row["gpu_model"],
            count=int(row["gpu_count"]),
            vram_bytes=(int(row["total_vram_mib"]) << 20) // int(row["gpu_count"]),
            micros=round(float(row["usd_per_hour"]) * MICROS / int(row["gpu_count"])),
        )
        for row in rows
    ]


def suppliers(offers: Sequence[Offer], nodes: Sequence[Node], devices: int, seed: int) -> list[Supplier]:
    """Providers with so many devices in all."""
    source = random.Random(seed)
    by_model: dict[str, list[int]] = {}
    for offer in offers:
        by_model.setdefault(offer.model, []).append(offer.micros)
    made: list[Supplier] = []
    while devices > 0:
        provider, level = f"provider-{len(made):06}", source.uniform(1 - JITTER, 1 + JITTER)
        mine = []
        for number in range(MACHINES_A_PROVIDER):
            offer = source.choice(offers)
            if devices > 0:
                count = min(offer.count, devices)
                mine.append(_machine(f"node-{number}", replace(offer, count=count), source.choice(nodes)))
                devices -= count
        models = sorted({device.model for node in mine for device in node.devices})
        gpu = {
            model: round(source.choice(by_model[model]) * level * source.uniform(1 - JITTER, 1 + JITTER))
            for model in models
        }
        prices = PriceSchedule(ASSET, gpu, round(10_000 * level), round(2_000 * level))
        offered = {ASSET: StandingOffer(f"offer-{len(made):06}", prices)}
        made.append(
            Supplier(
                provider,
                f"accounts/{provider}",
                "region",
                len(made),
                reputation_milli=source.randrange(500, 1_000),
                offers=offered,
                nodes=tuple(mine),
            )
        )
    return made


def _machine(node_id: str, offer: Offer, like: Node) -> Node:
    """A machine with the GPUs of an offer, and the processor time and memory of a node of the trace by GPU."""
    gpus = max(1, len(like.devices))
    return Node(
        node_id=node_id,
        cpu_milli=like.cpu_milli * offer.count // gpus,
        memory_bytes=like.memory_bytes * offer.count // gpus,
        devices=tuple(
            Device(f"{node_id}-{index}", "nvidia", offer.model, offer.vram_bytes) for index in range(offer.count)
        ),
    )


def arrivals(needs: Sequence[Need], offers: Sequence[Offer], named: float, seed: int) -> Iterator[Need]:
    """Needs without end."""
    source = random.Random(seed)
    models, counts = [offer.model for offer in offers], [offer.count for offer in offers]
    while True:
        need = source.choice(needs)
        if need.gpu_count and source.random() < named:
            need = replace(need, models=(source.choices(models, counts)[0],))
        yield need


class Market:
    """One market under load."""

    def __init__(self, options: argparse.Namespace, devices: int) -> None:
        """Lay it out, and weigh it."""
        offers = read_offers(options.offers)
        nodes = [node for node in read_nodes(options.nodes) if node.devices]
        self._source = random.Random(options.seed)
        self._needs = arrivals(read_needs(options.pods), offers, options.named, options.seed)
        self._load = options.load
        before = _resident_bytes()
        made = suppliers(offers, nodes, devices, options.seed)
        self.supplier_bytes = _resident_bytes() - before
        self.engine = Engine(Inventory(made), make_policy(POLICIES[0]))
        self.asks = Asks(self.engine.inventory, ASSET)
        self.book = Book(self.engine, self.asks)
        self.built_bytes = _resident_bytes() - before
        self._before_bytes = before
        self.held: list[tuple[Need, Choice]] = []
        self.free_milli = self.capacity_milli = int(self.engine.inventory.free_milli.sum())

    @property
    def bytes(self) -> int:
        """All that it has come to."""
        return _resident_bytes() - self._before_bytes

    def match(self) -> tuple[Need, Choice | None]:
        """One arrival, its decision, and taking what was decided."""
        need = next(self._needs)
        self.engine.arrive(need)
        choice = self.book.decide(need)
        if choice is not None:
            self.engine.take(need, choice)
            self.free_milli -= need.total_milli
            self.held.append((need, choice))
        return need, choice

    def end_leases(self) -> None:
        """Let leases end at random until the load is what it should be."""
        while self.free_milli < (1 - self._load) * self.capacity_milli:
            at = self._source.randrange(len(self.held))
            self.held[at], self.held[-1] = self.held[-1], self.held[at]
            need, choice = self.held.pop()
            self.engine.give_back(need, choice)
            self.free_milli += need.total_milli

    def fill(self, advance: "Bar") -> None:
        """Match until the load is reached."""
        goal_milli = (1 - self._load) * self.capacity_milli
        while self.free_milli > goal_milli:
            before = self.free_milli
            self.match()
            advance.by(before - self.free_milli)
        advance.show()

    def churn(self, matches: int, advance: "Bar") -> Times:
        """Time so many matches in blocks; after each, time some by the processor, and check one.

        Asking for processor time is slow on some systems, so that it is done once for a block, and by itself for single matches.
        """
        times = Times()
        while times.arrivals < matches:
            begun = time.process_time()
            for _ in range(BLOCK):
                self.end_leases()
                started = time.perf_counter_ns()
                _, choice = self.match()
                times.clock.append(time.perf_counter_ns() - started)
                times.matches += choice is not None
            times.seconds += time.process_time() - begun
            times.arrivals += BLOCK
            for _ in range(BLOCK // 5):
                self.end_leases()
                started = time.thread_time_ns()
                self.match()
                times.processor.append(time.thread_time_ns() - started)
            self.end_leases()
            self._check(*self.match())
            advance.by(BLOCK)
        advance.show()
        return times

    def _check(self, need: Need, choice: Choice | None) -> None:
        """Decide again by a look at all rows."""
        if choice is not None:
            self.engine.give_back(need, choice)
        assert self.engine.decide(need, self.asks.of(need)) == choice, "the lists find what a look at all rows finds"
        if choice is not None:
            self.engine.take(need, choice)


class Bar:
    """Progress on the standard error output."""

    def __init__(self, progress: Progress, title: str, total: int) -> None:
        self._progress = progress
        self._task: TaskID = progress.add_task(title, total=total)
        self._pending = self._calls = 0

    def by(self, amount: int) -> None:
        """Go on, now and then on the screen as well."""
        self._pending += amount
        self._calls += 1
        if self._calls % TICK == 0:
            self.show()

    def show(self) -> None:
        """Show all that was done."""
        self._progress.advance(self._task, self._pending)
        self._pending = 0


async def durable(market: Market, matches: int, group: int, advance: Bar) -> dict[str, object]:
    """Decide and commit in groups."""
    with tempfile.TemporaryDirectory() as folder:
        postgres = Postgres(Path(folder))
        await postgres.start()
        try:
            url = await postgres.ensure_database("engine")
            await migrate(url, "fallow_bidding")
            connection = await asyncpg.connect(url)
            try:
                settings = {name: await connection.fetchval(f"SHOW {name}") for name in ("fsync", "synchronous_commit")}
                assert set(settings.values()) == {"on"}, "a commit is on the disk"
                await _prepare(connection, market, matches)
                return await _commit(connection, market, matches, group, advance)
            finally:
                await connection.close()
        finally:
            await postgres.stop()


async def _prepare(connection: "asyncpg.Connection[asyncpg.Record]", market: Market, orders: int) -> None:
    """Providers, offers and orders that leases refer to, and what devices have given already."""
    made = market.engine.inventory.suppliers
    providers = [
        (one.provider_id, one.account, "", number.to_bytes(32), "r", "{}", "[]", "", "world", NOW)
        for number, one in enumerate(made)
    ]
    columns = (
        "provider_id account display_name public_key region attributes auditor_signatures address market create_time"
    )
    await connection.copy_records_to_table("provider", records=providers, columns=columns.split())
    offers = [(one.offers[ASSET].offer_id, one.provider_id, ASSET, "{}", "ACTIVE", NOW) for one in made]
    columns = "offer_id provider_id asset prices state create_time"
    await connection.copy_records_to_table("offer", records=offers, columns=columns.split())
    rows = [(f"order-{number:09}", "tenant", "world", b"order", "OPEN", NOW, NOW, 60_000) for number in range(orders)]
    columns = "order_id tenant market body state create_time open_time match_timeout_ms"
    await connection.copy_records_to_table("market_order", records=rows, columns=columns.split())
    groups = [(f"order-{number:09}", 0, "main", "OPEN") for number in range(orders)]
    columns = "order_id group_index group_id state"
    await connection.copy_records_to_table("order_group", records=groups, columns=columns.split())


async def _commit(
    connection: "asyncpg.Connection[asyncpg.Record]", market: Market, matches: int, group: int, advance: Bar
) -> dict[str, object]:
    """Take decisions in groups, and end no lease meanwhile: what is sold here is sold to the database too."""
    waits: list[float] = []
    made, started = 0, time.perf_counter()
    while made < matches:
        begun = time.perf_counter()
        decided: list[tuple[int, Need, Choice]] = []
        while len(decided) < min(group, matches - made):
            need, choice = market.match()
            if choice is not None:
                decided.append((made + len(decided), need, choice))
        await _write(connection, market, decided)
        waits += [time.perf_counter() - begun] * len(decided)
        made += len(decided)
        advance.by(len(decided))
        advance.show()
    seconds = time.perf_counter() - started
    stored = await connection.fetchrow(
        "SELECT (SELECT count(*) FROM lease) AS leases, (SELECT sum(milli) FROM device_use) AS milli,"
        " (SELECT max(milli_used) FROM device_capacity) AS most"
    )
    assert stored is not None, "a count is a row"
    taken = sum(need.total_milli for need, _ in market.held[-matches:])
    assert (stored["leases"], int(stored["milli"])) == (matches, taken), "each decision is in the database"
    assert stored["most"] <= 1_000, "no device is sold twice"
    waits.sort()
    return {
        "group": group,
        "matches_per_second": round(matches / seconds),
        "p50_ms": round(1e3 * waits[len(waits) // 2], 2),
        "p99_ms": round(1e3 * waits[int(0.99 * len(waits))], 2),
    }


async def _write(
    connection: "asyncpg.Connection[asyncpg.Record]", market: Market, decided: Sequence[tuple[int, Need, Choice]]
) -> None:
    """One transaction: leases, their device uses, their node uses."""
    inventory = market.engine.inventory
    leases, devices, nodes = [], [], []
    for number, need, choice in decided:
        order_id, lease_id = f"order-{number:09}", f"lease-{number:09}"
        one = inventory.suppliers[inventory.provider[choice.row]]
        node_id = inventory.nodes[inventory.node[choice.row]].node_id
        model = inventory.kinds[inventory.kind[choice.row]].model
        ids = [inventory.device_ids[choice.row][column] for column in choice.devices]
        placement = json.dumps(
            [["main", 0, node_id, [[node_id, device, need.gpu_milli] for device in ids], model if ids else ""]]
        )
        price = _price_micros(one, need, model if ids else "")
        head = (lease_id, order_id, 0, 1, "main", "tenant", one.provider_id, one.account, "")
        leases.append((*head, one.offers[ASSET].offer_id, ASSET, price, placement, 45_000, "RESERVED", "[]", NOW))
        devices += [(lease_id, one.provider_id, node_id, device, need.gpu_milli) for device in ids]
        nodes.append((lease_id, one.provider_id, node_id, need.cpu_milli, need.memory_bytes, "{}"))
    async with connection.transaction():
        columns = (
            "lease_id order_id group_index generation group_id tenant provider_id provider_account provider_address"
            " offer_id asset price_micros placements self_stop_ms state endpoints create_time"
        )
        await connection.copy_records_to_table("lease", records=leases, columns=columns.split())
        columns = "lease_id provider_id node_id device_id milli"
        await connection.copy_records_to_table("device_use", records=devices, columns=columns.split())
        columns = "lease_id provider_id node_id cpu_milli memory_bytes storage_bytes_by_class"
        await connection.copy_records_to_table("node_use", records=nodes, columns=columns.split())


def _price_micros(one: Supplier, need: Need, model: str) -> int:
    """What the lease costs an hour, as the market computes it."""
    gpu = GpuNeed(need.gpu_count, need.gpu_milli) if need.gpu_count else None
    replica_set = ReplicaSet("main", 1, need.cpu_milli, need.memory_bytes, gpu)
    return group_price_micros(one.offers[ASSET].prices, [(replica_set, model)])


def _resident_bytes() -> int:
    """What this process has in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * PAGE_BYTES


def of_service(options: argparse.Namespace, devices: int) -> dict[str, float]:
    """Milliseconds of this process's own time for decisions as the service makes them, in a market that is empty at first, then at the load: by its lists, and with
    all providers weighed. Laying the market out, and the first decision, which makes the columns, stand apart.
    """
    offers = read_offers(options.offers)
    nodes = [node for node in read_nodes(options.nodes) if node.devices]
    made = suppliers(offers, nodes, devices, options.seed)
    needs = arrivals(read_needs(options.pods), offers, options.named, options.seed)
    mix = Mix()
    for _ in range(RECENT_NEEDS):
        mix.add(next(needs))
    laid = time.thread_time()
    market = matching.Market(made, mix=mix.snapshot)
    matching.decide(_order(0, next(needs)), market)
    found = {"lay_out_ms": round(1_000 * (time.thread_time() - laid), 1)}
    free_milli = devices * WHOLE_DEVICE_MILLI
    for state, stop_milli in (("empty", free_milli), ("loaded", round((1 - options.load) * free_milli))):
        while free_milli > stop_milli:
            need = next(needs)
            free_milli -= need.total_milli * len(matching.find(_order(0, need), market))
        for way, decide, count in (("", matching.decide, DECISIONS), ("_in_full", matching.decide_in_full, STORIES)):
            took = []
            for number in range(count):
                order = _order(number, next(needs))
                tried = market.fork()
                started = time.thread_time()
                decision = decide(order, tried)
                if decision.matches:
                    took.append(time.thread_time() - started)
            ordered = sorted(took)
            found[f"{state}{way}_p50_ms"] = round(1_000 * statistics.median(ordered), 2)
            found[f"{state}{way}_p99_ms"] = round(1_000 * ordered[int(0.99 * len(ordered))], 2)
    return found


def _order(number: int, need: Need) -> OrderDemand:
    """An order of one replica, at any price."""
    gpu = GpuNeed(need.gpu_count, need.gpu_milli, models=need.models) if need.gpu_count else None
    wanted = ReplicaSet("service", 1, need.cpu_milli, need.memory_bytes, gpu)
    return OrderDemand(f"order-{number}", (GroupDemand(0, "group", (wanted,), ASSET, matching.MAX_PRICE_MICROS),))


def measure(options: argparse.Namespace, devices: int, progress: Progress) -> dict[str, object]:
    """All figures of one size."""
    market = Market(options, devices)
    market.fill(Bar(progress, f"{devices:,} devices: filling", round(market.capacity_milli * options.load)))
    times = market.churn(options.matches, Bar(progress, f"{devices:,} devices: matching", options.matches))
    inventory = market.engine.inventory
    found: dict[str, object] = {
        "devices": inventory.devices,
        "nodes": len(inventory.nodes),
        "providers": len(inventory.suppliers),
        "matches_per_second": round(times.matches / times.seconds),
        "placed_percent": round(100 * times.matches / times.arrivals, 1),
        "p50_ms": times.milliseconds("clock", 0.5),
        "p99_ms": times.milliseconds("clock", 0.99),
        "max_ms": times.milliseconds("clock", 1.0),
        "p99_processor_ms": times.milliseconds("processor", 0.99),
        "bytes_per_device": round(market.bytes / inventory.devices),
        "bytes_per_device_of_suppliers": round(market.supplier_bytes / inventory.devices),
        "bytes_per_device_empty": round(market.built_bytes / inventory.devices),
    }
    if devices <= STORIES_DEVICES_MAX:
        found["service"] = of_service(options, devices)
    if options.durable:
        bar = Bar(progress, f"{devices:,} devices: committing", options.durable)
        found["durable"] = asyncio.run(durable(market, options.durable, options.group, bar))
    return found


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("--nodes", "--pods", "--offers"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--devices", default="100000", help="one size, or several with commas between")
    parser.add_argument("--matches", type=int, default=20_000)
    parser.add_argument("--load", type=float, default=0.8)
    parser.add_argument("--named", type=float, default=0.0)
    parser.add_argument("--durable", type=int, default=0)
    parser.add_argument("--group", type=int, default=256)
    parser.add_argument("--seed", type=int, default=42)
    return parser.parse_args()


def main() -> None:
    """Measure each size."""
    options = parse()
    with Progress(console=Console(file=sys.stderr)) as progress:
        sizes = [measure(options, int(size), progress) for size in options.devices.split(",")]
    print(
        json.dumps(
            {"policy": POLICIES[0], "load": options.load, "named": options.named, "seed": options.seed, "sizes": sizes}
        )
    )


if __name__ == "__main__":
    main()
