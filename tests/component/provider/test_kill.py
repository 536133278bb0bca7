"""The agent is ended with SIGKILL between the steps of a lease: nothing runs twice, nothing is left, no time is lost twice."""

import asyncio
import itertools
import os
import signal

import pytest

from fallow.provider.v1 import market_link_pb2
from fallow_chassis.errors import UNAVAILABLE, DomainError
from tests.component.provider.conftest import Market, processes_of

ACCEPTED = market_link_pb2.COMMAND_OUTCOME_ACCEPTED


async def kill_and_restart(market: Market) -> None:
    """SIGKILL the agent and start the next."""
    await market.end_agent(signal.SIGKILL)
    await market.start_agent()


@pytest.mark.parametrize("delay_ms", [0, 15, 60, 250])
async def test_killed_while_it_starts(market: Market, delay_ms: int) -> None:
    """Goal: a start survives the agent. Method: kill it some milliseconds after the acknowledgement; one process runs."""
    await market.start_agent()
    lease, key = market.new_lease()
    assert (await market.command(market.run_command(lease, key))).outcome == ACCEPTED
    await asyncio.sleep(delay_ms / 1_000)
    await kill_and_restart(market)
    await market.until_state(lease, market_link_pb2.RUN_STATE_RUNNING)
    assert len(processes_of(lease)) == 1


async def test_killed_while_the_workload_cannot_be_fetched(market: Market) -> None:
    """Goal: an accepted command is not forgotten. Method: the order service is away, the agent dies, both come back."""
    await market.start_agent()
    market.order.failure = DomainError(UNAVAILABLE, "away")
    lease, key = market.new_lease()
    assert (await market.command(market.run_command(lease, key))).outcome == ACCEPTED
    await market.until(lambda: market.order.fetches >= 2, "repeated asking")
    await market.end_agent(signal.SIGKILL)
    market.order.failure = None
    await market.start_agent()
    await market.until_state(lease, market_link_pb2.RUN_STATE_RUNNING)


async def test_killed_while_it_runs(market: Market) -> None:
    """Goal: what runs is adopted and its time goes on. Method: kill; same process after; proofs only grow."""
    await market.start_agent()
    lease, key = market.new_lease()
    await market.command(market.run_command(lease, key))
    before = await market.until_state(lease, market_link_pb2.RUN_STATE_RUNNING)
    await market.until(lambda: len(market.proofs(lease)) >= 3, "three proofs")
    (pid,) = processes_of(lease)
    await market.end_agent(signal.SIGKILL)
    assert processes_of(lease) == [pid], "the process outlives its agent"
    last = market.proofs(lease)[-1]
    count = len(market.proofs(lease))
    fetches = market.order.fetches
    await market.start_agent()
    await market.until(lambda: len(market.proofs(lease)) >= count + 3, "more proofs")
    after = await market.until_state(lease, market_link_pb2.RUN_STATE_RUNNING)
    assert processes_of(lease) == [pid]
    assert after.endpoints == before.endpoints
    assert market.order.fetches == fetches, "the workload was kept"
    proofs = market.proofs(lease)
    assert proofs[count].running_ms >= last.running_ms
    assert [proof.running_ms for proof in proofs] == sorted(proof.running_ms for proof in proofs)
    sequences = [proof.sequence for proof in proofs]
    assert all(left < right for left, right in itertools.pairwise(sequences))


@pytest.mark.parametrize("delay_ms", [0, 40])
async def test_killed_while_it_stops(market: Market, delay_ms: int) -> None:
    """Goal: a stop is finished by the next life. Method: kill after the acknowledgement; stopped, proven, nothing left."""
    await market.start_agent()
    lease, key = market.new_lease()
    await market.command(market.run_command(lease, key))
    await market.until_state(lease, market_link_pb2.RUN_STATE_RUNNING)
    await market.until(lambda: len(market.proofs(lease)) >= 2, "proofs")
    assert (await market.command(market.stop_command(lease, key))).outcome == ACCEPTED
    await asyncio.sleep(delay_ms / 1_000)
    await kill_and_restart(market)
    await market.until_state(lease, market_link_pb2.RUN_STATE_STOPPED)
    assert processes_of(lease) == []
    finals = {proof.SerializeToString() for proof in market.proofs(lease) if proof.final}
    assert len(finals) == 1, "the final proof is the same, however often it is sent"


async def test_what_ended_while_the_agent_was_away_starts_again(market: Market) -> None:
    """Goal: the restart policy holds over lives. Method: kill agent and process; the next life starts one again."""
    await market.start_agent()
    lease, key = market.new_lease()
    await market.command(market.run_command(lease, key))
    await market.until_state(lease, market_link_pb2.RUN_STATE_RUNNING)
    (pid,) = processes_of(lease)
    await market.end_agent(signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    await market.start_agent()
    await market.until(lambda: len(processes_of(lease)) == 1 and processes_of(lease) != [pid], "a new process")
    status = await market.until_state(lease, market_link_pb2.RUN_STATE_RUNNING)
    assert status.reason == ""


async def test_an_orphan_is_stopped(market: Market) -> None:
    """Goal: nothing without a live lease. Method: wipe the agent's memory of a run while it is dead."""
    await market.start_agent()
    lease, key = market.new_lease()
    await market.command(market.run_command(lease, key))
    await market.until_state(lease, market_link_pb2.RUN_STATE_RUNNING)
    await market.end_agent(signal.SIGKILL)
    import sqlite3

    connection = sqlite3.connect(market.folder / "state" / "state.sqlite")
    with connection:
        connection.execute("DELETE FROM run")
    connection.close()
    await market.start_agent()
    await market.until(lambda: not processes_of(lease), "the orphan's end")
    assert "orphan_stopped" in market.log()


async def test_silence_while_the_agent_was_away_counts(market: Market) -> None:
    """Goal: nothing outlives a dead agent, and its next life tells why. Method: SIGKILL; the shim ends the process."""
    await market.start_agent()
    lease, key = market.new_lease()
    await market.command(market.run_command(lease, key, self_stop_ms=1_500))
    await market.until_state(lease, market_link_pb2.RUN_STATE_RUNNING)
    await market.end_agent(signal.SIGKILL)
    await market.until(lambda: not processes_of(lease), "the end of a process whose agent is dead")
    await market.start_agent()
    status = await market.until_state(lease, market_link_pb2.RUN_STATE_FAILED)
    assert status.reason == "SELF_STOPPED"
    assert processes_of(lease) == []


async def test_an_agent_goes_on_without_the_markets_doors(market: Market) -> None:
    """Goal: order and bidding may be away while an agent restarts. Method: refuse registration; heartbeats still come."""
    await market.start_agent()
    lease, key = market.new_lease()
    await market.command(market.run_command(lease, key))
    await market.until_state(lease, market_link_pb2.RUN_STATE_RUNNING)
    (pid,) = processes_of(lease)
    market.bidding.failure = DomainError(UNAVAILABLE, "away")
    await kill_and_restart(market)
    count = len(market.proofs(lease))
    await market.until(lambda: len(market.proofs(lease)) > count + 1, "proofs")
    assert processes_of(lease) == [pid]
    market.bidding.failure = None
    address = market.port_file.read_text("utf-8").strip()
    await market.until(lambda: market.provider.address == address, "the new address")
