"""Every real-world sample converts, and says what it says."""

from pathlib import Path

import pytest
import yaml

import fallow_sdl
from fallow.order.v1 import order_service_pb2
from fallow.type.v1 import workload_pb2
from fallow_chassis.validation import validate
from fallow_sdl import document

FOLDER = Path(__file__).parents[2] / "data" / "sdl"
SAMPLES = sorted(FOLDER.glob("*.yaml"))


def _text(name: str) -> str:
    return (FOLDER / f"{name}-deploy.yaml").read_text("utf-8")


def test_the_samples_are_all_there() -> None:
    """Goal: the next test looks at all of them. Method: count."""
    assert len(SAMPLES) == 21


@pytest.mark.parametrize("path", SAMPLES, ids=[path.stem for path in SAMPLES])
def test_a_sample_converts_into_a_valid_order(path: Path) -> None:
    """Goal: unchanged files work. Method: convert, and hold the order against the contract's own rules."""
    order = fallow_sdl.parse(path.read_text("utf-8"))
    validate(order_service_pb2.EstimateOrderRequest(order=order))
    assert order.groups[0].price_limit.asset == "usdc"
    assert order.groups[0].price_limit.micros_per_hour > 0
    assert order.groups[0].workload.containers


@pytest.mark.parametrize("path", SAMPLES, ids=[path.stem for path in SAMPLES])
def test_line_ends_of_another_system_change_nothing(path: Path) -> None:
    """Goal: files saved on Windows work. Method: the same sample with CRLF and a byte order mark."""
    text = path.read_text("utf-8")
    assert fallow_sdl.parse("\ufeff" + text.replace("\n", "\r\n")) == fallow_sdl.parse(text)


@pytest.mark.parametrize("path", SAMPLES, ids=[path.stem for path in SAMPLES])
def test_the_parser_without_c_reads_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a machine without the parser in C converts alike. Method: the same sample by both."""
    text = path.read_text("utf-8")
    expected = fallow_sdl.convert(text)
    monkeypatch.setattr(document, "_LOADER", yaml.SafeLoader)
    assert fallow_sdl.convert(text) == expected


def test_a_gpu_sample_in_full() -> None:
    """Goal: nothing gets lost. Method: one sample, field by field."""
    (group,) = fallow_sdl.parse(_text("llama-3-1-405b-awq-int4")).groups
    assert group.group_id == "dcloud"
    # 10^6 uact a block of 6.098 s: 10^6 × 3,600,000 / 6,098 micros an hour, rounded up.
    assert group.price_limit.micros_per_hour == -(-(10**6) * 3_600_000 // 6_098)
    (container,) = group.workload.containers
    assert container.service == "vllm"
    assert (list(container.command), container.arguments[0].split()[:2]) == (["bash", "-c"], ["vllm", "serve"])
    assert [(variable.key, variable.value) for variable in container.environment] == [("HF_TOKEN", "")]
    (port,) = container.ports
    assert (port.container_port, port.external_port, port.public) == (8000, 8000, True)
    assert port.protocol == workload_pb2.PORT_PROTOCOL_TCP
    assert {(mount.volume, mount.path) for mount in container.mounts} == {("shm", "/dev/shm"), ("data", "/root/.cache")}
    needs = container.resources
    assert (needs.cpu_milli, needs.memory_bytes) == (16_000, 128 << 30)
    assert (needs.gpu.count, needs.gpu.vendor, list(needs.gpu.models)) == (8, "nvidia", ["h100", "a100"])
    # A card sold as 80 GiB reports a little less: the label is read in powers of ten.
    assert needs.gpu.vram_bytes_min == 80 * 10**9
    assert [(v.volume, v.size_bytes >> 30, v.storage_class, v.persistent) for v in needs.storage] == [
        ("default", 100, "", False),
        ("data", 1000, "beta3", True),
        ("shm", 10, "ram", False),
    ]
    assert container.replicas == 1


def test_auditors_attributes_and_services() -> None:
    """Goal: constraints and private ports arrive. Method: three samples that have them."""
    (group,) = fallow_sdl.parse(_text("ollama-gpu")).groups
    assert list(group.constraints.auditors_any_of) == ["akash1365yvmc4s7awdyj3n2sav7xfx76adc6dnmlx63"]
    (group,) = fallow_sdl.parse(_text("concordium")).groups
    assert dict(group.constraints.attributes) == {"host": "akash"}
    assert [container.service for container in group.workload.containers] == ["mainnet-node", "mainnet-node-collector"]
    assert group.workload.containers[1].resources.cpu_milli == 500
    (group,) = fallow_sdl.parse(_text("ipfs")).groups
    first = group.workload.containers[0].ports[0]
    assert (first.public, list(first.services)) == (False, ["nginx"])
    assert group.workload.containers[1].ports[0].protocol == workload_pb2.PORT_PROTOCOL_HTTP


def test_compose_leftovers_and_leased_addresses_are_warnings() -> None:
    """Goal: what has no effect is said, not refused. Method: the sample that has both."""
    warnings = fallow_sdl.convert(_text("redash-redash-queries")).warnings
    assert (7, "services.postgres.volumes") in [(warning.line, warning.path) for warning in warnings]
    assert any("leased addresses" in warning.reason for warning in warnings)
