"""The chain outlives its process: after a stop, after a kill at any moment; one process at a time."""

import http.client
import itertools
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.component.chain.process import ChainProcess, running, signed

NOBODY = "0x" + "11" * 20


def blocks(chain: ChainProcess) -> list[dict[str, Any]]:
    """Every block, from the first, with its transactions."""
    head = chain.client.number("eth_blockNumber")
    return [chain.client.rpc("eth_getBlockByNumber", hex(number), True) for number in range(head + 1)]


def check_whole(chain: ChainProcess) -> set[str]:
    """Check that blocks link and that receipts, nonces and balances follow from them; return the hashes mined."""
    rows = blocks(chain)
    transactions = [transaction for block in rows for transaction in block["transactions"]]
    for parent, block in itertools.pairwise(rows):
        assert block["parentHash"] == parent["hash"]
        assert int(block["timestamp"], 16) >= int(parent["timestamp"], 16)
    for transaction in transactions:
        receipt = chain.client.rpc("eth_getTransactionReceipt", transaction["hash"])
        assert (receipt["status"], receipt["blockHash"]) == ("0x1", transaction["blockHash"])
    assert [int(transaction["nonce"], 16) for transaction in transactions] == list(range(len(transactions)))
    assert chain.client.number("eth_getTransactionCount", chain.bank.address, "latest") == len(transactions)
    assert chain.client.number("eth_getBalance", NOBODY, "latest") == len(transactions)
    return {transaction["hash"] for transaction in transactions}


def test_a_restart_keeps_the_chain(directory: Path) -> None:
    """Goal: stopping loses nothing. Method: transactions, SIGTERM, start again, compare every block, go on."""
    with running(directory) as chain:
        for nonce in range(5):
            chain.client.rpc("eth_sendRawTransaction", signed(chain.bank, nonce))
        chain.client.rpc("evm_mine", {"blocks": 3})
        before, bank = blocks(chain), chain.bank.address
        assert chain.end(signal.SIGTERM) == 0
    (directory / "development-account.json").unlink()
    with running(directory) as chain:
        assert chain.bank.address == bank
        assert blocks(chain) == before
        chain.client.rpc("eth_sendRawTransaction", signed(chain.bank, 5))
        assert len(check_whole(chain)) == 6
        assert chain.end(signal.SIGINT) == 0


def test_a_kill_loses_nothing_that_was_answered(directory: Path) -> None:
    """Goal: SIGKILL at any point leaves whole blocks and every answered transaction. Method: send as fast as it goes,
    kill after a random while, four lives over one directory.
    """
    moments = random.Random(20260101)
    answered: set[str] = set()
    for _ in range(4):
        with running(directory) as chain:
            mined = check_whole(chain)
            assert answered <= mined
            nonce = len(mined)
            killer = threading.Timer(moments.uniform(0.05, 0.6), chain._process.kill)
            killer.start()
            try:
                while True:
                    answered.add(chain.client.rpc("eth_sendRawTransaction", signed(chain.bank, nonce)))
                    nonce += 1
            except (http.client.HTTPException, OSError):
                pass
            killer.join()
            assert chain.end(signal.SIGKILL) == -signal.SIGKILL
    with running(directory) as chain:
        mined = check_whole(chain)
        assert answered <= mined
        # A kill between the commit and the answer may leave one more, in each life.
        assert len(mined) - len(answered) <= 4
        assert len(answered) > 4


def test_a_kill_at_the_first_start(directory: Path) -> None:
    """Goal: a chain killed while it is being made starts afresh. Method: kill right after the start, several times."""
    command = [sys.executable, "-m", "fallow_stack.chain", "--listen", "127.0.0.1:0", "--data", str(directory)]
    for delay in (0.3, 0.6, 0.7, 0.8, 0.9, 1.0):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        process.kill()
        process.wait(10)
    with running(directory) as chain:
        assert check_whole(chain) == set()
        assert chain.client.number("eth_getBalance", chain.bank.address, "latest") == 10**24


@pytest.mark.parametrize(
    ("arguments", "words"),
    [([], "in use by another chain process"), (["--chain-id", "7"], "in use")],
)
def test_one_process_for_one_directory(directory: Path, arguments: list[str], words: str) -> None:
    """Goal: two processes never write one chain. Method: start a second beside the first."""
    with running(directory):
        command = [sys.executable, "-m", "fallow_stack.chain", "--listen", "127.0.0.1:0", "--data", str(directory)]
        second = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, timeout=30)
    assert second.returncode == 1
    assert words in second.stderr


def test_another_chain_id_is_refused(directory: Path) -> None:
    """Goal: a chain keeps its id. Method: make one with id 99, open it with the default."""
    with running(directory, "--chain-id", "99") as chain:
        assert chain.client.rpc("eth_chainId") == "0x63"
        chain.end(signal.SIGTERM)
    command = [sys.executable, "-m", "fallow_stack.chain", "--listen", "127.0.0.1:0", "--data", str(directory)]
    other = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert other.returncode == 1
    assert "has id 99, not 31337" in other.stderr


@pytest.mark.parametrize("listen", ["8545", "localhost", "127.0.0.1:x", "127.0.0.1:99999", ":1"])
def test_a_bad_address_is_refused(directory: Path, listen: str) -> None:
    """Goal: a mistyped address is told at once. Method: several spellings."""
    command = [sys.executable, "-m", "fallow_stack.chain", "--listen", listen, "--data", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2
    assert "--listen must be HOST:PORT" in done.stderr
    assert not directory.exists()


def test_a_timer_mines(directory: Path) -> None:
    """Goal: confirmations progress by themselves. Method: blocks of 20 ms, wait until there are ten."""
    with running(directory, "--block-ms", "20") as chain:
        deadline = time.monotonic() + 20
        while chain.client.number("eth_blockNumber") < 10:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        chain.client.rpc("eth_sendRawTransaction", signed(chain.bank, 0))
        assert check_whole(chain)
        assert chain.end(signal.SIGTERM) == 0
