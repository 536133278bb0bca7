"""The operator's site file: what it says, and what is refused with the place of the fault."""

from pathlib import Path

import pytest

from fallow_chassis.settings import SettingsError
from fallow_provider.app import check_gives_devices
from fallow_provider.devices import DeclaredSite
from fallow_provider.domain.inventory import DeviceSource
from fallow_provider.ports import Fingerprint

SITE = """
display_name = "Fjord"
region = "eu-north"
[attributes]
tier = "community"
[[nodes]]
node_id = "node-1"
cpu_milli = 16000
memory_bytes = 68719476736
storage_bytes_by_class = { ephemeral = 1000 }
[[nodes.devices]]
device_id = "gpu-0"
vendor = "nvidia"
model = "h100"
vram_bytes = 85899345920
[prices]
asset = "usdc"
gpu_micros_per_hour_by_model = { h100 = 2100000 }
"""


def load(tmp_path: Path, text: str) -> DeclaredSite:
    """Read a text as a file."""
    path = tmp_path / "site.toml"
    path.write_text(text, "utf-8")
    return DeclaredSite.load(path)


def test_a_site_file(tmp_path: Path) -> None:
    """Goal: the file's facts, with devices labelled as declared. Method: read one."""
    site = load(tmp_path, SITE).site()
    assert (site.display_name, site.region, site.attributes) == ("Fjord", "eu-north", {"tier": "community"})
    (node,) = site.nodes
    assert (node.cpu_milli, node.storage_bytes_by_class) == (16_000, {"ephemeral": 1_000})
    (device,) = node.devices
    assert (device.model, device.interface, device.source) == ("h100", "", DeviceSource.DECLARED)
    assert site.prices.gpu_micros_per_hour_by_model == {"h100": 2_100_000}
    assert site.node("node-2") is None


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("h100 = 2100000", "h100 = -1", "prices.gpu_micros_per_hour_by_model.h100"),
        ("h100 = 2100000", "h100 = 2.5", "prices.gpu_micros_per_hour_by_model.h100"),
        ("cpu_milli = 16000", 'cpu_milli = "16000"', "nodes[0].cpu_milli"),
        ("cpu_milli = 16000", "cpu_mili = 16000", "nodes[0].cpu_mili"),
        ('model = "h100"', 'model = "H100"', "nodes[0].devices[0].model"),
        ('asset = "usdc"', 'asset = "USDC"', "prices.asset"),
        ('region = "eu-north"', "", "region"),
        ("[[nodes]]", "[[nodes]", "site.toml"),
        ("[prices]", '[[nodes.devices]]\ndevice_id = "gpu-0"\nvendor = "v"\nmodel = "m"\nvram_bytes = 1\n[prices]',
         "gpu-0"),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_its_place(tmp_path: Path, old: str, new: str, place: str) -> None:
    """Goal: an operator finds the mistake. Method: break one thing; the error names the variable and the place."""
    assert old in SITE
    with pytest.raises(SettingsError) as refusal:
        load(tmp_path, SITE.replace(old, new, 1))
    assert "FALLOW_SITE_FILE" in str(refusal.value)
    assert place in str(refusal.value)


def test_no_file(tmp_path: Path) -> None:
    """Goal: the same clear error. Method: a path that leads nowhere."""
    with pytest.raises(SettingsError, match="FALLOW_SITE_FILE"):
        DeclaredSite.load(tmp_path / "none.toml")


def test_the_documents_example_reads() -> None:
    """Goal: what we tell operators to copy works. Method: load the example of the documents."""
    site = DeclaredSite.load(Path(__file__).parents[3] / "docs" / "examples" / "site.toml").site()
    assert site.nodes[0].devices
    assert {device.model for node in site.nodes for device in node.devices} == set(
        site.prices.gpu_micros_per_hour_by_model
    )


def test_found_cards_are_offered_only_where_containers_get_them(tmp_path: Path) -> None:
    """Goal: no tenant pays for a card that its container cannot use. Method: cards found and declared, a driver that gives them or not."""
    finding = SITE[: SITE.index("[[nodes.devices]]")] + "find_devices = true\n" + SITE[SITE.index("[prices]") :]
    found, declared = load(tmp_path, finding), load(tmp_path, SITE)
    without = Fingerprint("docker", is_available=True)
    with pytest.raises(
        SettingsError,
        match=r"node node-1 has find_devices = true, and the docker driver cannot give containers its cards",
    ):
        check_gives_devices(found, without)
    check_gives_devices(declared, without)
    check_gives_devices(found, Fingerprint("exec", is_available=True, gives_devices=True))
