"""The door of a lease's provider, as a client sees it: logs and commands, straight from the machine that runs the workload.

Each call first gets a grant of the market on the lease, with the right that the call needs and no other.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from fallow.bidding.v1 import lease_service_pb2
from fallow.provider.v1 import provider_service_pb2, provider_service_pb2_grpc
from fallow_sdk.errors import FallowError


class RemoteCommand:
    """A command that runs in a container: write to its input while reading its output."""

    def __init__(self, call: Any) -> None:
        """`call` is the open stream, whose other side has said that the command runs."""
        self._call = call
        self._writing = asyncio.Lock()
        self.exit_status: int | None = None

    async def write(self, data: bytes) -> None:
        """Hand bytes to its input; at most 64 KiB. Waits while the command does not read."""
        await self._send(provider_service_pb2.ExecRequest(input=data))

    async def resize(self, columns: int, rows: int) -> None:
        """Give its terminal another size."""
        size = provider_service_pb2.ExecRequest.Resize(columns=columns, rows=rows)
        await self._send(provider_service_pb2.ExecRequest(resize=size))

    async def close_input(self) -> None:
        """Let it see the end of its input."""
        await self._send(provider_service_pb2.ExecRequest(close_input=True))

    async def output(self) -> AsyncIterator[tuple[bool, bytes]]:
        """What it says, each part with whether it is standard error; then `exit_status` is set. Raises FallowError."""
        try:
            while (answer := await self._call.read()) is not grpc.aio.EOF:
                if answer.WhichOneof("message") == "exit_status":
                    self.exit_status = answer.exit_status
                    return
                yield bool(answer.error), answer.error or answer.output
        except grpc.aio.AioRpcError as error:
            raise FallowError.from_rpc(error) from error

    async def _send(self, request: provider_service_pb2.ExecRequest) -> None:
        """Send a message, one at a time; how a call ended that takes no more is told by its output."""
        try:
            async with self._writing:
                await self._call.write(request)
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
            return


class DoorCalls:
    """The calls; a part of ``Client``, which makes them."""

    _leases: Any
    _call: Callable[[Any, Any], Any]
    _metadata: Callable[[str], tuple[tuple[str, str], ...]]

    @asynccontextmanager
    async def _door(self, lease: str, right: str) -> AsyncIterator[tuple[Any, tuple[tuple[str, str], ...]]]:
        """The lease's provider, and the metadata that opens its door for a right."""
        request = lease_service_pb2.IssueGrantRequest(lease=lease, rights=[right])
        issued = await self._call(self._leases.IssueGrant, request)
        if not issued.provider_address:
            raise FallowError("UNIMPLEMENTED", "NOT_YET_AVAILABLE", "this provider has no address of its own")
        async with grpc.aio.insecure_channel(issued.provider_address) as channel:
            yield provider_service_pb2_grpc.WorkloadAccessServiceStub(channel), self._metadata(issued.grant)

    async def stream_logs(
        self,
        lease: str,
        *,
        service: str = "",
        follow: bool = False,
        tail: int = 0,
        since: Timestamp | None = None,
    ) -> AsyncIterator[provider_service_pb2.StreamLogsResponse]:
        """Log lines of a lease's containers, or of one service's: the last `tail` (0: all) of those after `since`."""
        request = provider_service_pb2.StreamLogsRequest(
            lease=lease, service=service, follow=follow, tail=tail, since_time=since
        )
        async with self._door(lease, "logs.read") as (door, metadata):
            try:
                async for line in door.StreamLogs(request, metadata=metadata):
                    yield line
            except grpc.aio.AioRpcError as error:
                raise FallowError.from_rpc(error) from error

    @asynccontextmanager
    async def open_exec(
        self,
        lease: str,
        command: Sequence[str],
        *,
        service: str = "",
        replica: int = 0,
        terminal: tuple[int, int] | None = None,
    ) -> AsyncIterator[RemoteCommand]:
        """A command in a lease's container, on a terminal of so many columns and rows or on none.

        It is killed where the block is left before it has ended, and once the grant runs out, 15 minutes after this.
        """
        start = provider_service_pb2.ExecRequest.Start(
            lease=lease, service=service, replica=replica, command=command, terminal=terminal is not None
        )
        if terminal is not None:
            start.size.columns, start.size.rows = terminal
        async with self._door(lease, "exec") as (door, metadata):
            call = door.Exec(metadata=metadata)
            try:
                await call.write(provider_service_pb2.ExecRequest(start=start))
                await call.read()
                yield RemoteCommand(call)
            except grpc.aio.AioRpcError as error:
                raise FallowError.from_rpc(error) from error
            finally:
                call.cancel()
