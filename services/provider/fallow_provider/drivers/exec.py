"""The exec driver: plain processes of this machine, without isolation, for development only.

It takes the image ``exec:host`` and no other: programs of the host under the agent's own user. Processor and memory
limits are not enforced and devices are not held. Each container has a folder with what to run, its working directory,
its log and its exit status, and a shim process that keeps it (``exec_shim``). Whether a container runs is asked of the
kernel: the shim holds a record lock on the folder's ``lock``. Processes live in a session of their own and carry
``FALLOW_AGENT`` and ``FALLOW_CONTAINER`` in their environment, so they outlive the agent, are adopted by the next one,
and whatever escapes its process group is still found and stopped. A dead agent cannot stop anything, so the shim itself
ends a process once the market has heard nothing for longer than its lease allows: the agent writes down when it did.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from fallow_chassis.clock import Clock
from fallow_provider.domain.reasons import EXEC_REFUSED, IMAGE_UNSUPPORTED, START_FAILED, WORKLOAD_UNSUPPORTED
from fallow_provider.domain.workload import Container, ContainerKey, parse_key
from fallow_provider.drivers import processes
from fallow_provider.drivers.exec_sessions import ProcessSession
from fallow_provider.drivers.host_ports import free_ports, port_environment
from fallow_provider.drivers.log_files import read_log
from fallow_provider.ports import (
    ContainerFigures,
    ContainerStatus,
    DriverRefusedError,
    DriverUnavailableError,
    ExecResult,
    Fingerprint,
    HostAddress,
    LogLine,
    LogQuery,
    Progress,
    TerminalSize,
)

IMAGE: Final = "exec:host"
POLL_SECONDS: Final = 0.05
SHIM_START_SECONDS: Final = 10.0
KILL_SECONDS: Final = 10.0
SHIM_YIELDED_STATUS: Final = 3
"""How a shim ends that found the container kept by another, stopped or gone."""
MAX_EXEC_OUTPUT_BYTES: Final = 64 * 1024
ISOLATION: Final = "no isolation: plain processes under the agent's user; processor, memory and devices are not limited"
_SHIM: Final = Path(__file__).with_name("exec_shim.py")
_SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ExecDriver:
    """Runs plain processes; ``root`` is a private folder of the agent, ``agent`` marks its processes."""

    def __init__(self, root: Path, agent: str, clock: Clock, *, host: str = "127.0.0.1") -> None:
        """``host`` is where ports are looked for and answered; the folder is made for the first container."""
        self._root = root
        self._agent = agent
        self._clock = clock
        self._host = host
        self._shims: set[int] = set()

    @property
    def name(self) -> str:
        """Name of the driver."""
        return "exec"

    async def fingerprint(self) -> Fingerprint:
        """Works wherever there is Linux."""
        return Fingerprint("exec", sys.platform == "linux", sys.platform, ISOLATION, gives_devices=True)

    async def prepare(self, container: Container, progress: Progress) -> None:
        """Nothing is fetched; refuses every image but ``exec:host``."""
        if container.image != IMAGE:
            raise DriverRefusedError(IMAGE_UNSUPPORTED, f"the exec driver runs only {IMAGE}, not {container.image}")
        if not container.command and not container.arguments:
            raise DriverRefusedError(WORKLOAD_UNSUPPORTED, f"{IMAGE} has no entry point: the container needs a command")
        if container.mount_paths:
            raise DriverRefusedError(WORKLOAD_UNSUPPORTED, "the exec driver has no volumes")
        if container.is_root_read_only:
            raise DriverRefusedError(WORKLOAD_UNSUPPORTED, "the exec driver cannot make the root read-only")

    async def start(self, container: Container) -> ContainerStatus:
        """Make the process run; one that runs already is adopted."""
        await self.prepare(container, _silent)
        folder = self._folder(container.key)
        shim = None
        if processes.lock_holder(folder / "lock") is None:
            await self._kill_marked(container.key)
            if not folder.exists():
                self._make(folder, container)
            (folder / "stopped").unlink(missing_ok=True)
            shim = self._spawn(folder)
        await self._wait_started(folder, shim)
        status = await self.inspect(container.key)
        assert status is not None, "a container that was just made is there"
        return status

    async def recover(self) -> Sequence[ContainerStatus]:
        """Every folder, and every marked process whose folder is gone."""
        self._reap()
        found = {}
        for folder in self._root.iterdir() if self._root.exists() else ():
            key = _key_of(folder)
            if key is not None:
                found[key] = self._status(key, folder)
        for pid, environment in processes.marked("FALLOW_AGENT", self._agent):
            key = parse_key(environment.get("FALLOW_CONTAINER", ""))
            if key is not None and key not in found:
                found[key] = ContainerStatus(key, str(pid), is_running=True)
        return list(found.values())

    async def wait(self, key: ContainerKey) -> int | None:
        """The exit status once nobody keeps the process any more."""
        folder = self._folder(key)
        while processes.lock_holder(folder / "lock") is not None:
            await asyncio.sleep(POLL_SECONDS)
        self._reap()
        return _exit_status(folder)

    async def freeze(self, key: ContainerKey) -> None:
        """SIGSTOP to all its processes, and to those that were made meanwhile."""
        while running := [pid for pid in self._marked(key) if not processes.is_stopped(pid)]:
            for pid in running:
                processes.signal_process(pid, signal.SIGSTOP)
            await asyncio.sleep(POLL_SECONDS)

    async def thaw(self, key: ContainerKey) -> None:
        """SIGCONT to all its processes."""
        for pid in self._marked(key):
            processes.signal_process(pid, signal.SIGCONT)

    async def stop(self, key: ContainerKey, grace_ms: int) -> None:
        """SIGTERM to the process group, SIGKILL after the grace, then whatever escaped the group."""
        folder = self._folder(key)
        if folder.exists():
            # A shim that is only just starting sees this and ends.
            (folder / "stopped").touch()
            await self.thaw(key)
            await self._stop_kept(folder, grace_ms)
        await self._kill_marked(key)
        self._reap()

    async def destroy(self, key: ContainerKey) -> None:
        """Stop it and remove the folder, under the lock so that no late shim starts in it."""
        await self.stop(key, 0)
        folder = self._folder(key)
        if not folder.exists():
            return
        with (folder / "lock").open("r+b") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX)
            shutil.rmtree(folder)

    async def inspect(self, key: ContainerKey) -> ContainerStatus | None:
        """The container as the kernel and its folder say."""
        folder = self._folder(key)
        return self._status(key, folder) if (folder / "container.json").exists() else None

    async def logs(self, key: ContainerKey, query: LogQuery) -> AsyncGenerator[LogLine, None]:
        """The shim's log files."""
        folder = self._folder(key)
        if not folder.exists():
            return
        source = read_log(folder, query, lambda: processes.lock_holder(folder / "lock") is None)
        async with contextlib.aclosing(source) as lines:
            async for line in lines:
                yield line

    async def exec(self, key: ContainerKey, command: Sequence[str], timeout: float) -> ExecResult:
        """Run a program of the host in the container's folder with its environment."""
        folder = self._folder(key)
        environment = _read(folder / "container.json").get("environment", {})
        output = bytearray()
        try:
            session = await ProcessSession.open(command, folder / "work", environment, secrets.token_hex(16), None)
        except DriverRefusedError as error:
            return ExecResult(127, error.detail)
        try:
            async with asyncio.timeout(timeout):
                await session.close_input()
                while (part := await session.read()) is not None:
                    output += part[1]
                    del output[:-MAX_EXEC_OUTPUT_BYTES]
                status = await session.wait()
        finally:
            await session.close()
        return ExecResult(status, output.decode("utf-8", "replace"))

    async def open_exec(
        self, key: ContainerKey, command: Sequence[str], terminal: TerminalSize | None
    ) -> ProcessSession:
        """Run a program of the host in the container's folder with its environment, for somebody who talks with it."""
        status = await self.inspect(key)
        if status is None or not status.is_running or status.is_frozen:
            raise DriverRefusedError(EXEC_REFUSED, "the container does not run")
        folder = self._folder(key)
        environment = _read(folder / "container.json").get("environment", {})
        return await ProcessSession.open(command, folder / "work", environment, secrets.token_hex(16), terminal)

    async def stats(self, key: ContainerKey) -> ContainerFigures | None:
        """The sum over the container's processes."""
        figures = [
            usage
            for pid, _ in processes.marked("FALLOW_CONTAINER", key.text())
            if (usage := processes.usage(pid)) is not None
        ]
        if not figures:
            return None
        return ContainerFigures(sum(cpu for cpu, _ in figures), sum(memory for _, memory in figures))

    def heard(self, at_ms: int) -> None:
        """Tell the shims, which end their process when the market has heard nothing for too long."""
        if self._root.exists():
            draft = self._root / ".heard.new"
            draft.write_text(str(at_ms), "ascii")
            draft.replace(self._root / "heard")

    async def close(self) -> None:
        """Nothing to let go: processes go on."""
        self._reap()

    def _folder(self, key: ContainerKey) -> Path:
        """The container's folder."""
        return self._root / key.name

    def _make(self, folder: Path, container: Container) -> None:
        """Write a container's folder in one step, so that there is never half of one."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = folder.with_name(f".{folder.name}.new")
        shutil.rmtree(draft, ignore_errors=True)
        (draft / "work").mkdir(mode=0o700, parents=True)
        (draft / "lock").touch(mode=0o600)
        (draft / "log").touch(mode=0o600)
        ports = free_ports(self._host, [port.container_port for port in container.ports])
        description = {
            "key": container.key.text(),
            "command": [*container.command, *container.arguments],
            "environment": self._environment(container, ports, folder / "work"),
            "ports": ports,
            "self_stop_ms": container.self_stop_ms,
        }
        file = draft / "container.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps(description), "utf-8")
        draft.rename(folder)

    def _environment(self, container: Container, ports: Mapping[int, int], home: Path) -> dict[str, str]:
        """The process's whole environment: nothing of the agent's own gets in."""
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{_SYSTEM_PATH}",
            "HOME": str(home),
            "LANG": "C.UTF-8",
            **container.environment,
        }
        environment.update(port_environment(container, ports, self._host))
        environment["FALLOW_AGENT"] = self._agent
        environment["FALLOW_CONTAINER"] = container.key.text()
        return environment

    def _spawn(self, folder: Path) -> int:
        """Start the shim in a session of its own, with nothing of the agent's open or in its environment; its pid."""
        null = os.open(os.devnull, os.O_RDWR)
        errors = os.open(folder / "shim.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", str(_SHIM), str(folder)],
                {"PATH": _SYSTEM_PATH},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, null, 0),
                    (os.POSIX_SPAWN_DUP2, errors, 1),
                    (os.POSIX_SPAWN_DUP2, errors, 2),
                ],
                setsid=True,
            )
        finally:
            os.close(null)
            os.close(errors)
        return pid

    async def _wait_started(self, folder: Path, shim: int | None) -> None:
        """Wait until whoever keeps the container has started its process, or has seen it end.

        ``shim`` is the one that was started for it, None where it was kept already. A shim that finds another ends.
        """
        deadline_ms = self._clock.monotonic_ms() + round(SHIM_START_SECONDS * 1_000)
        ended: int | None = None
        try:
            while True:
                if shim is not None and ended is None:
                    ended = _exit_code(shim)
                holder = processes.lock_holder(folder / "lock")
                if holder is not None and _read(folder / "process.json").get("shim_pid") == holder:
                    return
                if holder is None and (shim is None or ended in {0, SHIM_YIELDED_STATUS}):
                    return
                if ended is not None and ended not in {0, SHIM_YIELDED_STATUS}:
                    raise DriverRefusedError(START_FAILED, f"the shim ended: {_last_line(folder / 'shim.log')}")
                if self._clock.monotonic_ms() > deadline_ms:
                    raise DriverRefusedError(START_FAILED, "the shim did not start the process in time")
                await asyncio.sleep(POLL_SECONDS / 5)
        finally:
            if shim is not None and ended is None:
                self._shims.add(shim)

    async def _stop_kept(self, folder: Path, grace_ms: int) -> None:
        """Stop what a shim keeps: politely, then hard, then the shim itself."""
        for number, wait_ms in ((signal.SIGTERM, grace_ms), (signal.SIGKILL, round(KILL_SECONDS * 1_000))):
            shim = processes.lock_holder(folder / "lock")
            if shim is None:
                return
            process = _read(folder / "process.json")
            if process and processes.is_same_process(process["pid"], process["start_ticks"]):
                processes.signal_group(process["pid"], number)
            elif number is signal.SIGKILL:
                processes.signal_process(shim, number)
            if await self._is_let_go(folder, wait_ms):
                return
        shim = processes.lock_holder(folder / "lock")
        if shim is not None:
            processes.signal_process(shim, signal.SIGKILL)
            await self._is_let_go(folder, round(KILL_SECONDS * 1_000))

    async def _is_let_go(self, folder: Path, wait_ms: int) -> bool:
        """Whether the lock is free after at most ``wait_ms``."""
        deadline_ms = self._clock.monotonic_ms() + wait_ms
        while processes.lock_holder(folder / "lock") is not None:
            if self._clock.monotonic_ms() >= deadline_ms:
                return False
            await asyncio.sleep(POLL_SECONDS)
        return True

    async def _kill_marked(self, key: ContainerKey) -> None:
        """Kill what bears the container's mark, whatever group or session it moved to; returns once it is gone."""
        try:
            async with asyncio.timeout(KILL_SECONDS):
                while pids := self._marked(key):
                    for pid in pids:
                        processes.signal_process(pid, signal.SIGKILL)
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError as error:
            raise DriverUnavailableError(f"{key.text()}: killed processes are still there") from error

    def _marked(self, key: ContainerKey) -> list[int]:
        """Processes of this agent that bear the container's mark."""
        found = processes.marked("FALLOW_CONTAINER", key.text())
        return [pid for pid, environment in found if environment.get("FALLOW_AGENT") == self._agent]

    def _status(self, key: ContainerKey, folder: Path) -> ContainerStatus:
        """What the kernel says about the lock, and the folder about the rest."""
        description = _read(folder / "container.json")
        is_running = processes.lock_holder(folder / "lock") is not None
        process = _read(folder / "process.json")
        ports = {int(port): HostAddress(self._host, taken) for port, taken in description.get("ports", {}).items()}
        exit_status = None if is_running else _exit_status(folder)
        is_frozen = is_running and "pid" in process and processes.is_stopped(process["pid"])
        return ContainerStatus(key, str(process.get("pid", "")), is_running, exit_status, ports, is_frozen)

    def _reap(self) -> None:
        """Take note of shims of this life of the agent that have ended."""
        self._shims = {pid for pid in self._shims if _exit_code(pid) is None}


def _exit_code(pid: int) -> int | None:
    """How a child of ours ended; None while it lives. To be asked once it has ended, and not again."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return 0
    return os.waitstatus_to_exitcode(status) if found else None


def _key_of(folder: Path) -> ContainerKey | None:
    """The key that a folder was made for; None for drafts and whatever else is there."""
    if folder.name.startswith(".") or not folder.is_dir():
        return None
    return parse_key(str(_read(folder / "container.json").get("key", "")))


def _read(path: Path) -> dict[str, Any]:
    """A small JSON file; empty if it is not there."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    assert isinstance(content, dict), "the driver and the shim write objects"
    return content


def _exit_status(folder: Path) -> int | None:
    """The exit status that the shim wrote; None if it could not."""
    status = _read(folder / "exit.json").get("status")
    return None if status is None else int(status)


def _last_line(path: Path) -> str:
    """The last line of a small file, for a detail."""
    lines = path.read_text("utf-8", errors="replace").splitlines() if path.exists() else []
    return lines[-1] if lines else "no word from it"


def _silent(_progress: str) -> None:
    """A progress that nobody follows."""
