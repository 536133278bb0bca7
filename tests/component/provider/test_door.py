"""The agent's own door: who gets in, what is told, what is not built yet."""

import asyncio
import functools
from collections.abc import AsyncIterator

import pytest

from fallow.provider.v1 import market_link_pb2, provider_service_pb2, provider_service_pb2_grpc
from fallow.type.v1 import lease_pb2, workload_pb2
from fallow_chassis.errors import DomainError
from tests.component.provider.conftest import Market, container, door

StreamLogsRequest = provider_service_pb2.StreamLogsRequest


async def running(market: Market) -> tuple[str, lease_pb2.GenerationKey]:
    """A lease that runs."""
    await market.start_agent()
    lease, key = market.new_lease()
    market.order.workloads[lease] = workload_pb2.Workload(
        containers=[
            container(),
            container(service="side", ports=[], readiness=workload_pb2.ReadinessCheck(log_line="tick"))
        ]
    )  # fmt: skip
    source = "import time\nwhile True:\n    print('tick', flush=True)\n    time.sleep(0.1)"
    market.order.workloads[lease].containers[1].command[-1] = source
    await market.command(market.run_command(lease, key))
    await market.until_state(lease, market_link_pb2.RUN_STATE_RUNNING)
    return lease, key


async def reason_of(call: AsyncIterator[object]) -> str:
    """The reason with which a stream is refused."""
    with pytest.raises(DomainError) as refusal:
        async for _ in call:
            pass
    return refusal.value.reason.reason


async def test_logs_follow_one_service_or_all(market: Market) -> None:
    """Goal: a live log until the lease ends. Method: follow all, follow one, tail; stop; both streams end."""
    lease, key = await running(market)
    grant = market.identity.grant(market.claims(lease, key, "logs.read"))
    async with await door(market, lambda: grant) as connection:
        stub = provider_service_pb2_grpc.WorkloadAccessServiceStub(connection)
        side: list[provider_service_pb2.StreamLogsResponse] = []
        async with asyncio.timeout(30):
            # A second tick comes a moment after the first, which made the run ready.
            while len(side) < 2:
                side = [line async for line in stub.StreamLogs(StreamLogsRequest(lease=lease, service="side", tail=2))]
        assert [(line.service, line.line) for line in side] == [("side", "tick")] * 2
        all_of_it = [line async for line in stub.StreamLogs(StreamLogsRequest(lease=lease, service="web"))]
        since = StreamLogsRequest(lease=lease, service="web", since_time=all_of_it[0].line_time)
        later = [line.line async for line in stub.StreamLogs(since)]
        assert all_of_it[0].line not in later
        seen: set[str] = set()
        stopped = False
        async with asyncio.timeout(30):
            async for line in stub.StreamLogs(StreamLogsRequest(lease=lease, follow=True)):
                seen.add(line.service)
                if seen == {"web", "side"} and not stopped:
                    stopped = True
                    await market.command(market.stop_command(lease, key))
        assert seen == {"web", "side"}


async def test_who_may_not_come_in(market: Market) -> None:
    """Goal: a grant opens one generation of one lease. Method: other lease, other right, old generation, no service."""
    lease, key = await running(market)

    async def refused(
        claimed: str, generation_key: lease_pb2.GenerationKey, right: str, service: str = "", order: str = ""
    ) -> str:
        asked = lease_pb2.GenerationKey()
        asked.CopyFrom(generation_key)
        asked.order = order or asked.order
        grant = market.identity.grant(market.claims(claimed, asked, right))
        async with await door(market, lambda: grant) as connection:
            stub = provider_service_pb2_grpc.WorkloadAccessServiceStub(connection)
            return await reason_of(stub.StreamLogs(StreamLogsRequest(lease=lease, service=service)))

    other, other_key = market.new_lease()
    assert await refused(lease, key, "status.read") == "PERMISSION_DENIED"
    assert await refused(other, key, "logs.read") == "PERMISSION_DENIED"
    assert await refused(lease, other_key, "logs.read") == "LEASE_NOT_FOUND"
    assert await refused(lease, key, "logs.read", service="none") == "SERVICE_NOT_FOUND"
    newer, newer_key = market.new_lease(order=key.order, generation=2)
    await market.command(market.run_command(newer, newer_key))
    assert await refused(lease, key, "logs.read") == "GENERATION_OLD"


async def test_what_is_not_built_says_so(market: Market) -> None:
    """Goal: no method pretends. Method: call each with a grant that opens it."""
    lease, key = await running(market)
    grant = market.identity.grant(market.claims(lease, key, "status.read", "exec"))
    async with await door(market, lambda: grant) as connection:
        stub = provider_service_pb2_grpc.WorkloadAccessServiceStub(connection)
        events = provider_service_pb2.StreamEventsRequest(lease=lease)
        assert await reason_of(stub.StreamEvents(events)) == "NOT_YET_AVAILABLE"
        stats = provider_service_pb2.StreamStatsRequest(lease=lease)
        assert await reason_of(stub.StreamStats(stats)) == "NOT_YET_AVAILABLE"
        assert await reason_of(stub.ForwardPort(iter([]))) == "NOT_YET_AVAILABLE"


async def test_the_owner_sees_the_agent_and_nobody_else(market: Market) -> None:
    """Goal: an agent is its owner's. Method: its owner's token, another account's, the owner's without the scope."""
    lease, _ = await running(market)
    request = provider_service_pb2.GetAgentStatusRequest()
    owner = market.identity.account_token(market.order.account, ["providers.read"])
    async with await door(market, lambda: owner) as connection:
        status = await provider_service_pb2_grpc.AgentServiceStub(connection).GetAgentStatus(request)
    assert status.provider == market.provider.name
    assert [run.lease for run in status.runs] == [lease]
    assert status.nodes[0].devices[0].device_id == "declared-0"
    assert status.acknowledge_time.seconds >= status.start_time.seconds > 0
    for account, scopes in (("accounts/other", ["providers.read"]), (market.order.account, ["orders.read"])):
        token = market.identity.account_token(account, scopes)
        async with await door(market, functools.partial(str, token)) as connection:
            with pytest.raises(DomainError) as refusal:
                await provider_service_pb2_grpc.AgentServiceStub(connection).GetAgentStatus(request)
        assert refusal.value.reason.reason == "PERMISSION_DENIED"
