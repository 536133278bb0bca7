"""A service's whole life, as a process: set-up errors, serving, drain, crash."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fallow_chassis.errors import UNAVAILABLE
from fallow_chassis.grpc_client import RemoteError, channel
from fallow_chassis.testing.tokens import TestIdentity
from tests.conftest import StreamAddress
from tests.unit.chassis.sample import Request, Stub

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = Path(__file__).with_name("sample_service.py")


class Service:
    """The sample service as processes."""

    def __init__(self, folder: Path, database_url: str, nats: StreamAddress, topic: str) -> None:
        self.identity = TestIdentity(folder / "identity")
        self.database_url = database_url
        self.port_file = folder / "port"
        self.log = folder / "log"
        self.environment = {
            "FALLOW_LISTEN": "127.0.0.1:0",
            "FALLOW_PORT_FILE": str(self.port_file),
            "FALLOW_DATABASE_URL": database_url,
            "FALLOW_NATS_URL": nats.nats_url,
            "FALLOW_TOPIC": topic,
            "FALLOW_NATS_CREDENTIALS_FILE": nats.nats_credentials_file,
            "FALLOW_IDENTITY_KEY_FILE": str(self.identity.key_file("order")),
            "FALLOW_JWKS": str(self.identity.jwks),
            "FALLOW_LOG_FORMAT": "json",
            "FALLOW_DRAIN_WAIT_SECONDS": "0.2",
        }
        self.process: asyncio.subprocess.Process | None = None
        self.address = ""

    async def launch(self, command: str = "serve", **changes: str) -> asyncio.subprocess.Process:
        """Start the program; changes are settings, an empty one is taken away."""
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path, **self.environment, **changes}
        environment = {name: value for name, value in environment.items() if value}
        with self.log.open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, str(PROGRAM), command, env=environment, stdout=output, stderr=output
            )
        return self.process

    async def start(self, **changes: str) -> Stub:
        """Serve; a stub with an account's token."""
        self.port_file.unlink(missing_ok=True)
        process = await self.launch(**changes)
        async with asyncio.timeout(60):
            while not self.port_file.exists():
                assert process.returncode is None, self.log.read_text()
                await asyncio.sleep(0.02)
        self.address = self.port_file.read_text().strip()
        self.channel = channel(self.address, self.identity.as_account(scopes=["things.write"]))
        return Stub(self.channel)

    async def end(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end; the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        async with asyncio.timeout(30):
            return await self.process.wait()

    async def seen(self, key: str) -> list[int]:
        """What the consumer made of a key's events."""
        connection = await asyncpg.connect(self.database_url)
        try:
            return [row["number"] for row in await connection.fetch("SELECT number FROM seen WHERE key = $1", key)]
        finally:
            await connection.close()

    async def until_seen(self, key: str, numbers: list[int]) -> None:
        async with asyncio.timeout(30):
            while await self.seen(key) != numbers:
                await asyncio.sleep(0.05)

    async def unsent(self) -> int:
        connection = await asyncpg.connect(self.database_url)
        try:
            return int(await connection.fetchval("SELECT count(*) FROM outbox WHERE sent_at IS NULL"))
        finally:
            await connection.close()


@pytest.fixture
async def service(
    tmp_path: Path, database_url: str, jetstream_address: StreamAddress, topic: str
) -> AsyncIterator[Service]:
    """A service that is set up and not started."""
    made = Service(tmp_path, database_url, jetstream_address, topic)
    yield made
    if made.process is not None and made.process.returncode is None:
        made.process.kill()
        await made.process.wait()
    if made.address:
        await made.channel.close()


async def health_of(address: str) -> int:
    async with grpc.aio.insecure_channel(address) as bare:
        return int((await health_pb2_grpc.HealthStub(bare).Check(health_pb2.HealthCheckRequest(), timeout=5)).status)


async def test_an_event_goes_the_whole_way_and_the_end_is_orderly(service: Service) -> None:
    """Goal: call, commit, outbox, stream, inbox, effect; SIGTERM ends with 0 and nothing unsent. Method: as a tenant."""
    stub = await service.start()
    assert await health_of(service.address) == health_pb2.HealthCheckResponse.SERVING
    for _ in range(3):
        await stub.Account(Request(text="a"))
    await service.until_seen("a", [1, 2, 3])
    await stub.Account(Request(text="b"))
    assert await service.end(signal.SIGTERM) == 0, service.log.read_text()
    assert await service.unsent() == 0
    assert "closing with the pool still open" in service.log.read_text()
    await service.start()
    await service.until_seen("b", [1])
    assert await service.seen("a") == [1, 2, 3]


async def test_the_drain_lets_calls_finish_and_takes_no_new_ones(service: Service) -> None:
    """Goal: a deployment cuts nobody off. Method: a slow call in flight at SIGTERM; health and a late call beside it."""
    stub = await service.start()
    async with asyncio.TaskGroup() as group:
        slow = group.create_task(_call(stub, "1.5"))
        await asyncio.sleep(0.3)
        assert service.process is not None
        service.process.send_signal(signal.SIGTERM)
        statuses = []
        with contextlib.suppress(grpc.aio.AioRpcError):
            async with asyncio.timeout(10):
                while True:
                    statuses.append(await health_of(service.address))
                    await asyncio.sleep(0.01)
        with pytest.raises(RemoteError) as caught:
            await _call(stub, "0")
    assert slow.result() == "done"
    assert health_pb2.HealthCheckResponse.NOT_SERVING in statuses
    assert caught.value.has_reason(UNAVAILABLE)
    assert await service.process.wait() == 0


async def _call(stub: Stub, seconds: str) -> str:
    return str((await stub.Public(Request(text=seconds), timeout=10)).text)


async def test_the_drain_sends_the_last_event(service: Service) -> None:
    """Goal: the outbox is flushed after all who write to it. Method: an event that a consumer's end commits."""
    await service.start(FALLOW_FAULT="late event")
    assert await service.end(signal.SIGTERM) == 0, service.log.read_text()
    assert await service.unsent() == 0
    await service.start()
    await service.until_seen("late", [1])


async def test_a_second_signal_cuts_the_drain_short(service: Service) -> None:
    """Goal: an operator in a hurry is obeyed. Method: a call of a minute, and two signals."""
    stub = await service.start()
    async with asyncio.TaskGroup() as group:
        slow = group.create_task(_refused(stub, "60"))
        await asyncio.sleep(0.3)
        assert service.process is not None
        service.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.5)
        assert await service.end(signal.SIGINT) == 130
    assert slow.done()


