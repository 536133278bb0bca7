"""The agent's memory survives, is whole or not at all, and is one agent's."""

import shutil
import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fallow_provider.domain.run import (
    DeviceUse,
    Placement,
    Run,
    RunKey,
    acknowledge_final,
    became_ready,
    ended,
    failed,
    has_run_for,
    stop_asked,
)
from fallow_provider.store import QUERIES, Store, StoreError

KEY = RunKey("orders/o", 1, 2)
RUN = Run(
    "leases/l", KEY, (Placement("web", 0, "n", (DeviceUse("n", "gpu", 250),)), Placement("db", 1, "n")),
    self_stop_ms=1, start_timeout_ms=2, order_address="a:1", workload_grant="g", accepted_at_ms=3, machine_boot_id="b",
)  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A new store."""
    opened = Store.open(tmp_path / "state" / "state.sqlite")
    yield opened
    opened.close()


def reopened(store: Store, tmp_path: Path) -> Store:
    """The store as the next life of the agent reads it."""
    store.close()
    return Store.open(tmp_path / "state" / "state.sqlite")


def test_each_query_compiles(store: Store) -> None:
    """Goal: no query fails at run time by its text. Method: have SQLite explain each."""
    explained = 0
    for name in QUERIES.names():
        if name != "create_schema":
            text = f"EXPLAIN {QUERIES.get(name)}"
            words = {word.strip(",();") for word in text.replace("(", " ").split() if word.startswith(":")}
            store._connection.execute(text, dict.fromkeys((word.lstrip(":").strip(",();") for word in words), 1))
            explained += 1
    assert explained > 10


@pytest.mark.parametrize(
    "run",
    [
        RUN,
        has_run_for(became_ready(RUN), 12_345),
        failed(became_ready(RUN), "EXITED", "why"),
        acknowledge_final(ended(failed(RUN, "EXITED", "why", grace_ms=9))),
        ended(stop_asked(RUN, 77)),
    ],
)
def test_a_run_reads_back_as_it_was(store: Store, tmp_path: Path, run: Run) -> None:
    """Goal: nothing is lost. Method: a run in each state, through the disk."""
    store.save_run(run)
    again = reopened(store, tmp_path)
    assert again.runs() == [run]
    again.close()


def test_a_transaction_is_whole_or_nothing(store: Store) -> None:
    """Goal: a failed command leaves nothing, in memory either. Method: raise after two writes."""
    store.save_run(RUN)
    with pytest.raises(RuntimeError), store.transaction():
        store.save_run(became_ready(RUN))
        store.save_answer("c", 1, "", "")
        raise RuntimeError
    assert store.run(KEY) == RUN
    assert store.answer("c") is None


def test_generations_only_grow(store: Store) -> None:
    """Goal: an older generation never comes back. Method: see 2, 1, 3; forget the run."""
    for generation, highest in ((2, 2), (1, 2), (3, 3)):
        store.saw_generation(replace(KEY, generation=generation))
        assert store.highest_generation(KEY) == highest
    assert store.highest_generation(RunKey("orders/o", 2, 1)) == 0
    over = ended(stop_asked(RUN, 0))
    store.save_run(over)
    store.forget_run(over)
    assert store.runs() == []
    assert store.highest_generation(KEY) == 3


def test_what_may_run_is_never_forgotten(store: Store) -> None:
    """Goal: no container without a record. Method: forget a live run."""
    store.save_run(RUN)
    with pytest.raises(AssertionError):
        store.forget_run(RUN)


def test_a_workload_goes_with_its_run(store: Store, tmp_path: Path) -> None:
    """Goal: a tenant's secrets are wiped, from the disk too. Method: keep one, end the run, look into all its files; the
    same with a kill between the commit and the emptying of the log, and another life.
    """

    def on_disk(folder: Path) -> bool:
        return any(b"the tenant's password" in path.read_bytes() for path in folder.iterdir())

    store.save_run(RUN)
    store.save_workload(KEY, b"the tenant's password")
    assert store.workload(KEY) == b"the tenant's password"
    store.save_run(became_ready(RUN))
    assert store.workload(KEY) is not None
    assert on_disk(tmp_path / "state")
    killed = tmp_path / "killed"
    with store.transaction():
        store.save_run(ended(stop_asked(RUN, 0)))
        store._wiped = False
    assert store.workload(KEY) is None
    shutil.copytree(tmp_path / "state", killed)
    assert on_disk(killed), "committed, and still in the log"
    again = Store.open(killed / "state.sqlite")
    assert not on_disk(killed), "not only once the file is closed in order"
    again.close()
    store.save_run(RUN)
    store.save_workload(KEY, b"the tenant's password")
    store.save_run(ended(stop_asked(RUN, 0)))
    assert store.workload(KEY) is None
    assert not on_disk(tmp_path / "state")


def test_answers_and_restarts_are_kept(store: Store, tmp_path: Path) -> None:
    """Goal: repeats get the same answer in the next life. Method: through the disk."""
    store.save_answer("c", 2, "DRAINING", "no")
    assert store.count_restart("x", "leases/l") == 1
    assert store.count_restart("x", "leases/l") == 2
    store.save_fact("agent", "me")
    again = reopened(store, tmp_path)
    assert (again.answer("c"), again.restarts("x"), again.fact("agent")) == ((2, "DRAINING", "no"), 2, "me")
    assert (again.answer("d"), again.restarts("y"), again.fact("other")) == (None, 0, None)
    again.close()


def test_the_file_is_private_and_one_agents(store: Store, tmp_path: Path) -> None:
    """Goal: no second agent on one state, no reader. Method: open it again while it is open; its mode."""
    path = tmp_path / "state" / "state.sqlite"
    with pytest.raises(StoreError, match="another agent"):
        Store.open(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_another_releases_file_is_refused(store: Store, tmp_path: Path) -> None:
    """Goal: an old agent does not spoil a newer state. Method: a higher version."""
    store.close()
    path = tmp_path / "state" / "state.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="99"):
        Store.open(path)
