"""A network of its own for each lease: its containers reach each other by their services' names, and no other lease's.

Each is a bridge with addresses from the agent's pool, since the pools of an engine's own end after some thirty networks.
It is made before the first container of a run and goes with the last; one that is left over (the agent died in between)
is removed when the agent next looks at what the engine has. Which networks are wanted just now only this process
knows, and one process has the agent's state, so nothing is removed that is about to be used.
"""

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

import aiodocker

from fallow_provider.domain.workload import ContainerKey
from fallow_provider.ports import DriverUnavailableError

LABEL: Final = "dev.fallow.agent"
NETWORK_PREFIX: Final = 24
"""Size of a lease's network: 253 containers."""
MAX_OVERLAPS: Final = 256
"""How many networks of the pool may be taken by others in a row."""
SUBNET_TAKEN: Final = ("overlap", "already used on the host")
"""What stands in the answer where addresses are taken, of Docker and of Podman."""
_NOT_FOUND: Final = 404
_FORBIDDEN: Final = 403


def network_name(key: ContainerKey) -> str:
    """The name of the network of a container's run."""
    return f"fallow-{key.lease.partition('/')[2]}-{key.run.generation}"


class LeaseNetworks:
    """The networks of one agent on one engine; ``pool`` is what they are cut from."""

    def __init__(self, agent: str, pool: str) -> None:
        """``pool`` such as ``10.224.0.0/12``."""
        self._agent = agent
        self._pool = ipaddress.IPv4Network(pool)
        self._lock = asyncio.Lock()
        self._wanted: dict[str, int] = {}

    @contextlib.asynccontextmanager
    async def held(self, engine: aiodocker.Docker, key: ContainerKey) -> AsyncGenerator[str, None]:
        """Have the network while a container is put on it; its name."""
        name = network_name(key)
        self._wanted[name] = self._wanted.get(name, 0) + 1
        try:
            async with self._lock:
                await self._ensure(engine, name)
            yield name
        finally:
            self._wanted[name] -= 1
            if not self._wanted[name]:
                del self._wanted[name]

    async def idle(self, engine: aiodocker.Docker) -> dict[str, str]:
        """Id by name of each network of the agent that nobody is about to use; ask before asking for containers."""
        return {network["Name"]: network["Id"] for network in await self._ours(engine) if not self._is_wanted(network)}

    async def remove(self, engine: aiodocker.Docker, idle: Mapping[str, str]) -> None:
        """Remove networks; one that has containers after all, or is gone, is left."""
        for name, identifier in idle.items():
            if name in self._wanted:
                continue
            try:
                await (await engine.networks.get(identifier)).delete()
            except aiodocker.DockerError as error:
                if error.status not in {_NOT_FOUND, _FORBIDDEN}:
                    raise

    def _is_wanted(self, network: Mapping[str, Any]) -> bool:
        """Whether somebody is about to use a network."""
        return network["Name"] in self._wanted

    async def _ours(self, engine: aiodocker.Docker) -> list[dict[str, Any]]:
        """The networks with the agent's label."""
        return await engine.networks.list(filters={"label": [f"{LABEL}={self._agent}"]})

    async def _ensure(self, engine: aiodocker.Docker, name: str) -> None:
        """Make the network unless it is there."""
        ours = await self._ours(engine)
        if any(network["Name"] == name for network in ours):
            return
        taken = {part["Subnet"] for network in ours for part in network["IPAM"]["Config"] or ()}
        overlaps = 0
        for subnet in self._pool.subnets(new_prefix=NETWORK_PREFIX):
            if str(subnet) in taken:
                continue
            configuration = {
                "Name": name,
                "Driver": "bridge",
                "Labels": {LABEL: self._agent},
                "IPAM": {"Config": [{"Subnet": str(subnet)}]},
            }
            try:
                await engine.networks.create(configuration)
            except aiodocker.DockerError as error:
                overlaps += 1
                is_taken = any(words in error.message for words in SUBNET_TAKEN)
                if not is_taken or overlaps > MAX_OVERLAPS:
                    raise
            else:
                return
        raise DriverUnavailableError(f"no network of {self._pool} is free")
