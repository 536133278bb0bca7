"""What every driver that runs programs promises of commands with somebody who talks with them (`ports.ExecSession`)."""

import asyncio
import io
import os
import random
import shutil
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiodocker
import pytest

from fallow_provider.domain.workload import Container
from fallow_provider.drivers import docker_exec
from fallow_provider.ports import (
    DriverRefusedError,
    DriverUnavailableError,
    ExecSession,
    LogStream,
    TerminalSize,
)
from tests.contract.drivers.conftest import DockerHouse, ExecHouse, House, PodmanHouse
from tests.contract.drivers.suite import WAIT_SECONDS, until_said

# It looks up ten times a second: a signal that comes just before it waits for a key is not heard before the next.
SIZES = (
    "import os, select, signal\n"
    "def show(*_): print('%dx%d' % os.get_terminal_size(), flush=True)\n"
    "signal.signal(signal.SIGWINCH, show)\n"
    "show()\n"
    "while True:\n"
    "    if select.select([0], [], [], 0.1)[0]:\n"
    "        line = os.read(0, 100)\n"
    "        print('got', line.decode() or 'the end', flush=True)\n"
    "        if not line: raise SystemExit(9)\n"
)
# It ignores polite signals and leaves a child in a session of its own. The number tells it from those of other tests.
STUBBORN = (
    "import os, signal, subprocess, sys, time\n"
    "for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT): signal.signal(number, signal.SIG_IGN)\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(NUMBER)'], start_new_session=True)\n"
    "print('ready', flush=True)\n"
    "time.sleep(NUMBER)\n"
)
COUNT = (
    "import os\n"
    "found = 0\n"
    "for pid in filter(str.isdigit, os.listdir('/proc')):\n"
    "    try: found += b'sleep(' + b'NUMBER)' in open(f'/proc/{pid}/cmdline', 'rb').read()\n"
    "    except OSError: pass\n"
    "print(found)\n"
)


def stubborn() -> tuple[str, str]:
    """The stubborn program with a number of its own, and what counts its processes."""
    number = str(random.SystemRandom().randrange(10_000, 1_000_000))
    return STUBBORN.replace("NUMBER", number), COUNT.replace("NUMBER", number)


@asynccontextmanager
async def opened(
    house: House, source: str, terminal: TerminalSize | None = None, container: Container | None = None
) -> AsyncIterator[ExecSession]:
    """A program of Python in a running container, or in the one that is given."""
    if container is None:
        container = house.container("serve")
        await house.driver.start(container)
        await until_said(house, container, "three")
    session = await house.driver.open_exec(container.key, ["python3", "-u", "-c", source], terminal)
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            yield session
    finally:
        await session.close()


async def until(session: ExecSession, text: bytes) -> bytes:
    """What the command says until it has said a text."""
    heard = b""
    while text not in heard:
        said = await session.read()
        assert said is not None, heard
        heard += said[1]
    return heard


async def all_of(session: ExecSession) -> dict[LogStream, bytes]:
    """What the command says until its end, by stream."""
    heard = {LogStream.STDOUT: b"", LogStream.STDERR: b""}
    while (said := await session.read()) is not None:
        heard[said[0]] += said[1]
    return heard


async def living(house: House, container: Container, count: str) -> int:
    """How many stubborn programs are seen from inside the container."""
    result = await house.driver.exec(container.key, ["python3", "-c", count], WAIT_SECONDS)
    return int(result.output)


