"""`fallow up` and `fallow down`: what they leave behind, and what they do not."""

import asyncio
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from fallow.order.v1 import order_pb2
from fallow_sdk.chain import ChainClient
from fallow_sdk.client import Client
from fallow_sdk.wallet import Wallet
from fallow_stack.demo import ask_workload, order_text
from fallow_stack.sites import choose_asks
from fallow_stack.testing import FALLOW, RunningStack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

WAIT_SECONDS = 60.0
DEPOSIT_MICROS = 20_000_000


def process_is_there(pid: int) -> bool:
    """Whether a process of that id runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def run_down(root: Path) -> int:
    """`fallow down --wipe`; its exit status."""
    return subprocess.run([FALLOW, "down", "--home", root, "--wipe"], capture_output=True, check=False).returncode


async def place_order(stack: RunningStack, client: Client) -> order_pb2.Order:
    """A running order, paid from a deposit."""
    instructions = await client.deposit_instructions("usdc")
    async with ChainClient(instructions.rpc_url) as chain:
        await chain.deposit(
            Wallet.load(Path(stack.profile.wallet_key_file)),
            token=instructions.token_address,
            vault=instructions.vault_address,
            account_reference=instructions.account_reference,
            micros=DEPOSIT_MICROS,
        )
    wanted = (await client.balance("usdc")).free
    wanted.asset, wanted.micros = "usdc", DEPOSIT_MICROS
    await client.wait_balance(wanted, seconds=WAIT_SECONDS)
    order = await client.create_order(sdl=order_text("exec:host", choose_asks(1)[0].model))
    return await client.wait_order(order.name, [order_pb2.ORDER_STATE_RUNNING], seconds=WAIT_SECONDS)


async def workload_pid(order: order_pb2.Order) -> int:
    """The process id that the workload tells."""
    return int(json.loads(await ask_workload(order.groups[0].endpoints[0].uri))["pid"])


async def test_a_stack_stops_whole_and_goes_on_whole(tmp_path: Path) -> None:
    """Goal: Ctrl-C leaves no process, the next start has all data. Method: stop under a running order, start, close it."""
    stack = RunningStack(tmp_path / "stack", "--runtime", "exec")
    await stack.start()
    async with stack.tenant() as client:
        order = await place_order(stack, client)
        pid = await workload_pid(order)
    status = stack.home.read_status()
    assert status is not None
    pids = [member.pid for member in status.members]
    assert await stack.stop() == 0, stack.output.read_text("utf-8")
    assert [other for other in [*pids, pid] if process_is_there(other)] == []
    await stack.start()
    async with stack.tenant() as client:
        await client.close_order(order.name)
        closed = await client.wait_order(order.name, [order_pb2.ORDER_STATE_CLOSED], seconds=WAIT_SECONDS)
        balance = await client.balance("usdc")
        assert balance.free.micros == DEPOSIT_MICROS - closed.totals.charged.micros
        assert balance.held.micros == 0
    assert await stack.stop() == 0
    assert await asyncio.to_thread(run_down, stack.home.root) == 0
    assert not stack.home.root.exists()


async def test_a_killed_supervisor_takes_its_processes_along(tmp_path: Path) -> None:
    """Goal: SIGKILL of `fallow up` leaves no process and no lock. Method: kill it, look, start and stop again."""
    stack = RunningStack(tmp_path / "stack", "--runtime", "exec")
    await stack.start()
    status = stack.home.read_status()
    assert status is not None
    os.kill(status.pid, signal.SIGKILL)
    await stack.gone([status.pid, *(member.pid for member in status.members)])
    assert not stack.home.is_locked()
    await stack.start()
    assert await stack.stop() == 0
