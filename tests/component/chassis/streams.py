"""An event stream in memory whose faults are fields."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from fallow_chassis.events import Record
from fallow_chassis.stream import Handle, OnPoison, deliver


class MemoryStream:
    """Keeps what is published; ``fail_next`` makes a publish fail, before or after it stored the records."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.topics: set[str] = set()
        self.fail_before: list[Exception] = []
        self.fail_after: list[Exception] = []
        self.after_publish: Callable[[], Awaitable[None]] | None = None
        self.closed = False
        self._grown = asyncio.Event()

    async def ensure_topics(self, names: Sequence[str]) -> None:
        self.topics.update(names)

    async def publish(self, records: Sequence[Record]) -> None:
        if self.fail_before:
            raise self.fail_before.pop(0)
        for record in records:
            assert record.topic in self.topics, "topics are made before they are used"
        self.records.extend(records)
        self._grown.set()
        if self.after_publish is not None:
            await self.after_publish()
        if self.fail_after:
            raise self.fail_after.pop(0)

    async def consume(
        self, group: str, topics: Sequence[str], handle: Handle, *, on_poison: OnPoison | None = None
    ) -> None:
        position = 0
        while True:
            while position < len(self.records):
                record = self.records[position]
                position += 1
                if record.topic in topics:
                    await deliver(record, handle, group=group, on_poison=on_poison, dead_letter=self._dead_letter)
            self._grown.clear()
            await self._grown.wait()

    async def close(self) -> None:
        self.closed = True

    async def wait_for(self, count: int, topic: str = "") -> list[Record]:
        """The records of a topic (or all) once there are at least ``count``."""
        while len(found := [record for record in self.records if topic in ("", record.topic)]) < count:
            self._grown.clear()
            await self._grown.wait()
        return found

    async def _dead_letter(self, record: Record) -> None:
        self.topics.add(record.topic)
        await self.publish([record])
