"""A Fallow service as a process of the stack: a Python module that is up once it has written its port file."""

import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from fallow_stack.engines.process import EngineError, Process


class Engine(Protocol):
    """Anything that the supervisor keeps: an engine of `fallow_stack.engines`, or a Service."""

    async def start(self) -> None:
        """Start it; returns when it answers. Raises EngineError."""

    async def stop(self) -> None:
        """Stop it politely, then hard."""

    @property
    def pid(self) -> int:
        """Its process id."""

    @property
    def is_running(self) -> bool:
        """Whether its process is there."""


class Service:
    """A module run with the interpreter that runs us, told its settings by environment variables."""

    def __init__(
        self, name: str, module: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> None:
        self._program = [sys.executable, "-m", module, *arguments]
        self._port_file = log.with_suffix(".port")
        self._environment = {**environment, "FALLOW_PORT_FILE": str(self._port_file)}
        self._directory = log.parent
        self._process = Process(name, log, death_signal=signal.SIGTERM)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether its process is there."""
        return self._process.is_running

    async def _serves(self) -> bool:
        return self._port_file.exists()

    def _launch(self) -> None:
        self._process.launch(self._program, directory=self._directory, environment=self._environment)

    async def start(self) -> None:
        """Start it; returns once it serves. Raises EngineError."""
        self._port_file.unlink(missing_ok=True)
        self._launch()
        await self._process.wait_ready(self._serves)

    async def run(self) -> None:
        """Run it to its end. Raises EngineError when its exit status is not 0."""
        self._launch()
        if (status := await self._process.wait()) != 0:
            raise EngineError(f"{self._process.name} ended with status {status}: {self._process.log_tail()}")

    async def stop(self) -> None:
        """Ask it to stop; end it when it does not within 20 s."""
        await self._process.end(signal.SIGTERM)
