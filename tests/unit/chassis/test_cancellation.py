"""A cancellation that comes with an answer is not lost."""

import asyncio
from typing import Any

import pytest
from nats.aio.client import Client

from fallow_chassis.nats_link import NatsLink, heeding_cancellation


async def lose_a_cancellation() -> None:
    """Wait until cancelled, and go on all the same, as ``asyncio.wait_for`` of Python 3.11 may."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return


@pytest.mark.parametrize("fails", [False, True])
async def test_a_lost_cancellation_is_raised(fails: bool) -> None:  # noqa: FBT001
    """Goal: who is told to stop stops. Method: lose the cancellation, then go on or fail in the guarded block."""
    went_on = False

    async def loses() -> None:
        nonlocal went_on
        with heeding_cancellation():
            await lose_a_cancellation()
            if fails:
                raise TimeoutError
        went_on = True

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(loses())
        await asyncio.sleep(0)
        task.cancel()
    assert task.cancelled()
    assert not went_on


async def test_nothing_is_raised_without_one() -> None:
    """Goal: who is not told to stop goes on. Method: a block in a time limit, and one in the clean-up of a cancelled task."""
    cleaned = False

    async def cleans_up() -> None:
        nonlocal cleaned
        try:
            await asyncio.Event().wait()
        finally:
            with heeding_cancellation():
                await asyncio.sleep(0)
            cleaned = True

    async with asyncio.timeout(1):
        with heeding_cancellation():
            await asyncio.sleep(0)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(cleans_up())
        await asyncio.sleep(0)
        task.cancel()
    assert cleaned


async def test_a_request_loses_no_cancellation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the link's requests stop with their task. Method: a client that answers a cancelled request."""

    async def request(*_: Any, **__: Any) -> None:
        await lose_a_cancellation()

    client = Client()
    monkeypatch.setattr(client, "request", request)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(NatsLink(client, "test").request("subject", b""))
        await asyncio.sleep(0)
        task.cancel()
    assert task.cancelled()
