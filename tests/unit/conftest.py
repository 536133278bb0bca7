"""Unit tests open no sockets: what needs one is a component test."""

from collections.abc import Iterator

import pytest
import pytest_socket


@pytest.fixture(autouse=True)
def _sockets_off() -> Iterator[None]:
    """Refuse sockets for the time of a test; event loops keep their own pair."""
    pytest_socket.disable_socket(allow_unix_socket=True)
    yield
    pytest_socket.enable_socket()
