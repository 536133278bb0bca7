"""The folder that keeps all data of an embedded stack, and who runs one there.

A lock file says whether a supervisor runs, and its pid (the kernel drops the lock when it dies, however it dies); a
status file says what runs. The status file is replaced whole at each change, so a reader never sees half of one.

Another stack's folder may lie inside (the demo's lies in `.fallow/demo`), and what `make kafka` keeps does
(`.fallow/kafka`). Data is therefore forgotten only under the locks of all folders, and never Kafka's jars or that node.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from fallow_stack.loopback_ports import free_port

LOCK_NAME = "lock"
# What `make kafka` keeps beside the data of a stack's own node.
KAFKA_FOLDER = "kafka"
KAFKA_KEPT = frozenset({"lib", "lib.lock", "lib.pom.xml", "node"})


class StackRunningError(Exception):
    """Another supervisor holds the folder."""


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """One process of a stack as the status file shows it. Times are seconds since 1970."""

    name: str
    state: str
    pid: int
    port: int
    started: float
    restarts: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class StackStatus:
    """All processes of a stack, and the supervisor's own pid."""

    pid: int
    members: tuple[MemberStatus, ...]


class Home:
    """Paths under the folder, its lock and its status."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._lock: int | None = None

    def folder(self, *parts: str) -> Path:
        """A folder under the root, made if need be."""
        path = self.root.joinpath(*parts)
        path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def keys(self) -> Path:
        """Development keys; readable by the owner only."""
        path = self.folder("keys")
        path.chmod(0o700)
        return path

    @property
    def logs(self) -> Path:
        """One log file a process."""
        return self.folder("logs")

    @property
    def profile(self) -> Path:
        """The profile of the development tenant, for the `fallow` command."""
        return self.root / "client.json"

    @property
    def _status_file(self) -> Path:
        return self.root / "stack.json"

    def lock(self) -> None:
        """Take the folder for this process. Raises StackRunningError when another has it."""
        self.root.mkdir(parents=True, exist_ok=True)
        self._lock = _take_lock(self.root)
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode("ascii"), 0)

    def unlock(self) -> None:
        """Give the folder back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def holder(self) -> int | None:
        """The pid of the process that holds the folder now; None when nobody does."""
        if not self.is_locked():
            return None
        text = (self.root / LOCK_NAME).read_text("ascii")
        return int(text) if text else None

    def is_locked(self) -> bool:
        """Whether another process holds the folder now."""
        if not self.root.exists():
            return False
        try:
            os.close(_take_lock(self.root))
        except StackRunningError:
            return True
        return False

    def write_status(self, status: StackStatus) -> None:
        """Replace the status file."""
        draft = self._status_file.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(status), indent=2), "utf-8")
        draft.replace(self._status_file)

    def read_status(self) -> StackStatus | None:
        """What the status file says; None when there is none."""
        try:
            content = json.loads(self._status_file.read_text("utf-8"))
        except FileNotFoundError:
            return None
        return StackStatus(content["pid"], tuple(MemberStatus(**item) for item in content["members"]))

    def ports(self, names: Iterable[str]) -> dict[str, int]:
        """A loopback port for each name: the one of the last run where it is still free, otherwise a new one."""
        file = self.root / "ports.json"
        known: dict[str, int] = json.loads(file.read_text("utf-8")) if file.exists() else {}
        ports = {name: free_port(known.get(name, 0)) for name in names}
        file.write_text(json.dumps(known | ports, indent=2), "utf-8")
        return ports

    def wipe(self, elsewhere: Callable[[Path], Path]) -> None:
        """Forget the data of this folder and of stacks inside it. Raises StackRunningError where one of them runs.

        ``elsewhere`` tells where the data of a Postgres folder lies if another user runs the server.
        """
        with ExitStack() as held:
            for folder in (self.root, *(lock.parent for lock in sorted(self.root.glob(f"*/{LOCK_NAME}")))):
                held.callback(os.close, _take_lock(folder))
            for postgres in (self.root / "postgres", *self.root.glob("*/postgres")):
                if (data := elsewhere(postgres)).exists():
                    shutil.rmtree(data)
            if (kafka := self.root / KAFKA_FOLDER).exists():
                _empty(kafka, KAFKA_KEPT)
            _empty(self.root, {KAFKA_FOLDER} if kafka.exists() else ())


def _empty(folder: Path, kept: Collection[str]) -> None:
    """Remove what is in a folder but what is kept, and the folder if nothing is; a lock file goes last."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == LOCK_NAME):
        if path.name in kept:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def _take_lock(folder: Path) -> int:
    """A descriptor that holds the lock of a folder; StackRunningError when another process has it."""
    file = folder / LOCK_NAME
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise StackRunningError(f"a stack runs already in {folder}") from None
        # Who wipes a folder removes the file under the lock: one that was opened before that locks nothing.
        if file.exists() and os.fstat(descriptor).st_ino == file.stat().st_ino:
            return descriptor
        os.close(descriptor)
