"""The production GPU trace as the engine's inventory and needs, and the published way of drawing tasks from it.

Nodes: `sn,cpu_milli,memory_mib,gpu,model`. Tasks: `name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,…`; one GPU of
less than 1,000 milli is a share, `gpu_spec` lists models joined by `|`, empty for any.
"""

import csv
import random
from collections.abc import Sequence
from pathlib import Path

from fallow_bidding.domain.engine.needs import Need
from fallow_bidding.domain.supply import WHOLE_DEVICE_MILLI, Device, Node

MIB = 1 << 20
NUMBERS = frozenset({"cpu_milli", "memory_mib", "gpu", "num_gpu", "gpu_milli"})


class TraceError(Exception):
    """A file is no list of nodes, or of tasks, as the trace has them; the text says what is wrong."""


def _rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a file that has some columns, all filled; TraceError where it has not, or has no row."""
    with path.open(newline="", encoding="utf-8") as file:
        try:
            rows = list(csv.DictReader(file))
        except (csv.Error, UnicodeDecodeError) as error:
            raise TraceError(f"{path} is no CSV: {error}") from error
    if not rows:
        raise TraceError(f"{path} has no rows")
    for number, row in enumerate(rows, start=2):
        lacking = [column for column in columns if row.get(column) is None]
        odd = [column for column in columns if column in NUMBERS and not (row.get(column) or "0").isdigit()]
        if lacking or odd:
            raise TraceError(f"{path}, line {number}: {', '.join(lacking or odd)} is missing or no number")
    return rows


def read_nodes(path: Path) -> list[Node]:
    """The nodes of a file."""
    rows = _rows(path, ("sn", "cpu_milli", "memory_mib", "gpu", "model"))
    return [
        Node(
            node_id=row["sn"],
            cpu_milli=int(row["cpu_milli"]),
            memory_bytes=int(row["memory_mib"]) * MIB,
            devices=tuple(
                Device(f"{row['sn']}-{index}", "nvidia", row["model"], 0) for index in range(int(row["gpu"] or 0))
            ),
        )
        for row in rows
    ]


def read_needs(path: Path) -> list[Need]:
    """The tasks of a file, in its order."""
    rows = _rows(path, ("cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "gpu_spec"))
    needs = []
    for row in rows:
        count = int(row["num_gpu"] or 0)
        milli = int(row["gpu_milli"] or 0) if count == 1 else WHOLE_DEVICE_MILLI
        needs.append(
            Need(
                cpu_milli=int(row["cpu_milli"]),
                memory_bytes=int(row["memory_mib"]) * MIB,
                gpu_count=count,
                gpu_milli=milli if count else 0,
                models=tuple(sorted(set(filter(None, row["gpu_spec"].split("|"))))) if count else (),
            )
        )
    return needs


def draw(needs: Sequence[Need], goal_milli: int, seed: int) -> list[Need]:
    """All tasks, with ones drawn at random added (or random ones dropped) until they ask for the goal, shuffled."""
    source = random.Random(seed)
    tasks, asked = list(needs), sum(need.total_milli for need in needs)
    while asked < goal_milli:
        tasks.append(source.choice(needs))
        asked += tasks[-1].total_milli
    source.shuffle(tasks)
    while asked - tasks[-1].total_milli >= goal_milli:
        asked -= tasks.pop().total_milli
    return tasks
