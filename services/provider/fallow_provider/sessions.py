"""What a tenant opens at the door and talks over: which container it means, how many there may be, and what ends it.

A session is watched from the side. When its lease's generation is over here, its grant has run out, nothing was said for
too long or its caller breaks the contract, the watcher writes down why and closes it: the command is killed at once,
also under a caller that reads nothing, and what was reading sees the end and tells why.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from fallow.provider.v1 import provider_service_pb2
from fallow_chassis.clock import Clock
from fallow_chassis.context import current_identity
from fallow_chassis.errors import INVALID_FIELD, PERMISSION_DENIED, UNAVAILABLE, DomainError
from fallow_provider.domain.reasons import (
    EXEC_REFUSED,
    GENERATION_OLD,
    GRANT_EXPIRED,
    LEASE_NOT_FOUND,
    REPLICA_NOT_FOUND,
    SERVICE_NOT_FOUND,
    SESSION_IDLE,
    SESSION_OVER,
    SESSIONS_FULL,
)
from fallow_provider.domain.run import Run, RunKey
from fallow_provider.domain.workload import ContainerKey
from fallow_provider.ports import (
    DriverRefusedError,
    DriverUnavailableError,
    ExecSession,
    LogStream,
    RuntimeDriver,
    TerminalSize,
)
from fallow_provider.store import Store

MAX_LEASE_SESSIONS: Final = 64
MAX_SESSIONS: Final = 512
"""Of all leases of the agent together."""
IDLE_SECONDS: Final = 1_800.0
SIGNALLED: Final = 128
"""A status above is that of a command which a signal ended."""
WATCH_SECONDS: Final = 0.2
"""How often a session's lease, grant and silence are looked at."""
FAREWELL_SECONDS: Final = 1.0
"""How long a caller may take to hang up once it was told the exit status; a grpc.aio client whose write meets the end of its
call would lose what it was told last.
"""


class Sessions:
    """Counts sessions and watches them."""

    def __init__(self, store: Store, clock: Clock, *, idle_seconds: float = IDLE_SECONDS) -> None:
        """``idle_seconds`` is how long nothing may go either way."""
        self._store = store
        self._clock = clock
        self._idle_ms = round(idle_seconds * 1_000)
        self._open: Counter[str] = Counter()

    def granted(self, lease: str) -> Run:
        """The run that the caller's grant opens; refuses a grant on another lease or an older generation."""
        grant = current_identity().grant
        if grant is None or grant.lease != lease:
            raise DomainError(PERMISSION_DENIED, "the grant is for another lease", metadata={"lease": lease})
        key = RunKey(grant.order, grant.group, grant.generation)
        highest = self._store.highest_generation(key)
        if highest > key.generation:
            raise DomainError(GENERATION_OLD, f"generation {highest} is known", metadata={"generation": str(highest)})
        run = self._store.run(key)
        if run is None or run.lease != lease:
            raise DomainError(LEASE_NOT_FOUND, f"{lease} is not known here", metadata={"lease": lease})
        return run

    @contextmanager
    def place(self, run: Run) -> Iterator[None]:
        """One session of a lease; SESSIONS_FULL where it or the agent has too many."""
        held = self._open[run.lease]
        if held >= MAX_LEASE_SESSIONS or self._open.total() >= MAX_SESSIONS:
            raise DomainError(
                SESSIONS_FULL,
                f"{held} sessions of the lease are open",
                metadata={"lease_limit": str(MAX_LEASE_SESSIONS), "agent_limit": str(MAX_SESSIONS)},
            )
        self._open[run.lease] += 1
        try:
            yield
        finally:
            self._open[run.lease] -= 1
            if not self._open[run.lease]:
                del self._open[run.lease]

    def watch(self, run: Run) -> "Watch":
        """What tells when a session of the present caller must end."""
        return Watch(self._store, self._clock, run.key, self._idle_ms)


class Watch:
    """Why a session must end, once it must."""

    def __init__(self, store: Store, clock: Clock, key: RunKey, idle_ms: int) -> None:
        """Take the present caller's grant."""
        self._store = store
        self._clock = clock
        self._key = key
        self._idle_ms = idle_ms
        self._expire_time = current_identity().expire_time
        self._spoke_at_ms = clock.monotonic_ms()
        self.ending: DomainError | None = None

    def spoke(self) -> None:
        """Something went one way or the other."""
        self._spoke_at_ms = self._clock.monotonic_ms()

    async def run(self, close: Callable[[], Awaitable[None]]) -> None:
        """Close the session once it must end."""
        while self.ending is None:
            await asyncio.sleep(WATCH_SECONDS)
            self.look()
        await close()

    def look(self) -> None:
        """See whether the session must end now."""
        self.end(self._must_end())

    def end(self, why: DomainError | None) -> None:
        """Have the session end for a reason; the first counts."""
        if self.ending is None:
            self.ending = why

    def _must_end(self) -> DomainError | None:
        """Why it must end now; None while it may go on."""
        run = self._store.run(self._key)
        if run is None or not run.state.is_live:
            return DomainError(SESSION_OVER, "the lease's generation is over here")
        if self._expire_time is not None and self._clock.now() >= self._expire_time:
            return DomainError(GRANT_EXPIRED, "the grant that opened the session has run out")
        if self._clock.monotonic_ms() - self._spoke_at_ms >= self._idle_ms:
            return DomainError(SESSION_IDLE, f"nothing went either way for {self._idle_ms // 1_000} s")
        return None


