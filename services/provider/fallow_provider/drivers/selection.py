"""Which driver an agent runs: the one that its settings name, or docker where an engine answers, else exec."""

from pathlib import Path

from fallow_chassis.clock import Clock
from fallow_chassis.logging import get_logger
from fallow_chassis.settings import SettingsError
from fallow_provider.drivers.docker import DockerDriver
from fallow_provider.drivers.exec import ExecDriver
from fallow_provider.ports import Fingerprint, RuntimeDriver
from fallow_provider.settings import ProviderSettings

_log = get_logger(__name__)


async def choose_driver(
    settings: ProviderSettings, folder: Path, agent: str, clock: Clock
) -> tuple[RuntimeDriver, Fingerprint]:
    """The driver with what it can do; SettingsError where the one that was asked for does not work here."""
    if settings.runtime in {"auto", "docker"}:
        docker = DockerDriver(
            settings.docker_socket,
            agent,
            network=settings.docker_network,
            publish_host=settings.publish_host,
            lease_networks=settings.lease_networks,
            runtime=settings.docker_runtime,
        )
        fingerprint = await docker.fingerprint()
        if fingerprint.is_available:
            return docker, fingerprint
        await docker.close()
        if settings.runtime == "docker":
            raise SettingsError(f"FALLOW_RUNTIME: no engine at {settings.docker_socket}: {fingerprint.detail}")
        _log.warning("no_container_engine", socket=settings.docker_socket, detail=fingerprint.detail)
    plain = ExecDriver(folder, agent, clock, host=settings.publish_host)
    fingerprint = await plain.fingerprint()
    if not fingerprint.is_available:
        raise SettingsError(f"FALLOW_RUNTIME: the exec driver does not work on {fingerprint.version}")
    return plain, fingerprint
