"""`fallow exec`: a command in a container of an order, on the caller's terminal or in a pipe.

On a terminal every key goes to the command, so the caller's terminal is set to raw; it is set back however this ends. The
input is read by a thread of its own, since a terminal that is read without waiting would be written without waiting too.
"""

import asyncio
import os
import shutil
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated

import typer

from fallow_sdk.commands.connection import signed_in
from fallow_sdk.commands.leases import newest_lease
from fallow_sdk.door import RemoteCommand

CHUNK_BYTES = 32 * 1024
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


def exec_(
    target: Annotated[str, typer.Argument(help="Order or lease, `orders/{order}` or `leases/{lease}`.")],
    command: Annotated[list[str], typer.Argument(help="Program and arguments, after `--`.")],
    interactive: Annotated[bool, typer.Option("--interactive", "-i", help="Hand on standard input.")] = False,
    terminal: Annotated[bool, typer.Option("--tty", "-t", help="Run it on a terminal.")] = False,
    service: Annotated[str, typer.Option(help="Service; may be left out where there is one.")] = "",
    replica: Annotated[int, typer.Option(help="Replica, from 0.", min=0)] = 0,
) -> None:
    """Run a command in a container; ends with its exit status. Use -it for a shell."""
    if terminal and interactive and not sys.stdin.isatty():
        raise typer.BadParameter("-t with -i needs a terminal as standard input; leave out -t")

    async def run() -> int:
        size = _size() if terminal else None
        async with signed_in() as (client, _):
            lease = await newest_lease(client, target)
            async with client.open_exec(lease, command, service=service, replica=replica, terminal=size) as remote:
                with _raw(is_wanted=terminal and interactive):
                    return await _talk(remote, interactive=interactive, terminal=terminal)

    raise typer.Exit(asyncio.run(run()))


async def _talk(remote: RemoteCommand, *, interactive: bool, terminal: bool) -> int:
    """Carry both ways until the command has ended; its exit status, or 128 + n where a signal ends this first."""
    loop = asyncio.get_running_loop()
    ended_by: list[int] = []
    talking = asyncio.current_task()
    assert talking is not None, "a command runs in a task"

    def end(number: int) -> None:
        ended_by.append(number)
        talking.cancel()

    for number in ENDING_SIGNALS:
        loop.add_signal_handler(number, end, number)
    try:
        async with asyncio.TaskGroup() as group:
            sides = [group.create_task(_hand_on_input(remote) if interactive else remote.close_input())]
            if terminal:
                sides.append(group.create_task(_hand_on_sizes(remote)))
            async for is_error, data in remote.output():
                stream = sys.stderr.buffer if is_error else sys.stdout.buffer
                stream.write(data)
                stream.flush()
            for side in sides:
                side.cancel()
    except asyncio.CancelledError:
        if not ended_by:
            raise
        talking.uncancel()
        return 128 + ended_by[0]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    assert remote.exit_status is not None, "a call without an exit status ends with an error"
    return remote.exit_status


async def _hand_on_input(remote: RemoteCommand) -> None:
    """Send standard input, then its end."""
    loop = asyncio.get_running_loop()
    parts: asyncio.Queue[bytes] = asyncio.Queue()
    room = threading.Semaphore(1)

    def read() -> None:
        # The loop may have ended meanwhile, with a key on its way.
        with suppress(RuntimeError, OSError):
            data = b"more"
            while data:
                room.acquire()
                data = os.read(sys.stdin.fileno(), CHUNK_BYTES)
                loop.call_soon_threadsafe(parts.put_nowait, data)

    threading.Thread(target=read, daemon=True).start()
    while data := await parts.get():
        await remote.write(data)
        room.release()
    await remote.close_input()


async def _hand_on_sizes(remote: RemoteCommand) -> None:
    """Send the terminal's size whenever it changes."""
    changed = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGWINCH, changed.set)
    while True:
        await changed.wait()
        changed.clear()
        await remote.resize(*_size())


def _size() -> tuple[int, int]:
    """Columns and rows of the caller's terminal; 80 and 24 where there is none."""
    size = shutil.get_terminal_size()
    return max(size.columns, 1), max(size.lines, 1)


@contextmanager
def _raw(*, is_wanted: bool) -> Iterator[None]:
    """The caller's terminal in raw mode, and as it was after it."""
    if not is_wanted:
        yield
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
