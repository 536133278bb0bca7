"""A running chain for each module, and one that a test may stop and start."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.component.chain.process import ChainProcess, running


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChainProcess]:
    """A chain that the tests of a module share."""
    with running(tmp_path_factory.mktemp("chain") / "data") as process:
        yield process


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where a test keeps a chain of its own."""
    return tmp_path / "data"
