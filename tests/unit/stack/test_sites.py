"""Declared sites from the price list."""

import tomllib

import pytest

from fallow_stack.sites import choose_asks, market_name, read_asks, site_toml


@pytest.mark.parametrize(
    ("listed", "model", "interface"),
    [
        ("H100-SXM", "h100", "sxm"),
        ("A100-SXM4", "a100", "sxm"),
        ("A100-PCIE", "a100", "pcie"),
        ("H100-NVL", "h100", "nvl"),
        ("RTX4090", "rtx4090", "pcie"),
        ("RTX3060-Ti", "rtx3060ti", "pcie"),
    ],
)
def test_names_become_market_names(listed: str, model: str, interface: str) -> None:
    """Goal: the list's names match what orders ask for. Method: a table."""
    assert market_name(listed) == (model, interface)


def test_every_row_of_the_list_is_read() -> None:
    """Goal: real prices, exact. Method: sums over the list, each row sane."""
    asks = read_asks()
    assert len(asks) == 67
    assert all(ask.micros_per_hour > 0 and ask.vram_bytes > 2**30 and ask.devices > 0 for ask in asks)
    assert asks[0].micros_per_hour == 2_650_000
    assert asks[0].region == "eu-fr"


def test_sites_compete() -> None:
    """Goal: an order has a winner, one that is dearer, and one without the model. Method: the first three rows."""
    first, second, third = choose_asks(3)
    assert first.model == second.model != third.model
    assert first.device_micros_per_hour < second.device_micros_per_hour
    assert len(choose_asks(100)) == 100


def test_a_site_file_says_that_its_devices_are_declared() -> None:
    """Goal: nobody takes a declared device for a real one. Method: parse the file, read its first line."""
    ask = choose_asks(1)[0]
    text = site_toml("provider-1", ask)
    assert "declared" in text.splitlines()[0]
    site = tomllib.loads(text)
    (node,) = site["nodes"]
    assert len(node["devices"]) == ask.devices
    assert all(device["device_id"].startswith("declared-") for device in node["devices"])
