"""One lease the whole way through a real agent process: registration, command, process, proofs, log, stop."""

import aiohttp

from fallow.provider.v1 import market_link_pb2, provider_service_pb2, provider_service_pb2_grpc
from fallow.type.v1 import resources_pb2
from tests.component.provider.conftest import Market, door, processes_of


async def test_a_lease_the_whole_way(market: Market) -> None:
    """Goal: register, report, run, prove, tell, stop. Method: a real process against the scripted market."""
    await market.start_agent()
    provider = market.provider
    assert (provider.display_name, provider.region, provider.account) == ("Fjord", "eu-north", market.order.account)
    assert provider.address == market.port_file.read_text("utf-8").strip()
    (node,) = market.inventories[0].nodes
    assert node.devices[0].source == resources_pb2.DEVICE_SOURCE_DECLARED
    assert list(node.drivers) == ["exec"]
    (offer,) = market.bidding.offers
    assert dict(offer.prices.gpu_micros_per_hour_by_model) == {"h100": 2_100_000}

    lease, key = market.new_lease()
    command = market.run_command(lease, key)
    answer = await market.command(command)
    assert answer.outcome == market_link_pb2.COMMAND_OUTCOME_ACCEPTED, answer
    assert await market.command(command) == answer, "the same command, the same answer"
    status = await market.until_state(lease, market_link_pb2.RUN_STATE_RUNNING)
    (endpoint,) = status.endpoints
    assert (endpoint.service, endpoint.container_port) == ("web", 8080)
    async with aiohttp.ClientSession() as http, http.get(endpoint.uri) as response:
        assert response.status == 200
    assert len(processes_of(lease)) == 1

    claims = market.claims(lease, key, "logs.read", "status.read", subject=market.order.account)
    grant = market.identity.grant(claims)
    async with await door(market, lambda: grant) as connection:
        stub = provider_service_pb2_grpc.WorkloadAccessServiceStub(connection)
        told = await stub.GetWorkloadStatus(provider_service_pb2.GetWorkloadStatusRequest(lease=lease))
        assert told.run.state == market_link_pb2.RUN_STATE_RUNNING
        assert [(item.service, item.driver, item.running) for item in told.containers] == [("web", "exec", True)]
        lines = [line async for line in stub.StreamLogs(provider_service_pb2.StreamLogsRequest(lease=lease))]
        texts = {line.line: line.stream for line in lines}
        pid = processes_of(lease)[0]
        assert texts[f"hello from {pid}"] == provider_service_pb2.LOG_STREAM_STDOUT
        assert texts["a word on the side"] == provider_service_pb2.LOG_STREAM_STDERR

    await market.until(lambda: len(market.proofs(lease)) >= 3, "three proofs")
    answer = await market.command(market.stop_command(lease, key))
    assert answer.outcome == market_link_pb2.COMMAND_OUTCOME_ACCEPTED
    await market.until_state(lease, market_link_pb2.RUN_STATE_STOPPED)
    proofs = market.proofs(lease)
    assert [proof.sequence for proof in proofs] == list(range(1, len(proofs) + 1))
    assert [proof.running_ms for proof in proofs] == sorted(proof.running_ms for proof in proofs)
    assert [proof.final for proof in proofs] == [False] * (len(proofs) - 1) + [True]
    assert 400 < proofs[-1].running_ms < 30_000
    assert processes_of(lease) == []

    market.forgotten.append(key)
    await market.until(lambda: market.status(lease) is None, "oblivion")
    refused = await market.command(market.run_command(lease, key))
    assert (refused.outcome, refused.reason) == (market_link_pb2.COMMAND_OUTCOME_REFUSED, "GENERATION_ENDED")
    assert await market.end_agent() == 0
