"""Which driver an agent runs: the one that its settings name, or docker or podman where one answers, else exec.

Where the settings leave the choice, it is made once: an engine that is away at a later start of the agent still has what
the agent runs, and with another driver the agent would take all of it for gone.
"""

from pathlib import Path

from fallow_chassis.clock import Clock
from fallow_chassis.logging import get_logger
from fallow_chassis.settings import SettingsError
from fallow_provider.drivers.docker import DockerDriver
from fallow_provider.drivers.exec import ExecDriver
from fallow_provider.drivers.podman import PodmanDriver
from fallow_provider.ports import Fingerprint, RuntimeDriver
from fallow_provider.settings import ProviderSettings

_log = get_logger(__name__)


async def choose_driver(
    settings: ProviderSettings, folder: Path, agent: str, clock: Clock, *, known: str = ""
) -> tuple[RuntimeDriver, Fingerprint]:
    """The driver with what it can do; SettingsError where the one that was asked for does not work here.

    ``known`` is the driver of the agent's last life, empty at its first.
    """
    wanted = known or "auto" if settings.runtime == "auto" else settings.runtime
    engines: tuple[tuple[type[DockerDriver], str, str], ...] = (
        (DockerDriver, "docker", settings.docker_socket),
        (PodmanDriver, "podman", settings.podman_socket),
    )
    for kind, name, socket in engines:
        if wanted not in {"auto", name}:
            continue
        driver = kind(
            socket,
            agent,
            network=settings.docker_network,
            publish_host=settings.publish_host,
            lease_networks=settings.lease_networks,
            runtime=settings.docker_runtime,
        )
        fingerprint = await driver.fingerprint()
        if fingerprint.is_available:
            return driver, fingerprint
        await driver.close()
        if wanted == name:
            advice = (
                "" if settings.runtime == name else "; what this agent runs is there: start it, or name another driver"
            )
            raise SettingsError(f"FALLOW_RUNTIME: no engine of {name} at {socket}: {fingerprint.detail}{advice}")
        _log.warning("no_container_engine", engine=name, socket=socket, detail=fingerprint.detail)
    plain = ExecDriver(folder, agent, clock, host=settings.publish_host)
    fingerprint = await plain.fingerprint()
    if not fingerprint.is_available:
        raise SettingsError(f"FALLOW_RUNTIME: the exec driver does not work on {fingerprint.version}")
    return plain, fingerprint
