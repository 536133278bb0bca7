"""How much of a real GPU cluster each placement policy allocates: the engine's own and those published for it.

`python -m benchmarks.placement --nodes CSV --pods CSV --inflate 1.3 --seeds 42:52 [--policy NAME] [--providers 50]`.
Start from the whole task list, add tasks drawn at random from it (or drop random ones) until the GPUs requested reach
`--inflate` times the cluster's, shuffle by the seed, let them arrive one at a time. Nothing is removed or moved; a task
that fits is placed, one that does not is skipped. The benchmark calls the functions that the market calls. The engine's
own policy learns the mix from arrivals; `fgd` is given the list's mix, as published. With `--providers` the nodes are
dealt out to so many providers whose prices are jittered around real ones, and price chooses first.

The last line is one JSON object. `allocated_at` is the share of GPUs allocated when requests reached that share of the
cluster's; `multi_gpu_placed_percent` the share of GPUs asked by tasks of several GPUs that was placed;
`tasks_per_second` counts processor seconds of this process, since other processes slow the clock on the wall.
"""

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.trace import TraceError, draw, read_needs, read_nodes
from fallow_bidding.domain.engine.asks import Asks
from fallow_bidding.domain.engine.engine import Engine
from fallow_bidding.domain.engine.inventory import Inventory
from fallow_bidding.domain.engine.mix import Snapshot
from fallow_bidding.domain.engine.needs import Need
from fallow_bidding.domain.engine.policies import POLICIES, make_policy
from fallow_bidding.domain.engine.records import replay, to_record
from fallow_bidding.domain.supply import Node, PriceSchedule, StandingOffer, Supplier

LOADS = (80, 90, 95, 100, 110, 120, 130)
GIVEN = {"fgd"}
TICK = 500
ASSET = "usdc"
JITTER = 0.15
PRICE_MICROS = {
    "V100M16": 106_250, "V100M32": 130_000, "P100": 60_000, "T4": 80_000, "A10": 300_000, "G2": 332_500, "G3": 665_000,
}  # fmt: skip
"""An hour of one device. In the market data of 2026 a V100 of 16 GiB is offered at 0.10625 dollars, an A40 at 0.665. The
trace hides which models G2 and G3 are: the second is priced as an A40, the first at half of it; the rest are guesses."""


@dataclass
class Run:
    """What one seed came to."""

    allocated_percent: float
    tasks: int
    seconds: float
    allocated_at: dict[int, float] = field(default_factory=dict)
    multi_asked_milli: int = 0
    multi_placed_milli: int = 0


def play(inventory: Inventory, policy: str, tasks: Sequence[Need], given: Snapshot | None, seed: int) -> Run:
    """Let the tasks of one seed arrive."""
    engine = Engine(inventory, make_policy(policy, seed), given)
    asks = Asks(inventory, ASSET) if len(inventory.suppliers) > 1 else None
    capacity = int(inventory.free_milli.sum())
    run = Run(0.0, len(tasks), 0.0)
    allocated, arrived = 0, 0
    loads = list(LOADS)
    started = time.process_time()
    for number, need in enumerate(tasks, start=1):
        engine.arrive(need)
        choice = engine.decide(need, None if asks is None else asks.of(need))
        if choice is not None:
            engine.take(need, choice)
            allocated += need.total_milli
        arrived += need.total_milli
        if need.gpu_count > 1:
            run.multi_asked_milli += need.total_milli
            run.multi_placed_milli += need.total_milli if choice is not None else 0
        while loads and arrived * 100 >= loads[0] * capacity:
            run.allocated_at[loads.pop(0)] = 100 * allocated / capacity
        if number % TICK == 0:
            print(f"\r{policy} seed {seed}: {number}/{len(tasks)}", end="", file=sys.stderr, flush=True)
    run.seconds = time.process_time() - started
    run.allocated_percent = 100 * allocated / capacity
    record = to_record(engine, tasks[0])
    assert replay(record) == record["choice"], "a decision that was written out is made again"
    assert allocated == capacity - int(inventory.free_milli.sum()), "what was placed is what is no longer free"
    print(
        f"\r{policy} seed {seed}: {run.allocated_percent:.2f} %, {run.tasks / run.seconds:.0f} tasks/s", file=sys.stderr
    )
    return run


