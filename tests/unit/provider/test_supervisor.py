"""The supervisor, commands and heartbeats together on the mock driver, with time moved by hand."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fallow.provider.v1 import market_link_pb2
from fallow.type.v1 import workload_pb2
from fallow_chassis.errors import UNAVAILABLE, DomainError, ErrorReason
from fallow_chassis.testing import ManualClock
from fallow_provider.domain.run import RunState
from fallow_provider.domain.workload import ContainerKey
from fallow_provider.drivers.mock import MockEngine
from tests.unit.provider.conftest import Agent, container, key, run_command, stop_command

ACCEPTED = market_link_pb2.COMMAND_OUTCOME_ACCEPTED
Birth = Callable[[], Agent]


async def test_running_time_is_proven_and_only_grows(agent: Agent, clock: ManualClock) -> None:
    """Goal: exact milliseconds from readiness to the stop. Method: move time between heartbeats and after the stop."""
    async with agent.working():
        agent.commands.handle(run_command())
        clock.advance(seconds=5)
        await agent.until_counting()
        clock.advance(milliseconds=1_234)
        assert await agent.heartbeats.beat()
        clock.advance(milliseconds=766)
        agent.commands.handle(stop_command())
        clock.advance(seconds=60)
        await agent.until_state(RunState.STOPPED)
        await agent.heartbeats.beat()
    proofs = [proof for beat in agent.market.heartbeats for proof in beat.proofs]
    assert [(proof.sequence, proof.running_ms, proof.final) for proof in proofs] == [
        (1, 1_234, False),
        (2, 2_000, True),
    ]


async def test_an_acknowledged_final_proof_is_not_sent_again(agent: Agent) -> None:
    """Goal: the last word once heard is enough, and not before. Method: a deaf market, then one that hears."""
    async with agent.working():
        agent.commands.handle(stop_command())
        agent.market.failure = DomainError(UNAVAILABLE, "deaf")
        assert not await agent.heartbeats.beat()
        assert agent.acknowledgements.sent_at_ms is None
        agent.market.failure = None
        for _ in range(2):
            assert await agent.heartbeats.beat()
    assert [len(beat.proofs) for beat in agent.market.heartbeats] == [1, 0]
    assert [len(beat.runs) for beat in agent.market.heartbeats] == [1, 1], "it is told of until it may be forgotten"


async def test_self_stop_by_a_moved_clock(agent: Agent, clock: ManualClock, engine: MockEngine) -> None:
    """Goal: silence of more than self_stop ends a run, an acknowledgement in time does not. Method: both sides."""
    async with agent.working():
        agent.commands.handle(run_command(self_stop_ms=10_000))
        await agent.until_counting()
        clock.advance(seconds=8)
        await agent.heartbeats.beat()
        clock.advance(seconds=10)
        agent.supervisor.stop_unheard(agent.acknowledgements.sent_at_ms)
        assert agent.run().state is RunState.RUNNING
        clock.advance(milliseconds=1)
        agent.supervisor.stop_unheard(agent.acknowledgements.sent_at_ms)
        run = await agent.until_state(RunState.FAILED)
        assert (run.reason, run.running_ms) == ("SELF_STOPPED", 18_001)
        assert not engine.containers


async def test_an_acknowledgement_counts_from_its_sending(agent: Agent, clock: ManualClock) -> None:
    """Goal: a slow answer gives no more time. Method: time passes between a heartbeat and its answer."""
    slow = agent.market.heartbeat

    async def later(heartbeat: market_link_pb2.Heartbeat, timeout: float) -> market_link_pb2.HeartbeatAcknowledgement:
        clock.advance(seconds=7)
        return await slow(heartbeat, timeout)

    agent.market.heartbeat = later  # type: ignore[method-assign]
    clock.advance(seconds=1)
    await agent.heartbeats.beat()
    assert agent.acknowledgements.sent_at_ms == 1_000
    agent.store.close()


async def test_the_next_life_adopts_and_goes_on(
    agent: Agent, tmp_path: Path, engine: MockEngine, clock: ManualClock
) -> None:
    """Goal: a restart costs nothing but the time away. Method: a second life on the same folder and engine."""
    async with agent.working():
        agent.commands.handle(run_command())
        await agent.until_counting()
        clock.advance(seconds=3)
        await agent.heartbeats.beat()
    clock.advance(seconds=2)
    second = Agent(tmp_path, engine, clock)
    assert second.acknowledgements.sent_at_ms == 3_000
    async with second.working():
        await second.until_counting()
        clock.advance(seconds=4)
        await second.heartbeats.beat()
    (proof,) = second.market.heartbeats[0].proofs
    assert (proof.running_ms, proof.sequence) == (7_000, 2)
    assert (engine.starts, second.order.fetches) == (1, 0)


async def test_a_restarted_machine_ends_runs(
    agent: Agent, tmp_path: Path, engine: MockEngine, clock: ManualClock
) -> None:
    """Goal: a monotonic reading of another life of the machine is not believed. Method: another boot id."""
    async with agent.working():
        agent.commands.handle(run_command())
        await agent.until_counting()
        await agent.heartbeats.beat()
    second = Agent(tmp_path, engine, clock, machine_boot_id="another")
    assert second.acknowledgements.sent_at_ms is None
    second.supervisor.stop_unheard(None)
    async with second.working():
        run = await second.until_state(RunState.FAILED)
    assert (run.reason, run.detail) == ("SELF_STOPPED", "the machine was restarted")


async def test_an_engine_that_is_away_changes_nothing(agent: Agent, engine: MockEngine, clock: ManualClock) -> None:
    """Goal: unknown is not down. Method: the engine goes away while a run runs, and while one stops."""
    async with agent.working():
        agent.commands.handle(run_command())
        await agent.until_counting()
        engine.is_away = True
        clock.advance(seconds=2)
        await agent.heartbeats.beat()
        assert agent.run().state is RunState.RUNNING
        agent.commands.handle(stop_command())
        await agent.until(lambda: agent.run().state is RunState.STOPPING)
        await agent.heartbeats.beat()
        assert agent.market.heartbeats[-1].runs[0].state == market_link_pb2.RUN_STATE_STOPPING
        engine.is_away = False
        await agent.until_state(RunState.STOPPED)
        assert not engine.containers


async def test_orphans_are_stopped_and_live_runs_left(
    agent: Agent, tmp_path: Path, engine: MockEngine, clock: ManualClock
) -> None:
    """Goal: what runs equals what is leased. Method: containers of a forgotten run and of another lease's name."""
    other = Agent(tmp_path / "other", engine, clock)
    async with other.working():
        other.commands.handle(run_command(order=2))
        await other.until_counting()
    async with agent.working():
        agent.commands.handle(run_command(order=1))
        await agent.until_counting()
        await agent.until(lambda: len(engine.containers) == 1)
    (left,) = engine.containers
    assert isinstance(left, ContainerKey)
    assert left.run == agent.run().key


