"""Commands with somebody who talks with them, as plain processes: what the exec driver opens.

A command bears the container's mark and one of its session in its environment, so all that it started is found. Without
a terminal it has three pipes; with one it leads a session on a terminal of its own. A pipe is read when somebody asks for
what it holds, so under a slow reader the command waits.
"""

import asyncio
import fcntl
import os
import shutil
import signal
import struct
import sys
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from fallow_provider.domain.reasons import EXEC_REFUSED
from fallow_provider.drivers import processes
from fallow_provider.ports import DriverRefusedError, DriverUnavailableError, LogStream, TerminalSize

SESSION_MARK: Final = "FALLOW_SESSION"
MAX_CHUNK_BYTES: Final = 64 * 1024
KILL_SECONDS: Final = 10.0
POLL_SECONDS: Final = 0.05
END_OF_INPUT: Final = b"\x04"
"""What a terminal takes for the end of input, at the begin of a line."""
_SHIM: Final = (
    "import os, sys\n"
    "folder, has_terminal, *command = sys.argv[1:]\n"
    "os.login_tty(0) if has_terminal else os.setsid()\n"
    "try:\n"
    "    os.chdir(folder)\n"
    "    os.execvp(command[0], command)\n"
    "except OSError as error:\n"
    "    print(f'{command[0]}: {error.strerror}', file=sys.stderr)\n"
    "    sys.exit(127 if isinstance(error, FileNotFoundError) else 126)\n"
)
"""It becomes the command. A child that is forked from a process which serves gRPC may die before its program begins; one
that is spawned does not, and cannot be given a folder or a terminal.
"""


