"""Reputation out of what happens in a market, on a real database: as it grows, as it is shown, and made anew."""

import random
from datetime import timedelta
from typing import Any

from fallow.bidding.v1 import provider_pb2, provider_service_pb2, provider_service_pb2_grpc
from fallow.provider.v1 import market_link_pb2
from fallow_bidding.domain.leases import EndReason
from fallow_chassis.grpc_client import channel
from fallow_chassis.wire import from_duration
from tests.component.bidding.conftest import Agent, House, gpu_order, run_status

RUNNING = market_link_pb2.RUN_STATE_RUNNING
STOPPED = market_link_pb2.RUN_STATE_STOPPED


async def _shown(house: House, agent: Agent) -> provider_pb2.Reputation:
    """A provider's reputation as anybody sees it."""
    async with house.served() as address, channel(address) as connection:
        stub = provider_service_pb2_grpc.ProviderRegistryServiceStub(connection)
        provider = await stub.GetProvider(provider_service_pb2.GetProviderRequest(name=agent.name))
        return provider.reputation


async def _run_for(house: House, agent: Agent, order: Any, seconds: int, reason: EndReason) -> None:
    """One lease at the only provider: started after 30 s, run, proven, ended."""
    number = len([command for command in agent.commands if command.HasField("run")]) + 1
    order_id = await house.open_order(order)
    command = await agent.command("run", number)
    await house.pass_time(30)
    await agent.beat(run_status(command, RUNNING))
    house.clock.advance(seconds=seconds)
    await house.watching.beat()
    await agent.beat(run_status(command, RUNNING), proofs=(agent.proof(command, seconds * 1_000),))
    await house.orders.end(order_id, reason, "over")
    await agent.beat(run_status(command, STOPPED), proofs=(agent.proof(command, seconds * 1_000 + 1, final=True),))


async def test_a_new_provider_stands_in_the_middle_and_moves(house: House) -> None:
    """Goal: a new provider shows 500 in all parts; paid time raises it, giving a lease up lowers it, and the score is the
    documented sum of the parts shown. Method: one lease of a day, then one given up.
    """
    async with house.running():
        agent = await house.add_agent()
        new = await _shown(house, agent)
        assert (new.score_milli, new.reliability_milli, new.start_success_milli) == (500, 500, 500)
        assert not new.HasField("time_to_start")

        await _run_for(house, agent, gpu_order(), 86_400, EndReason.TENANT)
        assert await house.reputation.compute_due() == 1
        good = await _shown(house, agent)
        assert good.reliability_milli == 750
        assert good.start_success_milli == 666
        assert from_duration(good.time_to_start) == 30_000
        assert (good.leases, good.early_closes) == (1, 0)
        speed = 1_000 * 60_000 // 90_000
        uptime = (good.uptime_milli + good.uptime_week_milli) // 2
        assert good.score_milli == (4 * 750 + 3 * uptime + 2 * 666 + speed) // 10

        assert await house.reputation.compute_due() == 0
        await _run_for(house, agent, gpu_order(), 60, EndReason.PROVIDER)
        house.clock.advance(seconds=61)
        assert await house.reputation.compute_due() == 1
        bad = await _shown(house, agent)
        assert bad.early_closes == 1
        assert bad.reliability_milli < good.reliability_milli
        assert bad.score_milli < good.score_milli


async def test_leases_of_the_own_account_count_for_nothing(house: House) -> None:
    """Goal: nobody praises himself. Method: the owner leases his own site for a day."""
    async with house.running():
        agent = await house.add_agent()
        owner = (await house.queries.provider(agent.name)).account
        await _run_for(house, agent, gpu_order(tenant=owner), 86_400, EndReason.TENANT)
        await house.reputation.compute_due()
        shown = await _shown(house, agent)
        assert (shown.leases, shown.reliability_milli, shown.start_success_milli) == (0, 500, 500)


