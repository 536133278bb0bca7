"""Group commit: concurrent calls that each need a durable write share one transaction, and one wait for the disk.

Callers ``submit`` an item and wait. One worker (``run``) takes all that wait, in the order in which they came and at most
``most_items``, and hands them to ``commit``, which treats them together and answers each with a result or an error of
its own. What comes meanwhile is the next group. So a call that comes alone goes at once, and groups grow only as calls
come faster than they are committed. The same holds for one call to another service in the place of a transaction.

A bad item never fails its neighbours: where ``commit`` itself raises, and the cause is not one that concerns all of them
(a database or a peer that is away), its items are tried again one by one. A caller that goes away while it waits takes
its item along; once the item is in hand it is carried out all the same, as after any answer that is lost, and a repeat
of the request finds what it made. The worker has no caller's deadline, identity or trace: an item carries what of them
matters. Without a worker each call is a group of its own.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import asyncpg

from fallow_chassis.errors import UNAVAILABLE, DomainError
from fallow_chassis.logging import get_logger
from fallow_chassis.retry import is_retryable
from fallow_chassis.telemetry import meter

MOST_ITEMS: Final = 128
"""Items of one group at most: it bounds how long a group takes and how many locks it holds."""
MOST_WAITING: Final = 4_000
"""Items that wait at most; more are refused, because their callers would be gone before their turn."""
RETRY_AFTER_MS: Final = 1_000

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

Commit = Callable[[Sequence[ItemT]], Awaitable[Sequence[ResultT | Exception]]]
"""Treats a group as a whole; one result or error for each item, in their order."""

_log = get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Entry(Generic[ItemT, ResultT]):
    """An item and the future that its caller waits for."""

    item: ItemT
    answer: "asyncio.Future[ResultT]"


class GroupCommit(Generic[ItemT, ResultT]):
    """Gathers the items of concurrent callers; ``run`` it in the background while it is used."""

    def __init__(
        self,
        name: str,
        commit: Commit[ItemT, ResultT],
        *,
        most_items: int = MOST_ITEMS,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        """``name`` says in logs and metrics what is done."""
        assert 0 < most_items <= most_waiting, "a group is of one item or more, and fits into the queue"
        self._name = name
        self._commit = commit
        self._most_items = most_items
        self._most_waiting = most_waiting
        self._waiting: deque[_Entry[ItemT, ResultT]] = deque()
        self._wake = asyncio.Event()
        self._has_worker = False
        self._sizes = meter().create_histogram("fallow.group_commit.items", unit="{item}")

    async def submit(self, item: ItemT) -> ResultT:
        """Have an item committed; returns its result or raises its error.

        UNAVAILABLE where too many wait already, or the worker stops: the item may have been committed all the same.
        """
        (outcome,) = await self.submit_many([item])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def submit_many(self, items: Sequence[ItemT]) -> list[ResultT | Exception]:
        """Have items committed that came together; the result or the error of each."""
        loop = asyncio.get_running_loop()
        entries: list[_Entry[ItemT, ResultT]] = [_Entry(item, loop.create_future()) for item in items]
        if self._has_worker:
            self._enqueue(entries)
        elif entries:
            await self._treat(entries)
        outcomes: list[ResultT | Exception] = []
        try:
            for entry in entries:
                try:
                    # Cancelling the caller cancels this, and the worker passes over an entry that nobody waits for.
                    outcomes.append(await entry.answer)
                except Exception as error:  # noqa: BLE001 - an outcome like any other, and the caller's to judge
                    outcomes.append(error)
        finally:
            # Of those that are left when the caller is cancelled nobody waits any more, whatever became of them.
            for entry in entries:
                if not entry.answer.cancel() and not entry.answer.cancelled():
                    entry.answer.exception()
        return outcomes

    def _enqueue(self, entries: Sequence[_Entry[ItemT, ResultT]]) -> None:
        """Put entries at the end of the queue and wake the worker."""
        if len(self._waiting) + len(entries) > self._most_waiting:
            raise DomainError(
                UNAVAILABLE, "too many calls wait already; repeat the call later", retry_after_ms=RETRY_AFTER_MS
            )
        self._waiting.extend(entries)
        self._wake.set()

    async def run(self) -> None:
        """Commit groups until cancelled; whoever waits then is told to come again."""
        assert not self._has_worker, "one worker is enough"
        self._has_worker = True
        group: list[_Entry[ItemT, ResultT]] = []
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while group := self._take():
                    await self._treat(group)
        finally:
            self._has_worker = False
            for entry in (*group, *self._waiting):
                if not entry.answer.done():
                    entry.answer.set_exception(_stopping())
            self._waiting.clear()

    def _take(self) -> list[_Entry[ItemT, ResultT]]:
        """The next group: those that came first and are still waited for."""
        group: list[_Entry[ItemT, ResultT]] = []
        while self._waiting and len(group) < self._most_items:
            entry = self._waiting.popleft()
            if not entry.answer.done():
                group.append(entry)
        return group

    async def _treat(self, group: Sequence[_Entry[ItemT, ResultT]]) -> None:
        """Commit a group and answer each of its callers."""
        self._sizes.record(len(group), {"group": self._name})
        try:
            outcomes = await self._commit([entry.item for entry in group])
            assert len(outcomes) == len(group), f"{self._name} answers each item once"
        except Exception as error:  # noqa: BLE001 - whatever it is, its callers are told
            if len(group) > 1 and not _concerns_all(error):
                _log.warning("group_split", group=self._name, items=len(group), error=repr(error))
                for entry in group:
                    await self._treat([entry])
                return
            outcomes = [error] * len(group)
        for entry, outcome in zip(group, outcomes, strict=True):
            if entry.answer.done():
                continue
            if isinstance(outcome, Exception):
                entry.answer.set_exception(outcome)
            else:
                entry.answer.set_result(outcome)


def _concerns_all(error: Exception) -> bool:
    """Whether a failure would meet each item alone too; a deadlock concerns two, and the rest may go on."""
    return is_retryable(error) and not isinstance(error, asyncpg.TransactionRollbackError)


def _stopping() -> DomainError:
    """What a caller learns whose item was not answered before the end."""
    return DomainError(UNAVAILABLE, "the service is stopping; repeat the call", retry_after_ms=RETRY_AFTER_MS)
