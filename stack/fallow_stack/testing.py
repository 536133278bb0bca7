"""A whole marketplace for tests: the real `fallow up` in a folder of its own, with its members' processes to kill.

Nothing of the stack runs in the test's own process, so a test that is killed leaves only what follows its parent.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType

from fallow_sdk.client import Client, Endpoints
from fallow_sdk.profile import Profile, read_profile
from fallow_sdk.wallet import Wallet
from fallow_stack.home import Home, MemberStatus

START_SECONDS = 120.0
STOP_SECONDS = 60.0
POLL_SECONDS = 0.1
FALLOW = Path(sys.executable).with_name("fallow")


class RunningStack:
    """One `fallow up`. `start`, use, `stop`; a second `start` goes on with the same folder."""

    def __init__(self, root: Path, *options: str, environment: Mapping[str, str] = MappingProxyType({})) -> None:
        """`environment` is told to every process of the stack, beside what each is told anyway."""
        self.home = Home(root)
        self._options = options
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def output(self) -> Path:
        """What `fallow up` printed."""
        return self.home.root / "up.log"

    async def start(self) -> None:
        """Start it; returns once everything runs. Raises AssertionError with what it printed."""
        # One that a killed stack has left would say that everything runs.
        self.home.profile.unlink(missing_ok=True)
        self._launch()
        await self._poll(self.home.profile.exists, START_SECONDS, "everything runs")

    def command(self) -> list[str]:
        """The command that starts it."""
        return [str(FALLOW), "up", "--home", str(self.home.root), *self._options]

    def _launch(self) -> None:
        self.home.root.mkdir(parents=True, exist_ok=True)
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                ["env", *(f"{name}={value}" for name, value in self._environment.items()), *self.command()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    async def _poll(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        try:
            async with asyncio.timeout(seconds):
                while True:
                    if condition():
                        return
                    assert self.is_running, f"fallow up ended: {self.output.read_text('utf-8')}"
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise AssertionError(f"not within {seconds:.0f} s: {what}: {self.output.read_text('utf-8')}") from None

    @property
    def is_running(self) -> bool:
        """Whether `fallow up` is there."""
        return self._process is not None and self._process.poll() is None

    async def stop(self) -> int:
        """Stop it as Ctrl-C does; its exit status."""
        assert self._process is not None
        if self.is_running:
            self._process.send_signal(signal.SIGINT)
        try:
            await asyncio.to_thread(self._process.wait, STOP_SECONDS)
        finally:
            if self.is_running:
                os.killpg(self._process.pid, signal.SIGKILL)
        return self._process.wait()

    def member(self, name: str) -> MemberStatus:
        """A member as the status file shows it now."""
        status = self.home.read_status()
        assert status is not None, "no status file"
        (found,) = [member for member in status.members if member.name == name]
        return found

    async def kill(self, name: str) -> None:
        """End a member with SIGKILL, and wait until the supervisor has it running again."""
        before = self.member(name)
        os.kill(before.pid, signal.SIGKILL)

        def again() -> bool:
            now = self.member(name)
            return now.restarts > before.restarts and now.state == "running"

        await self._poll(again, START_SECONDS, f"{name} runs again")

    async def gone(self, pids: Sequence[int]) -> None:
        """Wait until the killed `fallow up` and its processes are no more. Raises TimeoutError."""
        assert self._process is not None
        await asyncio.to_thread(self._process.wait, STOP_SECONDS)
        async with asyncio.timeout(STOP_SECONDS):
            for pid in pids:
                while (Path("/proc") / str(pid) / "exe").exists():  # foreign processes tell nobody
                    await asyncio.sleep(POLL_SECONDS)

    @property
    def profile(self) -> Profile:
        """The development tenant's profile."""
        return read_profile(self.home.profile)

    @property
    def endpoints(self) -> Endpoints:
        """Addresses of the services."""
        return self.profile.endpoints

    @asynccontextmanager
    async def tenant(self) -> AsyncIterator[Client]:
        """A client that is signed in with the development tenant's wallet."""
        async with Client(self.endpoints) as client:
            await client.sign_in(Wallet.load(Path(self.profile.wallet_key_file)))
            yield client
