"""A real gRPC server in the test's own process, on a free port, with the whole pipeline of the chassis around it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from fallow_chassis.clock import Clock
from fallow_chassis.grpc_server import Server
from fallow_chassis.identity import TokenVerifier
from fallow_chassis.settings import ServiceSettings


class ServedService(NamedTuple):
    """What ``Server.add`` takes: the generated adder, the servicer, the service's full name."""

    adder: Callable[[Any, Any], None]
    servicer: Any
    name: str


@asynccontextmanager
async def serving(
    *services: ServedService, verifier: TokenVerifier | None, clock: Clock | None = None
) -> AsyncIterator[str]:
    """Serve until the block ends; yields the address.

    async with serving(ServedService(add_OrderServiceServicer_to_server, rpc, "fallow.order.v1.OrderService"),
                       verifier=identity.verifier) as address:
        async with channel(address, identity.as_account()) as connection: ...
    """
    server = Server(ServiceSettings(listen="127.0.0.1:0"), verifier, clock=clock)
    for service in services:
        server.add(*service)
    address = await server.start()
    try:
        yield address
    finally:
        await server.stop(grace_seconds=0)
