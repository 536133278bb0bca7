"""Between the contract's messages and the domain; the only module that knows both."""

from collections.abc import Mapping

from fallow.bidding.v1 import provider_pb2
from fallow.provider.v1 import market_link_pb2, provider_service_pb2
from fallow.type.v1 import lease_pb2, resources_pb2, workload_pb2
from fallow_chassis.wire import from_duration
from fallow_provider.domain.device_reading import Card
from fallow_provider.domain.inventory import Node, Prices, Site
from fallow_provider.domain.run import (
    DEFAULT_GRACE_MS,
    DEFAULT_SELF_STOP_MS,
    DEFAULT_START_TIMEOUT_MS,
    DeviceUse,
    Placement,
    ProofFacts,
    Run,
    RunKey,
)
from fallow_provider.domain.workload import (
    DEFAULT_READINESS_TIMEOUT_MS,
    Container,
    ContainerKey,
    ContainerPort,
    Readiness,
    Registry,
    RestartPolicy,
    ServiceTemplate,
    Transport,
)
from fallow_provider.ports import ContainerStatus

MIN_SELF_STOP_MS = 1_000
MAX_HEALTH_DETAIL_CHARACTERS = 256


def key_of(message: lease_pb2.GenerationKey) -> RunKey:
    """The key that a valid message names."""
    return RunKey(message.order, message.group, message.generation)


def key_message(key: RunKey) -> lease_pb2.GenerationKey:
    """A key as a message."""
    return lease_pb2.GenerationKey(order=key.order, group=key.group, generation=key.generation)


def run_of(command: market_link_pb2.Command, *, accepted_at_ms: int, machine_boot_id: str) -> Run:
    """The run that a RunLease asks for."""
    action = command.run
    placements = tuple(
        Placement(
            replica.service,
            replica.replica,
            replica.node_id,
            tuple(DeviceUse(replica.node_id, device.device_id, device.milli) for device in replica.devices),
        )
        for replica in action.replicas
    )
    self_stop_ms = from_duration(action.self_stop) if action.HasField("self_stop") else DEFAULT_SELF_STOP_MS
    start_ms = from_duration(action.start_timeout) if action.HasField("start_timeout") else DEFAULT_START_TIMEOUT_MS
    return Run(
        lease=command.lease,
        key=key_of(command.key),
        placements=placements,
        self_stop_ms=max(self_stop_ms, MIN_SELF_STOP_MS),
        start_timeout_ms=start_ms if start_ms > 0 else DEFAULT_START_TIMEOUT_MS,
        order_address=action.order_address,
        workload_grant=action.workload_grant,
        accepted_at_ms=accepted_at_ms,
        machine_boot_id=machine_boot_id,
    )


def grace_of(action: market_link_pb2.Command.StopLease) -> int:
    """The time between the polite and the hard signal, in milliseconds."""
    return max(0, from_duration(action.grace)) if action.HasField("grace") else DEFAULT_GRACE_MS


def status_message(run: Run, endpoints: list[workload_pb2.Endpoint]) -> market_link_pb2.RunStatus:
    """A run as heartbeats and the agent's door tell of it."""
    return market_link_pb2.RunStatus(
        lease=run.lease,
        key=key_message(run.key),
        state=market_link_pb2.RunState.ValueType(run.state),
        reason=run.reason,
        detail=run.detail,
        endpoints=endpoints,
        progress=run.progress,
    )


def proof_message(facts: ProofFacts, signature: bytes) -> lease_pb2.Proof:
    """A signed proof."""
    return lease_pb2.Proof(
        lease=facts.lease,
        key=key_message(facts.key),
        sequence=facts.sequence,
        running_ms=facts.running_ms,
        device_health=resources_pb2.DeviceHealth.ValueType(facts.device_health),
        final=facts.is_final,
        signature=signature,
    )


def endpoint_messages(container: Container, status: ContainerStatus, host: str) -> list[workload_pb2.Endpoint]:
    """Where the public ports of a running container answer; ``host`` stands in the addresses."""
    return [
        workload_pb2.Endpoint(
            service=container.key.service,
            container_port=port.container_port,
            uri=f"{port.scheme}://{host}:{status.ports[port.container_port].port}",
            replica=container.key.replica,
        )
        for port in container.ports
        if port.is_public and port.container_port in status.ports
    ]


def container_message(
    status: ContainerStatus, driver: str, restarts: int
) -> provider_service_pb2.WorkloadStatus.ContainerStatus:
    """One container as the agent's door tells of it."""
    return provider_service_pb2.WorkloadStatus.ContainerStatus(
        service=status.key.service,
        replica=status.key.replica,
        runtime_id=status.runtime_id,
        driver=driver,
        running=status.is_running,
        exit_status=status.exit_status or 0,
        restarts=restarts,
    )


