"""The podman driver keeps the suite on a real Podman service, gives devices by its native call, and survives a kill."""

import json
import os
import stat
from dataclasses import replace

import pytest

from fallow_provider.domain.workload import LeasedDevice
from fallow_provider.drivers.docker import DockerDriver
from fallow_provider.ports import DriverRefusedError, DriverUnavailableError
from tests.contract.drivers.conftest import DockerHouse, House
from tests.contract.drivers.suite import ProgramSuite
from tests.contract.drivers.test_docker import described

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]


class TestPodman(ProgramSuite):
    """The suite on containers of Podman."""

    @pytest.fixture
    def house(self, podman_house: DockerHouse) -> House:
        """The podman driver."""
        return podman_house


def specify(house: DockerHouse, names: dict[str, int]) -> None:
    """Write a CDI specification of pretend cards, with the device files that it names."""
    devices = []
    for name, minor in names.items():
        file = house.engine.folder / f"card{minor}"
        if not file.exists():
            os.mknod(file, 0o666 | stat.S_IFCHR, os.makedev(195, minor))
        nodes = [{"path": f"/dev/nvidia{minor}", "hostPath": str(file), "type": "c", "major": 195, "minor": minor}]
        devices.append({"name": name, "containerEdits": {"deviceNodes": nodes}})
    text = json.dumps({"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": devices})
    (house.engine.cdi_folder / "nvidia.json").write_text(text, "utf-8")


async def test_a_container_gets_its_device_and_no_other(podman_house: DockerHouse) -> None:
    """Goal: Podman gives cards too, by its native call. Method: lease one of two; look from inside."""
    specify(podman_house, {"GPU-aaaa": 0, "GPU-bbbb": 1})
    assert (await podman_house.driver.fingerprint()).gives_devices
    container = replace(podman_house.container("serve"), devices=(LeasedDevice("GPU-bbbb", "nvidia"),))
    await podman_house.driver.start(container)
    source = "import glob, os; print([(name, os.minor(os.stat(name).st_rdev)) for name in glob.glob('/dev/nvidia*')])"
    result = await podman_house.driver.exec(container.key, ["python3", "-c", source], 20)
    assert result.output.strip() == "[('/dev/nvidia1', 1)]"
    unknown = replace(podman_house.container("serve"), devices=(LeasedDevice("GPU-cccc", "nvidia"),))
    with pytest.raises(DriverRefusedError) as refusal:
        await podman_house.driver.start(unknown)
    assert refusal.value.reason.reason == "DEVICE_NOT_GIVEN"


async def test_the_docker_driver_does_not_take_podman_for_docker(podman_house: DockerHouse) -> None:
    """Goal: no container without the cards that were paid for. Method: the docker driver on Podman's socket, and the reverse."""
    driver = DockerDriver(str(podman_house.engine.socket), "agent")
    fingerprint = await driver.fingerprint()
    await driver.close()
    assert not fingerprint.is_available
    assert "Podman" in fingerprint.detail


async def test_isolation_is_the_default(podman_house: DockerHouse) -> None:
    """Goal: as with docker. Method: what a program inside sees, and whom it reaches."""
    container = replace(podman_house.container("serve"), is_root_read_only=True, cpu_milli=500)
    friend = replace(container, key=replace(container.key, service="client"))
    stranger = podman_house.container("serve")
    for one in (container, friend, stranger):
        await podman_house.driver.start(one)
    source = (
        "import json\nstatus = dict(line.split(':', 1) for line in open('/proc/self/status') if ':' in line)\n"
        "try:\n    open('/etc/x', 'w'); wrote = True\nexcept OSError:\n    wrote = False\n"
        "print(json.dumps([*(status[name].strip() for name in ('CapEff', 'CapBnd', 'NoNewPrivs', 'Seccomp')), wrote]))\n"
    )
    result = await podman_house.driver.exec(container.key, ["python3", "-c", source], 20)
    assert json.loads(result.output) == ["0000000000000000", "0000000000000000", "1", "2", False]
    host = (await described(podman_house, container.key.name))["HostConfig"]
    assert (host["Memory"], host["PidsLimit"], host["Privileged"]) == (256 << 20, 4_096, False)
    found = await described(podman_house, container.key.name)
    (network,) = found["NetworkSettings"]["Networks"].values()
    source = "import socket, sys; socket.create_connection((sys.argv[1], 8080), 2)"
    for one, status in ((friend, 0), (stranger, 1)):
        command = ["python3", "-c", source, network["IPAddress"]]
        assert (await podman_house.driver.exec(one.key, command, 20)).exit_status == status, one.key


async def test_a_killed_service_is_unknown_and_its_containers_go_on(podman_house: DockerHouse) -> None:
    """Goal: away is not down. Method: SIGKILL the process behind the socket; calls are unknown; the next one adopts."""
    container = podman_house.container("serve")
    before = await podman_house.driver.start(container)
    podman_house.engine.kill()
    try:
        for ask in (
            podman_house.driver.recover(),
            podman_house.driver.start(container),
            podman_house.driver.destroy(container.key),
        ):
            with pytest.raises(DriverUnavailableError):
                await ask
    finally:
        podman_house.engine.start()
    assert await podman_house.reborn().start(container) == before