async def put_shell(house: DockerHouse, container: Container) -> None:
    """Give a container of the demo's image, which has none, this machine's shell and `tr`; they need no more than Python does."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", dereference=True) as archive:
        for program in ("sh", "tr"):
            path = shutil.which(program)
            assert path is not None
            archive.add(os.path.realpath(path), f"bin/{program}")
    async with aiodocker.Docker(url=f"unix://{house.engine.socket}") as engine:
        await engine.containers.container(container.key.name).put_archive("/", content.getvalue())  # type: ignore[no-untyped-call]  # aiodocker gives it no types


class SessionSuite:
    """The suite; each driver's class fills `house`."""

    @pytest.fixture
    def house(self) -> House:
        """Filled by each driver."""
        raise NotImplementedError

    async def test_streams_input_and_status(self, house: House) -> None:
        """Goal: a pipe into a container. Method: a program that reads to the end, answers on both streams and exits with 5."""
        source = (
            "import os, sys\n"
            "text = sys.stdin.read()\n"
            "print(text.upper(), os.environ['COLOUR'])\n"
            "print(len(text), file=sys.stderr)\n"
            "sys.exit(5)\n"
        )
        async with opened(house, source) as session:
            await session.write(b"one ")
            await session.write(b"two")
            await session.close_input()
            assert await all_of(session) == {LogStream.STDOUT: b"ONE TWO blue\n", LogStream.STDERR: b"7\n"}
            assert await session.wait() == 5

    async def test_much_goes_through_whole(self, house: House) -> None:
        """Goal: nothing is lost under a slow reader. Method: 4 MiB of numbered lines echoed by the program, sent and read at once."""
        sent = b"".join(b"%08d\n" % number for number in range(470_000))
        async with opened(
            house, "import shutil, sys; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)"
        ) as session:

            async def send() -> None:
                for start in range(0, len(sent), 65_536):
                    await session.write(sent[start : start + 65_536])
                await session.close_input()

            async with asyncio.TaskGroup() as group:
                group.create_task(send())
                heard = await all_of(session)
            assert heard[LogStream.STDOUT] == sent
            assert await session.wait() == 0

    async def test_a_terminal_and_its_size(self, house: House) -> None:
        """Goal: a shell as at home. Method: the size at the start, after a resize (SIGWINCH), a line that is echoed, the end of input."""
        async with opened(house, SIZES, TerminalSize(101, 33)) as session:
            await until(session, b"101x33")
            await session.resize(TerminalSize(77, 11))
            await until(session, b"77x11")
            await session.write(b"word\n")
            assert b"word\r\n" in await until(session, b"got word")
            await session.close_input()
            await until(session, b"got the end")
            await all_of(session)
            assert await session.wait() == 9

    async def test_an_ended_session_leaves_no_process(self, house: House) -> None:
        """Goal: nothing goes on unseen. Method: a program that ignores signals and has a child in a session; close; look inside."""
        container = house.container("serve")
        await house.driver.start(container)
        await until_said(house, container, "three")
        for terminal in (None, TerminalSize()):
            source, count = stubborn()
            async with opened(house, source, terminal, container) as session:
                await until(session, b"ready")
                assert await living(house, container, count) == 2
            assert await living(house, container, count) == 0
            assert await session.read() is None

    async def test_it_ends_with_its_container(self, house: House) -> None:
        """Goal: no session outlives the lease. Method: stop the container under a session; its output ends."""
        container = house.container("serve")
        await house.driver.start(container)
        await until_said(house, container, "three")
        async with opened(house, stubborn()[0], None, container) as session:
            await until(session, b"ready")
            await house.driver.destroy(container.key)
            await all_of(session)
            assert await session.read() is None

    async def test_what_cannot_be_run_is_told(self, house: House) -> None:
        """Goal: a mistake is told. Method: no such program, on a terminal and not; a frozen container; one that has stopped."""
        container = house.container("serve")
        await house.driver.start(container)
        await until_said(house, container, "three")
        for terminal in (None, TerminalSize()):
            try:
                session = await house.driver.open_exec(container.key, ["no-such-program"], terminal)
            except DriverRefusedError as refusal:
                told = f"{refusal.reason.reason} {refusal.detail}"
            else:
                told = f"EXEC_REFUSED {await all_of(session)}"
                assert await session.wait() in {126, 127}
                await session.close()
            assert "EXEC_REFUSED" in told
            assert "no-such-program" in told
        await house.driver.freeze(container.key)
        with pytest.raises(DriverRefusedError):
            await house.driver.open_exec(container.key, ["true"], None)
        await house.driver.thaw(container.key)
        await house.driver.stop(container.key, 0)
        with pytest.raises(DriverRefusedError):
            await house.driver.open_exec(container.key, ["true"], None)


class TestExec(SessionSuite):
    """On plain processes."""

    @pytest.fixture
    def house(self, exec_house: ExecHouse) -> House:
        """The exec driver."""
        return exec_house


class TestPodman(SessionSuite):
    """On a real Podman."""

    @pytest.fixture
    def house(self, podman_house: PodmanHouse) -> House:
        """The podman driver."""
        return podman_house


class TestDocker(SessionSuite):
    """On a real engine."""

    @pytest.fixture
    def house(self, docker_house: DockerHouse) -> House:
        """The docker driver."""
        return docker_house

    async def test_an_engine_that_dies_is_told(self, docker_house: DockerHouse) -> None:
        """Goal: unknown is not an exit status. Method: kill dockerd under a session; waiting for the status is refused."""
        async with opened(docker_house, stubborn()[0]) as session:
            await until(session, b"ready")
            docker_house.engine.kill()
            try:
                await all_of(session)
                with pytest.raises(DriverUnavailableError):
                    await session.wait()
            finally:
                docker_house.engine.start()

    async def test_a_shell_kills_what_this_machine_cannot_see(
        self, docker_house: DockerHouse, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Goal: an agent in a container of its own leaves no process either. Method: let it see none; close; look inside."""
        monkeypatch.setattr(docker_exec, "kill_marked", lambda _: 0)
        container = docker_house.container("serve")
        await docker_house.driver.start(container)
        await until_said(docker_house, container, "three")
        await put_shell(docker_house, container)
        source, count = stubborn()
        async with opened(docker_house, source, None, container) as session:
            await until(session, b"ready")
            assert await living(docker_house, container, count) == 2
        assert await living(docker_house, container, count) == 0
