"""Exec at the agent's door: a command in a container with somebody who talks with it, who may, and what ends it."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from fallow.provider.v1 import market_link_pb2, provider_service_pb2_grpc
from fallow.provider.v1.provider_service_pb2 import ExecRequest
from fallow.type.v1 import lease_pb2
from fallow_provider.sessions import MAX_LEASE_SESSIONS
from fallow_sdk.door import RemoteCommand
from fallow_sdk.errors import FallowError
from tests.component.provider.conftest import WAIT_SECONDS, Market, container

# What it prints names it to the test; it goes on until it is killed.
LASTING = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
FLOOD = "import os; print(os.getpid(), flush=True)\nwhile True: os.write(1, b'x' * 65536)"


@pytest.fixture
async def lease(market: Market) -> tuple[str, lease_pb2.GenerationKey]:
    """A lease that runs."""
    await market.start_agent()
    lease, key = market.new_lease()
    await market.command(market.run_command(lease, key))
    await market.until_state(lease, market_link_pb2.RUN_STATE_RUNNING)
    return lease, key


class Opened:
    """The door, opened by a grant."""

    def __init__(self, door: Any, grant: str) -> None:
        self._door = door
        self._metadata = (("authorization", f"Bearer {grant}"),)

    async def exec(self, *requests: ExecRequest, is_open: bool = True) -> Any:
        """A call with these first messages; its stream of requests stays open unless it is said."""
        call = self._door.Exec(metadata=self._metadata)
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            for request in requests:
                await call.write(request)
            if not is_open:
                await call.done_writing()
        return call


@asynccontextmanager
async def stub(
    market: Market, lease: str, key: lease_pb2.GenerationKey, *rights: str, seconds: int = 600
) -> AsyncIterator[Opened]:
    """The door, opened by a grant for so long."""
    grant = market.identity.grant(market.claims(lease, key, *(rights or ("exec",))), lifetime_seconds=seconds)
    await market.until(market.port_file.exists, "port file")
    async with grpc.aio.insecure_channel(market.port_file.read_text("utf-8").strip()) as channel:
        yield Opened(provider_service_pb2_grpc.WorkloadAccessServiceStub(channel), grant)


def python(lease: str, source: str, **fields: Any) -> ExecRequest:
    """The first message: a program of Python."""
    return ExecRequest(start=ExecRequest.Start(lease=lease, command=["python3", "-u", "-c", source], **fields))


async def refused(call: Any) -> str:
    """The reason with which a call ends."""
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        async with asyncio.timeout(WAIT_SECONDS):
            while await call.read() is not grpc.aio.EOF:
                pass
    return FallowError.from_rpc(refusal.value).reason


async def pid_of(call: Any) -> int:
    """The process that a lasting program said it is."""
    said = b""
    while b"\n" not in said:
        said += (await call.read()).output
    return int(said.partition(b"\n")[0])


def lives(pid: int) -> bool:
    """Whether a process is there."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def has_ended(pid: int) -> bool:
    """Whether a process is gone."""
    return not lives(pid)


async def test_a_pipe(market: Market, lease: tuple[str, lease_pb2.GenerationKey]) -> None:
    """Goal: a program in a pipe. Method: send two parts, close the input by either way; both streams and the status come."""
    name, key = lease
    source = "import sys; text = sys.stdin.read(); print(text.upper()); print('side', file=sys.stderr); sys.exit(3)"
    parts = [ExecRequest(input=b"one "), ExecRequest(input=b"two")]
    async with stub(market, name, key) as opened:
        for ending, is_open in (([ExecRequest(close_input=True)], True), ([], False)):
            call = await opened.exec(python(name, source), *parts, *ending, is_open=is_open)
            answers = [answer async for answer in call]
            assert b"".join(answer.output for answer in answers) == b"ONE TWO\n"
            assert b"".join(answer.error for answer in answers) == b"side\n"
            assert answers[-1].WhichOneof("message") == "exit_status"
            assert answers[-1].exit_status == 3


async def opened_command(opened: Opened, start: ExecRequest) -> RemoteCommand:
    """A command as the SDK holds it, once it runs."""
    call = await opened.exec(start)
    assert (await call.read()).started
    return RemoteCommand(call)


async def test_writers_at_once(market: Market, lease: tuple[str, lease_pb2.GenerationKey]) -> None:
    """Goal: input and sizes may be sent from several tasks. Method: all at once; every byte arrives, and the status comes."""
    name, key = lease
    source = "import sys; print(len(sys.stdin.read()))"
    async with stub(market, name, key) as opened:
        remote = await opened_command(opened, python(name, source))
        sent = [send for _ in range(50) for send in (remote.write(b"x" * 1_000), remote.resize(80, 24))]
        await asyncio.gather(*sent)
        await remote.close_input()
        said = [data async for _, data in remote.output()]
        assert (b"".join(said), remote.exit_status) == (b"50000\n", 0)


async def test_a_command_that_ends_under_a_writer(market: Market, lease: tuple[str, lease_pb2.GenerationKey]) -> None:
    """Goal: a status is learned whoever still writes. Method: commands that end by themselves while input comes
    without a pause; what they say is read late.
    """
    name, key = lease
    async with stub(market, name, key) as opened:
        for status in range(1, 21):
            remote = await opened_command(opened, python(name, f"import sys; sys.stdin.read(1); sys.exit({status})"))

            async def write(to: RemoteCommand = remote) -> None:
                while True:
                    await to.write(b"word")

            async with asyncio.TaskGroup() as group:
                writer = group.create_task(write())
                await asyncio.sleep(0.2)
                assert [data async for _, data in remote.output()] == []
                assert remote.exit_status == status
                writer.cancel()


