"""Which driver an agent takes, and that it keeps to it."""

from pathlib import Path

import pytest

from fallow_chassis.settings import SettingsError
from fallow_provider.drivers.selection import choose_driver
from fallow_provider.settings import ProviderSettings
from tests.contract.drivers.conftest import CLOCK, DockerHouse


def settings(folder: Path, **changes: str) -> ProviderSettings:
    """Settings that name engines that are not there, unless the test says otherwise."""
    sockets = {"docker_socket": str(folder / "docker.sock"), "podman_socket": str(folder / "podman.sock")}
    return ProviderSettings.model_validate({**sockets, **changes})


async def test_without_an_engine_a_first_life_takes_plain_processes(tmp_path: Path) -> None:
    """Goal: development needs no engine. Method: no socket, no last life; then an engine by name, which is refused."""
    driver, _ = await choose_driver(settings(tmp_path), tmp_path, "agent", CLOCK)
    assert driver.name == "exec"
    with pytest.raises(SettingsError, match="no engine of podman"):
        await choose_driver(settings(tmp_path, runtime="podman"), tmp_path, "agent", CLOCK)


@pytest.mark.parametrize("known", ["docker", "podman"])
async def test_a_later_life_does_not_turn_to_another_driver(tmp_path: Path, known: str) -> None:
    """Goal: what an engine that is away still runs is not reported as gone. Method: the choice of the last life, no socket."""
    with pytest.raises(SettingsError, match=f"no engine of {known} .*what this agent runs is there"):
        await choose_driver(settings(tmp_path), tmp_path, "agent", CLOCK, known=known)
    driver, _ = await choose_driver(settings(tmp_path, runtime="exec"), tmp_path, "agent", CLOCK, known=known)
    assert driver.name == "exec", "its owner may say so"


@pytest.mark.docker
@pytest.mark.timeout(180)
async def test_podman_is_taken_where_only_it_answers(tmp_path: Path, podman_house: DockerHouse) -> None:
    """Goal: no setting is needed. Method: only Podman's socket is there; Podman behind Docker's setting is refused."""
    socket = str(podman_house.engine.socket)
    driver, fingerprint = await choose_driver(settings(tmp_path, podman_socket=socket), tmp_path, "agent", CLOCK)
    await driver.close()
    assert (driver.name, fingerprint.driver) == ("podman", "podman")
    with pytest.raises(SettingsError, match="Podman"):
        await choose_driver(settings(tmp_path, runtime="docker", docker_socket=socket), tmp_path, "agent", CLOCK)
