"""What happens when providers refuse, fall silent or fail: the order moves on, and nothing is sold twice."""

import asyncio
from dataclasses import replace

import pytest

from fallow.bidding.v1 import events_pb2
from fallow.order.v1 import order_pb2
from fallow.provider.v1 import market_link_pb2
from fallow.type.v1 import lease_pb2, resources_pb2
from fallow_bidding.convert.link import CommandAnswer
from fallow_bidding.domain.leases import EndReason
from fallow_bidding.domain.policy import Policy
from fallow_bidding.topics import PROOFS_TOPIC
from fallow_chassis.wire import from_duration, from_timestamp, to_duration
from tests.component.bidding.conftest import ON_BOTH_STREAMS, House, gpu_order, node, run_status

RUNNING = market_link_pb2.RUN_STATE_RUNNING
STOPPED = market_link_pb2.RUN_STATE_STOPPED
FAILED = market_link_pb2.RUN_STATE_FAILED


@pytest.fixture
def policy() -> Policy:
    """Two failures of the workload end an order."""
    return replace(Policy(), failures_max=2)


async def _reserved(house: House, provider_id: str) -> int:
    """What is reserved of a provider's devices, in thousandths."""
    used = await house.value("SELECT sum(milli_used)::int FROM device_capacity WHERE provider_id = $1", provider_id)
    return int(used or 0)


@ON_BOTH_STREAMS
async def test_a_refusal_moves_on_to_the_next_best(house: House) -> None:
    """Goal: a refusal frees the device and tries the next provider with the next generation. Method: the cheaper of
    two agents refuses.
    """
    async with house.running():
        cheap = await house.add_agent(gpu_micros=1_000_000)
        cheap.refuses = "IMAGE_UNSUPPORTED"
        dear = await house.add_agent(gpu_micros=2_000_000)
        key = await house.open_order(gpu_order())
        command = await dear.command("run")
        assert command.key.generation == 2
        ended = await house.until_event(key, events_pb2.LeaseEnded)
        assert ended.evidence.reason == lease_pb2.END_REASON_REFUSED
        assert "IMAGE_UNSUPPORTED" in ended.evidence.detail
        assert ended.releasing
        assert ended.key.generation == 1
        assert await _reserved(house, cheap.provider_id) == 0
        assert [type(event).__name__ for event in await house.events(key=key)] == [
            "LeaseCreated",
            "LeaseEnded",
            "LeaseCreated",
        ]


async def test_all_who_failed_a_group_are_passed_over(house: House) -> None:
    """Goal: the group never goes in circles. Method: the two cheapest of three agents refuse, one after the other."""
    async with house.running():
        agents = [await house.add_agent(gpu_micros=price) for price in (1_000_000, 2_000_000, 3_000_000)]
        for agent in agents[:2]:
            agent.refuses = "IMAGE_UNSUPPORTED"
        await house.open_order(gpu_order())
        command = await agents[2].command("run")
        assert command.key.generation == 3
        assert [len(agent.commands) for agent in agents] == [1, 1, 1]


async def test_a_text_that_cannot_be_stored_is_refused(house: House) -> None:
    """Goal: bad bytes of an agent get a clear answer and store nothing. Method: NUL in a proof's lease and a node's id."""
    async with house.running(engine=False, courier=False):
        agent = await house.add_agent()
        heartbeat = market_link_pb2.Heartbeat(sequence=1)
        heartbeat.proofs.add(lease="leases/a\0b")
        for word, message, reason in (
            ("heartbeat", heartbeat, "LINK_MESSAGE_INVALID"),
            ("inventory", market_link_pb2.InventoryReport(sequence=9, nodes=[node("no\0de")]), "INVENTORY_INVALID"),
        ):
            payload = await agent.link.request(
                f"fallow.provider.{agent.provider_id}.{word}", message.SerializeToString()
            )
            reply = market_link_pb2.LinkReply.FromString(payload)
            assert reply.error.reason == reason, word
        await agent.beat()


async def test_the_first_answer_to_a_command_stands(house: House) -> None:
    """Goal: an answer that comes twice counts once. Method: a stop that was accepted, and then is said to be refused,
    as if nothing ran: the devices stay held until the agent reports so.
    """
    async with house.running(courier=False):
        agent = await house.add_agent()
        key = await house.open_order(gpu_order())
        await house.until_event(key, events_pb2.LeaseCreated)
        (run,) = await house.delivery.take_due()
        for _ in range(2):
            await house.delivery.take_answer(run, CommandAnswer(accepted=True, reason="", detail=""))
        await house.orders.end(key, EndReason.TENANT, "closed by its tenant")
        (stop,) = await house.delivery.take_due()
        await house.delivery.take_answer(stop, CommandAnswer(accepted=True, reason="", detail=""))
        await house.delivery.take_answer(stop, CommandAnswer(accepted=False, reason="UNKNOWN", detail=""))
        assert await _reserved(house, agent.provider_id) == 1_000
        await agent.beat(run_status(stop.command, STOPPED))
        assert await _reserved(house, agent.provider_id) == 0


