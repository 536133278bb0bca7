"""By which name an engine gives out a card, what must be in the container then, and what is found there."""

import os
from pathlib import Path

import pytest

from fallow_provider.domain.workload import LeasedDevice
from fallow_provider.drivers import cdi
from fallow_provider.drivers.cdi import CdiDevice, card_node, device_named, read_specifications
from fallow_provider.drivers.device_injection import Injection, devices_listed, injection_fault, plan_injection
from fallow_provider.ports import DriverRefusedError

NULL, ZERO = Path("/dev/null"), Path("/dev/zero")
LISTING = """/dev:
total 0
lrwxrwxrwx    1 root     root            13 Nov 27 11:00 fd -> /proc/self/fd
crw-rw-rw-    1 root     root        1,   3 Nov 27 11:00 null
crw-rw-rw-    1 root     root      195,   1 Nov 27 11:00 nvidia1
brw-rw----    1 root     disk        8,   0 Nov 27 11:00 sda

/dev/dri:
crw-rw----    1 root     video   226, 128 Nov 27 11:00 renderD128
"""


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the kernel driver tells of two cards."""
    for minor, name in enumerate(("GPU-a", "GPU-b")):
        folder = tmp_path / "gpus" / f"0000:0{minor}:00.0"
        folder.mkdir(parents=True)
        (folder / "information").write_text(
            f"Model: \t Tesla\nGPU UUID: \t {name}\nDevice Minor: \t {minor}\n", "utf-8"
        )
    monkeypatch.setattr(cdi, "CARDS_FOLDER", tmp_path / "gpus")
    return tmp_path


def test_specifications_are_read_as_an_engine_reads_them(tmp_path: Path) -> None:
    """Goal: both forms, later folders first, what is broken or of no GPU left out. Method: two folders of files."""
    early, late = tmp_path / "early", tmp_path / "late"
    early.mkdir()
    late.mkdir()
    (early / "a.yaml").write_text(
        "kind: nvidia.com/gpu\ncontainerEdits:\n  deviceNodes: [{path: /dev/nvidiactl}]\ndevices:\n"
        "- name: '0'\n  containerEdits: {deviceNodes: [{path: /dev/nvidia0}]}\n- name: old\n  containerEdits: {}\n",
        "utf-8",
    )
    (late / "b.json").write_text(
        '{"kind": "nvidia.com/gpu", "devices": [{"name": "0", "containerEdits": {"deviceNodes":'
        ' [{"path": "/dev/nvidia0", "hostPath": "/dev/other"}]}}]}',
        "utf-8",
    )
    (late / "net.json").write_text('{"kind": "vendor.com/net", "devices": [{"name": "0"}]}', "utf-8")
    (late / "broken.yaml").write_text("kind: [", "utf-8")
    (late / "short.json").write_text('{"kind": "amd.com/gpu"}', "utf-8")
    (late / "list.json").write_text("[]", "utf-8")
    found = {device.name: device for device in read_specifications((early, late, tmp_path / "none"))}
    assert sorted(found) == ["nvidia.com/gpu=0", "nvidia.com/gpu=old"]
    assert found["nvidia.com/gpu=0"].nodes == (("/dev/nvidia0", "/dev/other"),)
    assert found["nvidia.com/gpu=old"].common == {"/dev/nvidiactl"}


def test_a_card_is_named_by_its_id_or_by_its_file(cards: Path) -> None:
    """Goal: specifications that name cards by index do too. Method: names by id, by index, of all, of another vendor."""
    by_index = CdiDevice("nvidia.com/gpu=1", (("/dev/nvidia1", "/dev/nvidia1"),))
    everything = CdiDevice("nvidia.com/gpu=all", (("/dev/nvidia0", "/dev/nvidia0"), *by_index.nodes))
    assert card_node("GPU-b") == "/dev/nvidia1"
    assert device_named((everything, by_index), "nvidia", "GPU-b") == by_index
    assert device_named((everything, by_index), "nvidia", "GPU-a") is None
    assert device_named((everything, by_index), "amd", "GPU-b") is None
    by_id = CdiDevice("nvidia.com/gpu=GPU-b", ())
    assert device_named((by_index, by_id), "nvidia", "GPU-b") == by_id


def test_device_requests_are_the_second_choice(cards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: engines without CDI. Method: a runtime of NVIDIA's; links to real device files stand for cards; none without it."""
    (cards / "dev").mkdir()
    for minor, file in enumerate((NULL, ZERO)):
        (cards / "dev" / f"nvidia{minor}").symlink_to(file)
    monkeypatch.setattr(cdi, "DEVICE_FOLDER", cards / "dev")
    leased = [LeasedDevice("GPU-a", "nvidia")]
    planned = plan_injection(leased, (), has_cdi=False, has_requests=True)
    assert planned.requests() == [{"Driver": "nvidia", "DeviceIDs": ["GPU-a"], "Capabilities": [["gpu"]]}]
    assert set(planned.wanted) == {numbers(NULL)}
    assert set(planned.foreign) == {numbers(ZERO)}
    for has_requests, device in ((False, leased[0]), (True, LeasedDevice("MIG-x", "nvidia"))):
        with pytest.raises(DriverRefusedError) as refusal:
            plan_injection([device], (), has_cdi=False, has_requests=has_requests)
        assert refusal.value.reason.reason == "DEVICE_NOT_GIVEN"
    assert plan_injection((), (), has_cdi=True, has_requests=True) == Injection()


