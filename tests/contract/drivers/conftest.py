"""The drivers' houses: each gives a driver on a real engine, a second life of it, and containers that do as asked."""

import asyncio
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal, Protocol

import pytest

from fallow_chassis.clock import SystemClock
from fallow_chassis.ids import RandomIds
from fallow_provider.domain.run import RunKey
from fallow_provider.domain.workload import Container, ContainerKey, ContainerPort
from fallow_provider.drivers.docker import DockerDriver
from fallow_provider.drivers.exec import IMAGE as EXEC_IMAGE
from fallow_provider.drivers.exec import ExecDriver
from fallow_provider.drivers.mock import IMAGE as MOCK_IMAGE
from fallow_provider.drivers.mock import MockDriver, MockEngine
from fallow_provider.drivers.podman import PodmanDriver
from fallow_provider.ports import HostAddress, RuntimeDriver
from fallow_stack.demo_image import load_demo_image
from tests import dockerd, podman

CLOCK = SystemClock()
IDS = RandomIds(CLOCK)
IMAGES: dict[Path, str] = {}
WORDS = "import sys\nprint('one', flush=True)\nprint('two', file=sys.stderr, flush=True)\nprint('three', flush=True)\n"
# The handler comes before the first word: a container's first process ignores a signal that it does not handle.
SERVE = (
    "import os, signal\n"
    "signal.signal(signal.SIGTERM, lambda *_: (print('polite end', flush=True), os._exit(7)))\n"
    f"{WORDS}"
    "import http.server\n"
    "http.server.HTTPServer((os.environ.get('HOST', ''), int(os.environ['PORT'])), http.server.SimpleHTTPRequestHandler).serve_forever()\n"
)
STUBBORN = WORDS + (
    "import signal, subprocess, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
    "print('ready', flush=True)\n"
    "time.sleep(600)\n"
)
Behaviour = Literal["serve", "exit", "stubborn"]


class House(Protocol):
    """What the suite needs of a driver's surroundings."""

    driver: RuntimeDriver
    runs_programs: bool
    """False where nothing really runs."""

    def reborn(self) -> RuntimeDriver:
        """A driver as the next life of the agent makes it."""
        ...

    def stranger(self) -> RuntimeDriver:
        """A driver of another agent on the same engine."""
        ...

    def container(self, behaviour: Behaviour, status: int = 0) -> Container:
        """A container that nobody started yet."""
        ...

    async def fetch(self, address: HostAddress) -> bool:
        """Whether an HTTP server answers there."""
        ...


def new_key() -> ContainerKey:
    """A key that nobody used."""
    return ContainerKey(f"leases/{IDS.new()}", RunKey(f"orders/{IDS.new()}", 0, 1), "web", 0)


def program(behaviour: Behaviour, status: int) -> tuple[str, ...]:
    """A behaviour as a program of Python."""
    text = {"serve": SERVE, "stubborn": STUBBORN, "exit": f"{WORDS}sys.exit({status})"}[behaviour]
    return ("python3", "-u", "-c", text)


