"""What every runtime driver promises (`fallow_provider.ports`), as one suite; each driver's test class fills `house`."""

import asyncio
from dataclasses import replace

import pytest

from fallow_provider.domain.workload import Container
from fallow_provider.ports import DriverRefusedError, LogLine, LogQuery, LogStream
from tests.contract.drivers.conftest import House, new_key

WAIT_SECONDS = 20.0


async def until_said(house: House, container: Container, text: str) -> list[LogLine]:
    """The log once a line of it is `text`."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            lines = [line async for line in house.driver.logs(container.key, LogQuery())]
            if any(line.text == text for line in lines):
                return lines
            await asyncio.sleep(0.05)


class DriverSuite:
    """The suite."""

    @pytest.fixture
    def house(self) -> House:
        """Filled by each driver."""
        raise NotImplementedError

    async def test_it_says_what_it_is(self, house: House) -> None:
        """Goal: an operator learns what is not held. Method: the fingerprint."""
        fingerprint = await house.driver.fingerprint()
        assert fingerprint.is_available
        assert fingerprint.driver == house.driver.name
        assert fingerprint.isolation

    async def test_start_runs_it_once(self, house: House) -> None:
        """Goal: a repeated start is harmless. Method: start three times, twice at once; one id, one entry."""
        container = house.container("serve")
        first = await house.driver.start(container)
        assert first.is_running
        assert first.exit_status is None
        async with asyncio.TaskGroup() as group:
            again = [group.create_task(house.driver.start(container)) for _ in range(2)]
        assert {task.result().runtime_id for task in again} == {first.runtime_id}
        assert [status.key for status in await house.driver.recover()] == [container.key]

    async def test_its_exit_status_is_told(self, house: House) -> None:
        """Goal: how it ended is known, now and later. Method: programs that exit with 0 and 3; wait and inspect."""
        for expected in (0, 3):
            container = house.container("exit", expected)
            await house.driver.start(container)
            async with asyncio.timeout(WAIT_SECONDS):
                assert await house.driver.wait(container.key) == expected
            status = await house.driver.inspect(container.key)
            assert status is not None
            assert (status.is_running, status.exit_status) == (False, expected)
            assert await house.driver.stats(container.key) is None

    async def test_a_stopped_one_starts_again(self, house: House) -> None:
        """Goal: restarts keep the container. Method: let it exit, start it, look at its log."""
        container = house.container("exit", 1)
        for _ in range(2):
            await house.driver.start(container)
            async with asyncio.timeout(WAIT_SECONDS):
                assert await house.driver.wait(container.key) == 1
        lines = [line.text async for line in house.driver.logs(container.key, LogQuery())]
        assert lines.count("one") == 2

    async def test_stop_ends_it_and_is_harmless_twice(self, house: House) -> None:
        """Goal: stop means that nothing runs. Method: stop twice, then ask."""
        container = house.container("serve")
        await house.driver.start(container)
        await until_said(house, container, "three")
        await house.driver.stop(container.key, 5_000)
        await house.driver.stop(container.key, 5_000)
        status = await house.driver.inspect(container.key)
        assert status is not None
        assert not status.is_running
        assert status.exit_status is not None

    async def test_a_frozen_one_is_kept_and_goes_on(self, house: House) -> None:
        """Goal: a pause keeps all and ends nothing. Method: freeze twice, look, thaw twice, look; the next life sees both."""
        container = house.container("serve")
        await house.driver.start(container)
        await until_said(house, container, "three")
        for _ in range(2):
            await house.driver.freeze(container.key)
        frozen = await house.reborn().inspect(container.key)
        assert frozen is not None
        assert (frozen.is_running, frozen.is_frozen) == (True, True)
        for _ in range(2):
            await house.driver.thaw(container.key)
        thawed = await house.driver.inspect(container.key)
        assert thawed is not None
        assert (thawed.is_running, thawed.is_frozen) == (True, False)
        assert thawed.runtime_id == frozen.runtime_id

    async def test_a_frozen_one_stops_as_any_other(self, house: House) -> None:
        """Goal: an end of a pause leaves nothing. Method: freeze, stop with a grace; freeze another, destroy it."""
        first, second = house.container("serve"), house.container("serve")
        for container in (first, second):
            await house.driver.start(container)
            await until_said(house, container, "three")
            await house.driver.freeze(container.key)
        async with asyncio.timeout(WAIT_SECONDS):
            await house.driver.stop(first.key, 5_000)
            await house.driver.destroy(second.key)
        status = await house.driver.inspect(first.key)
        assert status is not None
        assert not status.is_running
        assert await house.driver.inspect(second.key) is None

    async def test_destroy_leaves_nothing(self, house: House) -> None:
        """Goal: nothing is left of a lease. Method: destroy a running one, twice; then ask in every way."""
        container = house.container("serve")
        await house.driver.start(container)
        await house.driver.destroy(container.key)
        await house.driver.destroy(container.key)
        assert await house.driver.inspect(container.key) is None
        assert list(await house.driver.recover()) == []
        assert [line async for line in house.driver.logs(container.key, LogQuery())] == []

    async def test_an_unknown_key_is_no_error(self, house: House) -> None:
        """Goal: idempotent clean-up. Method: every question and every end, for a key that was never started."""
        key = new_key()
        await house.driver.stop(key, 0)
        await house.driver.freeze(key)
        await house.driver.thaw(key)
        await house.driver.destroy(key)
        assert await house.driver.inspect(key) is None
        assert await house.driver.stats(key) is None
        async with asyncio.timeout(WAIT_SECONDS):
            assert await house.driver.wait(key) is None

    async def test_the_next_life_finds_and_adopts_it(self, house: House) -> None:
        """Goal: an agent may restart. Method: a new driver recovers, starts (the same one), waits for and stops it."""
        container = house.container("serve")
        before = await house.driver.start(container)
        await until_said(house, container, "three")
        reborn = house.reborn()
        (found,) = await reborn.recover()
        assert found == before
        adopted = await reborn.start(container)
        assert adopted == before
        await reborn.stop(container.key, 5_000)
        async with asyncio.timeout(WAIT_SECONDS):
            assert await reborn.wait(container.key) is not None

    async def test_another_agents_containers_are_not_ours(self, house: House) -> None:
        """Goal: two agents share an engine. Method: another agent recovers."""
        container = house.container("serve")
        await house.driver.start(container)
        stranger = house.stranger()
        assert list(await stranger.recover()) == []
        assert await stranger.inspect(container.key) is None

    async def test_an_image_that_it_cannot_run_is_refused(self, house: House) -> None:
        """Goal: a clear reason. Method: prepare an image of the wrong kind."""
        other = "exec:host" if house.driver.name != "exec" else "busybox:latest"
        container = replace(house.container("serve"), image=other)
        with pytest.raises(DriverRefusedError) as refusal:
            await house.driver.prepare(container, lambda _: None)
        assert refusal.value.reason.reason == "IMAGE_UNSUPPORTED"

    async def test_the_log_has_streams_times_and_order(self, house: House) -> None:
        """Goal: a log that can be read. Method: three lines on two streams; all, the tail, those since."""
        container = house.container("exit")
        await house.driver.start(container)
        async with asyncio.timeout(WAIT_SECONDS):
            await house.driver.wait(container.key)
        lines = [line async for line in house.driver.logs(container.key, LogQuery())]
        assert {(line.text, line.stream) for line in lines} == {
            ("one", LogStream.STDOUT), ("two", LogStream.STDERR), ("three", LogStream.STDOUT),
        }  # fmt: skip
        assert [line.text for line in lines if line.stream is LogStream.STDOUT] == ["one", "three"]
        # An engine stamps each stream by itself, so that two lines of one moment may stand in either order.
        for stream in (LogStream.STDOUT, LogStream.STDERR):
            times = [line.time for line in lines if line.stream is stream]
            assert times == sorted(times)
        tail = [line async for line in house.driver.logs(container.key, LogQuery(tail=1))]
        assert tail == lines[-1:]
        since = [
            line async for line in house.driver.logs(container.key, LogQuery(since=max(line.time for line in lines)))
        ]
        assert since == []


class ProgramSuite(DriverSuite):
    """What drivers promise that really run programs."""

    async def test_a_port_answers_where_it_says(self, house: House) -> None:
        """Goal: endpoints are true, in each life. Method: fetch; restart the container; fetch again."""
        container = house.container("serve")
        for _ in range(2):
            status = await house.driver.start(container)
            async with asyncio.timeout(WAIT_SECONDS):
                while not await house.fetch(status.ports[8080]):
                    await asyncio.sleep(0.05)
            assert await house.fetch(status.ports[8080])
            await house.driver.stop(container.key, 5_000)

    async def test_stop_is_polite_first(self, house: House) -> None:
        """Goal: a program may end in order. Method: one that answers SIGTERM with a word and status 7."""
        container = house.container("serve")
        await house.driver.start(container)
        await until_said(house, container, "three")
        await house.driver.stop(container.key, 10_000)
        status = await house.driver.inspect(container.key)
        assert status is not None
        assert status.exit_status == 7
        await until_said(house, container, "polite end")

    async def test_a_frozen_one_answers_nobody(self, house: House) -> None:
        """Goal: what is not paid does no work. Method: fetch from a frozen server in vain, thaw it, fetch."""
        container = house.container("serve")
        status = await house.driver.start(container)
        async with asyncio.timeout(WAIT_SECONDS):
            while not await house.fetch(status.ports[8080]):
                await asyncio.sleep(0.05)
        await house.driver.freeze(container.key)
        assert not await house.fetch(status.ports[8080])
        await house.driver.thaw(container.key)
        assert await house.fetch(status.ports[8080])

    async def test_stop_is_hard_in_the_end(self, house: House) -> None:
        """Goal: nothing outlives its grace. Method: a program that ignores SIGTERM and leaves a child in a session."""
        container = house.container("stubborn")
        await house.driver.start(container)
        await until_said(house, container, "ready")
        async with asyncio.timeout(WAIT_SECONDS):
            await house.driver.stop(container.key, 1_000)
        status = await house.driver.inspect(container.key)
        assert status is not None
        assert (status.is_running, status.exit_status) == (False, 137)
        assert await house.driver.stats(container.key) is None

    async def test_a_follower_gets_all_and_then_the_end(self, house: House) -> None:
        """Goal: a live log. Method: follow from the start, stop the container, read to the end."""
        container = house.container("serve")
        await house.driver.start(container)
        texts = []
        async with asyncio.timeout(WAIT_SECONDS):
            async for line in house.driver.logs(container.key, LogQuery(follow=True)):
                texts.append(line.text)
                if len(texts) == 3:
                    await house.driver.stop(container.key, 10_000)
        assert sorted(texts[:3]) == ["one", "three", "two"]
        assert texts[-1] == "polite end", texts

    async def test_commands_run_in_it(self, house: House) -> None:
        """Goal: readiness by command. Method: a command that reads the environment, one that fails, one too slow."""
        container = house.container("serve")
        await house.driver.start(container)
        source = "import os, sys; print(os.environ['COLOUR'], os.environ['FALLOW_PORT_8080']); sys.exit(4)"
        result = await house.driver.exec(container.key, ["python3", "-c", source], 20)
        assert result.exit_status == 4
        assert result.output.startswith("blue ")
        with pytest.raises(TimeoutError):
            await house.driver.exec(container.key, ["python3", "-c", "import time; time.sleep(60)"], 0.5)

    async def test_it_measures(self, house: House) -> None:
        """Goal: figures of what runs. Method: a running server has used time and memory."""
        container = house.container("serve")
        await house.driver.start(container)
        await until_said(house, container, "three")
        figures = await house.driver.stats(container.key)
        assert figures is not None
        assert figures.cpu_time_ms > 0
        assert figures.memory_bytes > 1 << 20

    async def test_a_program_that_is_not_there(self, house: House) -> None:
        """Goal: a mistake in a command is told. Method: start a program of no name; refused, or ended with 127."""
        container = replace(house.container("serve"), command=("no-such-program",))
        refused = None
        try:
            await house.driver.start(container)
        except DriverRefusedError as error:
            refused = error
        if refused is None:
            async with asyncio.timeout(WAIT_SECONDS):
                assert await house.driver.wait(container.key) == 127
        else:
            assert refused.reason.reason == "START_FAILED"
            assert "no-such-program" in refused.detail
