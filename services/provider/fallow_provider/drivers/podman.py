"""The podman driver: the docker driver on Podman's service, with Podman's own calls where its Docker API says what is not so.

Podman takes a request for devices through its Docker API and starts a container without any, so containers are made by
its native call (``POST /libpod/containers/create``), which gives devices by CDI. It answers 500 where Docker answers 400
or 409, and it does not tell where it reads CDI specifications. The times of its log lines have whole seconds.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import aiodocker

from fallow_provider.domain.workload import Container
from fallow_provider.drivers.device_injection import Injection
from fallow_provider.drivers.docker import DEFAULT_LEASE_NETWORKS, DockerDriver, EngineFacts
from fallow_provider.ports import DriverUnavailableError

CDI_FOLDERS: Final = (Path("/etc/cdi"), Path("/var/run/cdi"))
"""Where Podman reads CDI specifications."""
NATIVE_API: Final = "v4.0.0/libpod"
LOG_BYTES: Final = 32 * 1024 * 1024
CPU_PERIOD_MICROSECONDS: Final = 100_000
COMPONENT: Final = "Podman Engine"
_NAME_TAKEN: Final = "already in use"


class PodmanDriver(DockerDriver):
    """See the module."""

    def __init__(
        self,
        podman_socket: str,
        agent: str,
        *,
        network: Literal["bridge", "host"] = "bridge",
        publish_host: str = "127.0.0.1",
        lease_networks: str = DEFAULT_LEASE_NETWORKS,
        runtime: str = "",
        cdi_folders: tuple[Path, ...] = CDI_FOLDERS,
    ) -> None:
        """As the docker driver; ``cdi_folders`` are where the service reads specifications."""
        super().__init__(
            podman_socket,
            agent,
            network=network,
            publish_host=publish_host,
            lease_networks=lease_networks,
            runtime=runtime,
        )
        self._cdi_folders = cdi_folders

    @property
    def name(self) -> str:
        """Name of the driver."""
        return "podman"

    def _facts_of(self, version: Mapping[str, Any], information: Mapping[str, Any]) -> EngineFacts:
        """What the service told of itself; DriverUnavailableError where it is another engine's."""
        if COMPONENT not in {component.get("Name") for component in version.get("Components") or ()}:
            raise DriverUnavailableError("the engine at this socket is not Podman")
        return EngineFacts(
            str(version.get("Version", "")),
            int(information.get("NCPU", 0)),
            self._cdi_folders,
            frozenset(information.get("Runtimes") or {}) - {"nvidia"},
        )

    async def _create(self, container: Container, injection: Injection, facts: EngineFacts) -> None:
        """Make the container by the native call; one of the same name that another call made meanwhile will do."""
        configuration = self._configuration(container, facts.processors)
        specification = native_specification(configuration, container.key.name, injection.names)
        try:
            # aiodocker has no public call for what it does not know; networks and containers of its own are made by this one.
            await self._engine._query_json(  # noqa: SLF001
                f"{NATIVE_API}/containers/create", method="POST", data=specification, versioned_api=False
            )
        except aiodocker.DockerError as error:
            if _NAME_TAKEN not in error.message:
                raise


def native_specification(configuration: Mapping[str, Any], name: str, devices: tuple[str, ...]) -> dict[str, Any]:
    """What Docker's API is asked for, in the words of Podman's native API; ``devices`` are names of CDI."""
    host = configuration["HostConfig"]
    specification: dict[str, Any] = {
        "name": name,
        "image": configuration["Image"],
        "env": dict(variable.split("=", 1) for variable in configuration["Env"]),
        "labels": configuration["Labels"],
        "cap_drop": host["CapDrop"],
        "no_new_privileges": True,
        "read_only_filesystem": host["ReadonlyRootfs"],
        "restart_policy": "no",
        "log_configuration": {"driver": "k8s-file", "size": LOG_BYTES},
        "resource_limits": {
            "cpu": {
                "period": CPU_PERIOD_MICROSECONDS,
                "quota": host["NanoCpus"] * CPU_PERIOD_MICROSECONDS // 1_000_000_000,
            },
            "memory": {"limit": host["Memory"], "swap": host["MemorySwap"]},
            "pids": {"limit": host["PidsLimit"]},
        },
        "volumes": [{"Name": "", "Dest": path, "Options": []} for path in configuration["Volumes"]],
        "devices": [{"path": device} for device in devices],
    }
    if "Runtime" in host:
        specification["oci_runtime"] = host["Runtime"]
    if "Entrypoint" in configuration:
        specification["entrypoint"] = configuration["Entrypoint"]
    if "Cmd" in configuration:
        specification["command"] = configuration["Cmd"]
    if host["NetworkMode"] == "host":
        specification["netns"] = {"nsmode": "host"}
        return specification
    endpoints = configuration["NetworkingConfig"]["EndpointsConfig"]
    specification["netns"] = {"nsmode": "bridge"}
    specification["Networks"] = {network: {"aliases": facts["Aliases"]} for network, facts in endpoints.items()}
    specification["portmappings"] = [
        {
            "container_port": int(port.partition("/")[0]),
            "protocol": port.partition("/")[2],
            "host_ip": binding["HostIp"],
        }
        for port, bindings in host["PortBindings"].items()
        for binding in bindings
    ]
    return specification