def suppliers(nodes: Sequence[Node], count: int, seed: int) -> list[Supplier]:
    """The nodes, dealt out to so many providers by the seed, each with prices of its own."""
    source = random.Random(seed)
    owned: list[list[Node]] = [[] for _ in range(count)]
    for node in nodes:
        owned[source.randrange(count)].append(node)
    made = []
    for number, mine in enumerate(owned):
        level = source.uniform(1 - JITTER, 1 + JITTER)
        gpu = {
            model: round(1000 * level * source.uniform(1 - JITTER, 1 + JITTER)) * micros // 1000
            for model, micros in PRICE_MICROS.items()
        }
        prices = PriceSchedule(ASSET, gpu, round(10_000 * level), round(2_000 * level))
        offers = {ASSET: StandingOffer(f"offer-{number:03}", prices)}
        provider = f"provider-{number:03}"
        made.append(Supplier(provider, f"accounts/{provider}", "region", number, offers=offers, nodes=tuple(mine)))
    return made


def summary(policy: str, pods: str, seeds: Sequence[int], runs: Sequence[Run]) -> dict[str, object]:
    """The last line."""

    def mean(values: Sequence[float]) -> float:
        return round(sum(values) / len(values), 3)

    asked = sum(run.multi_asked_milli for run in runs)
    reached = [load for load in LOADS if all(load in run.allocated_at for run in runs)]
    return {
        "policy": policy,
        "pods": pods,
        "seeds": list(seeds),
        "mean_allocated_percent": mean([run.allocated_percent for run in runs]),
        "per_seed": [round(run.allocated_percent, 3) for run in runs],
        "allocated_at": {str(load): mean([run.allocated_at[load] for run in runs]) for load in reached},
        "multi_gpu_placed_percent": round(100 * sum(run.multi_placed_milli for run in runs) / asked, 2)
        if asked
        else None,
        "tasks_per_second": round(sum(run.tasks for run in runs) / sum(run.seconds for run in runs)),
    }


INFLATE_MAX = 10.0
PROVIDERS_MAX = 10_000


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nodes", type=Path, required=True)
    parser.add_argument("--pods", type=Path, required=True)
    parser.add_argument("--inflate", type=float, default=1.3)
    parser.add_argument("--seeds", type=seeds_of, default=seeds_of("42:52"), help="FIRST:END, END not among them")
    parser.add_argument("--policy", choices=POLICIES, default=POLICIES[0])
    parser.add_argument("--providers", type=int, default=1)
    options = parser.parse_args()
    if not 0 < options.inflate <= INFLATE_MAX or not 1 <= options.providers <= PROVIDERS_MAX:
        parser.error(f"--inflate is above 0 and at most {INFLATE_MAX}, --providers 1 to {PROVIDERS_MAX}")
    return options


def seeds_of(text: str) -> range:
    """`42:52` as the seeds 42 to 51; one number is one seed."""
    first, colon, end = text.partition(":")
    seeds = range(int(first), int(end) if colon else int(first) + 1)
    if not seeds:
        raise argparse.ArgumentTypeError(f"{text} names no seed: write FIRST:END with FIRST below END")
    return seeds


def main() -> None:
    """Run all seeds one after the other."""
    options = parse()
    seeds = options.seeds
    try:
        nodes, needs = read_nodes(options.nodes), read_needs(options.pods)
    except (OSError, TraceError) as error:
        raise SystemExit(f"placement: {error}") from error
    given = Snapshot(tuple(sorted(Counter(needs).items()))) if options.policy in GIVEN else None
    runs = []
    for seed in seeds:
        inventory = Inventory(suppliers(nodes, options.providers, seed))
        goal_milli = round(options.inflate * int(inventory.free_milli.sum()))
        runs.append(play(inventory, options.policy, draw(needs, goal_milli, seed), given, seed))
    print(json.dumps(summary(options.policy, options.pods.name, seeds, runs)))


if __name__ == "__main__":
    main()