async def test_a_container_that_stops_is_restarted_and_its_time_paused(
    agent: Agent, engine: MockEngine, clock: ManualClock
) -> None:
    """Goal: only running time is paid. Method: end the container, move time before its restart and after."""
    async with agent.working():
        agent.commands.handle(run_command())
        await agent.until_counting()
        clock.advance(seconds=1)
        (container_key,) = engine.containers
        engine.exit(container_key, 1)
        await agent.until(lambda: agent.run().key not in agent.supervisor._marks_ms)
        clock.advance(seconds=30)
        await agent.until(lambda: engine.starts == 2)
        await agent.until_counting()
        clock.advance(seconds=2)
        await agent.heartbeats.beat()
        assert agent.run().running_ms == 3_000
        assert agent.store.restarts(container_key.name) == 1


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (DomainError(ErrorReason("LEASE_NOT_FOUND", "NOT_FOUND", "", ""), "gone"), "WORKLOAD_UNAVAILABLE"),
        (DomainError(ErrorReason("PERMISSION_DENIED", "PERMISSION_DENIED", "", ""), "no"), "WORKLOAD_UNAVAILABLE"),
    ],
)
async def test_a_workload_that_is_refused(agent: Agent, failure: DomainError, reason: str) -> None:
    """Goal: a refusal ends the run at once. Method: an order service that says no for good."""
    agent.order.failure = failure
    async with agent.working():
        agent.commands.handle(run_command())
        run = await agent.until_state(RunState.FAILED)
    assert run.reason == reason
    assert agent.order.fetches == 1


