"""Containers from a workload and its placement; keys as text; restarts; the contract's defaults."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.provider.v1 import market_link_pb2
from fallow.type.v1 import lease_pb2, resources_pb2, workload_pb2
from fallow_chassis.wire import to_duration
from fallow_provider.convert import endpoint_messages, run_of, templates_of
from fallow_provider.domain.inventory import Device, DeviceHealth, DeviceSource, Node, Prices, Site
from fallow_provider.domain.run import DeviceUse, Placement, Run, RunKey
from fallow_provider.domain.workload import (
    ContainerKey,
    ContainerPort,
    LeasedDevice,
    PlacementMismatchError,
    RestartPolicy,
    Transport,
    containers_of,
    parse_key,
    restarts_after,
)
from fallow_provider.ports import ContainerStatus, HostAddress

KEY = RunKey("orders/o", 1, 2)
SITE = Site(
    "Fjord", "eu", {},
    (
        Node(
            "n", 1_000, 1 << 30,
            devices=(
                Device("gpu-0", "nvidia", "h100", 1, "sxm", DeviceHealth.HEALTHY, DeviceSource.DECLARED),
                Device("gpu-1", "nvidia", "h100", 1, "sxm", DeviceHealth.HEALTHY, DeviceSource.NVML),
            ),
        ),
    ),
    Prices("usdc"),
)  # fmt: skip
NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)


def message(service: str = "web", **changes: object) -> workload_pb2.Container:
    """A container of the contract."""
    return workload_pb2.Container(
        service=service, image="exec:host", resources=resources_pb2.ResourceRequirement(cpu_milli=1, memory_bytes=2),
        **changes,  # type: ignore[arg-type]
    )  # fmt: skip


@given(NAMES, NAMES, st.integers(0, 63), st.integers(1, 10**12), NAMES, st.integers(0, 999))
def test_a_keys_text_reads_back(
    lease: str, order: str, group: int, generation: int, service: str, replica: int
) -> None:
    """Goal: a mark names one container. Method: any key, written and read."""
    key = ContainerKey(f"leases/{lease}", RunKey(f"orders/{order}", group, generation), service, replica)
    assert parse_key(key.text()) == key


@pytest.mark.parametrize("text", ["", "x", "leases/a|orders/b|0|0|web|0", "leases/a|orders/b|0|1|web", "a|b|0|1|c|0"])
def test_what_is_no_key(text: str) -> None:
    """Goal: a stranger's mark is left alone. Method: texts that no key writes."""
    assert parse_key(text) is None


def test_each_placed_replica_is_a_container() -> None:
    """Goal: what runs is what was placed. Method: two services, one of two replicas."""
    devices = (DeviceUse("n", "gpu-1", 1_000), DeviceUse("n", "gpu-0", 1_000), DeviceUse("n", "gone", 1_000))
    run = Run("leases/l", KEY, (Placement("a", 0, "n", devices), Placement("b", 0, "n"), Placement("b", 1, "n")))
    made = containers_of(run, templates_of(workload_pb2.Workload(containers=[message("a"), message("b")])), SITE)
    assert [(item.key.service, item.key.replica, item.device_ids) for item in made] == [
        ("a", 0, ("gpu-1", "gpu-0", "gone")), ("b", 0, ()), ("b", 1, ()),
    ]  # fmt: skip
    assert made[0].found_devices == (LeasedDevice("gpu-1", "nvidia"), LeasedDevice("gone"))
    assert {item.key.run for item in made} == {KEY}
    assert len({item.key.name for item in made}) == 3


@pytest.mark.parametrize("services", [["a"], ["a", "b", "c"], ["a", "c"]])
def test_a_placement_of_other_services_is_refused(services: list[str]) -> None:
    """Goal: nothing runs by half. Method: placements of fewer, more and other services."""
    run = Run("leases/l", KEY, tuple(Placement(service, 0, "n") for service in services))
    with pytest.raises(PlacementMismatchError):
        containers_of(run, templates_of(workload_pb2.Workload(containers=[message("a"), message("b")])), SITE)


@pytest.mark.parametrize(
    ("policy", "restarts"),
    [
        (RestartPolicy.UNSPECIFIED, {0: True, 1: True, None: True}),
        (RestartPolicy.ALWAYS, {0: True, 1: True, None: True}),
        (RestartPolicy.ON_FAILURE, {0: False, 1: True, None: True}),
        (RestartPolicy.NEVER, {0: False, 1: False, None: False}),
    ],
)
def test_restart_policies(policy: RestartPolicy, restarts: dict[int | None, bool]) -> None:
    """Goal: each policy as the contract says. Method: ends with 0, with 1, and unknown."""
    assert {status: restarts_after(policy, status) for status in restarts} == restarts


@pytest.mark.parametrize(
    ("port", "scheme"),
    [
        (ContainerPort(80), "http"), (ContainerPort(8080, 80), "http"), (ContainerPort(8080), "tcp"),
        (ContainerPort(8080, transport=Transport.HTTP), "http"), (ContainerPort(80, transport=Transport.TCP), "tcp"),
        (ContainerPort(80, transport=Transport.UDP), "udp"),
    ],
)  # fmt: skip
def test_schemes(port: ContainerPort, scheme: str) -> None:
    """Goal: an endpoint's address says how to speak. Method: the contract's default, and each transport."""
    assert port.scheme == scheme


def test_only_public_ports_are_told() -> None:
    """Goal: an inner port stays inside. Method: one public and one other port of a running container."""
    run = Run("leases/l", KEY, (Placement("web", 0, "n"),))
    ports = [workload_pb2.Port(container_port=80, public=True), workload_pb2.Port(container_port=5432)]
    (made,) = containers_of(run, templates_of(workload_pb2.Workload(containers=[message(ports=ports)])), SITE)
    addresses = {80: HostAddress("127.0.0.1", 31_000), 5432: HostAddress("127.0.0.1", 31_001)}
    told = endpoint_messages(made, ContainerStatus(made.key, "1", is_running=True, ports=addresses), "203.0.113.7")
    assert [(item.container_port, item.uri) for item in told] == [(80, "http://203.0.113.7:31000")]


def test_readiness_and_its_default_time() -> None:
    """Goal: the contract's defaults. Method: an unset check, an HTTP check without a path."""
    http = workload_pb2.ReadinessCheck(
        http=workload_pb2.ReadinessCheck.HttpCheck(port=8080), timeout=to_duration(5_000)
    )
    bare, checked = templates_of(workload_pb2.Workload(containers=[message("a"), message("b", readiness=http)]))
    assert bare.container.readiness.timeout_ms == 300_000
    readiness = checked.container.readiness
    assert (readiness.http_port, readiness.http_path, readiness.timeout_ms) == (8080, "/", 5_000)


def test_a_command_without_times_gets_defaults() -> None:
    """Goal: unset is the default, and self-stop is never so short that no heartbeat fits. Method: unset, and 1 ms."""
    key = lease_pb2.GenerationKey(order="orders/o", group=0, generation=1)
    command = market_link_pb2.Command(lease="leases/l", key=key, run=market_link_pb2.Command.RunLease())
    run = run_of(command, accepted_at_ms=7, machine_boot_id="boot")
    assert (run.self_stop_ms, run.start_timeout_ms, run.accepted_at_ms) == (60_000, 300_000, 7)
    command.run.self_stop.CopyFrom(to_duration(1))
    assert run_of(command, accepted_at_ms=7, machine_boot_id="boot").self_stop_ms == 1_000
