"""What Linux knows about processes: who holds a record lock, when a process started, which environment marks it.

A process is named for good by its pid and its start time; a pid alone may belong to somebody else by now. A record
lock (fcntl) is held by the kernel exactly as long as its process lives, so asking for its holder never lies.
"""

import contextlib
import fcntl
import os
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_PROC: Final = Path("/proc")
_FLOCK: Final = struct.Struct("@hhqqi")
_START_FIELD: Final = 19
_MAX_ENVIRONMENT_BYTES: Final = 4 * 1024 * 1024


def machine_boot_id() -> str:
    """Id of this life of the machine; monotonic readings of another life mean nothing in this one."""
    return BOOT_ID.read_text("ascii").strip()


def lock_holder(path: Path) -> int | None:
    """The pid of the process that holds the record lock on a file; None if nobody does or there is no such file."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        query = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, query))
    finally:
        os.close(descriptor)
    return None if kind == fcntl.F_UNLCK else int(pid)


def start_ticks(pid: int) -> int | None:
    """When a process was started, in clock ticks since the machine's start; None if there is none or it is dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in {"Z", "X"} else int(fields[_START_FIELD])


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped by a signal until it is told to go on; False where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace").rpartition(")")[2].split()[0] == "T"
    except (FileNotFoundError, ProcessLookupError):
        return False


def is_same_process(pid: int, ticks: int) -> bool:
    """Whether the process that had this pid and start time is still alive."""
    return start_ticks(pid) == ticks


def signal_group(pid: int, number: signal.Signals) -> None:
    """Send a signal to the process group that a process leads; nothing happens if it is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def signal_process(pid: int, number: signal.Signals) -> None:
    """Send a signal to one process; nothing happens if it is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def marked(name: str, value: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Live processes whose environment at their start held ``name=value``, each with that environment."""
    wanted = f"{name}={value}".encode()
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        content = _environment(entry)
        if wanted not in content or start_ticks(int(entry.name)) is None:
            continue
        pairs = (item.decode("utf-8", "replace").partition("=") for item in content)
        yield int(entry.name), {key: text for key, _, text in pairs}


def usage(pid: int) -> tuple[int, int] | None:
    """Processor time (milliseconds) and resident memory (bytes) of a process; None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    ticks = int(fields[11]) + int(fields[12])
    return ticks * 1_000 // os.sysconf("SC_CLK_TCK"), int(fields[21]) * os.sysconf("SC_PAGE_SIZE")


def _environment(entry: Path) -> list[bytes]:
    """The environment with which a process was started; empty where it is gone or not ours to see."""
    try:
        with (entry / "environ").open("rb") as file:
            return file.read(_MAX_ENVIRONMENT_BYTES).split(b"\0")
    except OSError:
        return []
