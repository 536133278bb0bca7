"""`python -m fallow_stack.chain`: run the local development chain until SIGTERM or SIGINT."""

import argparse
import asyncio
import fcntl
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fallow_stack.chain.settings import DEFAULT_CHAIN_ID, default_port_file  # isort: skip - see there: it comes first

from aiohttp import web

from fallow_chassis.clock import SystemClock
from fallow_stack.chain.door import Door
from fallow_stack.chain.methods import Methods
from fallow_stack.chain.node import ChainMismatchError, Node
from fallow_stack.chain.store import ChainStore

ACCOUNT_FILE = "development-account.json"

logger = logging.getLogger("fallow_stack.chain")


def read_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m fallow_stack.chain",
        description="A local EVM chain for development: JSON-RPC over HTTP, kept in one SQLite file.",
    )
    parser.add_argument("--listen", required=True, metavar="HOST:PORT", help="where to listen; port 0 takes a free one")
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="where the chain is kept")
    parser.add_argument("--chain-id", type=int, default=DEFAULT_CHAIN_ID, help="default: %(default)s")
    parser.add_argument(
        "--block-ms", type=int, default=0, help="mine an empty block each so many milliseconds; 0 for never"
    )
    parser.add_argument(
        "--port-file",
        type=Path,
        default=default_port_file(),
        metavar="FILE",
        help="write the bound HOST:PORT here once serving; default: FALLOW_PORT_FILE",
    )
    options = parser.parse_args(arguments)
    host, separator, port = options.listen.rpartition(":")
    if not separator or not host or not port.isdigit() or int(port) > 65535:
        parser.error(f"--listen must be HOST:PORT, not {options.listen}")
    if options.block_ms < 0:
        parser.error("--block-ms must not be negative")
    if not 1 <= options.chain_id < 2**53:
        parser.error("--chain-id must be a positive number")
    options.host, options.port = host.strip("[]"), int(port)
    return options


@contextmanager
def directory_lock(directory: Path) -> Iterator[None]:
    """Hold the data directory for this process alone; BlockingIOError where another holds it."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def write_whole(path: Path, text: str, mode: int) -> None:
    """Write a file so that a reader finds all of it or the one before."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def write_account(node: Node, directory: Path) -> None:
    """Write the development account's key beside the chain, whose database is where it is really kept."""
    key = node.development_key
    account = {
        "purpose": "development only: this key is in plain text and owns nothing outside this local chain",
        "address": key.public_key.to_checksum_address(),
        "private_key": "0x" + key.to_bytes().hex(),
    }
    write_whole(directory / ACCOUNT_FILE, json.dumps(account, indent=2) + "\n", 0o600)


async def mine_each(node: Node, interval_ms: int) -> None:
    """Mine an empty block at each interval, so that confirmations progress."""
    while True:
        await asyncio.sleep(interval_ms / 1000)
        node.mine()


async def serve(node: Node, options: argparse.Namespace) -> None:
    """Answer requests until a signal to stop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runner = web.AppRunner(Door(Methods(node).table).application(), access_log=None, shutdown_timeout=2)
    await runner.setup()
    try:
        site = web.TCPSite(runner, options.host, options.port)
        await site.start()
        host, port = runner.addresses[0][:2]
        bound = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        logger.info("chain %d at http://%s, block %d", node.chain_id, bound, node.head.block_number)
        if options.port_file is not None:
            write_whole(options.port_file, bound, 0o644)
        async with asyncio.TaskGroup() as group:
            timer = group.create_task(mine_each(node, options.block_ms)) if options.block_ms else None
            await stop.wait()
            if timer is not None:
                timer.cancel()
    finally:
        await runner.cleanup()


def main(arguments: list[str] | None = None) -> int:
    """Run the chain; return the exit status."""
    options = read_arguments(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    try:
        with directory_lock(options.data):
            store = ChainStore(options.data / "chain.sqlite")
            try:
                node = Node(store, chain_id=options.chain_id, clock=SystemClock())
                write_account(node, options.data)
                asyncio.run(serve(node, options))
            finally:
                store.close()
    except BlockingIOError:
        logger.error("%s is in use by another chain process", options.data)  # noqa: TRY400 - the trace says no more
        return 1
    except (ChainMismatchError, OSError) as error:
        logger.error("%s", error)  # noqa: TRY400 - the message is for people
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
