"""The mock driver, for tests alone: containers are entries of a dictionary, faults are fields. No setting selects it.

What a container does stands in its command: ``("serve",)`` runs until it is stopped, ``("exit", "3")`` stops at once
with that status. The entries stand in a ``MockEngine`` that outlives a driver, as a real engine outlives the agent.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from fallow_chassis.clock import Clock
from fallow_provider.domain.reasons import EXEC_REFUSED, IMAGE_UNSUPPORTED, START_FAILED
from fallow_provider.domain.workload import Container, ContainerKey
from fallow_provider.ports import (
    ContainerFigures,
    ContainerStatus,
    DriverRefusedError,
    DriverUnavailableError,
    ExecResult,
    ExecSession,
    Fingerprint,
    HostAddress,
    LogLine,
    LogQuery,
    LogStream,
    Progress,
    TerminalSize,
)

IMAGE = "mock:any"
KILLED_STATUS = 137
STOPPED_STATUS = 143


@dataclass(slots=True)
class MockContainer:
    """One container of the engine."""

    container: Container
    runtime_id: str
    is_running: bool = True
    is_frozen: bool = False
    exit_status: int | None = None
    lines: list[LogLine] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class MockEngine:
    """What an engine holds, and what is wrong with it."""

    containers: dict[ContainerKey, MockContainer] = field(default_factory=dict)
    is_away: bool = False
    """True makes every call raise DriverUnavailableError."""
    start_failure: str = ""
    """A text makes every start fail with it."""
    starts: int = 0
    heard_at_ms: int | None = None

    def exit(self, key: ContainerKey, status: int) -> None:
        """Have a container stop by itself."""
        found = self.containers[key]
        found.is_running, found.is_frozen, found.exit_status = False, False, status
        found.changed.set()


class MockDriver:
    """See the module."""

    def __init__(self, engine: MockEngine, clock: Clock) -> None:
        """``clock`` stamps log lines."""
        self.engine = engine
        self._clock = clock

    @property
    def name(self) -> str:
        """Name of the driver."""
        return "mock"

    async def fingerprint(self) -> Fingerprint:
        """Works unless the engine is away."""
        return Fingerprint("mock", not self.engine.is_away, "1", "nothing runs")

    async def prepare(self, container: Container, progress: Progress) -> None:
        """Takes one image."""
        self._ask()
        if container.image != IMAGE:
            raise DriverRefusedError(IMAGE_UNSUPPORTED, f"the mock driver runs only {IMAGE}")

    async def start(self, container: Container) -> ContainerStatus:
        """Put an entry down, or make a stopped one run again."""
        self._ask()
        found = self.engine.containers.get(container.key)
        if found is None or not found.is_running:
            if self.engine.start_failure:
                raise DriverRefusedError(START_FAILED, self.engine.start_failure)
            self.engine.starts += 1
            lines = [] if found is None else found.lines
            found = MockContainer(container, f"mock-{self.engine.starts}", lines=lines)
            self.engine.containers[container.key] = found
            for stream, text in ((LogStream.STDOUT, "one"), (LogStream.STDERR, "two"), (LogStream.STDOUT, "three")):
                found.lines.append(LogLine(self._clock.now(), stream, text))
            if container.command[0] == "exit":
                self.engine.exit(container.key, int(container.command[1]))
        return _status(found)

    async def recover(self) -> Sequence[ContainerStatus]:
        """All entries."""
        self._ask()
        return [_status(found) for found in self.engine.containers.values()]

    async def wait(self, key: ContainerKey) -> int | None:
        """Wait for the entry's end."""
        self._ask()
        found = self.engine.containers.get(key)
        if found is None:
            return None
        while found.is_running:
            await found.changed.wait()
            self._ask()
        return found.exit_status

    async def freeze(self, key: ContainerKey) -> None:
        """Mark the entry as frozen."""
        self._turn(key, is_frozen=True)

    async def thaw(self, key: ContainerKey) -> None:
        """Mark the entry as thawed."""
        self._turn(key, is_frozen=False)

    async def stop(self, key: ContainerKey, grace_ms: int) -> None:
        """Stop the entry; without grace it is killed."""
        self._ask()
        if key in self.engine.containers and self.engine.containers[key].is_running:
            self.engine.exit(key, STOPPED_STATUS if grace_ms else KILLED_STATUS)

    async def destroy(self, key: ContainerKey) -> None:
        """Remove the entry."""
        await self.stop(key, 0)
        self.engine.containers.pop(key, None)

    async def inspect(self, key: ContainerKey) -> ContainerStatus | None:
        """The entry."""
        self._ask()
        found = self.engine.containers.get(key)
        return None if found is None else _status(found)

    async def logs(self, key: ContainerKey, query: LogQuery) -> AsyncGenerator[LogLine, None]:
        """The entry's lines."""
        self._ask()
        found = self.engine.containers.get(key)
        if found is None:
            return
        lines = [line for line in found.lines if query.since is None or line.time > query.since]
        for line in lines[-query.tail :]:
            yield line
        while query.follow and found.is_running:
            await found.changed.wait()

    async def exec(self, key: ContainerKey, command: Sequence[str], timeout: float) -> ExecResult:
        """``("exit", "3")`` ends with that status."""
        self._ask()
        return ExecResult(int(command[1]), "")

    async def open_exec(self, key: ContainerKey, command: Sequence[str], terminal: TerminalSize | None) -> ExecSession:
        """Nothing runs, so nobody can talk with it."""
        raise DriverRefusedError(EXEC_REFUSED, "the mock driver runs no commands")

    async def stats(self, key: ContainerKey) -> ContainerFigures | None:
        """Nothing is used."""
        status = await self.inspect(key)
        return ContainerFigures(0, 0) if status is not None and status.is_running else None

    def heard(self, at_ms: int) -> None:
        """Remember it."""
        self.engine.heard_at_ms = at_ms

    async def close(self) -> None:
        """Nothing to let go."""

    def _turn(self, key: ContainerKey, *, is_frozen: bool) -> None:
        """Freeze or thaw an entry that runs."""
        self._ask()
        found = self.engine.containers.get(key)
        if found is not None and found.is_running:
            found.is_frozen = is_frozen

    def _ask(self) -> None:
        """Fail where the engine is away."""
        if self.engine.is_away:
            raise DriverUnavailableError("the mock engine is away")


def _status(found: MockContainer) -> ContainerStatus:
    """An entry as the port tells of it."""
    ports = {port.container_port: HostAddress("127.0.0.1", port.container_port) for port in found.container.ports}
    return ContainerStatus(
        found.container.key, found.runtime_id, found.is_running, found.exit_status, ports, found.is_frozen
    )
