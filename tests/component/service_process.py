"""A service as a process of its own, as its README says to run it."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 60.0


@dataclass
class ServiceProcess:
    """A process that serves; `log` holds what it printed."""

    address: str
    process: asyncio.subprocess.Process
    log: Path

    async def kill(self) -> None:
        """End it with no warning."""
        self.process.kill()
        await self.process.wait()


async def run_service(package: str, command: str, environment: Mapping[str, str]) -> tuple[int, str]:
    """Run `check` or `migrate` of a service; its exit status and what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", package, command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


@asynccontextmanager
async def service_process(package: str, environment: Mapping[str, str], folder: Path) -> AsyncIterator[ServiceProcess]:
    """Serve until the block ends; a process that was not killed must then drain and end well."""
    folder.mkdir(exist_ok=True)
    port_file, log_file = folder / "port", folder / "log"
    with log_file.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            package,
            "serve",
            env={**environment, "FALLOW_PORT_FILE": str(port_file)},
            stdout=log,
            stderr=log,
        )
        try:
            async with asyncio.timeout(START_SECONDS):
                while not port_file.exists():
                    assert process.returncode is None, log_file.read_text()
                    await asyncio.sleep(0.05)
            yield ServiceProcess(port_file.read_text().strip(), process, log_file)
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            status = await process.wait()
    assert status in {0, -signal.SIGKILL}, log_file.read_text()
