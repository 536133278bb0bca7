"""The agent's memory: one SQLite file of its own, written through before anything is promised.

Runs are kept in memory too, since nobody else writes the file; what is read is always what is on the disk. A
``transaction`` commits as a whole or not at all, and a commit is on the disk when it returns (``synchronous=FULL``).
Calls take well under a millisecond (a commit a few), so they run on the event loop. A second agent on the same file is
refused: the file is locked for as long as it is open. Workloads may hold secrets: the file's mode is 0600 and a workload
is wiped when its run is over: its pages are overwritten, and the write-ahead log is emptied right after the commit, at the
next opening if we are killed between.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from fallow_chassis.sql import Queries
from fallow_provider.domain.run import DeviceUse, Placement, Run, RunKey, RunState

QUERIES: Final = Queries.load("fallow_provider")
SCHEMA_VERSION: Final = 1
EMPTY_LOG: Final = "PRAGMA wal_checkpoint(TRUNCATE)"
COMMANDS_KEPT: Final = 10_000
"""Answers to commands that are kept for repeats; older commands are answered by what became of their run."""


class StoreError(Exception):
    """The state cannot be opened: another agent has it, or another release made it."""


class Store:
    """See the module."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Use ``open``."""
        self._connection = connection
        self._runs: dict[RunKey, Run] = {}
        self._depth = 0
        self._wiped = False

    @classmethod
    def open(cls, path: Path) -> "Store":
        """Open or make the file; StoreError if another process has it or its version is not ours."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=True)
        connection = sqlite3.connect(path, isolation_level=None, timeout=0)
        connection.row_factory = sqlite3.Row
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA secure_delete = ON")
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if version not in {0, SCHEMA_VERSION}:
                raise StoreError(f"{path} has version {version}; this release reads {SCHEMA_VERSION}")
            connection.executescript(QUERIES.get("create_schema"))
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute(EMPTY_LOG).fetchone()
        except sqlite3.OperationalError as error:
            connection.close()
            raise StoreError(f"cannot open {path}: {error} (does another agent use it?)") from error
        except StoreError:
            connection.close()
            raise
        store = cls(connection)
        store._reload()
        return store

    def close(self) -> None:
        """Let the file go."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written inside is on the disk when it ends, or nothing is; may be nested."""
        if self._depth:
            yield
            return
        self._connection.execute("BEGIN IMMEDIATE")
        self._depth = 1
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self._reload()
            self._wiped = False
            raise
        finally:
            self._depth = 0
        if self._wiped:
            self._connection.execute(EMPTY_LOG).fetchone()
            self._wiped = False

    def fact(self, name: str) -> str | None:
        """A fact about the agent by name; None if it was never written."""
        row = self._connection.execute(QUERIES.get("load_fact"), {"name": name}).fetchone()
        return None if row is None else str(row["value"])

    def save_fact(self, name: str, value: str) -> None:
        """Write a fact."""
        with self.transaction():
            self._connection.execute(QUERIES.get("save_fact"), {"name": name, "value": value})

    def answer(self, command_id: str) -> tuple[int, str, str] | None:
        """Outcome, reason and detail that a command got; None if it is new or long ago."""
        row = self._connection.execute(QUERIES.get("load_command"), {"command_id": command_id}).fetchone()
        return None if row is None else (int(row["outcome"]), str(row["reason"]), str(row["detail"]))

    def save_answer(self, command_id: str, outcome: int, reason: str, detail: str) -> None:
        """Write down what a command got."""
        values = {"command_id": command_id, "outcome": outcome, "reason": reason, "detail": detail}
        with self.transaction():
            self._connection.execute(QUERIES.get("save_command"), values)
            self._connection.execute(QUERIES.get("forget_old_commands"), {"kept": COMMANDS_KEPT})

    def highest_generation(self, key: RunKey) -> int:
        """The highest generation of a group that was ever seen; 0 for none."""
        row = self._connection.execute(
            QUERIES.get("load_highest_generation"), {"order_name": key.order, "group_index": key.group}
        ).fetchone()
        return 0 if row is None else int(row["generation"])

    def saw_generation(self, key: RunKey) -> None:
        """Write down that a generation was seen; lower ones change nothing."""
        with self.transaction():
            self._connection.execute(QUERIES.get("raise_highest_generation"), _key_values(key))

    def runs(self) -> list[Run]:
        """All runs, in the order of their keys."""
        return [self._runs[key] for key in sorted(self._runs)]

    def run(self, key: RunKey) -> Run | None:
        """One run."""
        return self._runs.get(key)

    def save_run(self, run: Run) -> None:
        """Write a run as it is now; the workload of one that is over is wiped."""
        with self.transaction():
            self._connection.execute(QUERIES.get("save_run"), _run_values(run))
            if run.state.is_terminal and self.workload(run.key) is not None:
                self._wiped = True
                self._connection.execute(QUERIES.get("save_workload"), {**_key_values(run.key), "workload": None})
            self._runs[run.key] = run

    def forget_run(self, run: Run) -> None:
        """Forget a run that is over; its generation stays known."""
        assert run.state.is_terminal, "what may still run is never forgotten"
        with self.transaction():
            self._connection.execute(QUERIES.get("forget_run"), _key_values(run.key))
            self._connection.execute(QUERIES.get("forget_restarts"), {"lease": run.lease})
            self._runs.pop(run.key, None)

    def workload(self, key: RunKey) -> bytes | None:
        """The workload of a run, serialized; None until it was fetched."""
        row = self._connection.execute(QUERIES.get("load_workload"), _key_values(key)).fetchone()
        return None if row is None or row["workload"] is None else bytes(row["workload"])

    def save_workload(self, key: RunKey, workload: bytes) -> None:
        """Keep the workload of a run, so that a restart of the agent needs nobody."""
        with self.transaction():
            self._connection.execute(QUERIES.get("save_workload"), {**_key_values(key), "workload": workload})

    def count_restart(self, container: str, lease: str) -> int:
        """Count one more restart of a container and return how many there were."""
        with self.transaction():
            self._connection.execute(QUERIES.get("count_restart"), {"container": container, "lease": lease})
        return self.restarts(container)

    def restarts(self, container: str) -> int:
        """How often a container was started again."""
        row = self._connection.execute(QUERIES.get("load_restarts"), {"container": container}).fetchone()
        return 0 if row is None else int(row["restarts"])

    def _reload(self) -> None:
        """Read all runs from the disk."""
        rows = self._connection.execute(QUERIES.get("load_runs")).fetchall()
        self._runs = {run.key: run for run in map(_run_of, rows)}