async def test_who_may_not(market: Market, lease: tuple[str, lease_pb2.GenerationKey]) -> None:
    """Goal: a grant opens one lease for one right. Method: another right, another's lease, no such service or replica, no start."""
    name, key = lease
    other, other_key = market.new_lease()
    start = python(name, "print(1)")
    async with stub(market, name, key, "logs.read") as opened:
        assert await refused(await opened.exec(start)) == "PERMISSION_DENIED"
    async with stub(market, other, other_key) as opened:
        assert await refused(await opened.exec(start)) == "PERMISSION_DENIED"
        assert await refused(await opened.exec(python(other, "print(1)"))) == "LEASE_NOT_FOUND"
    async with stub(market, name, key) as opened:
        for fields, reason in (
            ({"service": "none"}, "SERVICE_NOT_FOUND"),
            ({"replica": 1}, "REPLICA_NOT_FOUND"),
        ):
            assert await refused(await opened.exec(python(name, "print(1)", **fields))) == reason
        assert await refused(await opened.exec(ExecRequest(input=b"word"))) == "INVALID_FIELD"
        assert await refused(await opened.exec(is_open=False)) == "INVALID_FIELD"
        assert await refused(await opened.exec(python(name, LASTING), python(name, LASTING))) == "INVALID_FIELD"
        nothing = ExecRequest(start=ExecRequest.Start(lease=name, command=["no-such-program"]))
        assert await refused(await opened.exec(nothing)) == "EXEC_REFUSED"


async def test_several_services_need_a_name(market: Market) -> None:
    """Goal: no command lands where nobody meant it. Method: two services and none named."""
    await market.start_agent()
    name, key = market.new_lease()
    market.order.workloads[name].containers.append(
        container("import time; time.sleep(600)", service="side", ports=[], readiness=None)
    )
    await market.command(market.run_command(name, key))
    await market.until_state(name, market_link_pb2.RUN_STATE_RUNNING)
    async with stub(market, name, key) as opened:
        assert await refused(await opened.exec(python(name, "print(1)"))) == "REPLICA_NOT_FOUND"
        call = await opened.exec(python(name, "print(1)", service="side"))
        assert b"".join([answer.output async for answer in call]) == b"1\n"


async def test_a_caller_who_leaves(market: Market, lease: tuple[str, lease_pb2.GenerationKey]) -> None:
    """Goal: nothing goes on for nobody. Method: cancel the call of a lasting program; its process is gone."""
    name, key = lease
    async with stub(market, name, key) as opened:
        call = await opened.exec(python(name, LASTING))
        pid = await pid_of(call)
        assert lives(pid)
        call.cancel()
        await market.until(partial(has_ended, pid), "end of the command")


async def test_an_expired_grant(market: Market, lease: tuple[str, lease_pb2.GenerationKey]) -> None:
    """Goal: a grant ends what it opened. Method: one of two seconds, under a silent program and under one whose flood nobody reads."""
    name, key = lease
    for source in (LASTING, FLOOD):
        async with stub(market, name, key, seconds=2) as opened:
            call = await opened.exec(python(name, source))
            pid = await pid_of(call)
            await market.until(partial(has_ended, pid), "end of the command")
            assert await refused(call) == "GRANT_EXPIRED"


async def test_the_end_of_the_lease(market: Market, lease: tuple[str, lease_pb2.GenerationKey]) -> None:
    """Goal: no session outlives its lease. Method: stop the lease under a session."""
    name, key = lease
    async with stub(market, name, key) as opened:
        call = await opened.exec(python(name, LASTING))
        pid = await pid_of(call)
        await market.command(market.stop_command(name, key))
        assert await refused(call) == "SESSION_OVER"
        assert not lives(pid)


async def test_the_end_of_the_agent(market: Market, lease: tuple[str, lease_pb2.GenerationKey]) -> None:
    """Goal: an agent that is asked to stop says so, and leaves no command. Method: SIGTERM under a session."""
    name, key = lease
    async with stub(market, name, key) as opened:
        call = await opened.exec(python(name, LASTING))
        pid = await pid_of(call)
        assert await market.end_agent(signal.SIGTERM) == 0
        assert await refused(call) == "UNAVAILABLE"
        assert not lives(pid)


async def test_no_more_than_so_many(market: Market, lease: tuple[str, lease_pb2.GenerationKey]) -> None:
    """Goal: one lease cannot fill the agent. Method: as many sessions as it may have; one more; one less, then one more."""
    name, key = lease
    async with stub(market, name, key) as opened:
        start = ExecRequest(start=ExecRequest.Start(lease=name, command=["sh", "-c", "echo $$; exec sleep 600"]))
        calls = [await opened.exec(start) for _ in range(MAX_LEASE_SESSIONS)]
        for call in calls:
            await pid_of(call)
        assert await refused(await opened.exec(start)) == "SESSIONS_FULL"
        calls.pop().cancel()

        async def opens() -> bool:
            call = await opened.exec(start)
            calls.append(call)
            try:
                await pid_of(call)
            except grpc.aio.AioRpcError:
                return False
            return True

        async with asyncio.timeout(WAIT_SECONDS):
            while not await opens():
                await asyncio.sleep(0.1)
        for call in calls:
            call.cancel()
