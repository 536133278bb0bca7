"""Commands with somebody who talks with them, through the Docker Engine API.

The engine hands the connection over (``POST /exec/{id}/start`` with an upgrade): without a terminal it sends frames (one
byte for the stream, three of nothing, four for the length), with one the bytes themselves; what is written goes to the
command's input, and closing our half closes that. This reads the connection itself, so what nobody reads is not taken.

The engine cannot kill a command, and one whose connection ends goes on. So each bears a mark in its environment, and a
session that ends first kills what bears it: from this machine where its processes can be seen, else by a shell in the
container. Only where neither is possible does it go on until the container stops, and the log says so.
"""

import asyncio
import json
from collections.abc import Sequence
from typing import Final

import aiodocker
import aiohttp

from fallow_chassis.logging import get_logger
from fallow_provider.domain.reasons import EXEC_REFUSED
from fallow_provider.drivers.exec_sessions import END_OF_INPUT, POLL_SECONDS, SESSION_MARK, kill_marked
from fallow_provider.ports import DriverRefusedError, DriverUnavailableError, LogStream, TerminalSize

MAX_CHUNK_BYTES: Final = 64 * 1024
ANSWER_SECONDS: Final = 20.0
KILL_SECONDS: Final = 10.0
_HEADER_BYTES: Final = 8
_SWITCHED: Final = b" 101 "
_STREAMS: Final = {1: LogStream.STDOUT, 2: LogStream.STDERR}
# Dash and busybox know all of this; a process that is gone meanwhile is no error.
_KILL: Final = (
    'for p in /proc/[0-9]*; do case "$(tr "\\0" "\\n" < $p/environ)" in '
    f'*"{SESSION_MARK}=$0"*) kill -9 "${{p#/proc/}}";; esac; done 2>/dev/null; :'
)
_log = get_logger(__name__)