async def test_a_workload_of_other_services(agent: Agent) -> None:
    """Goal: nothing runs by half. Method: the command places two services, the workload has one."""
    async with agent.working():
        agent.commands.handle(run_command(services=("web", "db")))
        run = await agent.until_state(RunState.FAILED)
    assert run.reason == "WORKLOAD_UNAVAILABLE"
    assert "db" in run.detail


async def test_one_failed_container_takes_the_run_along(agent: Agent, engine: MockEngine) -> None:
    """Goal: a run is whole or nothing. Method: two services, one that ends and never restarts."""
    agent.order.workload_message = workload_pb2.Workload(
        containers=[container("web"), container("job", ("exit", "4"), restart_policy=workload_pb2.RESTART_POLICY_NEVER)]
    )
    async with agent.working():
        agent.commands.handle(run_command(services=("web", "job")))
        run = await agent.until_state(RunState.FAILED)
    assert (run.reason, run.detail) == ("EXITED", "job: exit status 4")
    assert not engine.containers


async def test_the_market_is_obeyed(agent: Agent, engine: MockEngine) -> None:
    """Goal: unwanted, forgotten, inventory. Method: each in an acknowledgement; a live run is never forgotten."""
    async with agent.working():
        await agent.heartbeats.report_inventory()
        agent.commands.handle(run_command())
        await agent.until_counting()
        agent.market.answer = market_link_pb2.HeartbeatAcknowledgement(forgotten=[key()], inventory_wanted=True)
        await agent.heartbeats.beat()
        assert agent.run().state is RunState.RUNNING
        agent.market.answer = market_link_pb2.HeartbeatAcknowledgement(unwanted=[key()])
        await agent.heartbeats.beat()
        await agent.until_state(RunState.STOPPED)
        agent.market.answer = market_link_pb2.HeartbeatAcknowledgement(forgotten=[key()])
        await agent.heartbeats.beat()
        assert agent.store.runs() == []
        assert await agent.heartbeats.report_inventory()
    assert [report.sequence for report in agent.market.inventories] == [1, 2]


async def test_endpoints_are_told_only_while_it_runs(agent: Agent) -> None:
    """Goal: an address that is told answers. Method: before, while and after."""
    async with agent.working():
        command = run_command()
        agent.commands.handle(command)
        run_key = agent.run().key
        assert agent.supervisor.endpoints(run_key) == []
        await agent.until_counting()
        assert [item.uri for item in agent.supervisor.endpoints(run_key)] == ["http://127.0.0.1:80"]
        agent.commands.handle(stop_command())
        assert agent.supervisor.endpoints(run_key) == []
        await agent.until_state(RunState.STOPPED)


async def test_the_same_command_gets_the_same_answer_for_ever(agent: Agent) -> None:
    """Goal: idempotent by command id. Method: an accepted one again after the end of its run; a refused one again."""
    async with agent.working():
        first = run_command()
        assert agent.commands.handle(first).outcome == ACCEPTED
        await agent.until_counting()
        agent.commands.handle(stop_command())
        await agent.until_state(RunState.STOPPED)
        assert agent.commands.handle(first).outcome == ACCEPTED
        again = run_command()
        refused = agent.commands.handle(again)
        assert refused.reason == "GENERATION_ENDED"
        assert agent.commands.handle(again) == refused


def test_a_command_without_an_id_is_an_error(agent: Agent) -> None:
    """Goal: no command without a name. Method: leave the id out."""
    command = run_command()
    command.command_id = ""
    with pytest.raises(DomainError):
        agent.commands.handle(command)
    agent.store.close()
