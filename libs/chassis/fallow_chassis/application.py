"""The life of a service: put together, serve, drain, end.

``run_service`` is a service's ``__main__``: it reads the settings, and ``serve``s, ``migrate``s or ``check``s. ``build``
(the service's ``app.py``) wires the parts on an ``Application``, which owns what must be closed.

Everything that runs in the background runs in one TaskGroup: what fails there ends the process, with the error in the
log and a status that is not 0. A signal (SIGTERM, SIGINT) starts the drain, whose order stands here once: health says
NOT_SERVING, a wait for balancers to notice, the server stops with grace, consumers and jobs stop, the outbox is sent to
its end, the bus closes, then the pool, then telemetry. A second signal cuts the drain short.
"""

import argparse
import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Final, Generic, TypeVar

import grpc
import uvloop
from pydantic import ValidationError

from fallow_chassis.access import AccessOptionError
from fallow_chassis.clock import Clock, SystemClock
from fallow_chassis.grpc_client import channel as open_channel
from fallow_chassis.grpc_server import Server
from fallow_chassis.idempotency import sweep_claims
from fallow_chassis.identity import KeyFileError, TokenSigner, TokenVerifier
from fallow_chassis.ids import Ids, RandomIds
from fallow_chassis.inbox import Consumer, sweep_inbox
from fallow_chassis.jobs import every
from fallow_chassis.logging import configure as configure_logging
from fallow_chassis.logging import get_logger, mask_text
from fallow_chassis.migrations import MigrationError, let_serve, migrate, pending
from fallow_chassis.nats_link import NatsLink
from fallow_chassis.outbox import OutboxRelay
from fallow_chassis.postgres import Database
from fallow_chassis.retry import keep_trying
from fallow_chassis.settings import ServiceSettings, SettingsError
from fallow_chassis.signals import Signals
from fallow_chassis.stream import EventStream, open_stream
from fallow_chassis.telemetry import Telemetry
from fallow_chassis.validation import FieldRulesError

OUTBOX_DRAIN_SECONDS: Final = 10.0
STOP_SECONDS: Final = 10.0
"""How long consumers and jobs have to end once they were told to."""
START_SECONDS: Final = 60.0
"""How long a start waits for a database, a stream or a NATS server that is not there yet."""
HOUSEKEEPING_SECONDS: Final = 3_600.0
GARBAGE_OBJECTS: Final = 25_000
"""After how many new objects the interpreter looks for circles among them; Python's own 700 costs a service much."""

_log = get_logger(__name__)

SettingsT = TypeVar("SettingsT", bound=ServiceSettings)
T = TypeVar("T")


class StartError(Exception):
    """The service cannot start as it is set up; the message says what to change."""


