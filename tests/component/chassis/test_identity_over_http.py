"""The key set at an http address."""

import asyncio
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fallow_chassis.identity import KeyFileError, TokenVerifier
from fallow_chassis.testing import TestIdentity


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        """Nothing."""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A web server over the test's folder."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


async def test_keys_come_from_an_address(address: str, identity: TestIdentity) -> None:
    """Goal: a JWKS address works as a file does, and one that is away is named. Method: verify, then a wrong path."""
    verifier = await asyncio.to_thread(TokenVerifier.load, f"{address}/identity/jwks.json")
    assert verifier.verify(identity.service_token("order")).subject == "services/order"
    with pytest.raises(KeyFileError, match="absent"):
        await asyncio.to_thread(TokenVerifier.load, f"{address}/absent.json")
    with pytest.raises(KeyFileError):
        await asyncio.to_thread(TokenVerifier.load, "http://127.0.0.1:1/jwks.json")
    assert verifier.verify(identity.service_token("order")).subject == "services/order"
