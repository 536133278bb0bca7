"""The agent, and its engine, are ended with SIGKILL between the steps of a lease on a real dockerd: one container, then none."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiodocker
import pytest

from fallow.provider.v1 import market_link_pb2
from fallow.type.v1 import lease_pb2, workload_pb2
from fallow_stack.demo_image import load_demo_image
from tests import dockerd
from tests.component.provider.conftest import Market

pytestmark = [pytest.mark.docker, pytest.mark.timeout(240)]
ACCEPTED = market_link_pb2.COMMAND_OUTCOME_ACCEPTED
PROGRAM = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: exit(0)); print('serving'); time.sleep(600)"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dockerd.Dockerd]:
    """A real dockerd with a network of its own."""
    reason = dockerd.missing()
    if reason is not None:
        pytest.skip(reason)
    started = dockerd.Dockerd(tmp_path_factory.mktemp("docker-kill"), "own")
    try:
        started.start()
        yield started
    finally:
        started.stop()


class Site:
    """A market's agent on the engine."""

    def __init__(self, market: Market, engine: dockerd.Dockerd, image: str, client: aiodocker.Docker) -> None:
        self.market = market
        self.engine = engine
        self.image = image
        self.client = client

    async def start_agent(self) -> None:
        """A life of the agent with the docker driver."""
        await self.market.start_agent(FALLOW_RUNTIME="docker", FALLOW_DOCKER_SOCKET=str(self.engine.socket))

    async def kill_and_restart(self) -> None:
        """SIGKILL it and start the next."""
        await self.market.end_agent(signal.SIGKILL)
        await self.start_agent()

    def new_lease(self) -> tuple[str, lease_pb2.GenerationKey]:
        """A lease of one container that is ready by a line of its log."""
        return self.market.new_lease(
            PROGRAM, image=self.image, readiness=workload_pb2.ReadinessCheck(log_line="serving")
        )

    async def containers(self, lease: str) -> list[dict[str, Any]]:
        """All containers of a lease, running or not."""
        filters = f'{{"label": ["dev.fallow.lease={lease}"]}}'
        return [dict(item._container) for item in await self.client.containers.list(all=1, filters=filters)]

    async def is_empty(self) -> bool:
        """Whether the engine has no container and no network of ours any more."""
        filters = {"label": ["dev.fallow.agent"]}
        return not await self.client.networks.list(filters=filters) and not await self.client.containers.list(all=1)

    async def until_empty(self) -> None:
        """Wait until nothing is left."""
        async with asyncio.timeout(60):
            while not await self.is_empty():
                await asyncio.sleep(0.1)


@pytest.fixture
async def site(market: Market, engine: dockerd.Dockerd) -> AsyncIterator[Site]:
    """The agent on the engine; what a failed test leaves is removed."""
    image = await load_demo_image(str(engine.socket))
    async with aiodocker.Docker(url=f"unix://{engine.socket}") as client:
        try:
            yield Site(market, engine, image, client)
        finally:
            await market.end_agent(signal.SIGKILL)
            for item in await client.containers.list(all=1):
                await item.delete(force=True)


@pytest.mark.parametrize("delay_ms", [0, 30, 60, 120, 250, 500])
async def test_killed_while_it_starts_and_while_it_stops(site: Site, delay_ms: int) -> None:
    """Goal: no double container and no orphan. Method: kill the agent some milliseconds after it took the start, and again
    after it took the stop: from before the network is made to after the container is gone.
    """
    await site.start_agent()
    lease, key = site.new_lease()
    assert (await site.market.command(site.market.run_command(lease, key))).outcome == ACCEPTED
    await asyncio.sleep(delay_ms / 1_000)
    await site.kill_and_restart()
    await site.market.until_state(lease, market_link_pb2.RUN_STATE_RUNNING)
    (only,) = await site.containers(lease)
    assert only["State"] == "running"
    assert (await site.market.command(site.market.stop_command(lease, key))).outcome == ACCEPTED
    await asyncio.sleep(delay_ms / 1_000)
    await site.kill_and_restart()
    await site.market.until_state(lease, market_link_pb2.RUN_STATE_STOPPED)
    assert await site.containers(lease) == []
    await site.until_empty()


async def test_an_engine_that_is_killed_is_unknown_and_its_containers_are_adopted(site: Site) -> None:
    """Goal: away is not down. Method: SIGKILL dockerd under a running lease, kill the agent too; both come back to the
    same container, and the lease never failed.
    """
    await site.start_agent()
    lease, key = site.new_lease()
    await site.market.command(site.market.run_command(lease, key))
    await site.market.until_state(lease, market_link_pb2.RUN_STATE_RUNNING)
    (before,) = await site.containers(lease)
    site.engine.kill()
    count = len(site.market.heartbeats)
    await site.market.until(lambda: len(site.market.heartbeats) > count + 5, "heartbeats without an engine")
    status = site.market.status(lease)
    assert status is not None
    assert status.state == market_link_pb2.RUN_STATE_RUNNING
    site.engine.start()
    await site.kill_and_restart()
    await site.market.until_state(lease, market_link_pb2.RUN_STATE_RUNNING)
    (after,) = await site.containers(lease)
    assert (after["Id"], after["State"]) == (before["Id"], "running")
    await site.market.command(site.market.stop_command(lease, key))
    await site.market.until_state(lease, market_link_pb2.RUN_STATE_STOPPED)
    await site.until_empty()
