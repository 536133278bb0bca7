"""Fixtures that every rung of the ladder shares: engines, databases, streams, time, ids, identity.

Engines (`postgres_server`, `nats_server`, `kafka_server`) are one each for the whole run, shared by all workers and
started when first asked for; what a test puts into them has names of its own. A test that kills an engine takes a
private one.
"""

import itertools
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fallow_chassis.nats_credentials import provider_credentials, service_credentials
from fallow_chassis.stream import EventStream, open_stream
from fallow_chassis.testing import DatabaseFactory, ManualClock, SequentialIds, TestIdentity
from fallow_stack.engines import Kafka, Nats, Postgres
from fallow_stack.engines.kafka import fetch
from tests.engines import KAFKA_LIBRARIES, KAFKA_POM, EngineOwner, ask, start_engine

_owner_key = pytest.StashKey[EngineOwner]()
_socket_key = pytest.StashKey[str]()
_numbers = itertools.count(1)
ADAPTERS = ["jetstream", pytest.param("kafka", marks=pytest.mark.kafka)]


@dataclass(frozen=True)
class PostgresServer:
    """The run's Postgres; `url` is a database in which nothing is stored."""

    url: str


@dataclass(frozen=True)
class NatsServer:
    """The run's NATS. The credentials are of a service, which may use every subject."""

    url: str
    credentials_file: str
    account_seed_file: str
    folder: Path

    @property
    def account_seed(self) -> str:
        """What signs users."""
        return Path(self.account_seed_file).read_text("ascii").strip()

    def provider_credentials(self, provider: str) -> str:
        """The text of a provider's .creds file."""
        return provider_credentials(self.account_seed, provider)

    def provider_credentials_file(self, provider: str) -> str:
        """A provider's .creds file."""
        return self._write(provider, self.provider_credentials(provider))

    def service_credentials_file(self, service: str) -> str:
        """The .creds file of a service of that name."""
        return self._write(service, service_credentials(self.account_seed, service))

    def _write(self, name: str, text: str) -> str:
        path = self.folder / f"{name}-{next(_numbers)}.creds"
        path.write_text(text, "ascii")
        return str(path)


@dataclass(frozen=True)
class KafkaServer:
    """The run's Apache Kafka node, `kafka://127.0.0.1:port`."""

    url: str


@dataclass(frozen=True)
class StreamAddress:
    """The settings that `open_stream` and every service read."""

    stream_url: str
    nats_url: str = ""
    nats_credentials_file: str = ""


def pytest_configure(config: pytest.Config) -> None:
    """Own the engines in the process that started pytest; workers get the address of its socket."""
    worker = getattr(config, "workerinput", None)
    if worker is not None:
        config.stash[_socket_key] = worker["engine_socket"]
        return
    owner = EngineOwner()
    config.stash[_owner_key] = owner
    config.stash[_socket_key] = owner.socket_path


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: object) -> None:
    """Tell a worker of xdist where the engines' owner listens."""
    node.workerinput["engine_socket"] = node.config.stash[_socket_key]  # type: ignore[attr-defined]


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the engines at the end of the run."""
    owner = config.stash.get(_owner_key, None)
    if owner is not None:
        owner.close()


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest) -> PostgresServer:
    """PostgreSQL, one for the run."""
    return PostgresServer(ask(request.config.stash[_socket_key], "postgres")["url"])


@pytest.fixture(scope="session")
def nats_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> NatsServer:
    """NATS with JetStream in operator mode, one for the run."""
    answer = ask(request.config.stash[_socket_key], "nats")
    return NatsServer(
        answer["url"], answer["credentials_file"], answer["account_seed_file"], tmp_path_factory.mktemp("credentials")
    )


@pytest.fixture(scope="session")
def kafka_libraries() -> Path:
    """Apache Kafka's jars, fetched by Maven if they are not there; skips where Java or Maven is missing."""
    missing = Kafka.missing()
    if missing is not None:
        pytest.skip(missing)
    fetch(KAFKA_POM, KAFKA_LIBRARIES)
    return KAFKA_LIBRARIES


@pytest.fixture(scope="session")
def kafka_server(request: pytest.FixtureRequest, kafka_libraries: Path) -> KafkaServer:
    """One node of Apache Kafka for the run."""
    return KafkaServer(ask(request.config.stash[_socket_key], "kafka")["url"])


@pytest.fixture
async def database_factory(postgres_server: PostgresServer) -> AsyncIterator[DatabaseFactory]:
    """Awaited with a package's name, gives the address of a migrated database of the test's own; dropped after it."""
    factory = DatabaseFactory(postgres_server.url)
    yield factory
    await factory.drop_all()


@pytest.fixture
def jetstream_address(nats_server: NatsServer) -> StreamAddress:
    """Settings for the event stream on JetStream."""
    return StreamAddress(nats_server.url, nats_server.url, nats_server.credentials_file)


@pytest.fixture
def kafka_address(kafka_server: KafkaServer, nats_server: NatsServer) -> StreamAddress:
    """Settings for the event stream on Kafka, with NATS for the live traffic."""
    return StreamAddress(kafka_server.url, nats_server.url, nats_server.credentials_file)


@pytest.fixture(params=ADAPTERS)
def stream_settings(request: pytest.FixtureRequest) -> StreamAddress:
    """Settings for both adapters in turn."""
    address: StreamAddress = request.getfixturevalue(f"{request.param}_address")
    return address


@pytest.fixture
async def stream(stream_settings: StreamAddress) -> AsyncIterator[EventStream]:
    """A connected event stream, on both adapters in turn."""
    opened = await open_stream(stream_settings, client="tests")
    yield opened
    await opened.close()


@pytest.fixture
async def jetstream_stream(jetstream_address: StreamAddress) -> AsyncIterator[EventStream]:
    """A connected event stream on JetStream."""
    opened = await open_stream(jetstream_address, client="tests")
    yield opened
    await opened.close()


@pytest.fixture
async def kafka_stream(kafka_address: StreamAddress) -> AsyncIterator[EventStream]:
    """A connected event stream on Kafka; mark the test `kafka`."""
    opened = await open_stream(kafka_address, client="tests")
    yield opened
    await opened.close()


@pytest.fixture
def topic() -> str:
    """The name of a topic that no other test uses."""
    return f"test.t{secrets.token_hex(6)}.v1"


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still."""
    return ManualClock()


@pytest.fixture
def ids() -> SequentialIds:
    """Ids that count from 1."""
    return SequentialIds()


@pytest.fixture
def identity(tmp_path: Path) -> TestIdentity:
    """Keys and tokens of all services, by the system's clock."""
    return TestIdentity(tmp_path / "identity")


@pytest.fixture
async def private_postgres(tmp_path: Path) -> AsyncIterator[Postgres]:
    """A Postgres that the test may kill."""
    engine = await start_engine("postgres", tmp_path / "postgres")
    assert isinstance(engine, Postgres)
    yield engine
    await engine.wipe()


@pytest.fixture
async def private_nats(tmp_path: Path) -> AsyncIterator[Nats]:
    """A NATS that the test may kill."""
    engine = await start_engine("nats", tmp_path / "nats")
    assert isinstance(engine, Nats)
    yield engine
    await engine.wipe()


@pytest.fixture
async def private_kafka(tmp_path: Path, kafka_libraries: Path) -> AsyncIterator[Kafka]:
    """A Kafka node that the test may kill; mark the test `kafka`."""
    engine = await start_engine("kafka", tmp_path / "kafka")
    assert isinstance(engine, Kafka)
    yield engine
    await engine.wipe()
