"""What a service runs in the background, for as long as a test wants it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager


@asynccontextmanager
async def in_background(*functions: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Run endless coroutine functions until the block ends; what one of them fails with ends the block."""

    async def endless(function: Callable[[], Awaitable[object]]) -> None:
        await function()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(endless(function)) for function in functions]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