class Application(Generic[SettingsT]):
    """One process of a service. ``build`` fills it, ``serve`` runs it."""

    def __init__(
        self,
        name: str,
        settings: SettingsT,
        *,
        package: str = "",
        clock: Clock | None = None,
        ids: Ids | None = None,
    ) -> None:
        """``name`` is the service (``order``), ``package`` the one whose migrations the database must have."""
        self.name = name
        self.settings = settings
        self.clock: Clock = clock or SystemClock()
        self.ids: Ids = ids or RandomIds(self.clock)
        self._package = package
        self._database: Database | None = None
        self._signals: Signals | None = None
        self._stream: EventStream | None = None
        self._nats: NatsLink | None = None
        self._channels: list[grpc.aio.Channel] = []
        self._on_close: list[Callable[[], Awaitable[object]]] = []
        self._relay: OutboxRelay | None = None
        self._tasks: list[tuple[str, Callable[[], Awaitable[object]]]] = []
        self._jobs: list[tuple[str, float, Callable[[], Awaitable[object]]]] = []
        self._stop = asyncio.Event()

    @cached_property
    def signer(self) -> TokenSigner:
        """Signs as this service, with the key of ``FALLOW_IDENTITY_KEY_FILE``."""
        return TokenSigner.load(self.settings.required("identity_key_file"), self.name, clock=self.clock)

    @cached_property
    def verifier(self) -> TokenVerifier:
        """Checks tokens against the keys of ``FALLOW_JWKS``, which are read again from time to time."""
        return TokenVerifier.load(self.settings.required("jwks"), clock=self.clock)

    @cached_property
    def server(self) -> Server:
        """The gRPC server: ``application.server.add(...)``."""
        return Server(self.settings, self.verifier, clock=self.clock)

    async def database(self) -> Database:
        """The service's database (opened once); StartError if its schema is behind this release."""
        if self._database is None:
            url = self.settings.required("database_url")
            if self._package:
                missing = await _waited_for("database", lambda: pending(url, self._package))
                if missing:
                    raise StartError(f"the database lacks {', '.join(missing)}: run 'migrate' first")
            self._database = await _waited_for(
                "database",
                lambda: Database.connect(
                    url,
                    pool_size=self.settings.pool_size,
                    ids=self.ids,
                    clock=self.clock,
                    source=f"services/{self.name}",
                ),
            )
            self.every(HOUSEKEEPING_SECONDS, self._keep_house, name="housekeeping")
        return self._database

    def signals(self) -> Signals:
        """The signals of the database, which must be open; one connection hears them for all who wait."""
        assert self._database is not None, "await application.database() first"
        if self._signals is None:
            self._signals = Signals(self._database)
            self.background(self._signals.run, name="signals")
        return self._signals

    async def stream(self) -> EventStream:
        """The event stream that the settings name (opened once)."""
        if self._stream is None:
            if not self.settings.stream_url:
                self.settings.required("nats_url")
            self._stream = await _waited_for("stream", lambda: open_stream(self.settings, client=self.name))
        return self._stream

    async def nats(self) -> NatsLink:
        """The link to NATS (opened once)."""
        if self._nats is None:
            url = self.settings.required("nats_url")
            self._nats = await NatsLink.connect(
                url, self.settings.nats_credentials_file, name=self.name, timeout=START_SECONDS
            )
        return self._nats

    def channel(self, address: str) -> grpc.aio.Channel:
        """A channel to another service that carries this service's own token; closed in the drain."""
        opened = open_channel(address, self.signer.service_token)
        self._channels.append(opened)
        return opened

    def relay(self) -> None:
        """Send the outbox of the database to the stream; both must be open."""
        assert self._database is not None, "await application.database() first"
        assert self._stream is not None, "await application.stream() first"
        assert self._relay is None, "one relay is enough"
        self._relay = OutboxRelay(self._database, self.signals(), self._stream, self.clock)

    def consume(self, consumer: Consumer) -> None:
        """Run a consumer while the service serves."""
        self.background(consumer.run, name=f"consumer {consumer.name}")

    def every(self, seconds: float, function: Callable[[], Awaitable[object]], *, name: str = "") -> None:
        """Run a job again and again while the service serves (see ``jobs.every``)."""
        self._jobs.append((name or getattr(function, "__qualname__", "job"), seconds, function))

    def background(self, function: Callable[[], Awaitable[object]], *, name: str = "") -> None:
        """Run an endless coroutine function while the service serves; it is cancelled in the drain."""
        self._tasks.append((name or getattr(function, "__qualname__", "background"), function))

    def on_close(self, function: Callable[[], Awaitable[object]]) -> None:
        """Call an async function when the bus closes, the last one added first."""
        self._on_close.append(function)

    def stop(self) -> None:
        """Start the drain, as a signal does."""
        self._stop.set()

    async def abandon(self) -> None:
        """Close what was opened by a build that failed."""
        await self._close()

    async def serve(self) -> None:
        """Serve until ``stop`` or a signal, then drain. Raises what a background task failed with."""
        async with AsyncExitStack() as closing:
            closing.push_async_callback(self._close)
            with _signals(self._stop):
                await self._serve()

    async def _serve(self) -> None:
        """Start the server and the background, wait for the stop, and drain."""
        jobs_stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            relay = group.create_task(self._relay.run(), name="outbox relay") if self._relay is not None else None
            tasks = [group.create_task(_endless(name, function), name=name) for name, function in self._tasks]
            jobs = [
                group.create_task(every(seconds, function, name=name, stop=jobs_stop), name=name)
                for name, seconds, function in self._jobs
            ]
            if self.settings.jwks:
                pause = self.settings.jwks_refresh_seconds
                refresh = every(pause, self._refresh_keys, name="refresh_keys", stop=jobs_stop)
                jobs.append(group.create_task(refresh, name="refresh_keys"))
            try:
                address = await self.server.start()
                self._announce(address)
                await self._stop.wait()
                _log.info("drain_started")
                await self.server.stop_serving()
                await asyncio.sleep(self.settings.drain_wait_seconds)
                await self.server.stop(self.settings.drain_seconds)
            except BaseException:
                # A background task failed and the group cancels this one, or a second signal came: no grace.
                await self.server.stop(0)
                raise
            jobs_stop.set()
            for task in tasks:
                task.cancel()
            await _ended([*tasks, *jobs], STOP_SECONDS)
            if relay is not None and self._relay is not None:
                self._relay.drain()
                await _ended([relay], OUTBOX_DRAIN_SECONDS)
        _log.info("drain_done")

    def _announce(self, address: str) -> None:
        """Say where the service serves, and write it to the port file if one is set."""
        if self.settings.port_file:
            target = Path(self.settings.port_file)
            draft = target.with_name(target.name + ".new")
            draft.write_text(address + "\n", encoding="utf-8")
            draft.replace(target)
        _log.info("serving", address=address)

    async def _close(self) -> None:
        """Close the bus, then the pool; each even if another fails."""
        async with AsyncExitStack() as closing:
            if self._database is not None:
                closing.push_async_callback(self._database.close)
            if self._nats is not None:
                closing.push_async_callback(self._nats.close)
            if self._stream is not None:
                closing.push_async_callback(self._stream.close)
            for opened in self._channels:
                closing.push_async_callback(opened.close, None)
            for function in self._on_close:
                closing.push_async_callback(function)

    async def _keep_house(self) -> None:
        """Forget what is too old to matter."""
        assert self._database is not None, "housekeeping is added with the database"
        await sweep_claims(self._database)
        await sweep_inbox(self._database)

    async def _refresh_keys(self) -> None:
        """Read the key set again; the old keys stay if that fails."""
        try:
            await asyncio.to_thread(self.verifier.refresh)
        except KeyFileError as error:
            _log.warning("key_set_not_read", error=str(error))


