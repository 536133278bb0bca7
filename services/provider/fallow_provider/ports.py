"""What the agent needs of the world: a runtime driver, the market, the order service.

A driver runs containers and knows them by their key. Its methods are idempotent: starting what runs, freezing what is
frozen, stopping what is stopped and destroying what is gone change nothing. It never guesses: where the engine does not answer it raises
DriverUnavailableError, which says that nothing is known, and never that something has stopped.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import Protocol

from fallow.provider.v1.market_link_pb2 import (
    Heartbeat,
    HeartbeatAcknowledgement,
    InventoryAcknowledgement,
    InventoryReport,
)
from fallow.type.v1.workload_pb2 import Workload
from fallow_chassis.errors import ErrorReason
from fallow_provider.domain.device_reading import CardEvent, Snapshot
from fallow_provider.domain.inventory import DeviceSource, Site
from fallow_provider.domain.workload import Container, ContainerKey


class ProbeMissingError(Exception):
    """What the probe reads with is not on the machine; the text says what to install."""


class ProbeError(Exception):
    """The library does not answer now; nothing is known of its cards, and a later call may succeed."""


class DriverUnavailableError(Exception):
    """The engine does not answer; nothing is known, and the same call may succeed later."""


class DriverRefusedError(Exception):
    """The engine answered that it will not; trying again changes nothing."""

    def __init__(self, reason: ErrorReason, detail: str) -> None:
        """Take the reason of the run's failure and a detail for people."""
        super().__init__(f"{reason.reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a driver can do here. ``isolation`` is one sentence for people on what it does not hold.

    ``gives_devices``: what it runs can use the machine's GPUs.
    """

    driver: str
    is_available: bool
    version: str = ""
    isolation: str = ""
    detail: str = ""
    gives_devices: bool = False


@dataclass(frozen=True, slots=True)
class HostAddress:
    """Where a container's port answers from this machine."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class ContainerStatus:
    """One container as its engine sees it."""

    key: ContainerKey
    runtime_id: str
    is_running: bool
    """True also while it is frozen."""
    exit_status: int | None = None
    """Set once it has stopped; 128 + n for a signal; None while it runs or where nobody knows any more."""
    ports: Mapping[int, HostAddress] = field(default_factory=dict)
    is_frozen: bool = False


class LogStream(IntEnum):
    """Stream of a log line; the numbers are those of the contract."""

    UNSPECIFIED = 0
    STDOUT = 1
    STDERR = 2


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a container's log, without its line end."""

    time: datetime
    stream: LogStream
    text: str


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which lines: the last ``tail`` (0 means all), those after ``since``, and whether to go on as they come."""

    follow: bool = False
    tail: int = 0
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a command in a container ended."""

    exit_status: int
    output: str


@dataclass(frozen=True, slots=True)
class TerminalSize:
    """Size of a terminal, in characters."""

    columns: int = 80
    rows: int = 24


class ExecSession(Protocol):
    """A command that runs in a container, with somebody who reads and writes. DriverUnavailableError where the engine goes away."""

    async def read(self) -> tuple[LogStream, bytes] | None:
        """What the command says next, at most 64 KiB; None once no more will come. What is not read is not taken from it."""
        ...

    async def write(self, data: bytes) -> None:
        """Hand bytes to its input; waits while it does not read. Bytes for a command that reads no more are dropped."""
        ...

    async def close_input(self) -> None:
        """Let it see the end of its input; on a terminal, the character that means it."""
        ...

    async def resize(self, size: TerminalSize) -> None:
        """Give its terminal another size; nothing happens where it has none."""
        ...

    async def wait(self) -> int:
        """Its exit status, once ``read`` has told the end; 128 + n for a signal."""
        ...

    async def close(self) -> None:
        """Kill it, and what it started, unless it has ended by itself; ``read`` then tells the end. May be called twice."""
        ...


@dataclass(frozen=True, slots=True)
class ContainerFigures:
    """What a container uses: processor time since its start, memory now."""

    cpu_time_ms: int
    memory_bytes: int


Progress = Callable[[str], None]


class RuntimeDriver(Protocol):
    """Runs containers; see the module for what every driver promises."""

    @property
    def name(self) -> str:
        """Name of the driver, such as ``docker`` or ``exec``."""
        ...

    async def fingerprint(self) -> Fingerprint:
        """What the driver can do here; never raises."""
        ...

    async def prepare(self, container: Container, progress: Progress) -> None:
        """Have all that a start needs, such as the image; refuses what the driver cannot run."""
        ...

    async def start(self, container: Container) -> ContainerStatus:
        """Make the container run: adopts a running one, starts a stopped one again, makes one that is not there."""
        ...

    async def recover(self) -> Sequence[ContainerStatus]:
        """Every container of this agent, running or not, whoever started it and in whichever life of the agent."""
        ...

    async def wait(self, key: ContainerKey) -> int | None:
        """The exit status once the container has stopped (None if nobody knows it); at once for one that is gone."""
        ...

    async def freeze(self, key: ContainerKey) -> None:
        """Let no process of it run until it is thawed; what it holds, devices and memory, stays held."""
        ...

    async def thaw(self, key: ContainerKey) -> None:
        """Let it go on where it was frozen."""
        ...

    async def stop(self, key: ContainerKey, grace_ms: int) -> None:
        """Ask it to stop, and kill it after the grace; a frozen one is thawed for it. Returns when nothing of it runs."""
        ...

    async def destroy(self, key: ContainerKey) -> None:
        """Stop it at once and remove all that is left of it, its log too."""
        ...

    async def inspect(self, key: ContainerKey) -> ContainerStatus | None:
        """The container as it is now; None if there is none."""
        ...

    def logs(self, key: ContainerKey, query: LogQuery) -> AsyncGenerator[LogLine, None]:
        """Its log lines, oldest first; with ``follow`` it ends once the container has stopped and all is sent."""
        ...

    async def exec(self, key: ContainerKey, command: Sequence[str], timeout: float) -> ExecResult:
        """Run a command in it; TimeoutError once ``timeout`` seconds have passed."""
        ...

    async def open_exec(self, key: ContainerKey, command: Sequence[str], terminal: TerminalSize | None) -> ExecSession:
        """Run a command in it for somebody who talks with it, on a terminal of that size or on none.

        DriverRefusedError EXEC_REFUSED where the container does not run or the driver cannot.
        """
        ...

    async def stats(self, key: ContainerKey) -> ContainerFigures | None:
        """What it uses now; None if it does not run."""
        ...

    def heard(self, at_ms: int) -> None:
        """Note that the market heard of this agent at a monotonic time; who can ends containers whose agent is dead."""
        ...

    async def close(self) -> None:
        """Let the engine go; what runs goes on."""
        ...


class WorkloadSource(Protocol):
    """Where workloads come from: the order service."""

    async def workload(self, order_address: str, grant: str, lease: str, generation: int) -> Workload:
        """The containers of a generation; DomainError where the service refuses or cannot be reached."""
        ...


class Market(Protocol):
    """The market as the agent speaks with it over NATS; DomainError where it does not answer or refuses."""

    async def heartbeat(self, heartbeat: Heartbeat, timeout: float) -> HeartbeatAcknowledgement:
        """Send a sign of life; the acknowledgement feeds every lease's self-stop."""
        ...

    async def report_inventory(self, report: InventoryReport, timeout: float) -> InventoryAcknowledgement:
        """Send nodes and devices; the acknowledgement may refuse them."""
        ...


class SiteSource(Protocol):
    """Where the facts about nodes and devices come from: a declaration, or a probe of the machine."""

    def site(self) -> Site:
        """The site as it is now."""
        ...


class DeviceProbe(Protocol):
    """Reads the cards of one vendor, in calls that block: they are all made by one thread."""

    @property
    def name(self) -> str:
        """Name for people."""
        ...

    @property
    def source(self) -> DeviceSource:
        """What its devices are labelled with."""
        ...

    def open(self) -> None:
        """Load the library; ProbeMissingError or ProbeError where that fails."""
        ...

    def read(self) -> Snapshot:
        """All cards; ProbeError where the library does not answer."""
        ...

    def wait(self, seconds: float) -> list[CardEvent]:
        """What the driver reported of cards since the last call; waits up to ``seconds`` for the first."""
        ...

    def close(self) -> None:
        """Let the library go."""
        ...
