"""How long an order takes from CreateOrder to RUNNING, beside the time that its process takes to start by itself.

`python -m benchmarks.order_path [--orders 20]` starts an embedded stack with the exec driver in a temporary folder, runs
orders one after the other, and starts the same program as a bare process as often. The last line is one JSON object:
`orders, market_ms {p50, p99}, process_ms {p50, p99}, ratio` (market p50 over process p50; the process counts as started once it answers
HTTP, the order once the tenant's watch says RUNNING and its endpoint answers). Bounded by `--orders`; stops what it starts.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fallow.order.v1 import order_pb2
from fallow.type.v1 import money_pb2
from fallow_sdk.chain import ChainClient
from fallow_sdk.client import Client
from fallow_sdk.wallet import Wallet
from fallow_stack.demo import EXEC_IMAGE, PROGRAM, ask_workload, order_text
from fallow_stack.loopback_ports import free_port
from fallow_stack.sites import choose_asks
from fallow_stack.testing import RunningStack

ORDERS_MAX = 200
WAIT_SECONDS = 60.0
DEPOSIT_MICROS = 100_000_000


def percentile(samples: list[float], percent: int) -> float:
    """The nearest-rank percentile of samples."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, max(0, -(-percent * len(ordered) // 100) - 1))]


def summary(samples: list[float]) -> dict[str, float]:
    """p50 and p99 in milliseconds."""
    return {f"p{percent}": round(percentile(samples, percent) * 1000, 1) for percent in (50, 99)}


async def deposit(stack: RunningStack, client: Client) -> None:
    """Give the tenant money for the run."""
    instructions = await client.deposit_instructions("usdc")
    async with ChainClient(instructions.rpc_url) as chain:
        await chain.deposit(
            Wallet.load(Path(stack.profile.wallet_key_file)),
            token=instructions.token_address,
            vault=instructions.vault_address,
            account_reference=instructions.account_reference,
            micros=DEPOSIT_MICROS,
        )
    await client.wait_balance(money_pb2.Amount(asset="usdc", micros=DEPOSIT_MICROS), seconds=WAIT_SECONDS)


async def time_order(client: Client, sdl: str) -> float:
    """Seconds from CreateOrder to an answering endpoint; the order is closed afterwards."""
    started = time.perf_counter()
    order = await client.create_order(sdl=sdl)
    order = await client.wait_order(order.name, [order_pb2.ORDER_STATE_RUNNING], seconds=WAIT_SECONDS)
    await ask_workload(order.groups[0].endpoints[0].uri)
    spent = time.perf_counter() - started
    await client.close_order(order.name)
    await client.wait_order(order.name, [order_pb2.ORDER_STATE_CLOSED], seconds=WAIT_SECONDS)
    return spent


async def time_process() -> float:
    """Seconds from starting the program as a bare process to its first answer."""
    port = free_port()
    started = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, env={"PORT": str(port)}, stdout=subprocess.DEVNULL
    )
    try:
        await ask_workload(f"http://127.0.0.1:{port}")
        return time.perf_counter() - started
    finally:
        process.kill()
        await process.wait()


async def run(orders: int) -> dict[str, object]:
    """Both series, taken in turn so that they share the machine's moods."""
    with tempfile.TemporaryDirectory() as folder:
        stack = RunningStack(Path(folder) / "stack", "--providers", "1", "--runtime", "exec")
        await stack.start()
        try:
            market: list[float] = []
            process: list[float] = []
            sdl = order_text(EXEC_IMAGE, choose_asks(1)[0].model)
            async with stack.tenant() as client:
                await deposit(stack, client)
                for number in range(orders):
                    market.append(await time_order(client, sdl))
                    process.append(await time_process())
                    sys.stderr.write(f"\r{number + 1}/{orders}")
        finally:
            await stack.stop()
    ratio = round(percentile(market, 50) / percentile(process, 50), 2)
    return {"orders": orders, "market_ms": summary(market), "process_ms": summary(process), "ratio": ratio}


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--orders", type=int, default=20, choices=range(1, ORDERS_MAX + 1), metavar="N")
    result = asyncio.run(run(parser.parse_args().orders))
    sys.stdout.write(f"\n{json.dumps(result)}\n")


if __name__ == "__main__":
    main()
