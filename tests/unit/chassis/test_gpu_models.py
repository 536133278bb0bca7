"""The market's table of GPUs: one name for each card, however a library or a price list calls it."""

import re

import pytest

from fallow_chassis.gpu_models import GIB, find_gpu_model, gpu_model_of, gpu_models


def test_the_table_holds_what_the_market_can_take() -> None:
    """Goal: every row is a device that an inventory may name. Method: the contract's patterns, and no build twice."""
    rows = gpu_models()
    assert len({row.model for row in rows}) >= 40
    assert {row.vendor for row in rows} == {"nvidia", "amd"}
    for row in rows:
        assert re.fullmatch(r"[a-z0-9-]{1,64}", row.model)
        assert row.interface in {"pcie", "sxm", "nvl", "oam"}
        assert 4 * GIB <= row.vram_bytes <= 300 * GIB
    builds = [(row.model, row.interface, row.vram_bytes) for row in rows]
    assert len(builds) == len(set(builds))


def test_a_name_stands_for_one_model() -> None:
    """Goal: no name is ambiguous. Method: look each name up with its own VRAM; its own row answers."""
    for row in gpu_models():
        for name in row.names:
            assert find_gpu_model(name, row.vram_bytes) == row, name


@pytest.mark.parametrize(
    ("name", "gib", "model", "interface"),
    [
        ("NVIDIA H100 80GB HBM3", 79, "h100", "sxm"),
        ("NVIDIA H100 PCIe", 79, "h100", "pcie"),
        ("NVIDIA H100 NVL", 93, "h100", "nvl"),
        ("NVIDIA GeForce RTX 4090", 24, "rtx4090", "pcie"),
        ("GeForce RTX 4090", 24, "rtx4090", "pcie"),
        ("NVIDIA GeForce RTX 3060 Ti", 8, "rtx3060ti", "pcie"),
        ("NVIDIA RTX 6000 Ada Generation", 48, "rtx6000ada", "pcie"),
        ("Tesla V100-SXM2-32GB", 32, "v100", "sxm"),
        ("AMD Instinct MI300X", 192, "mi300x", "oam"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", 5, "a100-mig-1g-5gb", "sxm"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb+me", 10, "h100-mig-1g-10gb-me", "sxm"),
    ],
)
def test_drivers_names_become_the_markets(name: str, gib: int, model: str, interface: str) -> None:
    """Goal: a card is called the same wherever it is. Method: names that drivers report; its VRAM stays the reported."""
    found = gpu_model_of(name, "any", gib * GIB)
    assert (found.model, found.interface, found.vram_bytes, found.is_listed) == (model, interface, gib * GIB, True)


def test_a_card_of_no_table_keeps_its_own_name() -> None:
    """Goal: a new card can be leased on the day it is out. Method: names that nobody has heard of."""
    found = gpu_model_of("NVIDIA X900 SXM7 512GB", "nvidia", 512 * GIB)
    assert (found.model, found.interface, found.is_listed) == ("x900-sxm7-512gb", "sxm", False)
    assert gpu_model_of("???", "nvidia", 0).model == "unknown"
    assert find_gpu_model("x900") is None
