"""The chain as a process of its own, and a client that speaks JSON-RPC over real HTTP."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address

START_SECONDS = 30
STOP_SECONDS = 10


class RemoteError(Exception):
    """An error object that the chain answered."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error['code']}: {error['message']}")
        self.code: int = error["code"]
        self.message: str = error["message"]
        self.data: str | None = error.get("data")


class Client:
    """JSON-RPC over one kept connection."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(address, timeout=30)
        self._address = address

    def close(self) -> None:
        self._connection.close()

    def post(self, body: bytes) -> tuple[int, Any]:
        """The status and the JSON answer, None if it is empty."""
        self._connection.request("POST", "/", body, {"content-type": "application/json"})
        response = self._connection.getresponse()
        text = response.read()
        return response.status, json.loads(text) if text else None

    def rpc(self, method: str, *params: Any) -> Any:
        status, answer = self.post(
            json.dumps({"jsonrpc": "2.0", "id": 7, "method": method, "params": list(params)}).encode()
        )
        assert (status, answer["jsonrpc"], answer["id"]) == (200, "2.0", 7)
        if "error" in answer:
            raise RemoteError(answer["error"])
        return answer["result"]

    def number(self, method: str, *params: Any) -> int:
        return int(self.rpc(method, *params), 16)


class ChainProcess:
    """One life of the chain over a directory."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.directory = directory
        port_file = directory.with_name(directory.name + ".port")
        port_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "fallow_stack.chain", "--listen", "127.0.0.1:0", "--data", str(directory)]
        self._process = subprocess.Popen(
            [*command, *arguments], env={**os.environ, "FALLOW_PORT_FILE": str(port_file)}, stderr=subprocess.PIPE
        )
        deadline = time.monotonic() + START_SECONDS
        while not port_file.exists():
            assert self._process.poll() is None, f"the chain ended: {self._errors()}"
            assert time.monotonic() < deadline, "the chain did not start"
            time.sleep(0.01)
        self.client = Client(port_file.read_text())

    def _errors(self) -> str:
        assert self._process.stderr is not None
        return self._process.stderr.read().decode()

    def end(self, number: signal.Signals) -> int:
        """Send a signal and return the exit status."""
        self.client.close()
        self._process.send_signal(number)
        status = self._process.wait(STOP_SECONDS)
        assert self._process.stderr is not None
        self._process.stderr.close()
        return status

    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def bank(self) -> LocalAccount:
        """The development account, from its file."""
        account = json.loads((self.directory / "development-account.json").read_text())
        key: LocalAccount = Account.from_key(account["private_key"])
        assert key.address == account["address"]
        return key


@contextmanager
def running(directory: Path, *arguments: str) -> Iterator[ChainProcess]:
    """A chain that is stopped at the end, whatever happens."""
    chain = ChainProcess(directory, *arguments)
    try:
        yield chain
    finally:
        if chain.alive():
            chain.end(signal.SIGKILL)


def signed(account: LocalAccount, nonce: int, **changes: Any) -> str:
    """A raw transfer of one wei, or what the changes make of it; a value of None takes a field out."""
    transaction: dict[str, Any] = {
        "type": 2,
        "chainId": 31337,
        "nonce": nonce,
        "to": "0x" + "11" * 20,
        "value": 1,
        "gas": 21_000,
        "maxFeePerGas": 5 * 10**9,
        "maxPriorityFeePerGas": 10**9,
    }
    transaction.update(changes)
    if transaction["to"] is not None:
        transaction["to"] = to_checksum_address(transaction["to"])
    present = {name: value for name, value in transaction.items() if value is not None}
    return "0x" + account.sign_transaction(present).raw_transaction.hex()