def _answers(url: str) -> bool:
    """Whether a GET succeeds."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


class ExecHouse:
    """Plain processes below a temporary folder."""

    runs_programs = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.agent = IDS.new()
        self.driver: RuntimeDriver = self.reborn()

    def reborn(self) -> RuntimeDriver:
        """The same folder and agent."""
        return ExecDriver(self.folder, self.agent, CLOCK)

    def stranger(self) -> RuntimeDriver:
        """Another agent has another folder."""
        return ExecDriver(self.folder.with_name("stranger"), IDS.new(), CLOCK)

    def container(self, behaviour: Behaviour, status: int = 0) -> Container:
        """Python of the host."""
        return Container(
            new_key(), EXEC_IMAGE, program(behaviour, status), environment={"COLOUR": "blue"},
            ports=(ContainerPort(8080, is_public=True),),
        )  # fmt: skip

    async def fetch(self, address: HostAddress) -> bool:
        """Ask over loopback."""
        return await asyncio.to_thread(_answers, f"http://{address.host}:{address.port}/")


class MockHouse:
    """Entries of a dictionary."""

    runs_programs = False

    def __init__(self) -> None:
        self.engine = MockEngine()
        self.driver: RuntimeDriver = self.reborn()

    def reborn(self) -> RuntimeDriver:
        """The same engine."""
        return MockDriver(self.engine, CLOCK)

    def stranger(self) -> RuntimeDriver:
        """The mock knows no agents; another engine stands for it."""
        return MockDriver(MockEngine(), CLOCK)

    def container(self, behaviour: Behaviour, status: int = 0) -> Container:
        """A command that the mock reads."""
        command = ("exit", str(status)) if behaviour == "exit" else ("serve",)
        return Container(new_key(), MOCK_IMAGE, command, ports=(ContainerPort(8080, is_public=True),))

    async def fetch(self, address: HostAddress) -> bool:
        """Nothing answers."""
        return False


class DockerHouse:
    """Containers of a real engine; `network` is theirs."""

    runs_programs = True

    def __init__(self, engine: dockerd.Dockerd, image: str, network: Literal["bridge", "host"]) -> None:
        self.engine = engine
        self.image = image
        self.network = network
        self.agent = IDS.new()
        self.opened: list[DockerDriver] = []
        self.driver: RuntimeDriver = self.reborn()

    def reborn(self) -> RuntimeDriver:
        """The same agent."""
        return self._open(self.agent)

    def stranger(self) -> RuntimeDriver:
        """Another agent on the same engine."""
        return self._open(IDS.new())

    def _open(self, agent: str) -> DockerDriver:
        driver = DockerDriver(str(self.engine.socket), agent, network=self.network)
        self.opened.append(driver)
        return driver

    def container(self, behaviour: Behaviour, status: int = 0) -> Container:
        """Python of the demo's image."""
        return Container(
            new_key(), self.image, program(behaviour, status), environment={"COLOUR": "blue"},
            ports=(ContainerPort(8080, is_public=True),), memory_bytes=256 << 20,
        )  # fmt: skip

    async def fetch(self, address: HostAddress) -> bool:
        """Ask from inside the engine's network."""
        url = f"http://{address.host}:{address.port}/"
        if self.network == "host":
            return await asyncio.to_thread(_answers, url)
        source = f"import urllib.request; print(urllib.request.urlopen({url!r}, timeout=2).status)"
        return (await asyncio.to_thread(self.engine.in_network, sys.executable, "-c", source)).strip() == "200"


class PodmanHouse(DockerHouse):
    """Containers of a real Podman."""

    def _open(self, agent: str) -> DockerDriver:
        driver = PodmanDriver(str(self.engine.socket), agent, cdi_folders=(self.engine.cdi_folder,))
        self.opened.append(driver)
        return driver


@asynccontextmanager
async def left_empty(house: DockerHouse) -> AsyncIterator[None]:
    """Destroy what a test that went well left on an engine, and close its drivers."""
    try:
        yield
        for status in await house.driver.recover():
            await house.driver.destroy(status.key)
        await house.driver.recover()
    finally:
        for driver in house.opened:
            await driver.close()


@pytest.fixture(scope="module", params=["own", "host"])
def docker_engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dockerd.Dockerd]:
    """A real dockerd for a module, in a network of its own or in the machine's."""
    reason = dockerd.missing()
    if reason is not None:
        pytest.skip(reason)
    engine = dockerd.Dockerd(tmp_path_factory.mktemp(f"docker-{request.param}"), request.param)
    try:
        engine.start()
        yield engine
    finally:
        engine.stop()


@pytest.fixture
async def docker_house(docker_engine: dockerd.Dockerd) -> AsyncIterator[DockerHouse]:
    """The docker driver on the module's engine."""
    # Once an engine: gathering the image's files takes longer than most tests.
    image = IMAGES.get(docker_engine.socket) or await load_demo_image(str(docker_engine.socket))
    IMAGES[docker_engine.socket] = image
    house = DockerHouse(docker_engine, image, "bridge" if docker_engine.network == "own" else "host")
    async with left_empty(house):
        yield house


@pytest.fixture(scope="module")
def podman_engine() -> Iterator[podman.Podman]:
    """A real Podman service for a module."""
    reason = podman.missing()
    if reason is not None:
        pytest.skip(reason)
    # Podman takes no long names of folders.
    engine = podman.Podman(Path(tempfile.mkdtemp(prefix="podman-")))
    try:
        engine.start()
        yield engine
    finally:
        engine.stop()


@pytest.fixture
async def podman_house(podman_engine: podman.Podman) -> AsyncIterator[DockerHouse]:
    """The podman driver on the module's service."""
    image = IMAGES.get(podman_engine.socket) or await load_demo_image(str(podman_engine.socket))
    IMAGES[podman_engine.socket] = image
    house = PodmanHouse(podman_engine, image, "bridge")
    async with left_empty(house):
        yield house


@pytest.fixture
async def exec_house(tmp_path: Path) -> AsyncIterator[ExecHouse]:
    """The exec driver."""
    house = ExecHouse(tmp_path / "exec")
    yield house
    for status in await house.driver.recover():
        await house.driver.destroy(status.key)


@pytest.fixture
def mock_house() -> MockHouse:
    """The mock driver."""
    return MockHouse()
