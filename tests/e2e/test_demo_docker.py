"""`fallow demo` on a real container engine: the workload is a container of it, with nothing that a tenant should not have.

The engine is a dockerd of the test's own. A published port is reached only in the engine's network, so the whole demo
runs there; the test asks the engine by its socket while the demo goes on, and reads its log of events afterwards.
"""

import asyncio
import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiodocker
import aiohttp
import pytest

from fallow_stack.testing import FALLOW
from tests.dockerd import Dockerd, missing

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(400)]

POLL_SECONDS = 0.1
# What the workload itself says of its rights.
RIGHTS = "print(*(line for line in open('/proc/self/status') if line.startswith(('Uid', 'CapEff', 'NoNewPrivs'))))"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dockerd]:
    """A real dockerd in a network of its own."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    engine = Dockerd(tmp_path_factory.mktemp("docker"), "own")
    try:
        engine.start()
        yield engine
    finally:
        engine.stop()


async def run_demo(engine: Dockerd, home: Path, runtime: str) -> str:
    """Run the demo in the engine's network; what it printed, once it has ended well."""
    process = await asyncio.create_subprocess_exec(
        *engine.inside(str(FALLOW), "demo", "--home", str(home), "--runtime", runtime),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | {"COLUMNS": "200", "DOCKER_HOST": f"unix://{engine.socket}"},
    )
    try:
        output = (await process.communicate())[0].decode()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert process.returncode == 0, output
    return output


async def watch(engine: Dockerd, seen: dict[str, dict[str, Any]]) -> None:
    """Describe each container once it runs, as the engine and as a program inside it sees it."""
    async with aiodocker.Docker(url=f"unix://{engine.socket}") as docker:
        while True:
            for container in await docker.containers.list():
                if container.id not in seen:
                    seen[container.id] = await container.show()
                    execution = await container.exec(["python3", "-c", RIGHTS])
                    async with execution.start(detach=False) as stream:
                        message = await stream.read_out()
                    assert message is not None
                    seen[container.id]["rights"] = message.data.decode().split()
            await asyncio.sleep(POLL_SECONDS)


async def run_watched(engine: Dockerd, home: Path, runtime: str) -> tuple[str, dict[str, dict[str, Any]]]:
    """The demo's output, and the containers that the engine ran meanwhile by their ids."""
    seen: dict[str, dict[str, Any]] = {}
    async with asyncio.TaskGroup() as group:
        watcher = group.create_task(watch(engine, seen))
        output = await run_demo(engine, home, runtime)
        watcher.cancel()
    return output, seen


async def events(engine: Dockerd) -> list[dict[str, Any]]:
    """The engine's log of what it did, from its start until now."""
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(engine.socket))) as session:
        query = {"since": "0", "until": f"{time.time():.9f}"}
        async with session.get("http://engine/events", params=query) as answer:
            assert answer.status == 200
            return [json.loads(line) for line in (await answer.text()).splitlines()]


def check_container(output: str, container: dict[str, Any]) -> None:
    """Hold that the container is the lease's, and that it may do nothing."""
    lease = re.search(r"^(leases/\S+) generation (\d+) at", output, re.MULTILINE)
    assert lease is not None, output
    labels = container["Config"]["Labels"]
    assert (labels["dev.fallow.lease"], labels["dev.fallow.generation"]) == lease.groups()
    assert (labels["dev.fallow.service"], labels["dev.fallow.replica"]) == ("web", "0")
    host = container["HostConfig"]
    assert (host["CapDrop"], host["Privileged"], host["Memory"]) == (["ALL"], False, 512 << 20)
    assert not host["Binds"]
    assert container["rights"] == ["Uid:", *["65534"] * 4, "CapEff:", "0" * 16, "NoNewPrivs:", "1"]
    ports = container["NetworkSettings"]["Ports"]["8080/tcp"]
    assert f"endpoint http://127.0.0.1:{ports[0]['HostPort']}" in output
    assert f"image {container['Config']['Image']}" in output


async def test_the_demo_runs_its_workload_in_a_container(engine: Dockerd, tmp_path: Path) -> None:
    """Goal: the demo uses a container engine where one answers, twice on the same data. Method: a real engine is asked.

    `auto` finds the engine by itself, and the second run the image that the first one loaded.
    """
    ran: list[str] = []
    for runtime in ("docker", "auto"):
        output, seen = await run_watched(engine, tmp_path, runtime)
        assert f"workload: a container of the engine at {engine.socket}" in output
        (container,) = seen.values()
        check_container(output, container)
        # The first process of a container's own space of processes; a process of the host has another number.
        assert re.search(r"^log web/0: answered / \{\"pid\": 1, ", output, re.MULTILINE), "its log"
        assert "good: charge" in output
        assert output.count("refused: ") == 2, "two tampered receipts"
        ran += seen
    log = await events(engine)
    for container_id in ran:
        actions = [event["Action"] for event in log if event["Actor"]["ID"] == container_id]
        assert [action for action in actions if action in {"create", "start", "die", "destroy"}] == [
            "create", "start", "die", "destroy",
        ]  # fmt: skip
    done = Counter((event["Type"], event["Action"]) for event in log)
    assert done["container", "create"] == 2, "nothing else ran there"
    assert done["image", "load"] == 1, "the image was loaded once"
    async with aiodocker.Docker(url=f"unix://{engine.socket}") as docker:
        assert await docker.containers.list(all=True) == [], "nothing is left"
