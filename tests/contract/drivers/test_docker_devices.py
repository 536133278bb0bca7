"""The docker driver gives a container exactly its devices, and finds out where a real engine gives others or none.

The cards are pretend: device files with the numbers that NVIDIA's have, and CDI specifications that name them.
"""

import json
import os
import stat
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fallow_provider.domain.workload import Container, LeasedDevice
from fallow_provider.ports import DriverRefusedError
from fallow_stack.demo_image import load_demo_image
from tests import dockerd
from tests.contract.drivers.conftest import DockerHouse

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]
MAJOR = 195
CARDS = {"GPU-aaaa": 0, "GPU-bbbb": 1}
LOOK = (
    "import glob, json, os; names = sorted(glob.glob('/dev/nvidia*'));"
    "first = dict(word.split('=', 1) for word in open('/proc/1/environ').read().split(chr(0)) if word);"
    "print(json.dumps([[name, os.minor(os.stat(name).st_rdev)] for name in names]), first.get('PRETEND'))"
)
# A hook sees the container's files below the folder that its configuration names, before they become its root.
HOOK = """#!/bin/sh
bundle=$(sed 's/.*"bundle":"\\([^"]*\\)".*/\\1/')
root=$(tr ',' '\\n' < "$bundle/config.json" | sed -n 's/.*"root":{"path":"\\([^"]*\\)".*/\\1/p')
ACT
"""


@pytest.fixture(scope="module")
def cdi_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dockerd.Dockerd]:
    """A real dockerd that reads CDI specifications, with two pretend cards beside it."""
    reason = dockerd.missing_cdi()
    if reason is not None:
        pytest.skip(reason)
    engine = dockerd.Dockerd(tmp_path_factory.mktemp("docker-cdi"), "own")
    try:
        engine.start()
        for minor in CARDS.values():
            os.mknod(engine.folder / f"card{minor}", 0o666 | stat.S_IFCHR, os.makedev(MAJOR, minor))
        yield engine
    finally:
        engine.stop()


@pytest.fixture
async def cdi_house(cdi_engine: dockerd.Dockerd) -> AsyncIterator[DockerHouse]:
    """The docker driver on it, with a specification of both cards."""
    specify(cdi_engine)
    house = DockerHouse(cdi_engine, await load_demo_image(str(cdi_engine.socket)), "bridge")
    try:
        yield house
        for status in await house.driver.recover():
            await house.driver.destroy(status.key)
    finally:
        for driver in house.opened:
            await driver.close()


def specify(engine: dockerd.Dockerd, act: str = "") -> None:
    """Write the specification; with a hook that does something else to the container than is specified."""
    hook = engine.folder / "hook"
    hook.write_text(HOOK.replace("ACT", act), "utf-8")
    hook.chmod(0o755)
    hooks = {"hooks": [{"hookName": "createContainer", "path": str(hook), "args": ["hook"]}]} if act else {}
    devices = [
        {
            "name": name,
            "containerEdits": {
                "env": [f"PRETEND={name}"],
                "deviceNodes": [{"path": f"/dev/nvidia{minor}", "hostPath": f"{engine.folder}/card{minor}"}],
                **hooks,
            },
        }
        for name, minor in CARDS.items()
    ]
    text = json.dumps({"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": devices})
    # In place: an engine takes note of a file that is written, and not of one that is renamed.
    (engine.cdi_folder / "nvidia.yaml").write_text(text, "utf-8")


def leased(house: DockerHouse, *ids: str) -> Container:
    """A container that was leased some of the cards."""
    return replace(house.container("serve"), devices=tuple(LeasedDevice(name, "nvidia") for name in ids))


async def seen_inside(house: DockerHouse, container: Container) -> tuple[list[list[Any]], str]:
    """The cards' files in a container with their minor numbers, and what the specification put into its environment."""
    result = await house.driver.exec(container.key, ["python3", "-c", LOOK], 20)
    files, _, mark = result.output.strip().rpartition(" ")
    return json.loads(files), mark


