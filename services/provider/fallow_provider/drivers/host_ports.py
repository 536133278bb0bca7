"""Ports of the host for workloads that share its network, and how a workload learns of them."""

import contextlib
import socket
from collections.abc import Iterable, Mapping

from fallow_provider.domain.workload import Container


def free_ports(host: str, wanted: Iterable[int]) -> dict[int, int]:
    """A free port of an address of the host for each container port; all are held until all are found, so they differ."""
    with contextlib.ExitStack() as held:
        found = {}
        for port in wanted:
            probe = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            probe.bind((host, 0))
            found[port] = int(probe.getsockname()[1])
        return found


def port_environment(container: Container, ports: Mapping[int, int], host: str = "") -> dict[str, str]:
    """``FALLOW_PORT_<container port>`` for each port, ``PORT`` for the first, and ``HOST``, the address to bind them on,
    where the workload shares the host's network.
    """
    environment = {f"FALLOW_PORT_{port}": str(taken) for port, taken in ports.items()}
    if container.ports:
        environment["PORT"] = str(ports[container.ports[0].container_port])
    if host:
        environment["HOST"] = host
    return environment
