"""An agent's heart without a world: the real store, supervisor, commands and heartbeats on the mock driver.

Time is a clock that the test moves; the market and the order service are fakes with faults as fields.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fallow.provider.v1 import market_link_pb2
from fallow.type.v1 import lease_pb2, resources_pb2, workload_pb2
from fallow_chassis.errors import DomainError
from fallow_chassis.testing import ManualClock, SequentialIds
from fallow_chassis.wire import to_duration
from fallow_provider.commands import Commands
from fallow_provider.devices import DeclaredSite
from fallow_provider.domain.inventory import Device, DeviceHealth, DeviceSource, Node, Prices, Site
from fallow_provider.domain.run import Run, RunState
from fallow_provider.drivers.mock import IMAGE, MockDriver, MockEngine
from fallow_provider.heartbeat import Acknowledgements, Heartbeats
from fallow_provider.proof_key import ProofKey
from fallow_provider.store import Store
from fallow_provider.supervisor import Supervisor

IDS = SequentialIds()
SITE = Site(
    "Fjord", "eu", {},
    (
        Node(
            "n1", 1_000, 1 << 30,
            devices=(Device("gpu", "nvidia", "h100", 1, "sxm", DeviceHealth.HEALTHY, DeviceSource.DECLARED),),
        ),
    ),
    Prices("usdc"),
)  # fmt: skip


@dataclass
class FakeOrder:
    """A fake of the order service."""

    workload_message: workload_pb2.Workload
    failure: DomainError | None = None
    fetches: int = 0

    async def workload(self, order_address: str, grant: str, lease: str, generation: int) -> workload_pb2.Workload:
        """The one workload."""
        self.fetches += 1
        if self.failure is not None:
            raise self.failure
        return self.workload_message


@dataclass
class FakeMarket:
    """A fake of the market's side of the link."""

    heartbeats: list[market_link_pb2.Heartbeat] = field(default_factory=list)
    inventories: list[market_link_pb2.InventoryReport] = field(default_factory=list)
    answer: market_link_pb2.HeartbeatAcknowledgement = field(default_factory=market_link_pb2.HeartbeatAcknowledgement)
    failure: DomainError | None = None
    inventory_answer: market_link_pb2.InventoryAcknowledgement | None = None

    async def heartbeat(
        self, heartbeat: market_link_pb2.Heartbeat, timeout: float
    ) -> market_link_pb2.HeartbeatAcknowledgement:
        """Keep it and answer."""
        if self.failure is not None:
            raise self.failure
        self.heartbeats.append(heartbeat)
        return self.answer

    async def report_inventory(
        self, report: market_link_pb2.InventoryReport, timeout: float
    ) -> market_link_pb2.InventoryAcknowledgement:
        """Keep it and answer: taken, unless the test says otherwise."""
        if self.failure is not None:
            raise self.failure
        self.inventories.append(report)
        return self.inventory_answer or market_link_pb2.InventoryAcknowledgement(sequence=report.sequence)


class Agent:
    """One life of an agent on a folder and an engine that outlive it."""

    def __init__(self, folder: Path, engine: MockEngine, clock: ManualClock, *, machine_boot_id: str = "boot") -> None:
        self.clock = clock
        self.engine = engine
        self.order = FakeOrder(workload_pb2.Workload(containers=[container()]))
        self.market = FakeMarket()
        self.changed = asyncio.Event()
        self.store = Store.open(folder / "state.sqlite")
        self.sites = DeclaredSite(SITE)
        self.supervisor = Supervisor(
            self.store, MockDriver(engine, clock), self.order, self.sites, clock,
            machine_boot_id=machine_boot_id, endpoint_host="127.0.0.1", on_change=self.changed.set,
        )  # fmt: skip
        self.commands = Commands(
            self.store, self.supervisor, self.sites, clock, machine_boot_id=machine_boot_id, is_draining=False
        )
        self.acknowledgements = Acknowledgements(self.store, clock, machine_boot_id)
        self.heartbeats = Heartbeats(
            self.store, self.supervisor, self.market, self.sites, ProofKey(Ed25519PrivateKey.generate()), clock,
            provider="providers/p", boot_id="life", drivers=["mock"], interval_seconds=1.0, changed=self.changed,
            acknowledgements=self.acknowledgements,
        )  # fmt: skip

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """The supervisor runs until the block ends, as a process does until it is killed."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.supervisor.run())
            try:
                yield
            finally:
                task.cancel()
        self.store.close()

    def run(self) -> Run:
        """The newest run."""
        return self.store.runs()[-1]

    async def until(self, condition: Callable[[], object]) -> None:
        """Let the workers work until a condition holds."""
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.005)

    async def until_state(self, state: RunState) -> Run:
        """Let the workers work until the newest run has a state."""
        await self.until(lambda: self.run().state is state)
        return self.run()

    async def until_counting(self) -> None:
        """Let the workers work until the newest run is ready and its time counts."""
        await self.until_state(RunState.RUNNING)
        await self.until(lambda: self.run().key in self.supervisor._marks_ms)


def container(service: str = "web", command: tuple[str, ...] = ("serve",), **changes: object) -> workload_pb2.Container:
    """A container for the mock driver."""
    return workload_pb2.Container(
        service=service, image=IMAGE, command=command, replicas=1,
        ports=[workload_pb2.Port(container_port=80, public=True)],
        resources=resources_pb2.ResourceRequirement(cpu_milli=1, memory_bytes=1 << 20),
        **changes,  # type: ignore[arg-type]
    )  # fmt: skip


def key(generation: int = 1, order: int = 1) -> lease_pb2.GenerationKey:
    """A key of the contract."""
    return lease_pb2.GenerationKey(order=f"orders/{order:026d}", group=0, generation=generation)


def run_command(
    generation: int = 1, order: int = 1, services: tuple[str, ...] = ("web",), self_stop_ms: int = 10_000
) -> market_link_pb2.Command:
    """A RunLease."""
    command = market_link_pb2.Command(
        command_id=IDS.new(), lease=f"leases/{order * 100 + generation:026d}", key=key(generation, order)
    )
    command.run.self_stop.CopyFrom(to_duration(self_stop_ms))
    for service in services:
        command.run.replicas.add(service=service, replica=0, node_id="n1")
    return command


def stop_command(generation: int = 1, order: int = 1) -> market_link_pb2.Command:
    """A StopLease for the same lease."""
    command = market_link_pb2.Command(
        command_id=IDS.new(), lease=f"leases/{order * 100 + generation:026d}", key=key(generation, order)
    )
    command.stop.reason = lease_pb2.END_REASON_TENANT
    return command


@pytest.fixture
def engine() -> MockEngine:
    """An engine that outlives agents."""
    return MockEngine()


@pytest.fixture
def agent(tmp_path: Path, engine: MockEngine, clock: ManualClock) -> Agent:
    """The first life."""
    return Agent(tmp_path, engine, clock)