def test_a_device_that_brings_no_file_cannot_be_looked_for() -> None:
    """Goal: nothing is trusted. Method: a specification without device files is refused."""
    with pytest.raises(DriverRefusedError, match="no device file"):
        plan_injection(
            [LeasedDevice("0", "nvidia")], [CdiDevice("nvidia.com/gpu=0", ())], has_cdi=True, has_requests=False
        )


def test_what_every_device_brings_is_nobodys() -> None:
    """Goal: control files are not taken for another's card. Method: a common file that another device lists too."""
    common = frozenset({str(ZERO)})
    mine = CdiDevice("nvidia.com/gpu=0", (("/dev/nvidia0", str(NULL)),), common)
    other = CdiDevice("nvidia.com/gpu=1", (("/dev/nvidiactl", str(ZERO)), ("/dev/nvidia1", "/dev/full")), common)
    planned = plan_injection([LeasedDevice("0", "nvidia")], [mine, other], has_cdi=True, has_requests=False)
    assert planned.requests() == [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=0"]}]
    assert set(planned.foreign) == {numbers(Path("/dev/full"))}


def test_a_listing_is_read_where_the_host_may_not_look() -> None:
    """Goal: an agent that is not root verifies too. Method: the words of `ls -lR /dev`."""
    assert devices_listed(LISTING) == {(1, 3): "null", (195, 1): "nvidia1", (226, 128): "renderD128"}


@pytest.mark.parametrize(
    ("present", "fault"),
    [
        ({(195, 0): "nvidia0"}, ""),
        ({}, "/dev/nvidia0 is not in the container"),
        ({(195, 0): "nvidia0", (195, 1): "x"}, "x is another's"),
        ({(195, 1): "nvidia0"}, "/dev/nvidia0 is not in the container; nvidia0 is another's"),
    ],
)
def test_faults(present: dict[tuple[int, int], str], fault: str) -> None:
    """Goal: exactly the devices leased. Method: what may be seen in a container."""
    injection = Injection(("nvidia.com/gpu=0",), (), {(195, 0): "/dev/nvidia0"}, {(195, 1): "/dev/nvidia1"})
    assert injection_fault(injection, present) == fault


def numbers(device: Path) -> tuple[int, int]:
    """The numbers of a device file."""
    status = device.stat()
    return os.major(status.st_rdev), os.minor(status.st_rdev)
