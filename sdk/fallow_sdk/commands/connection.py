"""A signed-in client for one run of the command."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table

from fallow_sdk.client import Client
from fallow_sdk.profile import Profile, credential_of, load_profile, save_profile

# A name or a hash is there to be copied: lines are never cut, and a narrow terminal wraps them by itself.
LINE_CHARACTERS = 200
terminal = Console()
console = Console(highlight=False, soft_wrap=True, width=max(terminal.width, LINE_CHARACTERS))


@asynccontextmanager
async def signed_in() -> AsyncIterator[tuple[Client, Profile]]:
    """A client that has just signed in with what the environment or the profile holds, and the profile."""
    profile = load_profile()
    async with Client(profile.endpoints) as client:
        session = await client.sign_in(credential_of(profile))
        profile = profile.with_session(session.account, session.access_token)
        save_profile(profile)
        yield client, profile


def ask_anybody(read: Callable[[Client], Awaitable[Any]]) -> Any:
    """What a caller without a name reads."""

    async def run() -> Any:
        async with Client(load_profile().endpoints) as client:
            return await read(client)

    return asyncio.run(run())


def show_rows(table: Table) -> None:
    """Print a table; on a terminal too narrow for its lines each row as a block, one fact a line, so no word is broken."""
    if not terminal.is_terminal or console.measure(table).maximum <= terminal.width:
        console.print(table)
        return
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        for column, cell in zip(table.columns, cells, strict=True):
            console.print(f"{column.header}: {cell}", markup=False)
        console.print()


def as_json(message: Message | Sequence[Message]) -> str:
    """A message, or a list of them, as JSON for programs."""
    if isinstance(message, Message):
        return json.dumps(MessageToDict(message), indent=2)
    return json.dumps([MessageToDict(item) for item in message], indent=2)


def as_json_line(message: Message) -> str:
    """A message as JSON on one line."""
    return json.dumps(MessageToDict(message))
