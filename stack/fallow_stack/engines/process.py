"""One engine's process: started on a leash, watched until it answers, ended in order or at once.

The process is a plain ``subprocess.Popen`` and not one of asyncio's, so that it belongs to no event loop: a test session
may start an engine in one loop and stop it in another.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fallow_stack.settings import environment_with

POLL_SECONDS: Final = 0.02
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 20.0
LOG_TAIL_CHARACTERS: Final = 2_000

_LEASH: Final = Path(__file__).with_name("leash.py")


class EngineError(Exception):
    """An engine did not start or cannot run here; the message says why, with the end of its log."""


@dataclass(frozen=True, slots=True)
class Identity:
    """As whom a program runs: ourselves, ourselves under another number (a user namespace), or another user.

    ``user`` and ``group`` are numbers, and only root can name them.
    """

    map_user: int | None = None
    user: int | None = None
    group: int | None = None


class Process:
    """A program on a leash; ``log`` gets what it prints."""

    def __init__(self, name: str, log: Path, *, death_signal: signal.Signals) -> None:
        """``death_signal`` is what the kernel sends the program when the process that started it is gone."""
        self.name = name
        self.log = log
        self._death_signal = death_signal
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The program's process id; EngineError if it was never started."""
        if self._popen is None:
            raise EngineError(f"{self.name} was not started")
        return self._popen.pid

    @property
    def is_running(self) -> bool:
        """Whether the program runs right now."""
        return self._popen is not None and self._popen.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How the last run ended (minus the signal's number if by one); None while it runs or before it did."""
        return None if self._popen is None else self._popen.poll()

    def launch(
        self,
        program: Sequence[str | Path],
        *,
        directory: Path,
        environment: Mapping[str, str] | None = None,
        identity: Identity | None = None,
    ) -> None:
        """Start the program; call ``wait_ready`` next."""
        assert not self.is_running, f"{self.name} runs already"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._popen = subprocess.Popen(
                leashed(program, self._death_signal, identity),
                cwd=directory,
                env=environment_with(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C at the terminal is ours to handle: engines stop after the services.
                start_new_session=True,
            )

    async def wait_ready(self, answers: Callable[[], Awaitable[bool]], *, timeout: float = START_SECONDS) -> None:
        """Return once ``answers`` says so; EngineError with the end of the log if the program ends or takes too long."""
        try:
            async with asyncio.timeout(timeout):
                while not await answers():
                    if not self.is_running:
                        raise EngineError(
                            f"{self.name} ended at its start (status {self.exit_code}): {self.log_tail()}"
                        )
                    await asyncio.sleep(POLL_SECONDS)
        except BaseException as error:
            await self.end(signal.SIGKILL)
            if isinstance(error, TimeoutError):
                raise EngineError(f"{self.name} did not answer within {timeout:.0f} s: {self.log_tail()}") from error
            raise

    async def end(self, how: signal.Signals, *, timeout: float = STOP_SECONDS) -> None:
        """Send a signal and wait until the program is gone, killing it after ``timeout`` seconds."""
        popen = self._popen
        if popen is None or popen.poll() is not None:
            return
        popen.send_signal(how)
        try:
            async with asyncio.timeout(timeout):
                while popen.poll() is None:
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            popen.kill()
            popen.wait()

    async def wait(self) -> int:
        """Wait for the program's end by itself; its exit status."""
        while self.is_running:
            await asyncio.sleep(POLL_SECONDS * 5)
        code = self.exit_code
        assert code is not None, "a program that was started and does not run has ended"
        return code

    def log_tail(self) -> str:
        """The end of what the program printed."""
        with contextlib.suppress(OSError):
            return self.log.read_text("utf-8", errors="replace")[-LOG_TAIL_CHARACTERS:].strip()
        return ""


def leashed(
    program: Sequence[str | Path],
    death_signal: signal.Signals,
    identity: Identity | None = None,
) -> list[str]:
    """The command line that runs ``program`` on a leash, in the environment that it is started with."""
    options = ["--parent", str(os.getpid()), "--signal", str(int(death_signal))]
    if identity is not None and identity.map_user is not None:
        options += ["--map-user", str(identity.map_user)]
    if identity is not None and identity.user is not None:
        options += ["--user", str(identity.user), "--group", str(identity.group)]
    return [sys.executable, "-I", "-S", str(_LEASH), *options, "--", *map(str, program)]