async def test_a_container_gets_its_device_and_no_other(cdi_house: DockerHouse) -> None:
    """Goal: exactly what was leased. Method: one card, the other card, both, none; look from inside."""
    assert (await cdi_house.driver.fingerprint()).gives_devices
    for ids, expected in (
        (("GPU-bbbb",), [["/dev/nvidia1", 1]]),
        (("GPU-aaaa",), [["/dev/nvidia0", 0]]),
        (("GPU-aaaa", "GPU-bbbb"), [["/dev/nvidia0", 0], ["/dev/nvidia1", 1]]),
        ((), []),
    ):
        container = leased(cdi_house, *ids)
        assert (await cdi_house.driver.start(container)).is_running
        files, mark = await seen_inside(cdi_house, container)
        assert files == expected
        assert mark == (ids[-1] if ids else "None")
        await cdi_house.driver.destroy(container.key)


@pytest.mark.parametrize(
    ("act", "fault"),
    [
        ('rm -f "$root/dev/nvidia0"', "/dev/nvidia0 is not in the container"),
        (f'mknod "$root/dev/nvidia1" c {MAJOR} 1', "nvidia1 is another's"),
        (f'rm -f "$root/dev/nvidia0"; mknod "$root/dev/nvidia0" c {MAJOR} 1', "/dev/nvidia0 is not in the container"),
    ],
)
async def test_what_an_engine_says_is_not_trusted(cdi_house: DockerHouse, act: str, fault: str) -> None:
    """Goal: nobody pays for a card that is not there, or uses another's. Method: a hook takes the file away, adds one,
    puts another in its place; the start is refused for the device and nothing runs on.
    """
    specify(cdi_house.engine, act)
    container = leased(cdi_house, "GPU-aaaa")
    with pytest.raises(DriverRefusedError) as refusal:
        await cdi_house.driver.start(container)
    assert refusal.value.reason.reason == "DEVICE_NOT_GIVEN"
    assert fault in refusal.value.detail
    status = await cdi_house.driver.inspect(container.key)
    assert status is None or not status.is_running


async def test_one_that_was_never_looked_into_is_looked_into_when_it_is_adopted(cdi_house: DockerHouse) -> None:
    """Goal: an agent that dies between start and look leaves no gap. Method: start without devices, adopt as leased."""
    container = cdi_house.container("serve")
    await cdi_house.driver.start(container)
    with pytest.raises(DriverRefusedError) as refusal:
        await cdi_house.reborn().start(replace(container, devices=(LeasedDevice("GPU-aaaa", "nvidia"),)))
    assert refusal.value.reason.reason == "DEVICE_NOT_GIVEN"
    status = await cdi_house.driver.inspect(container.key)
    assert status is not None
    assert not status.is_running


async def test_what_runs_is_not_ended_for_what_nobody_can_tell(cdi_house: DockerHouse) -> None:
    """Goal: unknown is not wrong. Method: the specification is away while a container is adopted; it runs on."""
    container = leased(cdi_house, "GPU-aaaa")
    before = await cdi_house.driver.start(container)
    (cdi_house.engine.cdi_folder / "nvidia.yaml").unlink()
    assert await cdi_house.reborn().start(container) == before


async def test_a_device_that_no_specification_names_is_refused(cdi_house: DockerHouse) -> None:
    """Goal: a clear reason, and nothing made. Method: lease a card of another id, a card of another vendor."""
    for device in (LeasedDevice("GPU-cccc", "nvidia"), LeasedDevice("GPU-aaaa", "amd"), LeasedDevice("GPU-aaaa")):
        container = replace(cdi_house.container("serve"), devices=(device,))
        with pytest.raises(DriverRefusedError) as refusal:
            await cdi_house.driver.start(container)
        assert refusal.value.reason.reason == "DEVICE_NOT_GIVEN"
        assert device.device_id in refusal.value.detail
        assert await cdi_house.driver.inspect(container.key) is None


async def test_a_device_file_that_is_gone_is_refused(cdi_house: DockerHouse) -> None:
    """Goal: a card whose driver is away is told by its reason. Method: take the file away."""
    file = Path(cdi_house.engine.folder / "card1")
    file.rename(file.with_name("away"))
    try:
        with pytest.raises(DriverRefusedError) as refusal:
            await cdi_house.driver.start(leased(cdi_house, "GPU-bbbb"))
    finally:
        file.with_name("away").rename(file)
    assert refusal.value.reason.reason == "DEVICE_NOT_GIVEN"
    assert "card1" in refusal.value.detail
