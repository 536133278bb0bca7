"""What goes wrong with a lease is told with a reason, and nothing of it is left."""

import asyncio
import os
import signal
import stat
from typing import Any

import pytest

from fallow.provider.v1 import market_link_pb2
from fallow.type.v1 import workload_pb2
from tests.component.provider.conftest import IDS, SERVER, Market, container, processes_of

ACCEPTED = market_link_pb2.COMMAND_OUTCOME_ACCEPTED
REFUSED = market_link_pb2.COMMAND_OUTCOME_REFUSED
LOG_LINE = workload_pb2.ReadinessCheck(log_line="hello")


@pytest.mark.parametrize(
    ("program", "changes", "reason"),
    [
        (SERVER, {"image": "busybox:latest"}, "IMAGE_UNSUPPORTED"),
        (SERVER, {"read_only_root": True}, "WORKLOAD_UNSUPPORTED"),
        ("raise SystemExit(3)", {"restart_policy": workload_pb2.RESTART_POLICY_NEVER}, "EXITED"),
        ("raise SystemExit(3)", {}, "EXITED"),
        ("raise SystemExit(0)", {"restart_policy": workload_pb2.RESTART_POLICY_ON_FAILURE}, "EXITED"),
        ("import time; time.sleep(600)", {}, "READINESS_TIMEOUT"),
    ],
)
async def test_a_start_that_fails(market: Market, program: str, changes: dict[str, Any], reason: str) -> None:
    """Goal: a clear reason in the next heartbeat. Method: one workload a reason; nothing runs after it, nothing is owed."""
    await market.start_agent()
    lease, key = market.new_lease(program, **changes)
    answer = await market.command(market.run_command(lease, key, start_timeout_ms=6_000))
    assert answer.outcome == ACCEPTED
    status = await market.until_state(lease, market_link_pb2.RUN_STATE_FAILED)
    assert status.reason == reason, status
    assert status.detail
    assert processes_of(lease) == []
    (final,) = {proof.SerializeToString(): proof for proof in market.proofs(lease)}.values()
    assert (final.running_ms, final.final) == (0, True)


@pytest.mark.parametrize(
    "readiness",
    [
        workload_pb2.ReadinessCheck(),
        workload_pb2.ReadinessCheck(tcp_port=8080),
        LOG_LINE,
        workload_pb2.ReadinessCheck(command=workload_pb2.ReadinessCheck.Command(arguments=["sh", "-c", "test $PORT"])),
    ],
)
async def test_readiness_of_every_kind(market: Market, readiness: workload_pb2.ReadinessCheck) -> None:
    """Goal: each check makes a run ready. Method: the same server, each check in turn (HTTP is in the walk)."""
    await market.start_agent()
    lease, key = market.new_lease(readiness=readiness)
    await market.command(market.run_command(lease, key))
    await market.until_state(lease, market_link_pb2.RUN_STATE_RUNNING)
    assert len(processes_of(lease)) == 1


async def test_refusals(market: Market) -> None:
    """Goal: what cannot run is refused at once, and for good. Method: commands that the agent must not take."""
    await market.start_agent()
    lease, key = market.new_lease(generation=2)

    async def outcome(command: market_link_pb2.Command) -> tuple[int, str]:
        answer = await market.command(command)
        return answer.outcome, answer.reason

    assert await outcome(market.run_command(lease, key, device="no-such")) == (REFUSED, "DEVICE_MISSING")
    empty = market.run_command(lease, key)
    del empty.run.replicas[:]
    assert await outcome(empty) == (REFUSED, "COMMAND_INVALID")
    malformed = market.run_command(lease, key)
    malformed.key.order = "orders/x"
    assert await outcome(malformed) == (REFUSED, "COMMAND_INVALID")
    actionless = market_link_pb2.Command(command_id=IDS.new(), lease=lease, key=key)
    assert await outcome(actionless) == (REFUSED, "COMMAND_INVALID")
    assert await outcome(market.run_command(lease, key)) == (ACCEPTED, "")
    older, older_key = market.new_lease(order=key.order, generation=1)
    assert await outcome(market.run_command(older, older_key)) == (REFUSED, "GENERATION_OLD")
    assert await outcome(market.stop_command(older, older_key)) == (REFUSED, "GENERATION_OLD")
    other, other_key = market.new_lease()
    assert await outcome(market.run_command(other, other_key)) == (REFUSED, "DEVICE_BUSY")
    await market.until_state(lease, market_link_pb2.RUN_STATE_RUNNING)
    assert processes_of(other) == []


