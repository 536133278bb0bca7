"""What all engines have in common: one process, and one TCP port that it keeps over its lives."""

import signal
from pathlib import Path

from fallow_stack.engines.process import Process


class Engine:
    """An engine's process and port; each kind of engine adds how it starts, stops and answers."""

    def __init__(self, process: Process, port: int) -> None:
        """``port`` 0 leaves the choice to the first start."""
        self._process = process
        self._port = port

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._process.is_running

    @property
    def exit_code(self) -> int | None:
        """How the process ended, if it did."""
        return self._process.exit_code

    @property
    def log(self) -> Path:
        """What the process prints."""
        return self._process.log

    @property
    def port(self) -> int:
        """The TCP port; 0 before the first start."""
        return self._port

    async def kill(self) -> None:
        """End the process as a crash would."""
        await self._process.end(signal.SIGKILL)

    async def wait(self) -> int:
        """Wait until the process ends by itself; its exit status."""
        return await self._process.wait()