async def test_a_command_that_nobody_answers_moves_on_and_keeps_the_device(house: House) -> None:
    """Goal: after the acceptance timeout the group moves on, while the first device stays reserved until its provider
    says that nothing runs. Method: a deaf agent that hears again later.
    """
    async with house.running():
        deaf = await house.add_agent(gpu_micros=1_000_000)
        deaf.is_deaf = True
        other = await house.add_agent(gpu_micros=2_000_000)
        key = await house.open_order(gpu_order())
        created = await house.until_event(key, events_pb2.LeaseCreated)
        for _ in range(4):
            house.clock.advance(seconds=4)
            await deaf.beat()
            await other.beat()
            await house.watch.run_once()
        command = await other.command("run")
        assert command.key.generation == 2
        ended = await house.until_event(key, events_pb2.LeaseEnded)
        assert ended.evidence.reason == lease_pb2.END_REASON_REFUSED
        assert await _reserved(house, deaf.provider_id) == 1_000

        deaf.is_deaf = False
        # A sending that was under way fails only after the clock was advanced; the next one is due later then.
        for tick in range(200):
            if any(sent.HasField("stop") for sent in deaf.commands):
                break
            if tick % 50 == 0:
                house.clock.advance(seconds=3)
            await asyncio.sleep(0.05)
        stop = await deaf.command("stop")
        assert stop.lease == created.lease.name
        assert not [sent for sent in deaf.commands if sent.HasField("run")]
        await deaf.beat(run_status(stop, STOPPED))
        assert await _reserved(house, deaf.provider_id) == 0


@ON_BOTH_STREAMS
async def test_a_silent_provider_loses_its_lease(house: House) -> None:
    """Goal: silence beyond the grace moves the group on, charges end at the last sign of life, and the silent
    provider's device stays reserved until it is back and has stopped. Method: one of two agents falls silent.
    """
    async with house.running():
        silent = await house.add_agent(gpu_micros=1_000_000)
        other = await house.add_agent(gpu_micros=2_000_000)
        key = await house.open_order(gpu_order())
        first = await silent.command("run")
        await silent.beat(run_status(first, RUNNING))
        heard = house.clock.now()
        for _ in range(16):
            house.clock.advance(seconds=4)
            await other.beat()
            await house.watch.run_once()
        second = await other.command("run")
        assert second.key.generation == 2
        ended = await house.until_event(key, events_pb2.LeaseEnded)
        assert ended.evidence.reason == lease_pb2.END_REASON_UNREACHABLE
        assert from_timestamp(ended.charge_through_time) == heard
        assert await _reserved(house, silent.provider_id) == 1_000

        answer = await silent.beat(run_status(first, RUNNING))
        assert list(answer.unwanted) == [first.key]
        final = silent.proof(first, 60_000, final=True)
        answer = await silent.beat(run_status(first, STOPPED), proofs=(final,))
        assert list(answer.forgotten) == [first.key]
        assert await _reserved(house, silent.provider_id) == 0


async def test_a_group_that_must_not_overlap_waits_for_the_self_stop(house: House) -> None:
    """Goal: with overlap forbidden no second generation is made before the first has surely stopped by itself.
    Method: a command that nobody answers ends the first; move the clock to either side of self-stop plus margin.
    """
    async with house.running():
        deaf = await house.add_agent(gpu_micros=1_000_000)
        deaf.is_deaf = True
        other = await house.add_agent(gpu_micros=2_000_000)
        order = gpu_order()
        order.terms.overlap = order_pb2.OVERLAP_FORBIDDEN
        key = await house.open_order(order)
        await house.until_event(key, events_pb2.LeaseCreated)
        while not [event for event in await house.events(key=key) if isinstance(event, events_pb2.LeaseEnded)]:
            house.clock.advance(seconds=4)
            await other.beat()
            await house.watch.run_once()
        lost = house.clock.now()
        assert await house.matching.match_open_orders() == 0
        while (house.clock.now() - lost) < house.policy.overlap_wait:
            assert len([e for e in await house.events(key=key) if isinstance(e, events_pb2.LeaseCreated)]) == 1
            house.clock.advance(seconds=4)
            await other.beat()
        again = await house.until_event(key, events_pb2.LeaseCreated, 2)
        assert again.lease.provider == other.name


