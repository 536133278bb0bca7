"""Engines that all worker processes of one test run share: who asks first starts one, and the run's end stops it.

The process that started pytest owns them (with xdist that is the controller, which outlives its workers). It listens
on a socket file in the run's own folder; a worker asks by name and gets the address back as JSON. Nothing starts before
somebody asks. When the owner is killed, the kernel ends the engines with it.
"""

import asyncio
import json
import shutil
import socket
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fallow_stack.engines import EngineError, Kafka, Nats, Postgres
from fallow_stack.engines.kafka import fetch

ROOT = Path(__file__).resolve().parents[1]
KAFKA_LIBRARIES = ROOT / ".fallow" / "kafka" / "lib"
KAFKA_POM = ROOT / "deploy" / "kafka" / "pom.xml"
ASK_SECONDS = 400.0
CLOSE_SECONDS = 60.0

Engine = Postgres | Nats | Kafka


class EngineOwner:
    """Runs the engines in a thread with a loop of its own, and lends them out."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fallow-tests-"))
        self.socket_path = str(self.folder / "engines.sock")
        self._engines: dict[str, Engine] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._listening = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="engines", daemon=True)
        self._thread.start()
        self._listening.wait(CLOSE_SECONDS)

    def close(self) -> None:
        """Stop what was started and forget its data."""
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(CLOSE_SECONDS)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await asyncio.start_unix_server(self._answer, self.socket_path)
        self._listening.set()
        async with server:
            await self._stop.wait()
        for engine in self._engines.values():
            await engine.wipe()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = (await reader.readline()).decode().strip()
        try:
            async with self._locks.setdefault(name, asyncio.Lock()):
                if name not in self._engines:
                    self._engines[name] = await start_engine(name, self.folder / name)
            answer = describe(self._engines[name])
        except (EngineError, OSError) as error:
            answer = {"error": str(error)}
        writer.write(json.dumps(answer).encode() + b"\n")
        await writer.drain()
        writer.close()


async def start_engine(name: str, data: Path) -> Engine:
    """Start one engine for tests: no syncing to disk, since tests never lose power."""
    engine: Engine
    if name == "postgres":
        engine = Postgres(data, durable=False, settings={"max_connections": "400"})
    elif name == "nats":
        engine = Nats(data, durable=False)
    else:
        assert name == "kafka", f"there is no engine {name}"
        await asyncio.to_thread(fetch, KAFKA_POM, KAFKA_LIBRARIES)
        engine = Kafka(data, libraries=KAFKA_LIBRARIES)
    await engine.start()
    return engine


def describe(engine: Engine) -> dict[str, str]:
    """What a worker needs to use an engine."""
    answer = {"url": engine.url}
    if isinstance(engine, Nats):
        answer["credentials_file"] = str(engine.service_credentials_file("tests"))
        answer["account_seed_file"] = str(engine.account_seed_file)
    return answer


def ask(socket_path: str, name: str) -> Mapping[str, Any]:
    """Borrow an engine, waiting until it runs; EngineError with the owner's reason."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ASK_SECONDS)
        connection.connect(socket_path)
        with connection.makefile("rw", encoding="utf-8") as stream:
            stream.write(f"{name}\n")
            stream.flush()
            answer: dict[str, Any] = json.loads(stream.readline())
    if "error" in answer:
        raise EngineError(answer["error"])
    return answer