async def test_silence_counts_and_our_own_absence_does_not(house: House) -> None:
    """Goal: time that a provider was silent lowers its uptime, time in which the market was away does not. Method: two
    providers; both are away while the market is, one also afterwards.
    """
    async with house.running():
        steady, flaky = await house.add_agent(), await house.add_agent()
        await house.pass_time(8)
        house.clock.advance(seconds=3_600)
        await house.watching.beat()
        for agent in (steady, flaky):
            await agent.beat()
        assert await house.value("SELECT count(*) FROM market_outage") == 1
        for _ in range(100):
            house.clock.advance(seconds=4)
            await house.watching.beat()
            await steady.beat()
        await house.reputation.compute_due()
        first = await _shown(house, flaky)
        await flaky.beat()
        house.clock.advance(seconds=61)
        await house.watching.beat()
        await steady.beat()
        await flaky.beat()
        await house.reputation.compute_due()
        well, ill = await _shown(house, steady), await _shown(house, flaky)
        assert await house.value("SELECT count(*) FROM provider_silence WHERE provider_id = $1", flaky.provider_id) == 3
        assert well.uptime_week_milli > first.uptime_week_milli
        assert well.uptime_week_milli > ill.uptime_week_milli
        # Six hours of prior at a half, and what was heard of about eight minutes.
        assert well.uptime_week_milli >= 505
        assert ill.uptime_week_milli <= 500


async def test_a_least_reputation_is_kept_and_the_better_wins(house: House) -> None:
    """Goal: `reputation_milli_min` and the rank among equal prices follow the score that is computed. Method: an older and a
    younger provider at one price; the older gave a lease up.
    """
    async with house.running(engine=False):
        old = await house.add_agent()
        await house.open_order(gpu_order())
        assert await house.matching.match_open_orders() == 1
        command = await old.command("run")
        await old.beat(run_status(command, RUNNING))
        await house.orders.end(command.key.order.removeprefix("orders/"), EndReason.PROVIDER, "given up")
        await old.beat(run_status(command, STOPPED))
        young = await house.add_agent()
        assert await house.reputation.compute_due() == 2
        assert (await _shown(house, old)).score_milli < 500 <= (await _shown(house, young)).score_milli

        picky = gpu_order()
        picky.groups[0].constraints.reputation_milli_min = 900
        await house.open_order(picky)
        assert await house.matching.match_open_orders() == 0
        await house.open_order(gpu_order())
        assert await house.matching.match_open_orders() == 1
        await young.command("run")


async def test_kept_from_day_to_day_it_is_what_it_is_made_anew(house: House) -> None:
    """Goal: tallies kept over weeks give exactly what all leases give at once, also where a proof comes late. Method: forty
    days of random ends, computed at random times; a late proof for a day long tallied; then drop the tallies and compute
    again.
    """
    rng = random.Random(7)
    reasons = [EndReason.TENANT, EndReason.PROVIDER, EndReason.UNREACHABLE, EndReason.WORKLOAD, EndReason.TERM]
    async with house.running():
        agent = await house.add_agent()
        for _ in range(40):
            for _ in range(rng.randint(0, 2)):
                await _run_for(house, agent, gpu_order(), rng.randint(60, 20_000), rng.choice(reasons))
            house.clock.advance(seconds=rng.randint(1, 40) * 3_600)
            await house.watching.beat()
            await agent.beat()
            if rng.random() < 0.6:
                await house.reputation.compute(agent.provider_id)
        tallied = await house.value("SELECT count(*) FROM reputation_day")
        assert tallied > 10

        async with house.database.transaction() as unit:
            await unit.connection.execute("UPDATE lease SET proof_final = false")
        late = next(command for command in agent.commands if command.HasField("run"))
        late_proof = agent.proof(late, 400_000_000)
        before = await house.reputation.compute(agent.provider_id)
        await agent.beat(proofs=(late_proof,))
        kept = await house.reputation.compute(agent.provider_id)
        assert kept.reliability_milli > before.reliability_milli

        async with house.database.transaction() as unit:
            await unit.connection.execute("DELETE FROM reputation_day")
            await unit.connection.execute("UPDATE provider SET tallied_day = NULL")
        anew = await house.reputation.compute(agent.provider_id)
        assert anew == kept
        assert await house.value("SELECT count(*) FROM reputation_day") == tallied
        house.clock.advance(seconds=int(timedelta(days=200).total_seconds()))
        await house.watching.beat()
        faded = await house.reputation.compute(agent.provider_id)
        assert (faded.reliability_milli, faded.leases) == (500, 0)
        assert await house.value("SELECT count(*) FROM reputation_day") == 0
