"""A fresh chain and house for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.component.contracts.world import House, World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """An empty chain."""
    made = World.make(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def house(world: World) -> House:
    """Token, anchor and vault with a challenge window of an hour."""
    return House.make(world)
