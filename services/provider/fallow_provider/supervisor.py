"""Makes what runs equal what is leased.

The store says what each run should be; ``_sync`` derives one worker for each run that is not over: a live run has one
that brings its containers up and watches them, a suspended one has one that freezes them, a stopping one has one that
takes them down. A change of state is
written first and wakes the loop, so a crash at any step leaves a state from which the next life of the agent goes on:
drivers are idempotent, containers that run are adopted, and a sweep stops whatever belongs to no live run. Where the
engine does not answer nothing is known and nothing is done but to ask again.

Running time is counted here: from the moment when all containers of a run are up and ready until one is down or the
stop begins, in differences of the monotonic clock.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, TypeVar

from fallow.type.v1.workload_pb2 import Endpoint, Workload
from fallow_chassis.clock import Clock
from fallow_chassis.errors import DomainError, ErrorReason
from fallow_chassis.logging import get_logger
from fallow_chassis.retry import keep_trying, wait_seconds
from fallow_provider.convert import endpoint_messages, templates_of
from fallow_provider.domain import reasons
from fallow_provider.domain.run import (
    Run,
    RunKey,
    RunState,
    became_ready,
    ended,
    failed,
    has_run_for,
    is_past_self_stop,
    progressed,
    resumed,
    stop_asked,
    suspended,
)
from fallow_provider.domain.workload import (
    Container,
    ContainerKey,
    PlacementMismatchError,
    containers_of,
    restarts_after,
)
from fallow_provider.ports import (
    ContainerStatus,
    DriverRefusedError,
    DriverUnavailableError,
    RuntimeDriver,
    SiteSource,
    WorkloadSource,
)
from fallow_provider.readiness import ContainerStoppedError, await_ready
from fallow_provider.store import Store

SWEEP_SECONDS: Final = 2.0
"""How often what runs is held against what is leased."""
START_ATTEMPTS: Final = 3
"""How often a container may stop before it was ever ready; after that its run fails."""
LONGEST_RESTART_WAIT_SECONDS: Final = 30.0
_log = get_logger(__name__)
_T = TypeVar("_T")


class _RunFailedError(Exception):
    """A run cannot go on."""

    def __init__(self, reason: ErrorReason, detail: str) -> None:
        super().__init__(f"{reason.reason}: {detail}")
        self.reason = reason
        self.detail = detail


_Kind = Literal["keep", "freeze", "stop"]


@dataclass(slots=True)
class _Worker:
    """The task that works on a run, and what for. A stale one was made for a state that the run has left since."""

    kind: _Kind
    task: asyncio.Task[None]
    is_stale: bool = False


class Supervisor:
    """See the module. ``run`` works until it is cancelled; what runs then goes on."""

    def __init__(
        self,
        store: Store,
        driver: RuntimeDriver,
        workloads: WorkloadSource,
        sites: SiteSource,
        clock: Clock,
        *,
        machine_boot_id: str,
        endpoint_host: str,
        on_change: Callable[[], None],
    ) -> None:
        """``on_change`` is called whenever the market should hear of a run soon."""
        self._store = store
        self._driver = driver
        self._workloads = workloads
        self._sites = sites
        self._clock = clock
        self._machine_boot_id = machine_boot_id
        self._endpoint_host = endpoint_host
        self._on_change = on_change
        self._wake = asyncio.Event()
        self._workers: dict[RunKey, _Worker] = {}
        self._marks_ms: dict[RunKey, int] = {}
        self._up: dict[RunKey, dict[ContainerKey, list[Endpoint]]] = {}

    async def run(self) -> None:
        """Keep every run as it should be, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sweep_for_ever())
            while True:
                self._wake.clear()
                self._sync(group)
                await self._wake.wait()

    def changed(self) -> None:
        """Have the loop look at the store now, and the market hear of it soon."""
        self._wake.set()
        self._on_change()

    def stop(self, key: RunKey, grace_ms: int) -> None:
        """Stop a run that the market does not want; harmless on one that is stopping or over."""
        self._turn(key, lambda run: stop_asked(run, grace_ms))

    def fail(self, key: RunKey, reason: ErrorReason, detail: str) -> None:
        """End a run for a reason of its own; harmless on one that is stopping or over."""
        self._turn(key, lambda run: failed(run, reason.reason, detail))

    def suspend(self, key: RunKey) -> None:
        """Freeze a run for want of funds; harmless on one that does not run."""
        self._turn(key, suspended)

    def resume(self, key: RunKey) -> None:
        """Let a frozen run go on; harmless on one that is not frozen."""
        self._turn(key, resumed)

    def stop_unheard(self, acknowledged_at_ms: int | None) -> None:
        """Stop each run whose self-stop has passed; see ``is_past_self_stop``."""
        for run in self._store.runs():
            if is_past_self_stop(
                run,
                now_ms=self._clock.monotonic_ms(),
                acknowledged_at_ms=acknowledged_at_ms,
                machine_boot_id=self._machine_boot_id,
            ):
                is_reboot = run.machine_boot_id != self._machine_boot_id
                detail = "the machine was restarted" if is_reboot else f"no acknowledgement for {run.self_stop_ms} ms"
                _log.warning("run_self_stopped", lease=run.lease, generation=run.key.generation, detail=detail)
                self.fail(run.key, reasons.SELF_STOPPED, detail)

    async def put_down(self) -> None:
        """Stop what runs without ending its run: the agent's next life starts it again. Only once ``run`` was cancelled."""
        for run in self._store.runs():
            if not run.state.is_terminal:
                self._stop_clock(run.key)
                await self._destroy_all(run.key)

    def heard(self, at_ms: int) -> None:
        """The market heard of the agent at that monotonic time."""
        self._driver.heard(at_ms)

    def accrue(self, key: RunKey) -> None:
        """Write down the running time until now."""
        mark_ms = self._marks_ms.get(key)
        run = self._store.run(key)
        if mark_ms is None or run is None or run.state is not RunState.RUNNING:
            return
        now_ms = self._clock.monotonic_ms()
        self._marks_ms[key] = now_ms
        self._store.save_run(has_run_for(run, now_ms - mark_ms))

    def endpoints(self, key: RunKey) -> list[Endpoint]:
        """Where a running run answers now; empty until it is ready."""
        run = self._store.run(key)
        if run is None or run.state is not RunState.RUNNING:
            return []
        return [endpoint for _, endpoints in sorted(self._up.get(key, {}).items()) for endpoint in endpoints]

    def _turn(self, key: RunKey, transition: Callable[[Run], Run]) -> None:
        """Change what a run should be; where that changes, its time stands still from now on."""
        run = self._store.run(key)
        if run is None or transition(run) is run:
            return
        self._stop_clock(key)
        run = self._store.run(key)
        assert run is not None, "a run is not forgotten while its clock is stopped"
        self._store.save_run(transition(run))
        if key in self._workers:
            self._workers[key].is_stale = True
        self.changed()

    def _stop_clock(self, key: RunKey) -> None:
        """Count until now and no further."""
        self.accrue(key)
        self._marks_ms.pop(key, None)

    def _sync(self, group: asyncio.TaskGroup) -> None:
        """Give each run that is not over the worker that its state asks for."""
        for run in self._store.runs():
            worker = self._workers.get(run.key)
            is_working = worker is not None and not worker.task.done()
            if run.state.is_terminal:
                if not is_working:
                    self._workers.pop(run.key, None)
                continue
            kind = _kind(run.state)
            is_fit = worker is not None and worker.kind == kind and not worker.is_stale
            if is_fit and (is_working or kind == "freeze"):
                continue
            before = worker.task if worker is not None and is_working else None
            if before is not None:
                before.cancel()
            work = self._work(kind, run.key, before)
            self._workers[run.key] = _Worker(kind, group.create_task(work, name=f"{kind} {run.lease}"))

    async def _work(self, kind: _Kind, key: RunKey, before: asyncio.Task[None] | None) -> None:
        """Do what a run's state asks for, once its last worker is through."""
        if before is not None:
            await asyncio.wait({before})
        match kind:
            case "keep":
                await self._keep(key)
            case "freeze":
                await self._freeze(key)
            case "stop":
                await self._take_down(key)

    async def _sweep_for_ever(self) -> None:
        """Sweep at the start and again and again."""
        while True:
            await self._sweep()
            await asyncio.sleep(SWEEP_SECONDS)

    async def _sweep(self) -> None:
        """Stop what belongs to no run that may have containers; freeze and thaw what is not as its run should be."""
        try:
            statuses = await self._driver.recover()
            for status in statuses:
                run = self._store.run(status.key.run)
                if run is None or run.state.is_terminal or run.lease != status.key.lease:
                    _log.warning("orphan_stopped", lease=status.key.lease, runtime_id=status.runtime_id)
                    await self._driver.destroy(status.key)
                elif run.state is RunState.SUSPENDED and status.is_running and not status.is_frozen:
                    await self._driver.freeze(status.key)
                elif run.state is RunState.RUNNING and status.is_frozen:
                    await self._driver.thaw(status.key)
        except DriverUnavailableError as error:
            _log.warning("driver_unavailable", driver=self._driver.name, error=str(error))

    async def _keep(self, key: RunKey) -> None:
        """Bring a live run up, then watch it until it fails or the worker is cancelled."""
        failure: _RunFailedError | None = None
        try:
            containers = await self._start(key)
            async with asyncio.TaskGroup() as group:
                for container in containers:
                    group.create_task(self._watch(container))
        except* _RunFailedError as errors:
            failure = _first(errors)
        if failure is not None:
            _log.warning("run_failed", lease=self._lease(key), reason=failure.reason.reason, detail=failure.detail)
            self.fail(key, failure.reason, failure.detail)

    async def _start(self, key: RunKey) -> list[Container]:
        """Fetch, prepare and start all containers of a run and wait until they are ready, or adopt them."""
        run = self._store.run(key)
        assert run is not None, "a worker works on a run"
        passed_ms = self._clock.monotonic_ms() - run.accepted_at_ms
        limit = (run.start_timeout_ms - passed_ms) / 1_000 if run.state is RunState.STARTING else None
        step = "waiting for the older generation to stop"
        try:
            async with asyncio.timeout(limit):
                await self._await_older(key)
                step = "fetching the workload"
                containers = await self._containers(key)
                step = "preparing the images"
                for container in containers:
                    await self._prepare(container)
                step = "waiting for readiness"
                self._progress(key, "starting containers")
                async with asyncio.TaskGroup() as group:
                    for container in containers:
                        group.create_task(self._bring_up(container, attempts=START_ATTEMPTS))
        except TimeoutError as error:
            raise _RunFailedError(reasons.READINESS_TIMEOUT, f"{step} took longer than the lease allows") from error
        run = self._store.run(key)
        assert run is not None, "a run is not forgotten while it is live"
        if run.state is RunState.STARTING:
            self._store.save_run(became_ready(run))
            _log.info("run_ready", lease=run.lease, generation=key.generation, containers=len(containers))
        self._marks_ms[key] = self._clock.monotonic_ms()
        self._on_change()
        return containers

    async def _await_older(self, key: RunKey) -> None:
        """Wait until nothing of an older generation of the group runs: both may hold the same devices."""
        while any(
            run.key.same_group(key) and run.key.generation < key.generation and not run.state.is_terminal
            for run in self._store.runs()
        ):
            await asyncio.sleep(0.05)

    async def _containers(self, key: RunKey) -> list[Container]:
        """The run's containers, from the store or else from the order service."""
        run = self._store.run(key)
        assert run is not None, "a worker works on a run"
        stored = self._store.workload(key)
        if stored is None:
            self._progress(key, "fetching the workload")
            workload = await self._fetch(run)
            stored = workload.SerializeToString()
            self._store.save_workload(key, stored)
        try:
            return containers_of(run, templates_of(Workload.FromString(stored)), self._sites.site())
        except PlacementMismatchError as error:
            raise _RunFailedError(reasons.WORKLOAD_UNAVAILABLE, str(error)) from error

    async def _fetch(self, run: Run) -> Workload:
        """Ask the order service until it answers; a refusal ends the run."""
        try:
            return await keep_trying(
                "fetch of a workload",
                lambda: self._workloads.workload(run.order_address, run.workload_grant, run.lease, run.key.generation),
            )
        except DomainError as error:
            raise _RunFailedError(reasons.WORKLOAD_UNAVAILABLE, str(error)) from error

    async def _prepare(self, container: Container) -> None:
        """Have the image, telling how far it is."""
        key = container.key.run
        await self._asked(lambda: self._driver.prepare(container, lambda progress: self._progress(key, progress)))

    async def _bring_up(self, container: Container, *, attempts: int | None) -> None:
        """Start or adopt a container and wait until it is ready; ``attempts`` bounds how often it may stop before."""
        stops = 0
        while True:
            await self._asked(lambda: self._driver.thaw(container.key))
            # Also one that runs: what the last life of the agent could not hold it to any more, this one does.
            status = await self._asked(lambda: self._driver.start(container))
            try:
                await await_ready(self._driver, container)
            except ContainerStoppedError as error:
                stops += 1
                await self._may_restart(container, stops, attempts, str(error))
                continue
            except TimeoutError as error:
                detail = f"{container.key.service} was not ready in {container.readiness.timeout_ms} ms"
                raise _RunFailedError(reasons.READINESS_TIMEOUT, detail) from error
            self._is_up(container, status)
            return

    async def _watch(self, container: Container) -> None:
        """Start a container again as its policy says, whenever it stops; ends only by a failure."""
        key = container.key.run
        stops = 0
        while True:
            status = await self._asked(lambda: self._driver.wait(container.key))
            self._stop_clock(key)
            self._up.get(key, {}).pop(container.key, None)
            stops += 1
            _log.warning("container_stopped", container=container.key.name, exit_status=status)
            await self._may_restart(container, stops, None, f"exit status {'unknown' if status is None else status}")
            await self._bring_up(container, attempts=None)
            if len(self._up.get(key, {})) == len(self._placements(key)):
                self._marks_ms[key] = self._clock.monotonic_ms()
                self._on_change()

    async def _may_restart(self, container: Container, stops: int, attempts: int | None, ending: str) -> None:
        """Wait before a restart and count it, or end the run where its policy allows none."""
        status = await self._asked(lambda: self._driver.inspect(container.key))
        exit_status = None if status is None else status.exit_status
        is_over = attempts is not None and stops >= attempts
        if is_over or not restarts_after(container.restart_policy, exit_status):
            raise _RunFailedError(reasons.EXITED, f"{container.key.service}: {ending}")
        restarts = self._store.count_restart(container.key.name, container.key.lease)
        self._progress(container.key.run, f"{container.key.service} stopped ({ending}); restart {restarts}")
        await asyncio.sleep(wait_seconds(stops, longest=LONGEST_RESTART_WAIT_SECONDS))

    async def _asked(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        """What the driver answers, asked until the engine does; a refusal ends the run."""
        attempt = 0
        while True:
            try:
                return await ask()
            except DriverRefusedError as error:
                raise _RunFailedError(error.reason, error.detail) from error
            except DriverUnavailableError as error:
                attempt += 1
                _log.warning("driver_unavailable", driver=self._driver.name, attempt=attempt, error=str(error))
                await asyncio.sleep(wait_seconds(attempt))

    async def _freeze(self, key: RunKey) -> None:
        """Freeze all containers of a run."""
        for status in await self._asked(self._driver.recover):
            if status.key.run == key and status.is_running:
                await self._asked(partial(self._driver.freeze, status.key))
        _log.info("run_suspended", lease=self._lease(key), generation=key.generation)

    async def _take_down(self, key: RunKey) -> None:
        """Stop and destroy all containers of a run, then say that it is over."""
        await self._asked(lambda: self._destroy_all(key))
        run = self._store.run(key)
        assert run is not None, "a run is not forgotten before it is over"
        self._up.pop(key, None)
        over = ended(run)
        self._store.save_run(over)
        _log.info("run_over", lease=run.lease, state=over.state.name, reason=over.reason, running_ms=over.running_ms)
        self._on_change()

    async def _destroy_all(self, key: RunKey) -> None:
        """Stop and destroy what the driver has of a run; DriverUnavailableError if any of it is not known to be gone."""
        run = self._store.run(key)
        assert run is not None, "a run is not forgotten before it is over"
        found = [status for status in await self._driver.recover() if status.key.run == key]
        failure: DriverUnavailableError | None = None
        try:
            async with asyncio.TaskGroup() as group:
                for status in found:
                    group.create_task(self._destroy(status.key, run.grace_ms))
        except* DriverUnavailableError as errors:
            failure = DriverUnavailableError(str(errors.exceptions[0]))
        if failure is not None:
            raise failure

    async def _destroy(self, key: ContainerKey, grace_ms: int) -> None:
        """Stop a container politely, then remove it."""
        await self._driver.stop(key, grace_ms)
        await self._driver.destroy(key)

    def _is_up(self, container: Container, status: ContainerStatus) -> None:
        """Note that a container is ready, and where it answers."""
        endpoints = endpoint_messages(container, status, self._endpoint_host)
        self._up.setdefault(container.key.run, {})[container.key] = endpoints

    def _progress(self, key: RunKey, progress: str) -> None:
        """Write down how far a start is."""
        run = self._store.run(key)
        if run is not None and run.state is RunState.STARTING and run.progress != progress:
            self._store.save_run(progressed(run, progress))

    def _placements(self, key: RunKey) -> tuple[object, ...]:
        """The replicas of a run."""
        run = self._store.run(key)
        return () if run is None else run.placements

    def _lease(self, key: RunKey) -> str:
        """The lease of a run, for logs."""
        run = self._store.run(key)
        return "" if run is None else run.lease


def _kind(state: RunState) -> _Kind:
    """What a run in a state that is not over asks for."""
    assert not state.is_terminal, "nothing is to be done for what is over"
    if state is RunState.SUSPENDED:
        return "freeze"
    return "keep" if state.is_live else "stop"


def _first(group: BaseExceptionGroup[_RunFailedError]) -> _RunFailedError:
    """The first failure of a group."""
    for error in group.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("a group is never empty")