class _signals:  # noqa: N801 - reads as what it does: `with _signals(stop):`
    """Sets an event at the first SIGTERM or SIGINT; the second cancels the task that entered."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop
        self._task: asyncio.Task[object] | None = None

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._received)

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)

    def _received(self) -> None:
        if self._stop.is_set() and self._task is not None:
            self._task.cancel()
        self._stop.set()


async def _endless(name: str, function: Callable[[], Awaitable[object]]) -> None:
    """Run what must not end by itself."""
    await function()
    raise RuntimeError(f"{name} ended, and it should have run until it was stopped")


async def _ended(tasks: Sequence[asyncio.Task[None]], seconds: float) -> None:
    """Wait for tasks to end, at most ``seconds``; cancel those that did not."""
    if not tasks:
        return
    _, running = await asyncio.wait(tasks, timeout=seconds)
    for task in running:
        _log.warning("task_cut_off", task=task.get_name())
        task.cancel()
    if running:
        await asyncio.wait(running)


async def _waited_for(what: str, attempt: Callable[[], Awaitable[T]]) -> T:
    """The outcome of an attempt, repeated while what it needs is not there yet, ``START_SECONDS`` at most."""
    async with asyncio.timeout(START_SECONDS):
        return await keep_trying(f"start of the {what}", attempt)


Build = Callable[[Application[SettingsT]], Awaitable[None]]
Check = Callable[[SettingsT], Awaitable[str]]
_SETUP_ERRORS: Final = (
    SettingsError,
    StartError,
    KeyFileError,
    MigrationError,
    AccessOptionError,
    FieldRulesError,
)


def run_service(
    name: str,
    settings_class: type[SettingsT],
    build: Build[SettingsT],
    package: str,
    argv: Sequence[str] | None = None,
    *,
    checks: Mapping[str, Check[SettingsT]] = MappingProxyType({}),
) -> int:
    """A service's command line: ``serve``, ``migrate`` or ``check``; returns the exit status.

    ``checks`` are the service's own, by name: each returns its finding, or raises what is wrong.

    Status 2 says that the service is set up wrongly (the last line says how), 1 that it failed while it ran.
    """
    parser = argparse.ArgumentParser(prog=package, description=f"The {name} service; settings are FALLOW_… variables.")
    parser.add_argument("command", choices=["serve", "migrate", "check"])
    command = parser.parse_args(argv).command
    try:
        settings = settings_class()
    except ValidationError as error:
        return _refuse("; ".join(f"FALLOW_{_place(item['loc'])}: {item['msg']}" for item in error.errors()))
    configure_logging(name, log_format=settings.log_format, level=settings.log_level)
    try:
        if command == "migrate":
            return asyncio.run(_migrate(settings, package))
        settings.check_needed()
        if command == "check":
            return asyncio.run(_check(name, settings, package, checks))
        return uvloop.run(_serve(name, settings, build, package))
    except _SETUP_ERRORS as error:
        return _refuse(str(error))
    except (asyncio.CancelledError, KeyboardInterrupt):
        _log.warning("drain_cut_short")
        return 130
    except Exception as error:  # noqa: BLE001 - the last line of a process that failed
        _log.critical("service_failed", exc_info=error)
        return 1


async def _serve(name: str, settings: SettingsT, build: Build[SettingsT], package: str) -> int:
    """Build and serve; telemetry is the last to close."""
    telemetry = Telemetry.start(name, settings.otlp_endpoint)
    try:
        application = Application(name, settings, package=package if settings.database_url else "")
        try:
            await build(application)
        except BaseException:
            await application.abandon()
            raise
        # What was imported and built stays: looking through it again and again for garbage finds none.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GARBAGE_OBJECTS)
        await application.serve()
    finally:
        await asyncio.to_thread(telemetry.close)
    return 0


async def _migrate(settings: ServiceSettings, package: str) -> int:
    """Bring the database up to this release."""
    url = settings.required("database_url")
    ran = await _waited_for("database", lambda: migrate(url, package))
    if settings.serving_role:
        await let_serve(url, settings.serving_role)
    _log.info("migrated", applied=len(ran))
    return 0


async def _check(name: str, settings: SettingsT, package: str, own: Mapping[str, Check[SettingsT]]) -> int:
    """Try everything that serving needs, and print a line for each."""
    checks: list[tuple[str, Callable[[], Awaitable[str]]]] = []
    if settings.database_url:
        checks.append(("database", lambda: _check_database(settings, package)))
    if settings.nats_url:
        checks.append(("nats", lambda: _check_nats(name, settings)))
    checks.append(("stream", lambda: _check_stream(name, settings)))
    checks.append(("identity", lambda: _check_identity(name, settings)))
    checks += [(what, partial(function, settings)) for what, function in own.items()]
    failed = False
    for what, function in checks:
        try:
            async with asyncio.timeout(10):
                outcome = await function()
        except Exception as error:  # noqa: BLE001 - whatever is wrong is what the command is there to tell
            failed = True
            outcome = f"FAILED: {mask_text(str(error)) or type(error).__name__}"
        sys.stdout.write(f"{what}: {outcome}\n")
    return 1 if failed else 0


async def _check_database(settings: ServiceSettings, package: str) -> str:
    """Whether the database answers and has this release's schema."""
    missing = await pending(settings.required("database_url"), package)
    if missing:
        raise StartError(f"lacks {', '.join(missing)}: run 'migrate'")
    return "answers, schema up to date"


async def _check_nats(name: str, settings: ServiceSettings) -> str:
    """Whether NATS lets us in."""
    link = await NatsLink.connect(settings.nats_url, settings.nats_credentials_file, name=name, timeout=5)
    await link.close()
    return "answers"


async def _check_stream(name: str, settings: ServiceSettings) -> str:
    """Whether the event stream lets us in."""
    if not settings.stream_url:
        settings.required("nats_url")
    stream = await open_stream(settings, client=name)
    await stream.close()
    return "answers"


async def _check_identity(name: str, settings: ServiceSettings) -> str:
    """Whether our key signs what others will believe."""
    signer = TokenSigner.load(settings.required("identity_key_file"), name)
    TokenVerifier.load(settings.required("jwks")).verify(signer.service_token())
    return f"services/{name} is known to the key set"


def _place(location: Sequence[object]) -> str:
    """The variable that a validation error speaks of."""
    return "_".join(str(part) for part in location).upper()


def _refuse(message: str) -> int:
    """Say what is set up wrongly."""
    sys.stderr.write(mask_text(message) + "\n")
    return 2