async def _refused(stub: Stub, seconds: str) -> None:
    with pytest.raises(RemoteError):
        await stub.Public(Request(text=seconds), timeout=20)


async def test_what_a_killed_process_committed_is_sent_by_the_next(service: Service) -> None:
    """Goal: the outbox survives. Method: commit without a relay, kill -9, start again."""
    stub = await service.start(FALLOW_FAULT="no relay")
    await stub.Account(Request(text="a"))
    assert await service.unsent() == 1
    await service.end(signal.SIGKILL)
    await service.channel.close()
    await service.start()
    await service.until_seen("a", [1])


async def test_a_job_with_a_bug_ends_the_process(service: Service) -> None:
    """Goal: no half-dead service. Method: a job that fails as a bug does."""
    process = await service.launch(FALLOW_FAULT="job")
    async with asyncio.timeout(30):
        assert await process.wait() == 1
    assert "ZeroDivisionError" in service.log.read_text()
    assert "closing with the pool still open" in service.log.read_text()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"FALLOW_DATABASE_URL": ""}, "FALLOW_DATABASE_URL is not set"),
        ({"FALLOW_POOL_SIZE": "none"}, "FALLOW_POOL_SIZE"),
        ({"FALLOW_JWKS": "/nowhere"}, "cannot read the key set"),
    ],
)
async def test_wrong_settings_are_named(service: Service, changes: dict[str, str], told: str) -> None:
    """Goal: status 2 and the variable's name. Method: take away or spoil one setting."""
    process = await service.launch(**changes)
    async with asyncio.timeout(30):
        assert await process.wait() == 2
    assert told in service.log.read_text()
    assert "Traceback" not in service.log.read_text()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"FALLOW_IDENTITY_KEY_FILE": "/nowhere"}, "identity: FAILED: cannot read the private key"),
        ({"FALLOW_DATABASE_URL": "postgresql://fallow:hidden@127.0.0.1:1/x"}, "database: FAILED"),
        ({"FALLOW_NATS_URL": "nats://127.0.0.1:1"}, "nats: FAILED"),
    ],
)
async def test_check_tells_what_is_wrong(service: Service, changes: dict[str, str], told: str) -> None:
    """Goal: a line for each thing that serving needs. Method: spoil one, and look that no password is printed."""
    process = await service.launch("check", **changes)
    async with asyncio.timeout(30):
        assert await process.wait() == 1
    assert told in service.log.read_text()
    assert "hidden" not in service.log.read_text()


@pytest.mark.parametrize("command", ["serve", "check"])
async def test_what_is_needed_is_asked_for_by_both(service: Service, command: str) -> None:
    """Goal: `check` never passes where `serve` refuses. Method: take a needed setting away from each."""
    process = await service.launch(command, FALLOW_DATABASE_URL="")
    async with asyncio.timeout(30):
        assert await process.wait() == 2
    assert "FALLOW_DATABASE_URL is not set" in service.log.read_text()


async def test_an_absent_server_is_told_once(service: Service) -> None:
    """Goal: a log that can be read. Method: `check` with no NATS, which is tried for five seconds; count the lines."""
    process = await service.launch("check", FALLOW_NATS_URL="nats://127.0.0.1:1")
    async with asyncio.timeout(60):
        assert await process.wait() == 1
    assert service.log.read_text().count("nats_error") <= 2


async def test_serving_waits_for_migrate(service: Service, empty_url: str) -> None:
    """Goal: no code on a schema that is behind. Method: serve on an empty database, migrate, check, serve."""
    service.database_url = service.environment["FALLOW_DATABASE_URL"] = empty_url
    process = await service.launch()
    async with asyncio.timeout(30):
        assert await process.wait() == 2
        assert "run 'migrate' first" in service.log.read_text()
        assert await (await service.launch("check")).wait() == 1
        assert await (await service.launch("migrate")).wait() == 0
        assert await (await service.launch("check")).wait() == 0
    stub = await service.start()
    assert (await stub.Account(Request(text="a"))).text == "accounts/tenant"
