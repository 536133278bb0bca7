"""The docker driver: containers through the Docker Engine API.

A container's name comes from its key, so the engine itself refuses a second one; labels carry the key and the agent, so
the next life of the agent finds its containers. By default a container has no capabilities, no way to new privileges,
the engine's seccomp profile, limits on processes, processor and memory, a network of its own, no mount of the host, and
exactly the devices that were leased (``device_injection``): those that are only declared are not there to be given. Ports are published on one address of the host, on
ports that the engine chooses; with the network ``host`` the driver chooses them and tells the container by ``PORT`` and ``HOST``.
Nothing is known where the engine does not answer (DriverUnavailableError).
"""

import asyncio
import contextlib
import json
import math
import secrets
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import aiodocker
import aiohttp

from fallow_chassis.logging import get_logger
from fallow_provider.domain.reasons import DEVICE_NOT_GIVEN, IMAGE_UNAVAILABLE, IMAGE_UNSUPPORTED, START_FAILED
from fallow_provider.domain.workload import Container, ContainerKey, Transport, parse_key
from fallow_provider.drivers.cdi import read_specifications
from fallow_provider.drivers.device_injection import (
    Injection,
    devices_listed,
    devices_seen_from_host,
    injection_fault,
    plan_injection,
)
from fallow_provider.drivers.docker_exec import DockerSession
from fallow_provider.drivers.docker_logs import read_log
from fallow_provider.drivers.docker_networks import LeaseNetworks, network_name
from fallow_provider.drivers.host_ports import free_ports, port_environment
from fallow_provider.ports import (
    ContainerFigures,
    ContainerStatus,
    DriverRefusedError,
    DriverUnavailableError,
    ExecResult,
    Fingerprint,
    HostAddress,
    LogLine,
    LogQuery,
    Progress,
    TerminalSize,
)

LABEL: Final = "dev.fallow"
DEFAULT_LEASE_NETWORKS: Final = "10.224.0.0/12"
MAX_PROCESSES: Final = 4_096
LOG_OPTIONS: Final = {"max-size": "16m", "max-file": "2"}
REMOVAL_SECONDS: Final = 30.0
CONNECT_SECONDS: Final = 5.0
MAX_EXEC_OUTPUT_BYTES: Final = 64 * 1024
LOOK_SECONDS: Final = 20.0
DEVICE_WORDS: Final = ("CDI device", "device driver")
"""What stands in the words of an engine that cannot give a device."""
_log = get_logger(__name__)
_EXEC_IMAGE: Final = "exec:host"
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
_BROKEN_FROM: Final = 500


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What an engine told of itself. ``cdi_folders`` is empty where it does not take devices by CDI."""

    version: str
    processors: int
    cdi_folders: tuple[Path, ...]
    runtimes: frozenset[str]
    """Names of the OCI runtimes that it knows."""

    @property
    def has_requests(self) -> bool:
        """Whether it has NVIDIA's runtime, and so takes device requests."""
        return "nvidia" in self.runtimes


