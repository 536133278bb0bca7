"""The exec driver keeps the suite, and what it alone promises: nothing outlives its mark, nothing starts twice."""

import asyncio
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from fallow_provider.drivers import processes
from fallow_provider.ports import DriverRefusedError, LogQuery
from fallow_stack.demo import PROGRAM
from tests.contract.drivers.conftest import CLOCK, ExecHouse, House
from tests.contract.drivers.suite import ProgramSuite, until_said


class TestExec(ProgramSuite):
    """The suite on plain processes."""

    @pytest.fixture
    def house(self, exec_house: ExecHouse) -> House:
        """The exec driver."""
        return exec_house


def folder_of(house: ExecHouse, name: str) -> Path:
    """A container's folder."""
    return house.folder / name


async def test_nothing_of_the_agents_environment_gets_in(
    exec_house: ExecHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: the owner's secrets stay the owner's. Method: a variable of ours is not in the process's environment."""
    monkeypatch.setenv("FALLOW_API_KEY_FILE", "secret")
    container = exec_house.container("serve")
    status = await exec_house.driver.start(container)
    environment = Path(f"/proc/{status.runtime_id}/environ").read_bytes()
    assert b"FALLOW_API_KEY_FILE" not in environment
    assert b"COLOUR=blue" in environment
    assert f"FALLOW_CONTAINER={container.key.text()}".encode() in environment


async def test_the_demos_workload_is_reached_from_this_machine_only(exec_house: ExecHouse) -> None:
    """Goal: nobody in the network reaches a demo. Method: run its program as the demo does; ask the kernel where it
    listens.
    """
    container = replace(exec_house.container("serve"), command=("python3", "-u", "-c", PROGRAM))
    status = await exec_house.driver.start(container)
    async with asyncio.timeout(20):
        while not await exec_house.fetch(status.ports[8080]):
            await asyncio.sleep(0.05)
    sockets = psutil.Process(int(status.runtime_id)).net_connections("inet")
    listening = {socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}


async def test_a_killed_shim_takes_its_process_along(exec_house: ExecHouse) -> None:
    """Goal: no process without its keeper. Method: SIGKILL the shim; the process dies, and its end is not known."""
    container = exec_house.container("serve")
    status = await exec_house.driver.start(container)
    shim = processes.lock_holder(folder_of(exec_house, container.key.name) / "lock")
    assert shim is not None
    os.kill(shim, signal.SIGKILL)
    async with asyncio.timeout(20):
        assert await exec_house.driver.wait(container.key) is None
        while processes.start_ticks(int(status.runtime_id)) is not None:
            await asyncio.sleep(0.02)
    again = await exec_house.driver.start(container)
    assert again.is_running
    assert again.ports == status.ports


async def test_a_program_that_handles_no_signal_ends_when_asked(exec_house: ExecHouse) -> None:
    """Goal: what the shim ignores its program does not. Method: one without handlers ends by SIGTERM, not by SIGKILL."""
    container = exec_house.container("serve")
    source = "import time; print('ready', flush=True); time.sleep(600)"
    container = replace(container, command=("python3", "-c", source))
    await exec_house.driver.start(container)
    await until_said(exec_house, container, "ready")
    await exec_house.driver.stop(container.key, 60_000)
    status = await exec_house.driver.inspect(container.key)
    assert status is not None
    assert status.exit_status == 128 + signal.SIGTERM


async def test_silence_ends_a_process_whose_agent_is_dead(exec_house: ExecHouse) -> None:
    """Goal: nothing runs on unheard of. Method: a short self-stop with an agent that is heard, then one that is not."""
    container = replace(exec_house.container("serve"), self_stop_ms=500)
    exec_house.driver.heard(CLOCK.monotonic_ms() + 3_000)
    await exec_house.driver.start(container)
    exec_house.driver.heard(CLOCK.monotonic_ms() + 3_000)
    began_ms = CLOCK.monotonic_ms()
    async with asyncio.timeout(60):
        assert await exec_house.driver.wait(container.key) == 7
    assert CLOCK.monotonic_ms() - began_ms > 3_000
    lines = [line.text async for line in exec_house.driver.logs(container.key, LogQuery())]
    assert lines[-2].startswith("fallow: the market has not heard")
    assert lines[-1] == "polite end"


async def test_two_shims_never_run_one_container(exec_house: ExecHouse) -> None:
    """Goal: no double start, whatever two lives of an agent do at once. Method: race five drivers, count processes."""
    container = exec_house.container("serve")
    drivers = [exec_house.driver, *(exec_house.reborn() for _ in range(4))]
    async with asyncio.TaskGroup() as group:
        started = [group.create_task(driver.start(container)) for driver in drivers]
    assert len({task.result().runtime_id for task in started}) == 1
    marked = [pid for pid, _ in processes.marked("FALLOW_CONTAINER", container.key.text())]
    assert marked == [int(started[0].result().runtime_id)]


async def test_what_escaped_is_found_by_its_mark(exec_house: ExecHouse) -> None:
    """Goal: a child in a session of its own does not outlive the container. Method: one that ignores SIGTERM."""
    container = exec_house.container("stubborn")
    await exec_house.driver.start(container)
    await until_said(exec_house, container, "ready")
    assert len(list(processes.marked("FALLOW_CONTAINER", container.key.text()))) == 2
    await exec_house.driver.stop(container.key, 0)
    async with asyncio.timeout(20):
        while list(processes.marked("FALLOW_CONTAINER", container.key.text())):
            await asyncio.sleep(0.02)


async def test_an_orphan_without_a_folder_is_recovered(exec_house: ExecHouse) -> None:
    """Goal: a lost folder hides nothing. Method: move the folder away; recover still tells, destroy still ends."""
    container = exec_house.container("serve")
    status = await exec_house.driver.start(container)
    folder = folder_of(exec_house, container.key.name)
    folder.rename(folder.with_name("elsewhere-of-the-test").parent.parent / "elsewhere")
    reborn = exec_house.reborn()
    (found,) = await reborn.recover()
    assert (found.key, found.runtime_id, found.is_running) == (container.key, status.runtime_id, True)
    await reborn.destroy(container.key)
    async with asyncio.timeout(20):
        while processes.start_ticks(int(status.runtime_id)) is not None:
            await asyncio.sleep(0.02)


async def test_a_pid_that_belongs_to_another_is_left_alone(exec_house: ExecHouse) -> None:
    """Goal: a reused pid is never signalled. Method: write our own pid with a wrong start time where a process was."""
    container = exec_house.container("exit")
    await exec_house.driver.start(container)
    await exec_house.driver.wait(container.key)
    file = folder_of(exec_house, container.key.name) / "process.json"
    file.write_text(json.dumps({"pid": os.getpid(), "start_ticks": 1}), "utf-8")
    await exec_house.driver.stop(container.key, 0)
    assert not processes.is_same_process(os.getpid(), 1)
    status = await exec_house.driver.inspect(container.key)
    assert status is not None
    assert not status.is_running


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image": "python:3"}, "IMAGE_UNSUPPORTED"),
        ({"command": (), "arguments": ()}, "WORKLOAD_UNSUPPORTED"),
        ({"mount_paths": ("/data",)}, "WORKLOAD_UNSUPPORTED"),
        ({"is_root_read_only": True}, "WORKLOAD_UNSUPPORTED"),
    ],
)
async def test_what_it_cannot_give_is_refused(exec_house: ExecHouse, changes: dict[str, object], reason: str) -> None:
    """Goal: no silent lack. Method: each thing that plain processes cannot have."""
    container = replace(exec_house.container("serve"), **changes)  # type: ignore[arg-type]
    with pytest.raises(DriverRefusedError) as refusal:
        await exec_house.driver.start(container)
    assert refusal.value.reason.reason == reason
    assert list(await exec_house.driver.recover()) == []
