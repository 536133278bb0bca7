"""Anvil, a real node whose mining, pool and clock a test controls, and a door before it that fails as doors do."""

import asyncio
import fcntl
import os
import random
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from eth_account import Account

from tests.engines import ROOT

PACKAGE = "@foundry-rs/anvil-linux-amd64"
VERSION = "1.7.1"
FOLDER = ROOT / ".fallow" / "anvil"
BINARY = FOLDER / "node_modules" / PACKAGE / "bin" / "anvil"
KEY = "0x" + "7e" * 32
"""The anchorer's key; it has money on each fresh chain."""
START_SECONDS = 30.0


def fetch_anvil() -> Path:
    """The program, fetched by npm if it is not there; skips where npm is missing."""
    if not BINARY.exists():
        if shutil.which("npm") is None:
            pytest.skip("npm, which brings anvil, is not on the path")
        FOLDER.mkdir(parents=True, exist_ok=True)
        with (FOLDER / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not BINARY.exists():
                command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-save"]
                subprocess.run([*command, f"{PACKAGE}@{VERSION}"], cwd=FOLDER, check=True, capture_output=True)
    return BINARY


@dataclass
class Anvil:
    """One node; it keeps its chain in a file over a stop, and loses what waits in its pool."""

    folder: Path
    port: int
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it, with the chain that it had."""
        command = [str(fetch_anvil()), "--host", "127.0.0.1", "--port", str(self.port), "--silent"]
        command += ["--state", str(self.folder / "state.json"), "--accounts", "1"]
        environment = {**os.environ, "HOME": str(self.folder)}
        self.process = await asyncio.create_subprocess_exec(
            *command, env=environment, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        async with asyncio.timeout(START_SECONDS):
            while True:
                try:
                    await self.rpc("eth_chainId")
                    return
                except aiohttp.ClientError:
                    await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """Stop it in order: it writes its chain down."""
        await self._end(signal.SIGINT)

    async def kill(self) -> None:
        """Kill it."""
        await self._end(signal.SIGKILL)

    async def rpc(self, method: str, *parameters: Any) -> Any:
        """One call, past all doors."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(parameters)}
        async with aiohttp.ClientSession() as session, session.post(self.url, json=body) as answer:
            found = await answer.json()
        assert "error" not in found, found
        return found["result"]

    async def mine(self, blocks: int = 1) -> None:
        """Mine some blocks."""
        await self.rpc("anvil_mine", hex(blocks))

    async def _end(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)
            await self.process.wait()


@asynccontextmanager
async def running_anvil(folder: Path, port: int) -> AsyncIterator[Anvil]:
    """A node whose anchorer has money."""
    node = Anvil(folder, port)
    await node.start()
    try:
        await node.rpc("anvil_setBalance", Account.from_key(KEY).address, hex(10**20))
        yield node
    finally:
        await node.kill()


@dataclass
class Door:
    """A door before a node: it may fail at random, and tell of each request before it is passed on and after."""

    target: str
    draw: random.Random
    fault_share: float = 0.0
    faults: int = 0
    requests: int = 0
    url: str = ""
    before: Callable[[int], Awaitable[None]] | None = None
    after: Callable[[int], Awaitable[None]] | None = None
    _runner: web.AppRunner | None = field(default=None, repr=False)

    async def open(self) -> None:
        """Listen on a free port."""
        application = web.Application()
        application.router.add_post("/", self._pass)
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    async def close(self) -> None:
        """Listen no more."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        """Pass a request on, or fail before it reached the node, or after."""
        self.requests += 1
        number = self.requests
        body = await request.read()
        if self.before is not None:
            await self.before(number)
        fault = self.draw.randrange(5) if self.draw.random() < self.fault_share else None
        self.faults += fault is not None
        if fault == 0:
            return web.Response(status=503, text="busy")
        if fault == 1:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.target, data=body, headers={"Content-Type": "application/json"}) as answer,
        ):
            text = await answer.text()
        if self.after is not None:
            await self.after(number)
        if fault == 2:
            text = text[: len(text) // 2]
        elif fault == 3:
            text = '{"jsonrpc": "2.0", "id": 1, "error": {"code": -32005, "message": "limit exceeded"}}'
        elif fault == 4:
            # The node did what was asked, and its answer is lost.
            assert request.transport is not None
            request.transport.abort()
        return web.Response(text=text, content_type="application/json")


@asynccontextmanager
async def open_door(target: str, seed: int = 0, fault_share: float = 0.0) -> AsyncIterator[Door]:
    """A door that is open while the block runs."""
    door = Door(target, random.Random(seed), fault_share)
    await door.open()
    try:
        yield door
    finally:
        await door.close()
