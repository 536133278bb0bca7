"""A pause for want of funds, as the market asks for it in its answers to heartbeats."""

from collections.abc import Callable
from pathlib import Path

from fallow.provider.v1 import market_link_pb2
from fallow_chassis.testing import ManualClock
from fallow_provider.domain.run import RunState
from fallow_provider.drivers.mock import MockEngine
from tests.unit.provider.conftest import Agent, key, run_command, stop_command

PAUSE = market_link_pb2.HeartbeatAcknowledgement(suspended=[key()])
GO_ON = market_link_pb2.HeartbeatAcknowledgement()


def frozen(engine: MockEngine) -> list[bool]:
    """Whether each container is frozen."""
    return [container.is_frozen for container in engine.containers.values()]


async def paused(agent: Agent) -> None:
    """Have the newest run paused."""
    agent.market.answer = PAUSE
    await agent.heartbeats.beat()
    await agent.until(lambda: all(frozen(agent.engine)))


async def test_paused_time_is_not_proven(agent: Agent, clock: ManualClock, engine: MockEngine) -> None:
    """Goal: what stands still costs nothing, and goes on where it was. Method: run, pause, wait, resume, run; the proofs."""
    async with agent.working():
        agent.commands.handle(run_command(services=("web", "side")))
        agent.order.workload_message.containers.add().CopyFrom(agent.order.workload_message.containers[0])
        agent.order.workload_message.containers[1].service = "side"
        await agent.until_counting()
        clock.advance(milliseconds=1_500)
        await paused(agent)
        assert agent.run().state is RunState.SUSPENDED
        assert frozen(engine) == [True, True]
        clock.advance(seconds=120)
        await agent.heartbeats.beat()
        agent.market.answer = GO_ON
        clock.advance(seconds=120)
        await agent.heartbeats.beat()
        await agent.until_counting()
        assert frozen(engine) == [False, False]
        clock.advance(milliseconds=500)
        await agent.heartbeats.beat()
    beats = agent.market.heartbeats
    assert [beat.proofs[0].running_ms for beat in beats] == [1_500, 1_500, 1_500, 2_000]
    assert [beat.runs[0].state for beat in beats] == [
        market_link_pb2.RUN_STATE_RUNNING,
        market_link_pb2.RUN_STATE_SUSPENDED,
        market_link_pb2.RUN_STATE_SUSPENDED,
        market_link_pb2.RUN_STATE_RUNNING,
    ]
    assert engine.starts == 2, "a pause starts nothing anew"


async def test_a_deaf_market_changes_nothing(agent: Agent, clock: ManualClock, engine: MockEngine) -> None:
    """Goal: unknown is not resumed. Method: pause; heartbeats fail; it stays frozen, and stops by itself in the end."""
    async with agent.working():
        agent.commands.handle(run_command(self_stop_ms=10_000))
        await agent.until_counting()
        await paused(agent)
        clock.advance(seconds=9)
        agent.supervisor.stop_unheard(agent.acknowledgements.sent_at_ms)
        assert agent.run().state is RunState.SUSPENDED
        clock.advance(seconds=2)
        agent.supervisor.stop_unheard(agent.acknowledgements.sent_at_ms)
        run = await agent.until_state(RunState.FAILED)
        assert (run.reason, run.running_ms) == ("SELF_STOPPED", 0)
        assert not engine.containers


async def test_the_next_life_keeps_the_pause(
    agent: Agent, tmp_path: Path, engine: MockEngine, clock: ManualClock
) -> None:
    """Goal: a killed agent pays for nobody. Method: pause; die; thaw behind its back; the next life freezes, then resumes."""
    async with agent.working():
        agent.commands.handle(run_command())
        await agent.until_counting()
        await paused(agent)
    for container in engine.containers.values():
        container.is_frozen = False
    reborn = Agent(tmp_path, engine, clock)
    async with reborn.working():
        await reborn.until(lambda: all(frozen(engine)))
        assert reborn.run().state is RunState.SUSPENDED
        reborn.market.answer = GO_ON
        await reborn.heartbeats.beat()
        await reborn.until_counting()
        assert not any(frozen(engine))
    assert engine.starts == 1


async def test_a_paused_run_ends_in_order(agent: Agent, engine: MockEngine) -> None:
    """Goal: an end of the grace leaves nothing. Method: pause, stop; the final proof; pausing what is over does nothing."""
    async with agent.working():
        agent.commands.handle(run_command())
        await agent.until_counting()
        await paused(agent)
        agent.commands.handle(stop_command())
        await agent.until_state(RunState.STOPPED)
        assert not engine.containers
        await agent.heartbeats.beat()
        assert agent.run().state is RunState.STOPPED
    assert agent.market.heartbeats[-1].proofs[0].final


async def test_a_start_is_paused_once_it_is_ready(agent: Agent, engine: MockEngine) -> None:
    """Goal: a pause waits for readiness. Method: the market names a run that is still starting."""
    engine.is_away = True
    async with agent.working():
        agent.commands.handle(run_command())
        agent.market.answer = PAUSE
        await agent.heartbeats.beat()
        assert agent.run().state is RunState.STARTING
        engine.is_away = False
        await agent.until_state(RunState.RUNNING)
        await paused(agent)
        assert agent.run().state is RunState.SUSPENDED


async def test_quick_turns_end_where_the_last_one_says(agent: Agent, engine: MockEngine) -> None:
    """Goal: no lost turn. Method: pause and resume many times without waiting for the workers; both endings."""
    async with agent.working():
        agent.commands.handle(run_command())
        await agent.until_counting()
        turns: list[Callable[[], None]] = [
            lambda: agent.supervisor.suspend(agent.run().key),
            lambda: agent.supervisor.resume(agent.run().key),
        ]
        for number in range(20):
            turns[number % 2]()
        await agent.until_counting()
        await agent.until(lambda: not any(frozen(engine)))
        agent.supervisor.suspend(agent.run().key)
        await agent.until(lambda: all(frozen(engine)))
        assert agent.run().state is RunState.SUSPENDED
