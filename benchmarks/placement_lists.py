"""Makes the task lists of the benchmark of placement out of the default one, each by a seed of its own.

`python -m benchmarks.placement_lists --nodes CSV --pods CSV --out FOLDER` writes one file a list. `models_33` and `models_66` let that share
of the GPU tasks name one to three models, drawn by how many GPUs of them there are among those with nodes large enough. The others
draw as many tasks as the default list has, some kind of task that many times as often.
"""

import argparse
import csv
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

Row = dict[str, str]
Rows = list[Row]

MODEL_COUNTS = (1, 1, 2, 3)
"""How many models a task names, each as likely."""


def read(path: Path) -> Rows:
    """The rows of a file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def is_big(row: Row) -> bool:
    """Whether a task asks for several GPUs."""
    return int(row["num_gpu"]) > 1


def is_share(row: Row) -> bool:
    """Whether a task asks for a share of a GPU."""
    return int(row["num_gpu"]) == 1 and int(row["gpu_milli"]) < 1_000


def asks_none(row: Row) -> bool:
    """Whether a task asks for no GPU."""
    return int(row["num_gpu"]) == 0


def name_models(tasks: Rows, nodes: Rows, share: float, seed: int) -> Rows:
    """The tasks, of which a share of those with GPUs names models."""
    gpus: Counter[str] = Counter()
    largest: dict[str, int] = {}
    for node in nodes:
        gpus[node["model"]] += int(node["gpu"])
        largest[node["model"]] = max(largest.get(node["model"], 0), int(node["gpu"]))
    source, named = random.Random(seed), []
    for task in tasks:
        count = int(task["num_gpu"])
        if count and source.random() < share:
            fitting = [model for model in gpus if largest[model] >= count]
            wanted, chosen = source.choice(MODEL_COUNTS), list[str]()
            while len(chosen) < min(wanted, len(fitting)):
                model = source.choices(fitting, [gpus[each] for each in fitting])[0]
                if model not in chosen:
                    chosen.append(model)
            named.append({**task, "gpu_spec": "|".join(chosen)})
        else:
            named.append(task)
    return named


def draw(tasks: Rows, kind: Callable[[Row], bool], times: float, seed: int) -> Rows:
    """As many tasks as before, those of a kind so many times as often."""
    return random.Random(seed).choices(tasks, [times if kind(task) else 1 for task in tasks], k=len(tasks))


def lists(tasks: Rows, nodes: Rows) -> dict[str, Rows]:
    """All lists by their names."""
    return {
        "models_33": name_models(tasks, nodes, 0.33, 1),
        "models_66": name_models(tasks, nodes, 0.66, 2),
        "big_4": draw(tasks, is_big, 4, 3),
        "big_12": draw(tasks, is_big, 12, 4),
        "shares_3": draw(tasks, is_share, 3, 5),
        "cpu_only_2.5": draw(tasks, asks_none, 2.5, 6),
        "cpu_only_0.1": draw(tasks, asks_none, 0.1, 7),
        "models_33_big_8": draw(name_models(tasks, nodes, 0.33, 9), is_big, 8, 9),
    }


def main() -> None:
    """Write every list."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("--nodes", "--pods", "--out"):
        parser.add_argument(name, type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    tasks = read(options.pods)
    for name, rows in lists(tasks, read(options.nodes)).items():
        path = options.out / f"{name}.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(tasks[0]))
            writer.writeheader()
            writer.writerows(rows)
        print(f"{path}: {len(rows)} tasks")


if __name__ == "__main__":
    main()
