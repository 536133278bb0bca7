"""The tenant's door as a user meets it: the `fallow` command against a running marketplace, on a terminal that is real."""

import asyncio
import os
import pty
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator
from fcntl import ioctl
from pathlib import Path
from typing import Self

import pytest
import pytest_asyncio

from fallow.order.v1 import order_pb2
from fallow_stack.testing import RunningStack
from tests.e2e.test_whole_way import WAIT_SECONDS, fund, process_is_there, sdl

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow, pytest.mark.timeout(180)]

FALLOW = str(Path(sys.executable).parent / "fallow")
SHELL = ("sh", "-c", "PS1='# ' exec sh -i")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def order(stack: RunningStack) -> AsyncIterator[str]:
    """An order that runs."""
    async with stack.tenant() as client:
        await fund(stack, client)
        made = await client.create_order(sdl=sdl())
        await client.wait_order(made.name, [order_pb2.ORDER_STATE_RUNNING], seconds=WAIT_SECONDS)
        yield made.name
        await client.close_order(made.name)


def environment(stack: RunningStack) -> dict[str, str]:
    """What the command is told."""
    return {"PATH": os.environ["PATH"], "FALLOW_PROFILE": str(stack.home.profile), "TERM": "xterm"}


async def fallow(stack: RunningStack, *words: str, text: bytes = b"") -> tuple[int, str, str]:
    """The command in a pipe: its status and what it printed."""
    process = await asyncio.create_subprocess_exec(
        FALLOW, *words, env=environment(stack), stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(WAIT_SECONDS):
        output, error = await process.communicate(text)
    assert process.returncode is not None
    return process.returncode, output.decode(), error.decode()


class Screen:
    """The command on a terminal of the test's own."""

    def __init__(self, stack: RunningStack, *words: str) -> None:
        self._stack = stack
        self._words = words
        self.shown = b""

    async def __aenter__(self) -> Self:
        self.terminal, theirs = pty.openpty()
        self.resize(100, 30)
        self.before = termios.tcgetattr(self.terminal)
        os.set_blocking(self.terminal, False)
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "import os, sys; os.login_tty(0); os.execv(sys.argv[1], sys.argv[1:])",
            FALLOW, *self._words, env=environment(self._stack), stdin=theirs, stdout=theirs, stderr=theirs,
        )  # fmt: skip
        self._theirs = theirs
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        os.close(self._theirs)
        os.close(self.terminal)

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal a size; the kernel tells the command."""
        ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.terminal, text.encode())

    async def until(self, text: str) -> str:
        """What was shown since the last call, once it holds a text."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while text.encode() not in self.shown:
                    try:
                        self.shown += os.read(self.terminal, 65_536)
                    except BlockingIOError:
                        assert self.process.returncode is None, self.shown
                        await asyncio.sleep(0.02)
        except TimeoutError:
            pytest.fail(f"{text!r} was not shown: {self.shown!r}")
        before, found, self.shown = self.shown.partition(text.encode())
        return (before + found).decode()

    async def ended(self) -> int:
        """The command's status; its terminal must be as it was."""
        async with asyncio.timeout(WAIT_SECONDS):
            status = await self.process.wait()
        assert termios.tcgetattr(self.terminal) == self.before
        return status


async def test_a_command_in_a_pipe(stack: RunningStack, order: str) -> None:
    """Goal: a container in a pipeline. Method: input through `tr`; both streams; exit status 7; no such program."""
    status, output, _ = await fallow(stack, "exec", "-i", order, "--", "tr", "a-z", "A-Z", text=b"word\n" * 20_000)
    assert (status, output) == (0, "WORD\n" * 20_000)
    status, output, error = await fallow(stack, "exec", order, "--", "sh", "-c", "echo one; echo two >&2; exit 7")
    assert (status, output, error) == (7, "one\n", "two\n")
    status, _, error = await fallow(stack, "exec", order, "--", "no-such-program")
    assert status == 1
    assert "EXEC_REFUSED" in error
    assert "no-such-program" in error
    status, _, error = await fallow(stack, "exec", "-it", order, "--", "sh")
    assert status == 2
    assert "terminal" in error


async def test_a_shell_on_a_terminal(stack: RunningStack, order: str) -> None:
    """Goal: a shell as at home. Method: a pty: size, resize, Ctrl-C inside, exit status; the terminal is as it was."""
    async with Screen(stack, "exec", "-it", order, "--", *SHELL) as screen:
        await screen.until("# ")
        screen.type("stty size\r")
        await screen.until("30 100")
        await screen.until("# ")
        screen.resize(71, 17)
        screen.type('until [ "$(stty size)" = \'17 71\' ]; do :; done; echo is""there\r')
        await screen.until("isthere")
        await screen.until("# ")
        # Raw: Ctrl-C ends what runs in the container, and neither the shell there nor the command here.
        screen.type("echo be''gun; sleep 600\r")
        await screen.until("begun")
        screen.type("\x03")
        await screen.until("# ")
        screen.type("echo still''here; exit 9\r")
        await screen.until("stillhere")
        assert await screen.ended() == 9


async def test_a_signal_gives_the_terminal_back(stack: RunningStack, order: str) -> None:
    """Goal: no broken terminal, no process left. Method: SIGTERM and SIGHUP under a shell; status, terminal, its process."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        async with Screen(stack, "exec", "-it", order, "--", *SHELL) as screen:
            await screen.until("# ")
            screen.type("echo pid=$$.\r")
            await screen.until("pid=$$.")
            await screen.until("pid=")
            pid = int((await screen.until(".")).rstrip("."))
            assert process_is_there(pid)
            screen.process.send_signal(number)
            assert await screen.ended() == 128 + number
            async with asyncio.timeout(WAIT_SECONDS):
                while process_is_there(pid):
                    await asyncio.sleep(0.05)


async def test_logs_of_a_time_and_a_service(stack: RunningStack, order: str) -> None:
    """Goal: no endless scroll. Method: all; the last line; those since long ago and since tomorrow; no such service; a bad time."""
    status, everything, _ = await fallow(stack, "logs", order)
    lines = everything.splitlines()
    assert status == 0
    assert lines
    service = lines[0].partition("/")[0]
    assert await fallow(stack, "logs", order, "--since", "1h", "--service", service) == (0, everything, "")
    assert await fallow(stack, "logs", order, "--tail", "1") == (0, lines[-1] + "\n", "")
    assert await fallow(stack, "logs", order, "--since", "2999-01-01") == (0, "", "")
    status, _, error = await fallow(stack, "logs", order, "--service", "none")
    assert status == 1
    assert "SERVICE_NOT_FOUND" in error
    status, _, error = await fallow(stack, "logs", order, "--since", "soon")
    assert status == 2
    assert "--since" in error
