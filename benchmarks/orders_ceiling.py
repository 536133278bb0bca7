"""The ceiling of the benchmark of orders: a bare grpc.aio server that echoes its request and commits one row for each.

`python -m benchmarks.orders_ceiling ADDRESS DATABASE_URL` prints a line once it serves. No checks, no tokens, no
telemetry, no protobuf: what is left is the price of one call and one durable commit in Python on this machine.
"""

import asyncio
import signal
import sys
from collections.abc import Callable
from typing import Any

import asyncpg
import grpc

from benchmarks.orders_client import CEILING_METHOD

POOL_SIZE = 10


class _Door(grpc.GenericRpcHandler):
    """One method, bytes in, the same bytes out."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of the one method."""
        return grpc.unary_unary_rpc_method_handler(self._commit) if _is_ours(handler_call_details) else None

    async def _commit(self, request: bytes, _context: Any) -> bytes:
        async with self._pool.acquire() as connection:
            await connection.execute("INSERT INTO echo (payload) VALUES ($1)", request)
        return request


def _is_ours(details: Any) -> bool:
    return bool(details.method == CEILING_METHOD)


async def serve(address: str, url: str) -> None:
    """Serve until SIGTERM."""
    async with asyncpg.create_pool(url, min_size=POOL_SIZE, max_size=POOL_SIZE) as pool:
        await pool.execute("CREATE TABLE IF NOT EXISTS echo (id bigserial PRIMARY KEY, payload bytea NOT NULL)")
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Door(pool),))
        server.add_insecure_port(address)
        await server.start()
        stop = asyncio.Event()
        on_signal: Callable[[], None] = stop.set
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, on_signal)
        sys.stdout.write("serving\n")
        sys.stdout.flush()
        await stop.wait()
        await server.stop(1)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2]))
