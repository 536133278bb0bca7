"""Prices of SDL files by the order service's settings."""

import pytest

from fallow_order.app import sdl_settings
from fallow_order.settings import OrderSettings
from fallow_sdl.settings import DEFAULTS


def test_the_service_and_the_command_read_prices_alike() -> None:
    """Goal: ``fallow sdl convert`` shows what the service would make. Method: compare what both use when told nothing."""
    assert sdl_settings(OrderSettings()) == DEFAULTS


def test_a_platform_sets_its_own() -> None:
    """Goal: block time, rates, asset and class can be set. Method: each through the environment's names."""
    settings = sdl_settings(
        OrderSettings(
            sdl_asset="eurc",
            sdl_block_milliseconds=5_000,
            sdl_rates="uakt=620000, ibc/A=7",
            sdl_persistent_class="fast",
        )
    )
    assert (settings.asset, settings.block_milliseconds, settings.persistent_class) == ("eurc", 5_000, "fast")
    assert settings.micros_per_million["uakt"] == 620_000
    assert settings.micros_per_million["ibc/A"] == 7
    assert settings.micros_per_million["uact"] == 1_000_000


@pytest.mark.parametrize("rates", ["uakt", "uakt=-1", "=5", "uakt=0.5", "uakt=1=2"])
def test_a_rate_that_makes_no_sense_stops_the_start(rates: str) -> None:
    """Goal: no order is priced by a slip. Method: malformed rates."""
    with pytest.raises(ValueError, match="a rate is"):
        sdl_settings(OrderSettings(sdl_rates=rates))
