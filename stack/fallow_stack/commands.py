"""`fallow up`, `fallow down`, `fallow status`: the embedded stack by hand."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.live import Live

from fallow_sdk.errors import ChainError, FallowError
from fallow_stack.engines import EngineError, Postgres
from fallow_stack.home import Home, StackRunningError
from fallow_stack.settings import StackSettings
from fallow_stack.stack import Stack
from fallow_stack.supervisor import MemberFailedError
from fallow_stack.table import status_table

console = Console(highlight=False)
REFRESH_SECONDS = 0.5
DOWN_POLLS = 600
DOWN_POLL_SECONDS = 0.1
HomeOption = Annotated[Path | None, typer.Option("--home", help="Folder of the stack's data; default .fallow.")]


class DemoError(Exception):
    """Something in a demo was not as it must be."""


OPERATING_ERRORS = (EngineError, MemberFailedError, FallowError, ChainError, DemoError, TimeoutError)


def stack_settings(**options: Any) -> StackSettings:
    """Settings from the environment, with the options that were given before them; what makes no sense ends with 2."""
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return StackSettings(**given)
    except ValidationError as error:
        for fault in error.errors():
            console.print(f"error: {fault_line(fault, given)}", style="red", markup=False)
        raise typer.Exit(2) from None


def fault_line(fault: Mapping[str, Any], given: Mapping[str, object]) -> str:
    """A setting that makes no sense: the option or the variable that holds it, its value, what it may be."""
    name = str(fault["loc"][0])
    source = f"--{name.replace('_', '-')}" if name in given else f"FALLOW_{name.upper()}"
    return f"{source} is {fault['input']!r}: {fault['msg'].lower()}"


@asynccontextmanager
async def running_stack(home: Home, settings: StackSettings, out: Console) -> AsyncIterator[Stack]:
    """A started stack; stopped at the end, whatever happens. Raises StackRunningError, EngineError."""
    home.lock()
    stack = Stack(home, settings, lambda line: out.print(line, style="dim", markup=False))
    try:
        await stack.start()
        yield stack
    finally:
        await stack.stop()
        home.unlock()


async def show_until_stopped(stack: Stack, stopped: asyncio.Event) -> None:
    """Show the live table on a terminal until the event is set; elsewhere print it once."""
    if not console.is_terminal:
        console.print(status_table(stack.supervisor.status()))
        await stopped.wait()
        return
    with Live(console=console, auto_refresh=False) as live:
        while not stopped.is_set():
            live.update(status_table(stack.supervisor.status()), refresh=True)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_SECONDS):
                    await stopped.wait()


async def serve_stack(home: Home, settings: StackSettings) -> None:
    """Run a stack until SIGINT or SIGTERM."""
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with running_stack(home, settings, console) as stack, asyncio.TaskGroup() as group:
        console.print(f"profile for the fallow command: {home.profile}; Ctrl-C stops everything", markup=False)
        watcher = group.create_task(stack.supervisor.watch())
        await show_until_stopped(stack, stopped)
        watcher.cancel()
        console.print("stopping", style="dim")


def run_reporting(work: Coroutine[None, None, None]) -> None:
    """Run to the end; what may go wrong without being our mistake is printed and ends the command with status 1."""
    failures: list[BaseException] = []
    try:
        asyncio.run(work)
    except* OPERATING_ERRORS as group:
        failures = leaves(group)
    for failure in failures:
        text = str(failure) or f"no answer in time ({type(failure).__name__})"
        console.print(f"error: {text}", style="red", markup=False)
    if failures:
        raise typer.Exit(1)


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """The exceptions of a group and of the groups in it."""
    return [
        leaf for item in group.exceptions for leaf in (leaves(item) if isinstance(item, BaseExceptionGroup) else [item])
    ]


def up(
    home: HomeOption = None,
    providers: Annotated[int | None, typer.Option(help="Provider services to run.", min=1, max=32)] = None,
    event_stream: Annotated[str | None, typer.Option(help="jetstream or kafka.")] = None,
    runtime: Annotated[str | None, typer.Option(help="How providers run workloads: auto, docker or exec.")] = None,
    kafka_libraries: Annotated[Path | None, typer.Option(help="Apache Kafka's jars; see `make kafka`.")] = None,
) -> None:
    """Start the embedded stack and show what runs, until Ctrl-C."""
    settings = stack_settings(
        home=home, providers=providers, event_stream=event_stream, runtime=runtime, kafka_libraries=kafka_libraries
    )
    place = Home(settings.home)
    try:
        run_reporting(serve_stack(place, settings))
    except StackRunningError as error:
        console.print(f"{error}:", markup=False)
        show_status(place)


def show_status(home: Home) -> bool:
    """Print what runs; whether something does."""
    status = home.read_status()
    if status is None or not home.is_locked():
        console.print(f"nothing runs in {home.root}; start it with `fallow up`", markup=False)
        return False
    console.print(status_table(status))
    return True


def status(home: HomeOption = None) -> None:
    """Show what runs. Exit status 0 when a stack runs, 1 when none does."""
    if not show_status(Home(stack_settings(home=home).home)):
        raise typer.Exit(1)


def wait_unlocked(home: Home) -> bool:
    """Wait until nothing runs in the folder; False when something still does after a minute."""
    for _ in range(DOWN_POLLS):
        if not home.is_locked():
            return True
        time.sleep(DOWN_POLL_SECONDS)
    return False


def down(
    home: HomeOption = None,
    wipe: Annotated[bool, typer.Option("--wipe", help="Forget all data: databases, chain, keys.")] = False,
) -> None:
    """Stop the embedded stack; with --wipe also forget its data."""
    place = Home(stack_settings(home=home).home)
    if (pid := place.holder()) is not None:
        os.kill(pid, signal.SIGTERM)
        with console.status("stopping", spinner="line"):
            if not wait_unlocked(place):
                console.print(f"pid {pid} does not stop; see {place.logs}", style="red", markup=False)
                raise typer.Exit(1)
        console.print("stopped")
    else:
        console.print(f"nothing runs in {place.root}", markup=False)
    if wipe and place.root.exists():
        try:
            place.wipe(Postgres.elsewhere)
        except StackRunningError as error:
            console.print(f"error: {error}; stop it first, nothing was forgotten", style="red", markup=False)
            raise typer.Exit(1) from None
        console.print(f"forgot {place.root}", markup=False)
