"""Groups of concurrent calls: who shares one, who waits, and what becomes of each."""

import asyncio
from collections.abc import Sequence

import asyncpg
import pytest

from fallow_chassis.errors import DomainError, invalid_field
from fallow_chassis.group_commit import GroupCommit
from fallow_chassis.testing import in_background


class Table:
    """Commits numbers: keeps the groups, waits for leave, refuses what it is told to refuse."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.may_go = asyncio.Event()
        self.may_go.set()
        self.refused: set[int] = set()
        self.failing: dict[int, Exception] = {}

    async def commit(self, items: Sequence[int]) -> list[str | Exception]:
        self.groups.append(list(items))
        await self.may_go.wait()
        for item in items:
            if item in self.failing:
                raise self.failing[item]
        return [invalid_field("item", "is refused") if item in self.refused else f"done {item}" for item in items]


async def settle() -> None:
    """Let every task go as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_call_that_comes_alone_goes_at_once_and_the_rest_share() -> None:
    """Goal: no delay when idle, one group for all that wait, in their order. Method: hold the first group, send more."""
    table = Table()
    table.may_go.clear()
    group = GroupCommit[int, str]("numbers", table.commit)
    async with in_background(group.run), asyncio.TaskGroup() as calls:
        first = calls.create_task(group.submit(0))
        await settle()
        assert table.groups == [[0]]
        others = [calls.create_task(group.submit(number)) for number in (1, 2, 3)]
        await settle()
        assert table.groups == [[0]]
        table.may_go.set()
    assert table.groups == [[0], [1, 2, 3]]
    assert [task.result() for task in (first, *others)] == ["done 0", "done 1", "done 2", "done 3"]


async def test_a_group_and_the_queue_are_bounded() -> None:
    """Goal: a flood makes neither a huge transaction nor an endless queue. Method: groups of two, room for three."""
    table = Table()
    table.may_go.clear()
    group = GroupCommit[int, str]("numbers", table.commit, most_items=2, most_waiting=3)
    async with in_background(group.run), asyncio.TaskGroup() as calls:
        calls.create_task(group.submit(0))
        await settle()
        for number in (1, 2, 3):
            calls.create_task(group.submit(number))
        await settle()
        with pytest.raises(DomainError) as caught:
            await group.submit(4)
        assert caught.value.code == "UNAVAILABLE"
        assert caught.value.retry_after_ms
        table.may_go.set()
    assert table.groups == [[0], [1, 2], [3]]


async def test_each_gets_its_own_outcome() -> None:
    """Goal: a refusal is its own item's alone. Method: three at once, the middle one refused."""
    table = Table()
    table.refused = {2}
    group = GroupCommit[int, str]("numbers", table.commit)
    async with in_background(group.run):
        outcomes = await group.submit_many([1, 2, 3])
        assert [outcome for outcome in outcomes if isinstance(outcome, str)] == ["done 1", "done 3"]
        assert isinstance(outcomes[1], DomainError)
        with pytest.raises(DomainError):
            await group.submit(2)
    assert table.groups[0] == [1, 2, 3]


@pytest.mark.parametrize("error", [ZeroDivisionError("bad"), asyncpg.DeadlockDetectedError("two of them")])
async def test_a_bad_item_does_not_fail_its_neighbours(error: Exception) -> None:
    """Goal: what breaks a whole group is found and told alone. Method: one of three breaks it; all go again, singly."""
    table = Table()
    table.failing = {2: error}
    group = GroupCommit[int, str]("numbers", table.commit)
    async with in_background(group.run):
        outcomes = await group.submit_many([1, 2, 3])
    assert outcomes == ["done 1", error, "done 3"]
    assert table.groups == [[1, 2, 3], [1], [2], [3]]


async def test_a_database_that_is_away_is_told_to_all_at_once() -> None:
    """Goal: nobody waits for as many time-outs as there are items. Method: a lost connection fails the group."""
    table = Table()
    table.failing = {2: ConnectionResetError("away")}
    group = GroupCommit[int, str]("numbers", table.commit)
    async with in_background(group.run):
        outcomes = await group.submit_many([1, 2, 3])
        assert all(isinstance(outcome, ConnectionResetError) for outcome in outcomes)
        table.failing = {}
        assert await group.submit(1) == "done 1"
    assert table.groups == [[1, 2, 3], [1]]


async def test_a_caller_that_leaves_takes_its_waiting_item_along() -> None:
    """Goal: cancellation and deadlines count, and harm nobody else. Method: one leaves in the queue, one in hand."""
    table = Table()
    table.may_go.clear()
    group = GroupCommit[int, str]("numbers", table.commit)
    async with in_background(group.run), asyncio.TaskGroup() as calls:
        in_hand = calls.create_task(group.submit(0))
        await settle()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await group.submit(1)
        stays = calls.create_task(group.submit(2))
        await settle()
        in_hand.cancel()
        await settle()
        table.may_go.set()
    assert in_hand.cancelled()
    assert stays.result() == "done 2"
    assert table.groups == [[0], [2]]


async def test_whoever_waits_at_the_end_is_told_to_come_again() -> None:
    """Goal: a stop leaves no caller hanging. Method: end the worker with one item in hand and one in the queue."""
    table = Table()
    table.may_go.clear()
    group = GroupCommit[int, str]("numbers", table.commit)
    async with asyncio.TaskGroup() as calls, in_background(group.run):
        tasks = [calls.create_task(group.submit_many([number])) for number in (0, 1)]
        await settle()
    outcomes = [task.result()[0] for task in tasks]
    assert [isinstance(outcome, DomainError) and outcome.code for outcome in outcomes] == ["UNAVAILABLE"] * 2


async def test_without_a_worker_each_call_is_a_group() -> None:
    """Goal: nothing depends on the worker but the sharing. Method: two calls at once, no worker."""
    table = Table()
    group = GroupCommit[int, str]("numbers", table.commit)
    async with asyncio.TaskGroup() as calls:
        tasks = [calls.create_task(group.submit(number)) for number in (1, 2)]
    assert [task.result() for task in tasks] == ["done 1", "done 2"]
    assert table.groups == [[1], [2]]