async def test_a_stop_that_is_confirmed_ends_the_wait(house: House) -> None:
    """Goal: with overlap forbidden the group need not wait once its provider says that nothing runs. Method: a generation
    is lost while its agent is well; it stops and says so.
    """
    async with house.running():
        first = await house.add_agent(gpu_micros=1_000_000)
        other = await house.add_agent(gpu_micros=2_000_000)
        order = gpu_order()
        order.terms.overlap = order_pb2.OVERLAP_FORBIDDEN
        key = await house.open_order(order)
        command = await first.command("run")
        await first.beat(run_status(command, RUNNING))
        broken = node()
        broken.devices[0].health = resources_pb2.DEVICE_HEALTH_FAILED
        await first.report_inventory(broken, sequence=2)
        await house.until_event(key, events_pb2.LeaseEnded)
        assert await house.matching.match_open_orders() == 0
        await first.command("stop")
        await first.beat(run_status(command, STOPPED))
        assert (await other.command("run")).key.generation == 2


@ON_BOTH_STREAMS
async def test_our_own_outage_counts_against_nobody(house: House) -> None:
    """Goal: unknown is not down. Method: the whole market stands still for ten minutes, then goes on: the lease stays,
    the outage is recorded and told with the next proofs, and only a silence of the grace after it takes the lease.
    """
    async with house.running():
        agent = await house.add_agent()
        key = await house.open_order(gpu_order())
        command = await agent.command("run")
        await agent.beat(run_status(command, RUNNING))
        house.clock.advance(seconds=600)
        await house.watch.run_once()
        assert await house.value("SELECT count(*) FROM market_outage") == 1
        assert await house.value("SELECT state FROM lease") == "RUNNING"

        house.clock.advance(seconds=2)
        await house.watch.run_once()
        await agent.beat(run_status(command, RUNNING), proofs=(agent.proof(command, 602_000),))
        (received,) = await house.events(PROOFS_TOPIC, agent.provider_id)
        assert isinstance(received, events_pb2.ProofsReceived)
        assert from_duration(received.market_outage) == 600_000

        for _ in range(14):
            house.clock.advance(seconds=4)
            await house.watch.run_once()
        assert await house.value("SELECT state FROM lease") == "RUNNING"
        house.clock.advance(seconds=4)
        await house.watch.run_once()
        assert await house.value("SELECT state FROM lease") == "LOST"
        assert len(await house.events(key=key)) == 3


async def test_a_workload_that_fails_is_tried_elsewhere_and_then_given_up(house: House) -> None:
    """Goal: a failed start moves the group on, and too many end the order with that reason. Method: two providers
    fail, where two failures are the limit.
    """
    async with house.running():
        agents = [await house.add_agent(gpu_micros=micros) for micros in (1_000_000, 2_000_000, 3_000_000)]
        key = await house.open_order(gpu_order())
        for agent in agents[:2]:
            command = await agent.command("run")
            await agent.beat(run_status(command, FAILED, reason="EXITED", detail="status 1"))
            assert await _reserved(house, agent.provider_id) == 0
        events = await house.events(key=key)
        assert [type(event).__name__ for event in events] == [
            "LeaseCreated",
            "LeaseEnded",
            "LeaseCreated",
            "LeaseEnded",
            "OrderEnded",
        ]
        first, last, end = events[1], events[3], events[4]
        assert isinstance(first, events_pb2.LeaseEnded)
        assert isinstance(last, events_pb2.LeaseEnded)
        assert isinstance(end, events_pb2.OrderEnded)
        assert [first.releasing, last.releasing] == [True, False]
        assert first.evidence.detail == "EXITED: status 1"
        assert end.reason == lease_pb2.END_REASON_WORKLOAD
        assert not agents[2].commands


@ON_BOTH_STREAMS
async def test_a_failed_device_ends_its_lease(house: House) -> None:
    """Goal: a device that its provider reports as failed takes its lease with it and gets no other, while the
    provider's other device may. Method: the next inventory report says so of the leased one of two.
    """
    async with house.running():
        agent = await house.add_agent(node(devices=2))
        key = await house.open_order(gpu_order())
        command = await agent.command("run")
        await agent.beat(run_status(command, RUNNING))
        (share,) = command.run.replicas[0].devices
        broken = node(devices=2)
        for device in broken.devices:
            if device.device_id == share.device_id:
                device.health = resources_pb2.DEVICE_HEALTH_FAILED
        await agent.report_inventory(broken, sequence=2)
        ended = await house.until_event(key, events_pb2.LeaseEnded)
        assert ended.evidence.reason == lease_pb2.END_REASON_DEVICE
        assert ended.releasing
        await agent.command("stop")
        again = await agent.command("run", 2)
        assert again.run.replicas[0].devices[0].device_id != share.device_id


