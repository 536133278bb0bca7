"""The supervisor: restarts what ends, says so, counts, gives up when a restart does not mend it."""

import asyncio
from pathlib import Path

import pytest

from fallow_stack.engines import EngineError
from fallow_stack.home import Home
from fallow_stack.supervisor import RESTARTS_MAX, MemberFailedError, Supervisor


class PlayedEngine:
    """An engine without a process: `lives` says how often it can be started before it refuses."""

    def __init__(self, log: list[str], name: str, lives: int = 1_000) -> None:
        self.log, self.name, self.lives = log, name, lives
        self.is_running = False
        self.pid = 42

    async def start(self) -> None:
        """Count a life."""
        if self.lives == 0:
            raise EngineError(f"{self.name} has no life left")
        self.lives -= 1
        self.is_running = True
        self.log.append(f"start {self.name}")

    async def stop(self) -> None:
        """Note it."""
        self.is_running = False
        self.log.append(f"stop {self.name}")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between looks and restarts take no time."""
    monkeypatch.setattr("fallow_stack.supervisor.WATCH_SECONDS", 0.0)
    monkeypatch.setattr("fallow_stack.supervisor.FIRST_PAUSE_SECONDS", 0.0)


async def test_members_stop_in_reverse(tmp_path: Path) -> None:
    """Goal: nothing loses what it stands on. Method: note the order."""
    log: list[str] = []
    supervisor = Supervisor(Home(tmp_path), log.append)
    for name in ("postgres", "order"):
        await supervisor.start(name, PlayedEngine(log, name), 1)
    await supervisor.stop()
    assert log == ["start postgres", "start order", "stop order", "stop postgres"]


async def test_a_member_that_ends_is_started_again_and_said(tmp_path: Path) -> None:
    """Goal: no silent restart. Method: end one, watch, compare lines, count and status file."""
    home = Home(tmp_path)
    lines: list[str] = []
    supervisor = Supervisor(home, lines.append)
    engine = PlayedEngine([], "order")
    member = await supervisor.start("order", engine, 1)
    async with asyncio.TaskGroup() as group:
        watcher = group.create_task(supervisor.watch())
        engine.is_running = False
        async with asyncio.timeout(5):
            while "order runs again (restart 1)" not in lines:
                await asyncio.sleep(0)
        watcher.cancel()
    status = home.read_status()
    assert status is not None
    assert (status.members[0].state, status.members[0].restarts, member.restarts) == ("running", 1, 1)
    assert any("ended by itself; starting it again" in line for line in lines)


async def test_a_member_that_cannot_be_kept_ends_the_stack(tmp_path: Path) -> None:
    """Goal: no endless loop of restarts. Method: an engine whose second life never comes."""
    supervisor = Supervisor(Home(tmp_path), lambda _: None)
    engine = PlayedEngine([], "order", lives=1)
    member = await supervisor.start("order", engine, 1)
    engine.is_running = False
    with pytest.raises(ExceptionGroup) as failed:
        await supervisor.watch()
    assert failed.group_contains(MemberFailedError, match="order ended")
    assert member.restarts == RESTARTS_MAX + 1


async def test_a_member_that_does_not_start_is_marked(tmp_path: Path) -> None:
    """Goal: the table shows which one failed. Method: an engine with no life."""
    home = Home(tmp_path)
    supervisor = Supervisor(home, lambda _: None)
    with pytest.raises(EngineError):
        await supervisor.start("order", PlayedEngine([], "order", lives=0), 1)
    status = home.read_status()
    assert status is not None
    assert status.members[0].state == "failed"