class ProcessSession:
    """One command. ``open`` starts it."""

    def __init__(self, session: str) -> None:
        """``session`` marks its processes."""
        self._session = session
        self._outputs: dict[int, LogStream] = {}
        self._input: int | None = None
        self._has_terminal = False
        self._pid = 0
        self._status: int | None = None
        self._is_closed = False
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()

    @classmethod
    async def open(
        cls,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        session: str,
        terminal: TerminalSize | None,
    ) -> "ProcessSession":
        """Start the command in a folder; DriverRefusedError EXEC_REFUSED where there is no such program."""
        if shutil.which(command[0], path=environment.get("PATH")) is None and "/" not in command[0]:
            raise DriverRefusedError(EXEC_REFUSED, f"{command[0]}: there is no such program")
        made = cls(session)
        marked = {**environment, SESSION_MARK: session}
        if terminal is None:
            made._start_on_pipes(command, folder, marked)
        else:
            made._start_on_terminal(command, folder, {"TERM": "xterm", **marked}, terminal)
        return made

    async def read(self) -> tuple[LogStream, bytes] | None:
        """What it says next."""
        while self._outputs and not self._is_closed:
            for descriptor, stream in tuple(self._outputs.items()):
                try:
                    data = os.read(descriptor, MAX_CHUNK_BYTES)
                except BlockingIOError:
                    continue
                except OSError:
                    # So ends a terminal whose last process is gone.
                    data = b""
                if data:
                    return stream, data
                self._let_go(descriptor)
            await self._until_readable()
        return None

    async def write(self, data: bytes) -> None:
        """Hand bytes to its input."""
        rest = memoryview(data)
        while rest and self._input is not None:
            try:
                rest = rest[os.write(self._input, rest) :]
            except BlockingIOError:
                await self._until_writable(self._input)
            except OSError:
                return

    async def close_input(self) -> None:
        """Let it see the end of its input."""
        if self._has_terminal:
            await self.write(END_OF_INPUT)
        elif self._input is not None:
            os.close(self._input)
            self._input = None

    async def resize(self, size: TerminalSize) -> None:
        """The kernel sends SIGWINCH to what runs in front."""
        if self._has_terminal and self._input is not None:
            _set_size(self._input, size)

    async def wait(self) -> int:
        """Its exit status."""
        while not self._has_ended():
            await asyncio.sleep(POLL_SECONDS)
        assert self._status is not None, "what has ended has a status"
        return self._status if self._status >= 0 else 128 - self._status

    async def close(self) -> None:
        """Kill what bears the mark, unless the command is over."""
        if not self._is_closed:
            self._is_closed = True
            for descriptor in tuple(self._outputs):
                self._let_go(descriptor)
            if self._input is not None:
                asyncio.get_running_loop().remove_writer(self._input)
                os.close(self._input)
                self._input = None
            self._readable.set()
            self._writable.set()
        if not self._has_ended():
            await self._kill()

    def _start_on_pipes(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        """Three pipes."""
        input_read, self._input = os.pipe()
        output_read, output_write = os.pipe()
        error_read, error_write = os.pipe()
        self._outputs = {output_read: LogStream.STDOUT, error_read: LogStream.STDERR}
        for descriptor in (self._input, output_read, error_read):
            os.set_blocking(descriptor, False)
        self._spawn(["", *command], folder, environment, (input_read, output_write, error_write))

    def _start_on_terminal(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str], size: TerminalSize
    ) -> None:
        """A terminal of its own, which it leads."""
        ours, theirs = os.openpty()
        _set_size(ours, size)
        os.set_blocking(ours, False)
        self._has_terminal = True
        self._outputs = {ours: LogStream.STDOUT}
        self._input = os.dup(ours)
        self._spawn(["terminal", *command], folder, environment, (theirs, theirs, theirs))

    def _spawn(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str], theirs: tuple[int, int, int]
    ) -> None:
        """Start the shim that becomes the command, with these three descriptors, which are its own then."""
        try:
            self._pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", "-c", _SHIM, str(folder), *command],
                environment,
                file_actions=[(os.POSIX_SPAWN_DUP2, descriptor, number) for number, descriptor in enumerate(theirs)],
            )
        finally:
            for descriptor in set(theirs):
                os.close(descriptor)

    def _has_ended(self) -> bool:
        """Whether the command is over; then its status is known."""
        if self._status is None:
            found, status = os.waitpid(self._pid, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if found else None
        return self._status is not None

    def _let_go(self, descriptor: int) -> None:
        """Close an output."""
        asyncio.get_running_loop().remove_reader(descriptor)
        del self._outputs[descriptor]
        os.close(descriptor)

    async def _until_readable(self) -> None:
        """Wait until an output has something, or the session is closed. What is not read stays in its pipe."""
        loop = asyncio.get_running_loop()
        outputs = tuple(self._outputs)
        self._readable.clear()
        for descriptor in outputs:
            loop.add_reader(descriptor, self._readable.set)
        try:
            if outputs:
                await self._readable.wait()
        finally:
            for descriptor in self._outputs:
                loop.remove_reader(descriptor)

    async def _until_writable(self, descriptor: int) -> None:
        """Wait until the input takes more, or the session is closed."""
        loop = asyncio.get_running_loop()
        self._writable.clear()
        loop.add_writer(descriptor, self._writable.set)
        try:
            await self._writable.wait()
        finally:
            if self._input is not None:
                loop.remove_writer(descriptor)

    async def _kill(self) -> None:
        """SIGKILL until nothing is left that bears the mark."""
        try:
            async with asyncio.timeout(KILL_SECONDS):
                while kill_marked(self._session):
                    await asyncio.sleep(POLL_SECONDS)
                await self.wait()
        except TimeoutError as error:
            raise DriverUnavailableError(f"session {self._session}: killed processes are still there") from error


def kill_marked(session: str) -> int:
    """Kill what bears a session's mark and can be seen from here; how many that were."""
    pids = [pid for pid, _ in processes.marked(SESSION_MARK, session)]
    for pid in pids:
        processes.signal_process(pid, signal.SIGKILL)
    return len(pids)


def _set_size(terminal: int, size: TerminalSize) -> None:
    """Set a terminal's size."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", size.rows, size.columns, 0, 0))