async def test_a_self_stopped_generation_may_return_to_its_provider(house: House) -> None:
    """Goal: an agent that stopped because it could not reach us is not punished. Method: it reports SELF_STOPPED and is
    the only provider.
    """
    async with house.running():
        agent = await house.add_agent()
        key = await house.open_order(gpu_order())
        command = await agent.command("run")
        await agent.beat(run_status(command, RUNNING))
        await agent.beat(run_status(command, FAILED, reason="SELF_STOPPED"))
        ended = await house.until_event(key, events_pb2.LeaseEnded)
        assert ended.evidence.reason == lease_pb2.END_REASON_UNREACHABLE
        assert (await agent.command("run", 2)).key.generation == 2


async def test_an_agent_that_lost_its_memory_loses_the_lease(house: House) -> None:
    """Goal: an accepted generation that heartbeats do not name is lost, and once the stop is acknowledged its device is
    free. Method: heartbeats without it, for longer than a late one could take.
    """
    async with house.running():
        agent = await house.add_agent()
        key = await house.open_order(gpu_order())
        command = await agent.command("run")
        await agent.beat(run_status(command, market_link_pb2.RUN_STATE_STARTING))
        house.clock.advance(seconds=29)
        await agent.beat()
        assert await house.value("SELECT state FROM lease") == "STARTING"
        house.clock.advance(seconds=1)
        await agent.beat()
        ended = await house.until_event(key, events_pb2.LeaseEnded)
        assert ended.evidence.reason == lease_pb2.END_REASON_PROVIDER
        await agent.command("stop")

        async def acknowledged() -> bool:
            return bool(await house.value("SELECT count(*) FROM command WHERE kind = 'STOP' AND outcome = 'ACCEPTED'"))

        await house.until(acknowledged, "the stop is acknowledged")
        assert await _reserved(house, agent.provider_id) == 1_000
        house.clock.advance(seconds=31)
        await agent.beat()
        assert await _reserved(house, agent.provider_id) == 0


async def test_a_term_that_is_over_ends_the_order(house: House) -> None:
    """Goal: an order runs no longer than its term from readiness. Method: move the clock to either side of it."""
    async with house.running():
        agent = await house.add_agent()
        order = gpu_order()
        order.terms.duration.CopyFrom(to_duration(20_000))
        key = await house.open_order(order)
        command = await agent.command("run")
        house.clock.advance(seconds=3)
        await agent.beat(run_status(command, RUNNING))
        house.clock.advance(milliseconds=19_999)
        assert await house.orders.end_terms() == 0
        house.clock.advance(milliseconds=1)
        assert await house.orders.end_terms() == 1
        end = await house.until_event(key, events_pb2.OrderEnded)
        assert end.reason == lease_pb2.END_REASON_TERM
        assert (await agent.command("stop")).stop.reason == lease_pb2.END_REASON_TERM


async def test_commands_outlive_their_sender(house: House) -> None:
    """Goal: a lease that was committed by a process that died before it sent the command is run all the same. Method:
    match without a courier, then start one.
    """
    async with house.running(courier=False):
        agent = await house.add_agent()
        key = await house.open_order(gpu_order())
        created = await house.until_event(key, events_pb2.LeaseCreated)
    assert not agent.commands
    async with house.running(engine=False):
        command = await agent.command("run")
    assert command.lease == created.lease.name
    assert await house.value("SELECT count(*) FROM command") == 1


async def test_a_heartbeat_that_comes_late_changes_nothing(house: House) -> None:
    """Goal: what a stopped process or a hung connection hands over late closes no lease. Method: a running lease; then an older
    heartbeat of the same life without it, one of an earlier life, and the last one again.
    """
    async with house.running(engine=False):
        agent = await house.add_agent()
        early = agent.sequence
        await house.open_order(gpu_order())
        assert await house.matching.match_open_orders() == 1
        command = await agent.command("run")
        for _ in range(3):
            await agent.beat(run_status(command, RUNNING))
        house.clock.advance(seconds=60)
        await agent.beat(run_status(command, RUNNING))
        last = market_link_pb2.Heartbeat(sequence=agent.sequence, boot_id="boot", runs=[run_status(command, RUNNING)])
        new_life = market_link_pb2.Heartbeat(sequence=1, boot_id="next", runs=[run_status(command, RUNNING)])
        late = market_link_pb2.Heartbeat(sequence=early, boot_id="boot")
        for heartbeat, reason in (
            (late, "HEARTBEAT_OLD"),
            (last, ""),
            (new_life, ""),
            (late, "HEARTBEAT_OLD"),
            (last, "HEARTBEAT_OLD"),
        ):
            subject = f"fallow.provider.{agent.provider_id}.heartbeat"
            payload = await agent.link.request(subject, heartbeat.SerializeToString())
            assert market_link_pb2.LinkReply.FromString(payload).error.reason == reason
        assert await house.value("SELECT count(*) FROM lease WHERE end_time IS NULL") == 1
