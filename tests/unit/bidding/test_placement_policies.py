"""The placement policies on a tenth of a real cluster, and the tables behind the engine's own.

`data/nodes.csv` and `data/tasks.csv` are the production GPU trace, counted by shape: 1,213 nodes and 8,152 tasks.
"""

import csv
import itertools
import random
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from fallow_bidding.domain.engine.engine import Engine
from fallow_bidding.domain.engine.inventory import Inventory
from fallow_bidding.domain.engine.mix import Snapshot
from fallow_bidding.domain.engine.needs import Kind, Need
from fallow_bidding.domain.engine.policies import make_policy
from fallow_bidding.domain.engine.slots import poisson_tail
from fallow_bidding.domain.engine.worth import device_waste, exhaustion
from fallow_bidding.domain.supply import Device, Node, Supplier

DATA = Path(__file__).parent / "data"
TENTH = 10
MIB = 1 << 20


def counted(name: str) -> list[dict[str, str]]:
    """The rows of a file, each as often as its count says."""
    rows = list(csv.DictReader((DATA / name).read_text("utf-8").splitlines()))
    return list(itertools.chain.from_iterable([row] * int(row["count"]) for row in rows))


@cache
def tasks() -> list[Need]:
    """The trace's tasks."""
    return [
        Need(int(row["cpu_milli"]), int(row["memory_mib"]) * MIB, int(row["num_gpu"]), int(row["gpu_milli"]))
        for row in counted("tasks.csv")
    ]


def cluster() -> Inventory:
    """Every tenth node of the trace."""
    nodes = []
    for number, row in enumerate(counted("nodes.csv")[::TENTH]):
        gpus = tuple(Device(f"{number:03}-{at}", "nvidia", row["model"], 0) for at in range(int(row["gpu"])))
        nodes.append(Node(f"{number:03}", int(row["cpu_milli"]), int(row["memory_mib"]) * MIB, devices=gpus))
    return Inventory([Supplier("p", "accounts/p", "r", 0, nodes=tuple(nodes))])


def allocated_percent(policy: str, seed: int) -> float:
    """The share of GPUs allocated when 130 % have been asked for."""
    given = Snapshot(tuple(sorted(Counter(tasks()).items()))) if policy == "fgd" else None
    inventory = cluster()
    engine = Engine(inventory, make_policy(policy, seed), given)
    capacity = int(inventory.free_milli.sum())
    source, asked = random.Random(seed), 0
    while asked < 1.3 * capacity:
        need = source.choice(tasks())
        asked += need.total_milli
        engine.arrive(need)
        choice = engine.decide(need)
        if choice is not None:
            engine.take(need, choice)
    return 100 * (1 - int(inventory.free_milli.sum()) / capacity)


@pytest.mark.parametrize(
    ("policy", "least", "most"),
    [("random", 84, 90), ("best_fit", 91.5, 94.5), ("fgd", 93.5, 96.5), ("least_waste", 95.2, 97.0)],
)
def test_policies_allocate_what_was_published(policy: str, least: float, most: float) -> None:
    """Goal: nobody loses a policy's quality unseen. Method: a tenth of the cluster, mean of two seeds, within a band."""
    percent = sum(allocated_percent(policy, seed) for seed in (42, 43)) / 2
    assert least < percent < most, f"{policy} allocates {percent:.2f} %"


def test_a_device_wastes_what_no_need_fills() -> None:
    """Goal: the table is exact where it can be worked out. Method: one need of 400 alone, then none at all."""
    waste = device_waste({(40, 1): 1.0})
    assert waste[8, 100] == pytest.approx(200), "two of 400 leave 200"
    assert waste[1, 100] == pytest.approx(600), "with one core only one of them runs"
    assert waste[8, 39] == pytest.approx(390), "a hole that is too small stays"
    assert waste[0, 100] == pytest.approx(1_000), "without a core nothing runs"
    assert (device_waste({}) == np.arange(101) * 10).all(), "nobody asks, all is left"


def test_a_hole_that_few_needs_fit_is_worth_less() -> None:
    """Goal: rare needs are not counted on. Method: the same need, once common and once rare, beside whole devices."""
    common = device_waste({(100, 1): 0.5, (30, 1): 0.5})
    rare = device_waste({(100, 1): 0.995, (30, 1): 0.005})
    assert common[8, 30] < 1, "a hole of 300 is filled"
    assert rare[8, 30] > 250, "or most likely not"


def test_exhaustion_counts_what_processor_time_strands() -> None:
    """Goal: free devices without processor time are worth nothing. Method: one need of a device and ten cores alone."""
    left = exhaustion({(10, 10): 1.0}, 80)
    assert left[80, 80] == pytest.approx(0), "eighty cores serve eight devices"
    assert left[40, 80] == pytest.approx(4_000), "forty serve four, and four are stranded"


def test_poisson_tails_are_right_at_every_size() -> None:
    """Goal: prices do not jump between the formulas. Method: known values, and the seam at which the formula changes."""
    assert poisson_tail(1.0, 0) == 1.0, "at least none is certain"
    assert poisson_tail(1.0, 1) == pytest.approx(1 - np.exp(-1)), "one or more"
    assert poisson_tail(3.0, 200) == 0.0, "far beyond the mean"
    assert poisson_tail(10_000.0, 9_000) == 1.0, "far below it"
    assert poisson_tail(199.9, 205) == pytest.approx(poisson_tail(200.1, 205), abs=0.02), "at the seam"


def test_kinds_have_tables_of_their_own() -> None:
    """Goal: a model that nobody asks for is worth nothing. Method: needs for one model; two nodes, one of each."""
    need = Need(1_000, MIB, 1, 1_000, models=("a",))
    policy = make_policy("least_waste")
    policy.learn(Snapshot(((need, 1),)), (Kind("nvidia", "a"), Kind("nvidia", "b")), 8)
    nodes = [Node(model, 8_000, 8 << 30, devices=(Device(f"{model}-0", "nvidia", model, 0),)) for model in ("a", "b")]
    engine = Engine(Inventory([Supplier("p", "", "", 0, nodes=tuple(nodes))]), policy, Snapshot(((need, 1),)))
    choice = engine.decide(Need(1_000, MIB))
    assert choice is not None, "there is room"
    assert engine.inventory.nodes[engine.inventory.node[choice.row]].node_id == "b", "what needs no GPU goes there"