def _key_values(key: RunKey) -> dict[str, Any]:
    """A key's columns."""
    return {"order_name": key.order, "group_index": key.group, "generation": key.generation}


def _run_values(run: Run) -> dict[str, Any]:
    """A run's columns."""
    return {
        **_key_values(run.key),
        "lease": run.lease,
        "placements": json.dumps([_placement_value(placement) for placement in run.placements]),
        "self_stop_ms": run.self_stop_ms,
        "start_timeout_ms": run.start_timeout_ms,
        "order_address": run.order_address,
        "workload_grant": run.workload_grant,
        "accepted_at_ms": run.accepted_at_ms,
        "machine_boot_id": run.machine_boot_id,
        "state": int(run.state),
        "reason": run.reason,
        "detail": run.detail,
        "progress": run.progress,
        "grace_ms": run.grace_ms,
        "running_ms": run.running_ms,
        "proof_sequence": run.proof_sequence,
        "final_sequence": run.final_sequence,
        "final_acknowledged": int(run.final_acknowledged),
    }


def _placement_value(placement: Placement) -> list[Any]:
    """A placement as JSON."""
    devices = [[device.node_id, device.device_id, device.milli] for device in placement.devices]
    return [placement.service, placement.replica, placement.node_id, devices]


def _run_of(row: sqlite3.Row) -> Run:
    """A run from its row."""
    placements = tuple(
        Placement(service, replica, node_id, tuple(DeviceUse(*device) for device in devices))
        for service, replica, node_id, devices in json.loads(row["placements"])
    )
    return Run(
        lease=row["lease"],
        key=RunKey(row["order_name"], row["group_index"], row["generation"]),
        placements=placements,
        self_stop_ms=row["self_stop_ms"],
        start_timeout_ms=row["start_timeout_ms"],
        order_address=row["order_address"],
        workload_grant=row["workload_grant"],
        accepted_at_ms=row["accepted_at_ms"],
        machine_boot_id=row["machine_boot_id"],
        state=RunState(row["state"]),
        reason=row["reason"],
        detail=row["detail"],
        progress=row["progress"],
        grace_ms=row["grace_ms"],
        running_ms=row["running_ms"],
        proof_sequence=row["proof_sequence"],
        final_sequence=row["final_sequence"],
        final_acknowledged=bool(row["final_acknowledged"]),
    )