def container_of(run: Run, service: str, replica: int) -> ContainerKey:
    """The container that a session means; an empty service means the only one."""
    services = sorted({place.service for place in run.placements})
    if service and service not in services:
        raise DomainError(
            SERVICE_NOT_FOUND, f"there is no service {service}", metadata={"services": ",".join(services)}
        )
    chosen = service or (services[0] if len(services) == 1 else "")
    if any(place.service == chosen and place.replica == replica for place in run.placements):
        return ContainerKey(run.lease, run.key, chosen, replica)
    containers = ",".join(f"{place.service}/{place.replica}" for place in sorted(run.placements, key=_name))
    raise DomainError(
        REPLICA_NOT_FOUND,
        f"there is no container {chosen}/{replica}" if chosen else "the workload has several services: name one",
        metadata={"containers": containers},
    )


async def exec_call(sessions: Sessions, driver: RuntimeDriver, requests: AsyncIterator[Any], context: Any) -> None:
    """One call of Exec: open what the first message asks for, then carry bytes until either side has ended."""
    first = await anext(requests, None)
    if first is None or first.WhichOneof("message") != "start":
        raise DomainError(INVALID_FIELD, "start: the first message says what to run")
    start = first.start
    run = sessions.granted(start.lease)
    key = container_of(run, start.service, start.replica)
    size = TerminalSize(start.size.columns, start.size.rows) if start.HasField("size") else TerminalSize()
    with sessions.place(run):
        watch = sessions.watch(run)
        try:
            session = await driver.open_exec(key, tuple(start.command), size if start.terminal else None)
        except DriverRefusedError as error:
            raise DomainError(EXEC_REFUSED, error.detail) from error
        except DriverUnavailableError as error:
            raise DomainError(UNAVAILABLE, "the container engine does not answer") from error
        try:
            await context.write(provider_service_pb2.ExecResponse(started=True))
            await _carry(session, watch, requests, context)
        finally:
            await session.close()


async def _carry(session: ExecSession, watch: Watch, requests: AsyncIterator[Any], context: Any) -> None:
    """Both ways at once; what the command says is written by this task, as the context wants it."""
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch.run(session.close))
        listening = group.create_task(_take_input(session, watch, requests))
        try:
            while (said := await session.read()) is not None:
                watch.spoke()
                stream, data = said
                is_error = stream is LogStream.STDERR
                await context.write(
                    provider_service_pb2.ExecResponse(error=data)
                    if is_error
                    else provider_service_pb2.ExecResponse(output=data)
                )
            status = 0 if watch.ending is not None else await session.wait()
            if status > SIGNALLED:
                # What killed it may be the end of its lease, which the watcher has not seen yet.
                watch.look()
            if watch.ending is None:
                await context.write(provider_service_pb2.ExecResponse(exit_status=status))
                await asyncio.wait({listening}, timeout=FAREWELL_SECONDS)
                return
        except DriverUnavailableError as error:
            watch.end(DomainError(UNAVAILABLE, str(error)))
        finally:
            watching.cancel()
            listening.cancel()
    assert watch.ending is not None, "a session without an exit status has a reason"
    raise watch.ending


async def _take_input(session: ExecSession, watch: Watch, requests: AsyncIterator[Any]) -> None:
    """Hand on what the caller sends; a stream of requests that ends closes the input."""
    try:
        async for request in requests:
            watch.spoke()
            match request.WhichOneof("message"):
                case "input":
                    await session.write(request.input)
                case "resize":
                    await session.resize(TerminalSize(request.resize.columns, request.resize.rows))
                case "close_input":
                    await session.close_input()
                case _:
                    raise DomainError(INVALID_FIELD, "start: a session is started once")
        await session.close_input()
    except DriverUnavailableError as error:
        watch.end(DomainError(UNAVAILABLE, str(error)))
    except DomainError as error:
        watch.end(error)


def _name(place: Any) -> tuple[str, int]:
    """Order of placements for people."""
    return place.service, place.replica