class DockerDriver:
    """Runs containers of one engine; ``agent`` is the label by which it knows its own."""

    def __init__(
        self,
        docker_socket: str,
        agent: str,
        *,
        network: Literal["bridge", "host"] = "bridge",
        publish_host: str = "127.0.0.1",
        lease_networks: str = DEFAULT_LEASE_NETWORKS,
        runtime: str = "",
    ) -> None:
        """Connects at the first call. ``lease_networks`` is the pool of the leases' networks, ``runtime`` an OCI runtime
        that the engine knows, such as gVisor's; empty takes the engine's own.
        """
        self._socket = docker_socket
        self._agent = agent
        self._network = network
        self._host = publish_host
        self._opened: aiodocker.Docker | None = None
        self._networks = LeaseNetworks(agent, lease_networks)
        self._runtime = runtime
        self._facts: EngineFacts | None = None

    @property
    def name(self) -> str:
        """Name of the driver."""
        return "docker"

    async def fingerprint(self) -> Fingerprint:
        """Whether the engine answers, and which it is."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                self._facts = None
                facts = await self._known()
        except (DriverUnavailableError, aiodocker.DockerError, TimeoutError) as error:
            return Fingerprint(self.name, is_available=False, detail=str(error) or "no answer in time")
        if self._runtime and self._runtime not in facts.runtimes:
            known = ", ".join(sorted(facts.runtimes))
            return Fingerprint(
                "docker", is_available=False, detail=f"the engine has no runtime {self._runtime}: {known}"
            )
        shared = "" if self._network == "bridge" else "; containers share the host's network"
        devices, gives_devices = _giving(facts)
        kept = f"containers by {self._runtime}" if self._runtime else "containers"
        isolation = f"{kept} without capabilities; disk space is not limited; {devices}{shared}"
        return Fingerprint(self.name, True, facts.version, isolation, gives_devices=gives_devices)

    async def prepare(self, container: Container, progress: Progress) -> None:
        """Pull the image if the engine does not have it."""
        if container.image == _EXEC_IMAGE:
            raise DriverRefusedError(IMAGE_UNSUPPORTED, f"{_EXEC_IMAGE} is for the exec driver")
        try:
            with _engine():
                await self._engine.images.inspect(container.image)
                return
        except aiodocker.DockerError as error:
            if error.status != _NOT_FOUND:
                raise DriverRefusedError(IMAGE_UNAVAILABLE, error.message) from error
        progress(f"pulling {container.image}")
        auth = None
        if container.registry is not None:
            registry = container.registry
            auth = {"username": registry.username, "password": registry.password, "serveraddress": registry.host}
        try:
            async for step in self._engine.images.pull(container.image, auth=auth, stream=True):
                progress(_pull_progress(container.image, step))
        except aiodocker.DockerError as error:
            raise DriverRefusedError(IMAGE_UNAVAILABLE, f"{container.image}: {error.message}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise DriverUnavailableError(repr(error)) from error

    async def start(self, container: Container) -> ContainerStatus:
        """Make it run; the engine refuses a second container of the name, and then the first is taken."""
        facts = await self._known()
        injection = Injection()
        try:
            with _engine():
                found = await self._show(container.key)
                is_running = found is not None and found["State"]["Running"]
                injection = _plan(container, facts, is_running=is_running)
                async with self._network_of(container.key):
                    if found is None:
                        await self._create(container, injection, facts)
                    if not is_running:
                        await self._engine.containers.container(container.key.name).start()
        except aiodocker.DockerError as error:
            is_device = any(word in error.message for word in DEVICE_WORDS)
            raise DriverRefusedError(DEVICE_NOT_GIVEN if is_device else START_FAILED, error.message) from error
        await self._verify(container.key, injection)
        status = await self.inspect(container.key)
        if status is None:
            raise DriverRefusedError(START_FAILED, "the container vanished while it was started")
        return status

    async def recover(self) -> Sequence[ContainerStatus]:
        """Every container with the agent's label."""
        filters = json.dumps({"label": [f"{LABEL}.agent={self._agent}"]})
        with _engine():
            idle = await self._networks.idle(self._engine) if self._network == "bridge" else {}
            listed = await self._engine.containers.list(all=1, filters=filters)
        keys = [parse_key((await self._labels(item)).get(f"{LABEL}.container", "")) for item in listed]
        used = {network_name(key) for key in keys if key is not None}
        with _engine():
            # Those of leases that are over.
            await self._networks.remove(self._engine, {name: idle[name] for name in idle.keys() - used})
        statuses = []
        for key in keys:
            status = await self.inspect(key) if key is not None else None
            if status is not None:
                statuses.append(status)
        return statuses

    async def wait(self, key: ContainerKey) -> int | None:
        """The exit status once it has stopped."""
        with _engine():
            try:
                answer = await self._engine.containers.container(key.name).wait()
            except aiodocker.DockerError as error:
                if error.status == _NOT_FOUND:
                    return None
                raise
        return int(answer["StatusCode"])

    async def freeze(self, key: ContainerKey) -> None:
        """Freeze its control group."""
        status = await self.inspect(key)
        # An engine answers 500 where there is nothing to do; if that changes in between, the call is made again.
        if status is not None and status.is_running and not status.is_frozen:
            with _engine(), _gone_is_fine(_CONFLICT):
                await self._engine.containers.container(key.name).pause()

    async def thaw(self, key: ContainerKey) -> None:
        """Thaw its control group."""
        status = await self.inspect(key)
        if status is not None and status.is_frozen:
            with _engine(), _gone_is_fine(_CONFLICT):
                await self._engine.containers.container(key.name).unpause()

    async def stop(self, key: ContainerKey, grace_ms: int) -> None:
        """SIGTERM, and SIGKILL after the grace, which the engine counts in seconds."""
        await self.thaw(key)
        with _engine(), _gone_is_fine():
            await self._engine.containers.container(key.name).stop(t=math.ceil(grace_ms / 1_000))

    async def destroy(self, key: ContainerKey) -> None:
        """Kill and remove it with its volumes, and wait until the engine does not know it any more."""
        async with asyncio.timeout(REMOVAL_SECONDS):
            while await self._exists(key):
                with _engine(), _gone_is_fine(_CONFLICT):
                    await self._engine.containers.container(key.name).delete(force=True, v=True)

    async def inspect(self, key: ContainerKey) -> ContainerStatus | None:
        """The container as the engine sees it; one that bears another agent's label is not ours."""
        found = await self._described(key)
        if found is None:
            return None
        state = found["State"]
        is_over = state["Status"] in {"exited", "dead"}
        return ContainerStatus(
            key,
            str(found["Id"])[:12],
            bool(state["Running"]),
            int(state["ExitCode"]) if is_over else None,
            self._ports(found),
            is_frozen=bool(state["Paused"]),
        )

    async def logs(self, key: ContainerKey, query: LogQuery) -> AsyncGenerator[LogLine, None]:
        """The engine's log of it."""
        async with contextlib.aclosing(read_log(self._socket, key.name, query)) as lines:
            async for line in lines:
                yield line

    async def exec(self, key: ContainerKey, command: Sequence[str], timeout: float) -> ExecResult:
        """Run a command in the container; one that takes too long goes on there until the container stops."""
        output = b""
        with _engine():
            execution = await self._engine.containers.container(key.name).exec(list(command))
            async with asyncio.timeout(timeout), execution.start(detach=False) as stream:
                while (message := await stream.read_out()) is not None:
                    output = (output + message.data)[-MAX_EXEC_OUTPUT_BYTES:]
            details = await execution.inspect()
        return ExecResult(int(details["ExitCode"] or 0), output.decode("utf-8", "replace"))

    async def open_exec(
        self, key: ContainerKey, command: Sequence[str], terminal: TerminalSize | None
    ) -> DockerSession:
        """Run a command in the container for somebody who talks with it."""
        return await DockerSession.open(self._engine, self._socket, key.name, command, secrets.token_hex(16), terminal)

    async def stats(self, key: ContainerKey) -> ContainerFigures | None:
        """What the engine measured last."""
        status = await self.inspect(key)
        if status is None or not status.is_running:
            return None
        with _engine():
            figures = (await self._engine.containers.container(key.name).stats(stream=False))[-1]
        cpu_ns = int(figures.get("cpu_stats", {}).get("cpu_usage", {}).get("total_usage", 0))
        return ContainerFigures(cpu_ns // 1_000_000, int(figures.get("memory_stats", {}).get("usage", 0)))

    def heard(self, at_ms: int) -> None:
        """The engine cannot end a container by itself: while the agent is dead, its containers go on."""

    async def close(self) -> None:
        """Let the engine go."""
        if self._opened is not None:
            await self._opened.close()
            self._opened = None

    @property
    def _engine(self) -> aiodocker.Docker:
        """The engine's client, made when a loop runs."""
        if self._opened is None:
            self._opened = aiodocker.Docker(url=f"unix://{self._socket}")
        return self._opened

    async def _known(self) -> EngineFacts:
        """What the engine says of itself, asked once."""
        if self._facts is None:
            with _engine():
                version = await self._engine.version()
                information = await self._engine.system.info()
            self._facts = self._facts_of(version, information)
        return self._facts

    def _facts_of(self, version: Mapping[str, Any], information: Mapping[str, Any]) -> EngineFacts:
        """What the engine told of itself; DriverUnavailableError where it is not to be used so."""
        if any(component.get("Name") == "Podman Engine" for component in version.get("Components") or ()):
            raise DriverUnavailableError("it is Podman, whose Docker API starts containers without their devices")
        return EngineFacts(
            str(version.get("Version", "")),
            int(information.get("NCPU", 0)),
            tuple(Path(folder) for folder in information.get("CDISpecDirs") or ()),
            frozenset(information.get("Runtimes") or {}),
        )

    @contextlib.asynccontextmanager
    async def _network_of(self, key: ContainerKey) -> AsyncGenerator[None, None]:
        """Have the lease's network while a container is started on it; nothing where containers share the host's."""
        if self._network == "host":
            yield
            return
        async with self._networks.held(self._engine, key):
            yield

    async def _create(self, container: Container, injection: Injection, facts: EngineFacts) -> None:
        """Make the container; one of the same name that another call made meanwhile will do."""
        configuration = self._configuration(container, facts.processors)
        configuration["HostConfig"]["DeviceRequests"] = injection.requests()
        try:
            await self._engine.containers.create(configuration, name=container.key.name)
        except aiodocker.DockerError as error:
            if error.status != _CONFLICT:
                raise

    async def _verify(self, key: ContainerKey, injection: Injection) -> None:
        """Hold that a running container has the devices that are its own and no other's; one that does not is killed."""
        found = await self._described(key) if injection.wanted else None
        if found is None or not found["State"]["Running"]:
            return
        present = await asyncio.to_thread(devices_seen_from_host, found["Id"])
        if present is None:
            try:
                present = devices_listed((await self.exec(key, ("ls", "-lR", "/dev"), LOOK_SECONDS)).output)
            except (TimeoutError, aiodocker.DockerError):
                present = {}
        fault = injection_fault(injection, present)
        if fault:
            await self.stop(key, 0)
            raise DriverRefusedError(DEVICE_NOT_GIVEN, fault)

    def _configuration(self, container: Container, processors: int) -> dict[str, Any]:
        """What the engine is asked for."""
        ports = {port.container_port: port.container_port for port in container.ports}
        host = ""
        if self._network == "host":
            host = self._host
            ports = free_ports(host, ports)
        environment = {**container.environment, **port_environment(container, ports, host)}
        names = [f"{port.container_port}/{_protocol(port.transport)}" for port in container.ports]
        configuration: dict[str, Any] = {
            "Image": container.image,
            "Env": [f"{key}={value}" for key, value in environment.items()],
            "Labels": self._labels_of(container, ports),
            "ExposedPorts": {name: {} for name in names},
            "Volumes": {path: {} for path in container.mount_paths},
            "HostConfig": self._host_configuration(container, names, processors),
        }
        if self._network == "bridge":
            # By these names the other containers of the lease reach it.
            names = [container.key.service, f"{container.key.service}-{container.key.replica}"]
            configuration["NetworkingConfig"] = {"EndpointsConfig": {network_name(container.key): {"Aliases": names}}}
        if container.command:
            configuration["Entrypoint"] = list(container.command)
        if container.arguments or container.command:
            configuration["Cmd"] = list(container.arguments)
        return configuration

    def _host_configuration(self, container: Container, port_names: list[str], processors: int) -> dict[str, Any]:
        """Isolation and limits."""
        nano = container.cpu_milli * 1_000_000
        if processors:
            # An engine refuses more processors than it has; a declared node may have more than this machine.
            nano = min(nano, processors * 1_000_000_000)
        configuration: dict[str, Any] = {
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"],
            "PidsLimit": MAX_PROCESSES,
            "NanoCpus": nano,
            "Memory": container.memory_bytes,
            "MemorySwap": container.memory_bytes,
            "ReadonlyRootfs": container.is_root_read_only,
            "Privileged": False,
            "RestartPolicy": {"Name": "no"},
            "LogConfig": {"Type": "json-file", "Config": LOG_OPTIONS},
            "NetworkMode": "host" if self._network == "host" else network_name(container.key),
        }
        if self._runtime:
            configuration["Runtime"] = self._runtime
        if self._network == "bridge":
            configuration["PortBindings"] = {name: [{"HostIp": self._host, "HostPort": ""}] for name in port_names}
        return configuration

    def _labels_of(self, container: Container, ports: Mapping[int, int]) -> dict[str, str]:
        """The labels of a container."""
        key = container.key
        return {
            f"{LABEL}.agent": self._agent,
            f"{LABEL}.container": key.text(),
            f"{LABEL}.lease": key.lease,
            f"{LABEL}.order": key.run.order,
            f"{LABEL}.group": str(key.run.group),
            f"{LABEL}.generation": str(key.run.generation),
            f"{LABEL}.service": key.service,
            f"{LABEL}.replica": str(key.replica),
            f"{LABEL}.ports": json.dumps(ports) if self._network == "host" else "",
        }

    def _ports(self, found: dict[str, Any]) -> dict[int, HostAddress]:
        """Where the container's ports answer on this machine."""
        chosen = found["Config"]["Labels"].get(f"{LABEL}.ports", "")
        if chosen:
            return {int(port): HostAddress(self._host, int(taken)) for port, taken in json.loads(chosen).items()}
        ports = {}
        for name, bindings in (found["NetworkSettings"].get("Ports") or {}).items():
            for binding in bindings or ():
                ports[int(name.partition("/")[0])] = HostAddress(binding["HostIp"], int(binding["HostPort"]))
        return ports

    async def _show(self, key: ContainerKey) -> dict[str, Any] | None:
        """The engine's description; None if it has no such container."""
        try:
            return await self._engine.containers.container(key.name).show()
        except aiodocker.DockerError as error:
            if error.status == _NOT_FOUND:
                return None
            raise

    async def _described(self, key: ContainerKey) -> dict[str, Any] | None:
        """The engine's description of a container of this agent; None if there is none."""
        with _engine():
            found = await self._show(key)
        return found if found is not None and found["Config"]["Labels"].get(f"{LABEL}.agent") == self._agent else None

    async def _exists(self, key: ContainerKey) -> bool:
        """Whether the engine knows the container."""
        with _engine():
            return await self._show(key) is not None

    async def _labels(self, item: Any) -> dict[str, str]:
        """The labels of a listed container."""
        labels: dict[str, str] = item["Labels"] or {}
        return labels


def _plan(container: Container, facts: EngineFacts, *, is_running: bool) -> Injection:
    """How a container gets its devices. For one that runs it is only to look again, and what cannot be told ends nothing."""
    specified = read_specifications(facts.cdi_folders) if container.found_devices else ()
    try:
        return plan_injection(
            container.found_devices, specified, has_cdi=bool(facts.cdi_folders), has_requests=facts.has_requests
        )
    except DriverRefusedError as error:
        if not is_running:
            raise
        _log.warning("devices_not_verified", container=container.key.name, detail=error.detail)
        return Injection()


def _giving(facts: EngineFacts) -> tuple[str, bool]:
    """How the engine gives devices, for people, and whether it does."""
    if specified := read_specifications(facts.cdi_folders):
        return f"GPUs by CDI ({', '.join(sorted({device.kind for device in specified}))})", True
    if facts.has_requests:
        return "GPUs by NVIDIA's runtime", True
    return "no GPU can be given: there is no CDI specification that the engine reads, and no NVIDIA runtime", False


@contextlib.contextmanager
def _engine() -> Iterator[None]:
    """Turn an engine that is away or broken into DriverUnavailableError; what it refuses goes through."""
    try:
        yield
    except aiodocker.DockerError as error:
        if error.status >= _BROKEN_FROM and not _is_refusal(error):
            raise DriverUnavailableError(str(error)) from error
        raise
    except (aiohttp.ClientError, OSError) as error:
        if isinstance(error, TimeoutError):
            raise
        raise DriverUnavailableError(repr(error)) from error


@contextlib.contextmanager
def _gone_is_fine(*also: int) -> Iterator[None]:
    """Let an answer pass that says that there is no such container."""
    try:
        yield
    except aiodocker.DockerError as error:
        if error.status not in {_NOT_FOUND, *also}:
            raise


def _is_refusal(error: aiodocker.DockerError) -> bool:
    """Whether an engine that answers 500 means the container and not itself: its runtime would not start it, or it has no
    way to give the devices. A control group that does not freeze now may do so a moment later.
    """
    is_passing = "unable to freeze" in error.message
    is_told = any(word in error.message for word in ("runtime", *DEVICE_WORDS))
    return error.status == _BROKEN_FROM and is_told and not is_passing


def _protocol(transport: Transport) -> str:
    """The protocol of a published port."""
    return "udp" if transport is Transport.UDP else "tcp"


def _pull_progress(image: str, step: Mapping[str, Any]) -> str:
    """One step of a pull, for people."""
    detail = step.get("progressDetail") or {}
    if detail.get("total"):
        return f"pulling {image}: {detail.get('current', 0) * 100 // detail['total']} %"
    return f"pulling {image}: {step.get('status', '')}"
