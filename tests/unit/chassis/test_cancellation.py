"""A cancellation that comes with an answer is not lost."""

import asyncio

import pytest

from fallow_chassis.stream_jetstream import heed_cancellation


async def test_a_lost_cancellation_is_raised() -> None:
    """Goal: a member that is told to stop stops. Method: lose the cancellation as wait_for of Python 3.11 does."""
    reached = asyncio.Event()

    async def loses() -> None:
        reached.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:  # what asyncio.wait_for may do
            reached.clear()
        heed_cancellation()
        pytest.fail("went on after a cancellation")

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(loses())
        await reached.wait()
        task.cancel()
    assert task.cancelled()
    assert not reached.is_set()


async def test_nothing_is_raised_without_one() -> None:
    """Goal: a member that is not told to stop goes on. Method: ask in a task that nobody cancelled, and in a timeout."""
    async with asyncio.timeout(1):
        await asyncio.sleep(0)
        heed_cancellation()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