async def test_a_stop_before_the_run(market: Market) -> None:
    """Goal: commands may cross. Method: stop an unknown generation, then run it: never runs, reported stopped."""
    await market.start_agent()
    lease, key = market.new_lease()
    assert (await market.command(market.stop_command(lease, key))).outcome == ACCEPTED
    answer = await market.command(market.run_command(lease, key))
    assert (answer.outcome, answer.reason) == (REFUSED, "GENERATION_ENDED")
    await market.until_state(lease, market_link_pb2.RUN_STATE_STOPPED)
    assert market.order.fetches == 0


async def test_a_newer_generation_takes_the_place(market: Market) -> None:
    """Goal: the highest generation wins. Method: run 1, then 2 of the same group on the same device."""
    await market.start_agent()
    lease, key = market.new_lease()
    await market.command(market.run_command(lease, key))
    await market.until_state(lease, market_link_pb2.RUN_STATE_RUNNING)
    newer, newer_key = market.new_lease(order=key.order, generation=2)
    assert (await market.command(market.run_command(newer, newer_key))).outcome == ACCEPTED
    await market.until_state(newer, market_link_pb2.RUN_STATE_RUNNING)
    assert processes_of(lease) == []
    assert len(processes_of(newer)) == 1
    await market.until_state(lease, market_link_pb2.RUN_STATE_STOPPED)


async def test_a_deaf_market_ends_runs(market: Market) -> None:
    """Goal: an agent cut off stops by itself. Method: acknowledge nothing for longer than self_stop; then listen again."""
    await market.start_agent()
    lease, key = market.new_lease()
    patient, patient_key = market.new_lease()
    await market.command(market.run_command(lease, key, self_stop_ms=1_000))
    command = market.run_command(patient, patient_key)
    del command.run.replicas[0].devices[:]
    await market.command(command)
    for name in (lease, patient):
        await market.until_state(name, market_link_pb2.RUN_STATE_RUNNING)
    market.is_deaf = True
    await market.until(lambda: not processes_of(lease), "the self-stop")
    assert len(processes_of(patient)) == 1, "a longer self_stop still holds"
    market.is_deaf = False
    status = await market.until_state(lease, market_link_pb2.RUN_STATE_FAILED)
    assert status.reason == "SELF_STOPPED"
    assert market.proofs(lease)[-1].final


async def test_an_unwanted_run_is_stopped(market: Market) -> None:
    """Goal: the market has the last word. Method: name the run in an acknowledgement."""
    await market.start_agent()
    lease, key = market.new_lease()
    await market.command(market.run_command(lease, key))
    await market.until_state(lease, market_link_pb2.RUN_STATE_RUNNING)
    market.unwanted.append(key)
    await market.until_state(lease, market_link_pb2.RUN_STATE_STOPPED)
    assert processes_of(lease) == []


async def test_time_stands_still_while_a_container_is_down(market: Market) -> None:
    """Goal: only running time is proven. Method: a program that ends at once after a kill and starts 0.1 s later."""
    await market.start_agent()
    lease, key = market.new_lease()
    market.order.workloads[lease] = workload_pb2.Workload(
        containers=[
            container(),
            container("import time; time.sleep(600)", service="side", ports=[], readiness=LOG_LINE),
        ]
    )
    market.order.workloads[lease].containers[1].command[-1] = "print('hello', flush=True); import time; time.sleep(600)"
    await market.command(market.run_command(lease, key))
    await market.until_state(lease, market_link_pb2.RUN_STATE_RUNNING)
    before = set(processes_of(lease))
    assert len(before) == 2
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    await market.until(lambda: len(set(processes_of(lease)) - before) == 1, "a new process")
    count = len(market.proofs(lease))
    await market.until(lambda: len(market.proofs(lease)) > count + 2, "proofs")
    assert market.status(lease) is not None
    assert (await market.command(market.stop_command(lease, key))).outcome == ACCEPTED
    await market.until_state(lease, market_link_pb2.RUN_STATE_STOPPED)
    proven = [proof.running_ms for proof in market.proofs(lease)]
    assert proven == sorted(proven)


async def test_the_state_is_private_and_one_agents(market: Market) -> None:
    """Goal: nobody reads the key or shares the state. Method: modes of the files; a second agent on the same folder."""
    await market.start_agent()
    state = market.folder / "state"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    for name in ("proof.key", "state.sqlite", "nats.creds"):
        assert stat.S_IMODE((state / name).stat().st_mode) == 0o600, name
    first = market.process
    await market.launch_agent(FALLOW_PORT_FILE=str(market.folder / "second.port"))
    assert market.process is not None
    async with asyncio.timeout(30):
        assert await market.process.wait() != 0
    assert "another agent" in market.log()
    market.process = first