class DockerSession:
    """One command; ``open`` starts it."""

    def __init__(
        self,
        engine: aiodocker.Docker,
        container: str,
        session: str,
        execution: aiodocker.execs.Exec,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        has_terminal: bool,
    ) -> None:
        """Use ``open``."""
        self._engine = engine
        self._container = container
        self._session = session
        self._execution = execution
        self._reader = reader
        self._writer = writer
        self._has_terminal = has_terminal
        self._stream = LogStream.STDOUT
        self._left_bytes = 0
        self._is_closed = False
        self._is_over = False

    @classmethod
    async def open(
        cls,
        engine: aiodocker.Docker,
        docker_socket: str,
        container: str,
        command: Sequence[str],
        session: str,
        terminal: TerminalSize | None,
    ) -> "DockerSession":
        """Start the command; DriverRefusedError EXEC_REFUSED where the engine will not."""
        mark = [f"{SESSION_MARK}={session}", *(["TERM=xterm"] if terminal is not None else [])]
        try:
            execution = await engine.containers.container(container).exec(
                list(command), stdin=True, tty=terminal is not None, environment=mark
            )
            reader, writer = await _start(docker_socket, execution.id, terminal)
        except aiodocker.DockerError as error:
            raise _refusal(error.status, error.message) from error
        except (aiohttp.ClientError, OSError) as error:
            raise DriverUnavailableError(repr(error)) from error
        return cls(engine, container, session, execution, reader, writer, has_terminal=terminal is not None)

    async def read(self) -> tuple[LogStream, bytes] | None:
        """What it says next."""
        try:
            if not self._has_terminal and not self._left_bytes:
                header = await self._reader.readexactly(_HEADER_BYTES)
                self._stream = _STREAMS.get(header[0], LogStream.STDOUT)
                self._left_bytes = int.from_bytes(header[4:], "big")
            limit = MAX_CHUNK_BYTES if self._has_terminal else min(self._left_bytes, MAX_CHUNK_BYTES)
            data = await self._reader.read(limit)
        except (asyncio.IncompleteReadError, OSError):
            return None
        if self._is_closed:
            return None
        self._left_bytes = 0 if self._has_terminal else self._left_bytes - len(data)
        return (self._stream, data) if data else None

    async def write(self, data: bytes) -> None:
        """Hand bytes to its input."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except (OSError, RuntimeError):
            # The command has ended; its output says how.
            return

    async def close_input(self) -> None:
        """Let it see the end of its input."""
        if self._has_terminal:
            await self.write(END_OF_INPUT)
        elif self._writer.can_write_eof():
            self._writer.write_eof()

    async def resize(self, size: TerminalSize) -> None:
        """Ask the engine, which sends SIGWINCH; one that has ended has no size."""
        if self._has_terminal:
            try:
                await self._execution.resize(h=size.rows, w=size.columns)
            except aiodocker.DockerError:
                return
            except (aiohttp.ClientError, OSError) as error:
                raise DriverUnavailableError(repr(error)) from error

    async def wait(self) -> int:
        """Its exit status; a connection that ended before the command tells of an engine that went away."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                while (details := await self._execution.inspect())["Running"]:
                    if self._is_closed:
                        break
                    await asyncio.sleep(POLL_SECONDS)
        except (aiodocker.DockerError, aiohttp.ClientError, OSError) as error:
            raise DriverUnavailableError(f"the engine went away under the session: {error!r}") from error
        if details["ExitCode"] is None:
            raise DriverUnavailableError("the engine does not know how the command ended")
        self._is_over = True
        return int(details["ExitCode"])

    async def close(self) -> None:
        """Kill what bears the mark, unless the command is over."""
        if self._is_closed:
            return
        self._is_closed = True
        self._writer.transport.abort()
        if self._is_over:
            return
        try:
            async with asyncio.timeout(KILL_SECONDS):
                while await self._kill_once():
                    await asyncio.sleep(POLL_SECONDS)
        except (TimeoutError, aiodocker.DockerError, aiohttp.ClientError, OSError) as error:
            _log.warning("exec_not_killed", container=self._container, session=self._session, error=repr(error))

    async def _kill_once(self) -> bool:
        """Kill what can be seen; whether the command still runs, as the engine says."""
        if await asyncio.to_thread(kill_marked, self._session) == 0:
            killer = await self._engine.containers.container(self._container).exec(
                ["sh", "-c", _KILL, self._session], stdout=True, stderr=True
            )
            async with killer.start(detach=False) as stream:
                while await stream.read_out() is not None:
                    pass
        return bool((await self._execution.inspect())["Running"])


async def _start(
    docker_socket: str, execution: str, terminal: TerminalSize | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Start an execution; the connection that the engine hands over."""
    order: dict[str, object] = {"Detach": False, "Tty": terminal is not None}
    if terminal is not None:
        # Docker reads the first, Podman the others.
        order |= {"ConsoleSize": [terminal.rows, terminal.columns], "h": terminal.rows, "w": terminal.columns}
    body = json.dumps(order).encode()
    reader, writer = await asyncio.open_unix_connection(docker_socket, limit=MAX_CHUNK_BYTES)
    try:
        writer.write(
            f"POST /exec/{execution}/start HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n"
            f"Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        async with asyncio.timeout(ANSWER_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
            if _SWITCHED not in head.partition(b"\r\n")[0]:
                raise _refusal(int(head.split()[1]), (await reader.read(MAX_CHUNK_BYTES)).decode("utf-8", "replace"))
    except asyncio.IncompleteReadError as error:
        writer.transport.abort()
        raise DriverUnavailableError("the engine closed the connection") from error
    except BaseException:
        writer.transport.abort()
        raise
    return reader, writer


def _refusal(status: int, message: str) -> Exception:
    """What an engine's answer means: 404 and 409 are about the container, 400 and 500 about the command or the engine."""
    is_command = any(word in message for word in ("runtime", "executable", "exec failed", "container state improper"))
    if status < 500 or is_command:
        return DriverRefusedError(EXEC_REFUSED, message.strip()[:1_000])
    return DriverUnavailableError(f"the engine answered {status}: {message.strip()[:1_000]}")
