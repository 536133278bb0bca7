"""Keeps one workload process: writes its output with stream and time, and its exit status, and outlives the agent.

The agent starts it as a script of its own (`python -I -S exec_shim.py FOLDER`), so it imports the standard library
alone. FOLDER holds `container.json` (what to run). The shim first takes a record lock on `lock`, which the kernel holds
as long as the shim lives: whoever asks for the lock learns whether the workload runs and who keeps it, and a second shim
for the same folder ends at once, so that no container ever runs twice. Then it starts the workload in a session of its
own, writes `process.json`, copies lines to `log`, and at the end writes `exit.json`. The workload is killed by the
kernel if the shim is killed. While the agent is dead nobody tells the shim to stop, so it looks itself how long ago the
market last heard of the agent.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

MAX_LINE_BYTES = 64 * 1024
MAX_LOG_BYTES = 16 * 1024 * 1024
CHUNK_BYTES = 64 * 1024
POLL_SECONDS = 0.1
DRAIN_MS = 1_000
LOOK_MS = 500
SILENCE_GRACE_MS = 5_000
AGENT_FIRST_MS = 2_000  # a live agent stops the run itself, and knows why
PR_SET_PDEATHSIG = 1
NOT_FOUND_STATUS = 127
SIGNALLED_STATUS = 128
IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


def main(folder: Path) -> int:
    """Keep the workload of a folder until it ends; 0 if it was kept, 3 if it is another's or gone."""
    lock = os.open(folder / "lock", os.O_RDWR)
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return 3
    # The folder may have been destroyed between the open and the lock: then the path leads elsewhere or nowhere.
    try:
        current = os.stat(folder / "lock")
    except FileNotFoundError:
        return 3
    if (current.st_dev, current.st_ino) != (os.fstat(lock).st_dev, os.fstat(lock).st_ino):
        return 3
    if (folder / "stopped").exists():
        return 3
    # What an earlier run left is wiped by who holds the lock, never by who only means to start one.
    for name in ("exit.json", "process.json"):
        (folder / name).unlink(missing_ok=True)
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    log = Log(folder / "log")
    status = keep(folder, json.loads((folder / "container.json").read_bytes()), log)
    write(folder / "exit.json", {"status": status, "time_ms": time.time_ns() // 1_000_000})
    return 0


def keep(folder: Path, container: dict[str, Any], log: "Log") -> int:
    """Run the workload to its end and return its exit status, 128 + n for a signal."""
    try:
        process = subprocess.Popen(
            container["command"],
            cwd=folder / "work",
            env=container["environment"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=prepare_child,
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        log.line("E", f"cannot start {container['command'][0]}: {error}".encode())
        return NOT_FOUND_STATUS
    write(
        folder / "process.json",
        {
            "shim_pid": os.getpid(),
            "shim_start_ticks": start_ticks(os.getpid()),
            "pid": process.pid,
            "start_ticks": start_ticks(process.pid),
        },
    )
    copy_output(process, log, Silence(folder, container.get("self_stop_ms", 0)))
    status = process.wait()
    # What it left behind in its process group must not outlive it.
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except OSError:
        pass
    return status if status >= 0 else SIGNALLED_STATUS - status


def copy_output(process: "subprocess.Popen[bytes]", log: "Log", silence: "Silence") -> None:
    """Copy both streams until the process has ended and they are empty, or a child that it left keeps them open."""
    selector = selectors.DefaultSelector()
    pending = {}
    for name, pipe in (("O", process.stdout), ("E", process.stderr)):
        assert pipe is not None, "both streams are pipes"
        os.set_blocking(pipe.fileno(), False)
        selector.register(pipe, selectors.EVENT_READ, name)
        pending[name] = b""
    ended_at_ms = None
    while True:
        for key, _ in selector.select(timeout=POLL_SECONDS):
            chunk = os.read(key.fd, CHUNK_BYTES)
            if not chunk:
                selector.unregister(key.fileobj)
                continue
            *lines, rest = (pending[key.data] + chunk).split(b"\n")
            for line in lines:
                log.line(key.data, line)
            if len(rest) > MAX_LINE_BYTES:
                log.line(key.data, rest)
                rest = b""
            pending[key.data] = rest
        if process.poll() is None:
            silence.end(process.pid, log)
            continue
        ended_at_ms = ended_at_ms or monotonic_ms()
        if not selector.get_map() or monotonic_ms() - ended_at_ms > DRAIN_MS:
            break
    for name, rest in pending.items():
        if rest:
            log.line(name, rest)


class Silence:
    """Ends the workload when the market has heard nothing of the agent for too long, as a live agent would have."""

    def __init__(self, folder: Path, self_stop_ms: int) -> None:
        self.heard = folder.parent / "heard"
        self.self_stop_ms = self_stop_ms
        self.started_at_ms = self.looked_at_ms = monotonic_ms()
        self.asked_at_ms = 0

    def end(self, group: int, log: "Log") -> None:
        """Ask the group to end if it is time, and kill it when it does not; the file is read twice a second at most."""
        now_ms = monotonic_ms()
        if not self.self_stop_ms or now_ms - self.looked_at_ms < LOOK_MS:
            return
        self.looked_at_ms = now_ms
        heard_at_ms = self.started_at_ms
        with contextlib.suppress(FileNotFoundError, ValueError):
            heard_at_ms = max(heard_at_ms, int(self.heard.read_text("ascii")))
        if now_ms - heard_at_ms <= self.self_stop_ms + AGENT_FIRST_MS:
            return
        if not self.asked_at_ms:
            self.asked_at_ms = now_ms
            log.line("E", b"fallow: the market has not heard of the provider's agent for too long; ending")
        number = signal.SIGTERM if now_ms - self.asked_at_ms < SILENCE_GRACE_MS else signal.SIGKILL
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, number)


def monotonic_ms() -> int:
    """The same reading as the agent's: milliseconds since the machine's start."""
    return time.monotonic_ns() // 1_000_000


class Log:
    """A log file of bounded size; a full one becomes `log.1`, and the one before that is forgotten."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = open(path, "ab", buffering=0)

    def line(self, stream: str, text: bytes) -> None:
        """Append a line: milliseconds since the epoch, the stream's letter, the text."""
        if self.file.tell() > MAX_LOG_BYTES:
            self.file.close()
            os.replace(self.path, self.path.with_name("log.1"))
            self.file = open(self.path, "ab", buffering=0)
        text = text[:MAX_LINE_BYTES].rstrip(b"\r")
        self.file.write(b"%d %s %s\n" % (time.time_ns() // 1_000_000, stream.encode(), text))


def prepare_child() -> None:
    """Undo what only the shim ignores, and have the kernel kill this process when the shim dies."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_DFL)
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def start_ticks(pid: int) -> int:
    """When a process was started, in clock ticks since the machine's start; with the pid it names one process for good."""
    text = Path(f"/proc/{pid}/stat").read_text()
    return int(text.rpartition(")")[2].split()[19])


def write(path: Path, value: dict[str, Any]) -> None:
    """Write a small file in one step."""
    draft = path.with_name(path.name + ".new")
    draft.write_text(json.dumps(value))
    os.replace(draft, path)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
