"""The agent's own door: tenants with a grant see how far their workload is and read its log; the owner sees the agent.

A grant is checked offline by the server's identity interceptor; here it must name the asked lease and the group's
highest generation. The methods of the contract that are not built (events, figures, port forward) answer
NOT_YET_AVAILABLE.
"""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, NoReturn

from fallow.provider.v1 import provider_service_pb2, provider_service_pb2_grpc
from fallow_chassis.context import current_identity
from fallow_chassis.errors import PERMISSION_DENIED, UNAVAILABLE, DomainError, not_yet_available
from fallow_chassis.wire import from_timestamp, to_timestamp
from fallow_provider import __version__
from fallow_provider.convert import card_message, container_message, node_message, status_message
from fallow_provider.device_watch import DeviceWatch
from fallow_provider.domain.reasons import SERVICE_NOT_FOUND
from fallow_provider.domain.workload import ContainerKey
from fallow_provider.heartbeat import Acknowledgements
from fallow_provider.ports import DriverUnavailableError, LogLine, LogQuery, RuntimeDriver
from fallow_provider.sessions import Sessions, exec_call
from fallow_provider.store import Store
from fallow_provider.supervisor import Supervisor

LOG_QUEUE_LINES: Final = 1_000
"""Lines that wait for a slow reader of a log; beyond it reading the log waits."""
RESTART_POLL_SECONDS: Final = 0.2


@dataclass(slots=True)
class AgentFacts:
    """What the agent has learnt of itself; the composition root fills it as it learns."""

    start_time: datetime
    provider: str = ""
    account: str = ""
    drivers: list[str] = field(default_factory=list)


class WorkloadAccessServicer(provider_service_pb2_grpc.WorkloadAccessServiceServicer):
    """A tenant's door to its workload."""

    def __init__(self, store: Store, supervisor: Supervisor, driver: RuntimeDriver, sessions: Sessions) -> None:
        """Nothing here changes a run."""
        self._store = store
        self._supervisor = supervisor
        self._driver = driver
        self._sessions = sessions

    async def GetWorkloadStatus(
        self, request: provider_service_pb2.GetWorkloadStatusRequest, context: Any
    ) -> provider_service_pb2.WorkloadStatus:
        """State, running time as it was last written down, containers."""
        run = self._sessions.granted(request.lease)
        try:
            statuses = [status for status in await self._driver.recover() if status.key.run == run.key]
        except DriverUnavailableError as error:
            raise DomainError(UNAVAILABLE, "the container engine does not answer") from error
        return provider_service_pb2.WorkloadStatus(
            run=status_message(run, self._supervisor.endpoints(run.key)),
            running_ms=run.running_ms,
            containers=[
                container_message(status, self._driver.name, self._store.restarts(status.key.name))
                for status in sorted(statuses, key=lambda status: status.key)
            ],
        )

    async def StreamLogs(self, request: provider_service_pb2.StreamLogsRequest, context: Any) -> None:  # type: ignore[override]  # it writes its answers
        """The lines of the asked containers; each container's lines are in order, oldest first."""
        run = self._sessions.granted(request.lease)
        keys = [ContainerKey(run.lease, run.key, place.service, place.replica) for place in run.placements]
        services = sorted({key.service for key in keys})
        if request.service and request.service not in services:
            raise DomainError(
                SERVICE_NOT_FOUND, f"there is no service {request.service}", metadata={"services": ",".join(services)}
            )
        since = from_timestamp(request.since_time) if request.HasField("since_time") else None
        query = LogQuery(follow=request.follow, tail=request.tail, since=since)
        queue: _LogQueue = asyncio.Queue(LOG_QUEUE_LINES)
        async with asyncio.TaskGroup() as group:
            readers = [
                group.create_task(self._read(key, query, queue)) for key in keys if request.service in {"", key.service}
            ]
            try:
                failure = await _write_lines(queue, len(readers), context)
            finally:
                for reader in readers:
                    reader.cancel()
        if failure is not None:
            raise failure

    def StreamEvents(self, request: Any, context: Any) -> NoReturn:
        """Not built yet."""
        raise not_yet_available("StreamEvents")

    def StreamStats(self, request: Any, context: Any) -> NoReturn:
        """Not built yet."""
        raise not_yet_available("StreamStats")

    async def Exec(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]  # as above
        """A command in a container, with somebody who talks with it."""
        await exec_call(self._sessions, self._driver, request_iterator, context)

    def ForwardPort(self, request_iterator: Any, context: Any) -> NoReturn:
        """Not built yet."""
        raise not_yet_available("ForwardPort")

    async def _read(self, key: ContainerKey, query: LogQuery, queue: "_LogQueue") -> None:
        """Put one container's lines on the queue, then None or why it cannot go on; one that follows goes on over restarts,
        until the run is over.
        """
        while True:
            try:
                async with aclosing(self._driver.logs(key, query)) as lines:
                    async for line in lines:
                        await queue.put((key, line))
                        query = replace(query, since=line.time, tail=0)
            except DriverUnavailableError:
                if not query.follow:
                    await queue.put(DomainError(UNAVAILABLE, "the container engine does not answer"))
                    return
            run = self._store.run(key.run)
            if not query.follow or run is None or not run.state.is_live:
                await queue.put(None)
                return
            await asyncio.sleep(RESTART_POLL_SECONDS)


_LogQueue = asyncio.Queue[tuple[ContainerKey, LogLine] | DomainError | None]


async def _write_lines(queue: _LogQueue, readers: int, context: Any) -> DomainError | None:
    """Write the lines of so many readers as they come, until each is through or one has failed: why it did. A failure comes
    by the queue, since one that ended the task would cut a line off that is just being written.
    """
    while readers:
        item = await queue.get()
        if isinstance(item, DomainError):
            return item
        if item is None:
            readers -= 1
            continue
        key, line = item
        await context.write(
            provider_service_pb2.StreamLogsResponse(
                service=key.service,
                replica=key.replica,
                stream=provider_service_pb2.LogStream.ValueType(line.stream),
                line=line.text,
                line_time=to_timestamp(line.time),
            )
        )
    return None


class AgentServicer(provider_service_pb2_grpc.AgentServiceServicer):
    """The owner's door."""

    def __init__(
        self,
        facts: AgentFacts,
        acknowledgements: Acknowledgements,
        store: Store,
        supervisor: Supervisor,
        sites: DeviceWatch,
    ) -> None:
        """Reads alone."""
        self._facts = facts
        self._acknowledgements = acknowledgements
        self._store = store
        self._supervisor = supervisor
        self._sites = sites

    async def GetAgentStatus(
        self, request: provider_service_pb2.GetAgentStatusRequest, context: Any
    ) -> provider_service_pb2.AgentStatus:
        """The agent as it is, for its owner alone."""
        if not self._facts.account or current_identity().subject != self._facts.account:
            raise DomainError(PERMISSION_DENIED, "the agent belongs to another account")
        status = provider_service_pb2.AgentStatus(
            provider=self._facts.provider,
            version=__version__,
            nodes=[node_message(node, self._facts.drivers) for node in self._sites.site().nodes],
            runs=[status_message(run, self._supervisor.endpoints(run.key)) for run in self._store.runs()],
            start_time=to_timestamp(self._facts.start_time),
            cards=[card_message(card) for card in self._sites.cards()],
        )
        if self._acknowledgements.time is not None:
            status.acknowledge_time.CopyFrom(to_timestamp(self._acknowledgements.time))
        return status
