"""The docker driver keeps the suite on a real engine, isolates by default, and tells an engine that is away from down."""

import contextlib
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiodocker
import pytest

from fallow_provider.domain.workload import LeasedDevice
from fallow_provider.drivers.docker import DockerDriver
from fallow_provider.ports import DriverRefusedError, DriverUnavailableError
from fallow_stack.demo_image import load_demo_image
from tests import dockerd
from tests.contract.drivers.conftest import DockerHouse, House
from tests.contract.drivers.suite import ProgramSuite

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]


class TestDocker(ProgramSuite):
    """The suite on containers."""

    @pytest.fixture
    def house(self, docker_house: DockerHouse) -> House:
        """The docker driver."""
        return docker_house


async def described(house: DockerHouse, name: str) -> dict[str, Any]:
    """The engine's own description of a container."""
    engine = aiodocker.Docker(url=f"unix://{house.engine.socket}")
    try:
        return await engine.containers.container(name).show()
    finally:
        await engine.close()


async def test_isolation_is_the_default(docker_house: DockerHouse) -> None:
    """Goal: a tenant gets a container and no more. Method: what the engine says, and what a program inside sees."""
    container = replace(
        docker_house.container("serve"),
        is_root_read_only=True,
        cpu_milli=500,
        devices=(LeasedDevice("gpu-0", is_declared=True),),
    )
    await docker_house.driver.start(container)
    found = await described(docker_house, container.key.name)
    host = found["HostConfig"]
    assert (host["CapDrop"], host["Privileged"], host["ReadonlyRootfs"]) == (["ALL"], False, True)
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (256 << 20, 500_000_000, 4_096)
    assert not host["Binds"]
    assert not host["Devices"]
    assert not host["DeviceRequests"]
    labels = found["Config"]["Labels"]
    assert (labels["dev.fallow.lease"], labels["dev.fallow.generation"]) == (container.key.lease, "1")
    source = (
        "import json\n"
        "status = dict(line.split(':', 1) for line in open('/proc/self/status') if ':' in line)\n"
        "try:\n    open('/etc/x', 'w'); wrote = True\nexcept OSError:\n    wrote = False\n"
        "names = ('CapEff', 'NoNewPrivs', 'Seccomp')\n"
        "print(json.dumps([*(status[name].strip() for name in names), wrote]))\n"
    )
    result = await docker_house.driver.exec(container.key, ["python3", "-c", source], 20)
    assert json.loads(result.output) == ["0000000000000000", "1", "2", False]


async def test_memory_is_limited(docker_house: DockerHouse) -> None:
    """Goal: one tenant cannot take the machine's memory. Method: allocate twice the limit; the kernel kills it."""
    container = replace(
        docker_house.container("serve"),
        command=("python3", "-c", "held = bytearray(128 << 20); print(len(held))"),
        memory_bytes=64 << 20,
    )
    await docker_house.driver.start(container)
    assert await docker_house.driver.wait(container.key) == 137


async def test_more_processors_than_the_machine_has(docker_house: DockerHouse) -> None:
    """Goal: a declared node may be larger than this machine. Method: ask for 512 processors."""
    await docker_house.driver.fingerprint()
    status = await docker_house.driver.start(replace(docker_house.container("serve"), cpu_milli=512_000))
    assert status.is_running


async def test_an_image_that_nobody_has_is_refused(docker_house: DockerHouse) -> None:
    """Goal: a clear reason. Method: an image at a registry that is not there."""
    container = replace(docker_house.container("serve"), image="127.0.0.1:9/no/such:image")
    with pytest.raises(DriverRefusedError) as refusal:
        await docker_house.driver.prepare(container, lambda _: None)
    assert refusal.value.reason.reason == "IMAGE_UNAVAILABLE"
    await docker_house.driver.prepare(docker_house.container("serve"), lambda _: None)


async def test_a_killed_engine_is_unknown_and_its_containers_go_on(docker_house: DockerHouse) -> None:
    """Goal: away is not down. Method: SIGKILL dockerd; every call is unknown; back again, the container still runs."""
    container = docker_house.container("serve")
    before = await docker_house.driver.start(container)
    docker_house.engine.kill()
    try:
        for ask in (
            docker_house.driver.recover(),
            docker_house.driver.inspect(container.key),
            docker_house.driver.start(container),
            docker_house.driver.stop(container.key, 0),
            docker_house.driver.destroy(container.key),
            docker_house.driver.wait(container.key),
        ):
            with pytest.raises(DriverUnavailableError):
                await ask
        assert not (await docker_house.driver.fingerprint()).is_available
    finally:
        docker_house.engine.start()
    after = await docker_house.driver.inspect(container.key)
    assert after is not None
    assert (after.runtime_id, after.is_running) == (before.runtime_id, True)


async def test_no_engine_answers_soon(tmp_path: Any) -> None:
    """Goal: the choice of a driver does not hang. Method: a socket that is not there."""
    driver = DockerDriver(str(tmp_path / "none.sock"), "agent")
    started = time.monotonic()
    fingerprint = await driver.fingerprint()
    await driver.close()
    assert not fingerprint.is_available
    assert fingerprint.detail
    assert time.monotonic() - started < 6


def in_namespace(namespace: str) -> list[int]:
    """Processes of the machine that run in a namespace of processes."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if str((entry / "ns" / "pid").readlink()) == namespace:
                    found.append(int(entry.name))
    return found


async def test_the_suite_leaves_nothing_even_of_a_killed_engine(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Goal: tests leave no container on the machine. Method: an engine of one's own, killed under a running container
    and not started again, is stopped; the kernel is asked before and after.
    """
    if (reason := dockerd.missing()) is not None:
        pytest.skip(reason)
    engine = dockerd.Dockerd(tmp_path_factory.mktemp("docker-killed"), "host")
    try:
        engine.start()
        house = DockerHouse(engine, await load_demo_image(str(engine.socket)), "host")
        status = await house.driver.start(house.container("stubborn"))
        assert status.is_running
        await house.driver.close()
        namespace = engine.processes
        engine.kill()
        assert len(in_namespace(namespace)) >= 2, "its first process, and what keeps the container"
    finally:
        engine.stop()
    assert not in_namespace(namespace)
    assert not engine.folder.exists()
