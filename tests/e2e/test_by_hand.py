"""The services one by one, as their READMEs and docs/by-hand.md say: each block of commands is run as it stands.

Only addresses are other than written: free ports, and the password of a Postgres of the test's own.
"""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from fallow_stack.engines import Postgres
from fallow_stack.engines.nats import installed as installed_nats
from fallow_stack.loopback_ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
START_SECONDS = 90.0
STOP_SECONDS = 30.0


class Hand:
    """Somebody who types what a document says, in one folder beside the checkout's documents."""

    def __init__(self, folder: Path, replaced: Mapping[str, str]) -> None:
        self.folder = folder
        self.replaced = replaced
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("FALLOW_")} | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "FALLOW_RUNTIME": "exec",
        }
        (folder / "docs").symlink_to(ROOT / "docs")

    def block(self, document: str, heading: str) -> str:
        """The one block of commands under a heading of a document, with this run's addresses."""
        text = (ROOT / document).read_text("utf-8").split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
        (found,) = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
        for written, present in self.replaced.items():
            found = found.replace(written, present)
        return str(found)

    def run(self, commands: str, **variables: str) -> str:
        """Run commands to their end; what they printed."""
        done = subprocess.run(
            ["/bin/sh", "-ec", commands],
            cwd=self.folder,
            env=self._environment | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}{done.stderr}"
        return done.stdout

    def _launch(self, commands: str, log: Path, variables: dict[str, str]) -> subprocess.Popen[bytes]:
        with log.open("wb") as output:
            return subprocess.Popen(
                ["/bin/sh", "-ec", commands],
                cwd=self.folder,
                env=self._environment | variables,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @asynccontextmanager
    async def serving(self, name: str, commands: str, ready: str, **variables: str) -> AsyncIterator[None]:
        """Run commands whose last one serves, from when the output says so; stopped as Ctrl-C does."""
        log = self.folder / f"{name}.log"
        process = self._launch(commands, log, variables)
        try:
            async with asyncio.timeout(START_SECONDS):
                while ready not in log.read_text("utf-8"):
                    assert process.poll() is None, log.read_text("utf-8")
                    await asyncio.sleep(0.1)
            yield
            assert process.poll() is None, log.read_text("utf-8")
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            await asyncio.to_thread(process.wait, STOP_SECONDS)


@pytest.fixture
async def hand(tmp_path: Path) -> AsyncIterator[Hand]:
    """A folder, a Postgres with three empty databases, and a port for each that a document names."""
    postgres = Postgres(tmp_path / "postgres", durable=False)
    await postgres.start()
    try:
        replaced = {f"127.0.0.1:{port}": f"127.0.0.1:{free_port()}" for port in (7301, 7302, 7303, 8545, 4222)}
        for service in ("order", "settlement", "bidding"):
            name = f"fallow_{service}"
            replaced[f"postgresql://fallow@127.0.0.1:5432/{name}"] = await postgres.ensure_database(name)
        folder = tmp_path / "by-hand"
        folder.mkdir()
        yield Hand(folder, replaced)
    finally:
        await postgres.stop()


def plain_nats(hand: Hand) -> str:
    """The command of a NATS server that asks nobody for credentials."""
    port = hand.replaced["127.0.0.1:4222"].rpartition(":")[2]
    return f"exec {installed_nats()} -js -sd jetstream -a 127.0.0.1 -p {port}"


async def test_the_services_run_one_by_one(hand: Hand) -> None:
    """Goal: what the READMEs say works as it stands. Method: type it all; a deposit, then an order that runs."""
    async with AsyncExitStack() as running:
        await running.enter_async_context(hand.serving("nats", plain_nats(hand), "Server is ready"))
        for service in ("order", "settlement", "bidding"):
            commands = hand.block(f"services/{service}/README.md", "By hand")
            await running.enter_async_context(hand.serving(service, commands, " serving "))
        assert "signed in as accounts/" in hand.run(hand.block("docs/by-hand.md", "A profile and a wallet"))
        assert "chain: chain 31337 answers" in (hand.folder / "settlement.log").read_text("utf-8")
        owner = {"FALLOW_PROFILE": "profile.json"}
        commands = hand.block("services/provider/README.md", "By hand")
        await running.enter_async_context(hand.serving("provider", commands, " registered provider=", **owner))
        again = commands[commands.index("export ") : commands.index("python -m fallow_provider serve")]
        assert "market: answers, and so does NATS" in hand.run(again, **owner)
        money = hand.block("docs/by-hand.md", "Test money on the local chain")
        assert "free now 25" in hand.run(money, **owner)
        assert "http://127.0.0.1:" in hand.run("fallow order create docs/examples/hello.yaml", **owner)
        name = re.search(r"orders/[0-9a-z]{26}", hand.run("fallow order list", **owner))
        assert name is not None
        hand.run(f"fallow order close {name[0]}", **owner)


async def test_nats_with_credentials(hand: Hand) -> None:
    """Goal: what docs/by-hand.md says of credentials works. Method: type it, and let bidding's `check` try them."""
    hand.run(hand.block("services/order/README.md", "By hand").partition("export FALLOW_IDENTITY_KEY_FILE")[0])
    async with hand.serving("nats", hand.block("docs/by-hand.md", "NATS with credentials"), "Server is ready"):
        bidding = hand.block("services/bidding/README.md", "By hand").replace("&& python -m fallow_bidding serve", "")
        with pytest.raises(AssertionError, match="nats: FAILED"):
            hand.run(bidding)
        seed = {"FALLOW_NATS_ACCOUNT_SEED_FILE": "operator/account.seed"}
        assert "nats: answers" in hand.run(bidding, FALLOW_NATS_CREDENTIALS_FILE="bidding.creds", **seed)
