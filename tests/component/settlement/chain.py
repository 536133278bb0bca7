"""A local chain for settlement's tests, nodes that die on purpose, and one whose blocks turn."""

import os
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fallow_receipts import keccak
from fallow_settlement.chain import Block, JsonRpcNode, Log, TransactionReceipt
from fallow_settlement.contracts_abi import next_batch_call
from fallow_settlement.deployment import deploy
from fallow_settlement.settings import Contracts
from fallow_settlement.signer import Signer

START_SECONDS = 60


@dataclass(frozen=True)
class LocalChain:
    """The chain's process: where it answers, and its funded account."""

    url: str
    development_account: Path


@contextmanager
def running_chain(folder: Path) -> Iterator[LocalChain]:
    """The embedded chain as a process of its own."""
    port_file = folder / "chain.port"
    data = folder / "chain"
    command = [sys.executable, "-m", "fallow_stack.chain", "--listen", "127.0.0.1:0", "--data", str(data)]
    with (folder / "chain.log").open("wb") as log:
        environment = {**os.environ, "FALLOW_PORT_FILE": str(port_file)}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            end = time.monotonic() + START_SECONDS
            while not port_file.exists():
                assert process.poll() is None, (folder / "chain.log").read_text()
                assert time.monotonic() < end, "the chain did not start"
                time.sleep(0.05)
            yield LocalChain(f"http://{port_file.read_text().strip()}", data / "development-account.json")
        finally:
            process.terminate()
            process.wait(20)


async def deployed(
    chain: LocalChain, folder: Path, *, challenge_seconds: int = 60, escape_seconds: int = 86_400
) -> Contracts:
    """Contracts of the test's own on the chain."""
    output = folder / "contracts.json"
    await deploy(
        Namespace(
            rpc_url=chain.url,
            key_file=chain.development_account,
            output=output,
            test_token=True,
            token=None,
            owner="",
            guardian="",
            challenge_seconds=challenge_seconds,
            escape_seconds=escape_seconds,
            daily_limit=10**12,
        )
    )
    return Contracts.load(output)


class Killed(BaseException):
    """The process died here."""


class DyingNode:
    """A node during whose call number ``at`` the caller dies, before the call reached the chain or after."""

    def __init__(self, node: JsonRpcNode, at: int, *, after: bool) -> None:
        self._node = node
        self._at = at
        self._after = after
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._node, name)

        async def dying(*arguments: object) -> object:
            self.calls += 1
            if self.calls == self._at and not self._after:
                raise Killed
            answer = await method(*arguments)
            if self.calls == self._at:
                raise Killed
            return answer

        return dying


@dataclass
class TurningNode:
    """A chain in memory whose blocks can be taken away; it mines what is sent, as reverted while ``reverting`` counts down,
    and calls hold no state but the commitment of one batch.
    """

    signer: Signer
    blocks: list[Block] = field(default_factory=list)
    mined: dict[str, int] = field(default_factory=dict)
    entries: dict[str, list[Log]] = field(default_factory=dict)
    commitment: bytes = bytes(32)
    sent: list[bytes] = field(default_factory=list)
    holding: bool = False
    reverting: int = 0
    reverted: set[str] = field(default_factory=set)
    branch: int = 0

    def __post_init__(self) -> None:
        self.mine()

    def mine(self, logs: list[Log] | None = None) -> Block:
        """Add a block."""
        number = len(self.blocks)
        parent = self.blocks[-1].hash if self.blocks else "0x" + "00" * 32
        block_hash = "0x" + keccak(f"{self.branch}|{number}|{parent}".encode()).hex()
        block = Block(number, block_hash, parent, 7)
        self.blocks.append(block)
        self.entries[block.hash] = logs or []
        return block

    def turn(self, depth: int) -> None:
        """Take the newest blocks away; what was mined in them is in no block any more."""
        self.blocks = self.blocks[: len(self.blocks) - depth]
        self.branch += 1
        self.mined = {name: number for name, number in self.mined.items() if number < len(self.blocks)}

    async def head(self) -> int:
        return len(self.blocks) - 1

    async def block(self, number: int) -> Block | None:
        return self.blocks[number] if number < len(self.blocks) else None

    async def receipt(self, transaction_hash: str) -> TransactionReceipt | None:
        number = self.mined.get(transaction_hash)
        if number is None:
            return None
        return TransactionReceipt(
            number, self.blocks[number].hash, succeeded=transaction_hash not in self.reverted, contract_address=""
        )

    async def transaction_count(self, address: str) -> int:
        return len(self.mined)

    async def priority_fee(self) -> int:
        return 1

    async def call(self, to: str, data: bytes, sender: str = "") -> bytes:
        anchored = bool(self.mined.keys() - self.reverted)
        if data == next_batch_call():
            return (1 + anchored).to_bytes(32, "big")
        return self.commitment if anchored else bytes(32)

    async def send(self, raw: bytes) -> None:
        self.sent.append(raw)
        if not self.holding:
            name = "0x" + keccak(raw).hex()
            self.mined[name] = self.mine().number
            if self.reverting:
                self.reverting -= 1
                self.reverted.add(name)

    async def logs(self, block_hash: str, address: str, topic: str) -> list[Log]:
        return [replace(log) for log in self.entries[block_hash] if log.topics[0] == topic]
