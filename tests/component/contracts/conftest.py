"""A fresh chain and house for each test."""

from pathlib import Path

import pytest

from tests.component.contracts.world import House, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """An empty chain."""
    return World.make(tmp_path)


@pytest.fixture
def house(world: World) -> House:
    """Token, anchor and vault with a challenge window of an hour."""
    return House.make(world)
