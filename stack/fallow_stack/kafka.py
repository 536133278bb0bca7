"""``python -m fallow_stack.kafka``: fetch Apache Kafka by Maven and run one node under ``.fallow/`` until Ctrl-C.

Prints the address that ``FALLOW_STREAM_URL`` takes. With ``--fetch-only`` it stops after the download.
"""

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from fallow_stack.engines.kafka import Kafka, fetch
from fallow_stack.engines.process import EngineError


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, fetch, run; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m fallow_stack.kafka", description=__doc__)
    parser.add_argument("--pom", type=Path, default=Path("deploy/kafka/pom.xml"), help="what Maven fetches")
    parser.add_argument("--directory", type=Path, default=Path(".fallow/kafka"), help="where jars and data lie")
    parser.add_argument("--port", type=int, default=0, help="the port on loopback; 0 takes a free one")
    parser.add_argument("--fetch-only", action="store_true", help="fetch, and do not run")
    options = parser.parse_args(arguments)
    try:
        return asyncio.run(_run(options.pom, options.directory, options.port, fetch_only=options.fetch_only))
    except EngineError as error:
        sys.stderr.write(f"kafka: {error}\n")
        return 1


async def _run(pom: Path, directory: Path, port: int, *, fetch_only: bool) -> int:
    """Fetch, start a node, wait for a signal or for its end."""
    libraries = directory / "lib"
    await asyncio.to_thread(fetch, pom, libraries)
    if fetch_only:
        sys.stdout.write(f"kafka: fetched into {libraries}\n")
        return 0
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    node = Kafka(directory / "node", libraries=libraries, port=port)
    await node.start()
    sys.stdout.write(f"kafka: one node serves at {node.url} (process {node.pid}, log {node.log}); Ctrl-C stops it\n")
    sys.stdout.flush()
    while node.is_running and not stopped.is_set():
        await asyncio.sleep(0.2)
    if node.is_running:
        await node.stop()
        sys.stdout.write("kafka: stopped\n")
        return 0
    sys.stderr.write(f"kafka: the node ended by itself (status {node.exit_code}); see {node.log}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
