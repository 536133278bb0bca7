"""Declared provider sites of the embedded stack, priced by real asking prices of a public GPU market.

The devices are declared, not real: the inventory says so, and every place that shows them repeats it. Prices and
regions come from `data/offers.csv` (asking prices, USD an hour, 2026), one row a site, in the order of a fixed list
of models so that the sites differ.
"""

import csv
import importlib.resources
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from fallow_chassis.gpu_models import gpu_model_of

MICROS_PER_UNIT = 1_000_000
MIB = 2**20
GIB = 2**30
# Cores and memory that a node offers for each of its GPUs.
CPU_MILLI_PER_DEVICE = 8_000
MEMORY_BYTES_PER_DEVICE = 32 * GIB
STORAGE_BYTES = 512 * GIB
SITES_PER_MODEL = 2


@dataclass(frozen=True, slots=True)
class Ask:
    """One row of the price list, for the whole machine."""

    model: str
    devices: int
    vram_bytes: int
    micros_per_hour: int
    interface: str
    region: str

    @property
    def device_micros_per_hour(self) -> int:
        """Price of one device, rounded up: the seller is asked no less than the list says."""
        return -(-self.micros_per_hour // self.devices)


def market_name(listed: str) -> tuple[str, str]:
    """Model and interface of a name in the price list: `H100-SXM` is (`h100`, `sxm`), `RTX3060-Ti` (`rtx3060ti`, `pcie`)."""
    build = gpu_model_of(listed, "nvidia", 0)
    return build.model, build.interface


def read_asks() -> list[Ask]:
    """The whole price list, as it stands."""
    text = (importlib.resources.files("fallow_stack") / "data" / "offers.csv").read_text("utf-8")
    return [
        Ask(
            model=market_name(row["gpu_model"])[0],
            devices=int(row["gpu_count"]),
            vram_bytes=int(row["total_vram_mib"]) * MIB // int(row["gpu_count"]),
            micros_per_hour=int(Fraction(row["usd_per_hour"]) * MICROS_PER_UNIT),
            interface=market_name(row["gpu_model"])[1],
            region=f"{row['continent']}-{row['country']}".lower(),
        )
        for row in csv.DictReader(text.splitlines())
    ]


def choose_asks(count: int) -> list[Ask]:
    """`count` rows for sites that compete: two prices of each model, cheapest first, the most listed models first."""
    models: dict[str, dict[int, Ask]] = {}
    for ask in sorted(read_asks(), key=lambda ask: ask.device_micros_per_hour):
        models.setdefault(ask.model, {}).setdefault(ask.device_micros_per_hour, ask)
    listed = Counter(ask.model for ask in read_asks())
    ordered = sorted(models, key=lambda model: (-listed[model], model))
    rows = [ask for model in ordered for ask in list(models[model].values())[:SITES_PER_MODEL]]
    return [rows[index % len(rows)] for index in range(count)]


def site_toml(name: str, ask: Ask) -> str:
    """The provider service's site file for one row of the price list."""
    devices = "\n".join(
        f'[[nodes.devices]]\ndevice_id = "declared-{name}-{index}"\nvendor = "nvidia"\nmodel = "{ask.model}"\n'
        f'vram_bytes = {ask.vram_bytes}\ninterface = "{ask.interface}"\n'
        for index in range(ask.devices)
    )
    return f"""# Made by the embedded stack from its price list. The devices are declared: there is no such GPU here.
display_name = "{name}"
region = "{ask.region}"

[[nodes]]
node_id = "node-1"
cpu_milli = {CPU_MILLI_PER_DEVICE * ask.devices}
memory_bytes = {MEMORY_BYTES_PER_DEVICE * ask.devices}
storage_bytes_by_class = {{ ephemeral = {STORAGE_BYTES} }}

{devices}
[prices]
asset = "usdc"
gpu_micros_per_hour_by_model = {{ "{ask.model}" = {ask.device_micros_per_hour} }}
"""


def write_site(folder: Path, name: str, ask: Ask) -> Path:
    """Write the site file of a provider; its path."""
    path = folder / f"{name}.toml"
    path.write_text(site_toml(name, ask), "utf-8")
    return path