def node_message(node: Node, drivers: list[str]) -> resources_pb2.Node:
    """A node with the drivers that run there."""
    return resources_pb2.Node(
        node_id=node.node_id,
        cpu_milli=node.cpu_milli,
        memory_bytes=node.memory_bytes,
        storage_bytes_by_class=node.storage_bytes_by_class,
        devices=[
            resources_pb2.Device(
                device_id=device.device_id,
                vendor=device.vendor,
                model=device.model,
                vram_bytes=device.vram_bytes,
                interface=device.interface,
                health=resources_pb2.DeviceHealth.ValueType(device.health),
                source=resources_pb2.DeviceSource.ValueType(device.source),
                health_detail=device.health_detail[:MAX_HEALTH_DETAIL_CHARACTERS],
            )
            for device in node.devices
        ],
        drivers=drivers,
    )


def card_message(card: Card) -> provider_service_pb2.AgentStatus.CardReading:
    """What a card tells of itself; what it does not tell stays unset."""
    reading = card.reading
    return provider_service_pb2.AgentStatus.CardReading(
        card_id=reading.card_id,
        name=reading.name,
        pci_bus_id=reading.pci_bus_id,
        temperature_celsius=reading.temperature_celsius,
        power_milliwatts=reading.power_milliwatts,
        gpu_percent=reading.gpu_percent,
        memory_used_bytes=reading.memory_used_bytes,
        memory_bytes=reading.vram_bytes,
        uncorrected_errors=reading.uncorrected_errors,
        health=resources_pb2.DeviceHealth.ValueType(card.health),
        health_detail=card.detail[:MAX_HEALTH_DETAIL_CHARACTERS],
    )


def provider_message(site: Site, public_key: bytes, address: str) -> provider_pb2.Provider:
    """The site as it registers."""
    return provider_pb2.Provider(
        display_name=site.display_name,
        public_key=public_key,
        region=site.region,
        attributes=site.attributes,
        address=address,
    )


def schedule_message(prices: Prices) -> provider_pb2.PriceSchedule:
    """A price schedule."""
    return provider_pb2.PriceSchedule(
        asset=prices.asset,
        gpu_micros_per_hour_by_model=prices.gpu_micros_per_hour_by_model,
        cpu_core_micros_per_hour=prices.cpu_core_micros_per_hour,
        memory_gib_micros_per_hour=prices.memory_gib_micros_per_hour,
        storage_gib_micros_per_hour_by_class=prices.storage_gib_micros_per_hour_by_class,
        group_micros_per_hour_min=prices.group_micros_per_hour_min,
    )


def templates_of(workload: workload_pb2.Workload) -> list[ServiceTemplate]:
    """The containers of a workload, not placed yet."""
    return [ServiceTemplate(message.service, _container_of(message)) for message in workload.containers]


def _container_of(message: workload_pb2.Container) -> Container:
    """One container; its key is a placeholder until it is placed."""
    registry = None
    if message.HasField("credentials"):
        credentials = message.credentials
        registry = Registry(credentials.host, credentials.username, credentials.password)
    environment: Mapping[str, str] = {variable.key: variable.value for variable in message.environment}
    return Container(
        key=ContainerKey("leases/none", RunKey("orders/none", 0, 1), message.service, 0),
        image=message.image,
        command=tuple(message.command),
        arguments=tuple(message.arguments),
        environment=environment,
        ports=tuple(
            ContainerPort(port.container_port, port.external_port, Transport(port.protocol), port.public)
            for port in message.ports
        ),
        mount_paths=tuple(mount.path for mount in message.mounts),
        cpu_milli=message.resources.cpu_milli,
        memory_bytes=message.resources.memory_bytes,
        is_root_read_only=message.read_only_root,
        registry=registry,
        readiness=_readiness_of(message.readiness),
        restart_policy=RestartPolicy(message.restart_policy),
    )


def _readiness_of(message: workload_pb2.ReadinessCheck) -> Readiness:
    """A readiness check; an unset one is ready at once."""
    timeout_ms = from_duration(message.timeout) if message.HasField("timeout") else DEFAULT_READINESS_TIMEOUT_MS
    check = message.WhichOneof("check")
    return Readiness(
        http_port=message.http.port if check == "http" else 0,
        http_path=(message.http.path or "/") if check == "http" else "/",
        tcp_port=message.tcp_port if check == "tcp_port" else 0,
        command=tuple(message.command.arguments) if check == "command" else (),
        log_line=message.log_line if check == "log_line" else "",
        timeout_ms=timeout_ms if timeout_ms > 0 else DEFAULT_READINESS_TIMEOUT_MS,
    )
