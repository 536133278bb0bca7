"""Waiting for what other transactions do: signals of the database, heard on one connection for the whole process.

Whoever changes something that others wait for calls ``postgres.notify(connection, channel, key, …)`` in the same
transaction; Postgres tells the listeners at commit. ``Signals`` listens on a connection of its own and rings the bells
of that key, and those that stand for the whole channel.

A ring is a hint and never a fact: notifications are lost while the connection is, so who waits looks by itself after a
while, and everybody is rung when listening begins, because something may have been missed before.
"""

import asyncio
from typing import Any, Final, Self

from fallow_chassis.postgres import Database
from fallow_chassis.retry import keep_trying

PING_SECONDS: Final = 10.0
"""How often the connection is asked whether it lives: one that is cut in silence says nothing by itself."""
ANSWER_SECONDS: Final = 10.0
"""How long the database may take to answer."""


class Bell:
    """Rings while it is entered (``with bell:``); made by ``Signals.bell``."""

    def __init__(self, signals: "Signals", place: tuple[str, str]) -> None:
        """Use ``Signals.bell``."""
        self._signals = signals
        self._place = place
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """End the present wait, or the next one if nobody waits now."""
        self._rung.set()

    async def wait(self, seconds: float) -> None:
        """Return at the next ring, or after ``seconds``; a ring since the last wait counts."""
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        except TimeoutError:
            pass
        self._rung.clear()

    def __enter__(self) -> Self:
        """Hang the bell up."""
        self._signals.add(self._place, self)
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bell down."""
        self._signals.remove(self._place, self)


class Signals:
    """Who waits for what in this process; ``run`` in the background."""

    def __init__(self, database: Database) -> None:
        """Listen to a database once ``run`` runs."""
        self._database = database
        self._bells: dict[tuple[str, str], set[Bell]] = {}
        self._channels: set[str] = set()
        # Set when there is a new channel to listen to, and when the connection ends.
        self._is_due = asyncio.Event()

    def bell(self, channel: str, key: str = "") -> Bell:
        """A bell for the notifications of a channel about ``key``, or about anything if it is empty."""
        return Bell(self, (channel, key))

    async def run(self) -> None:
        """Listen until cancelled; a connection that is lost is made anew."""
        await keep_trying("signals", self._listen)

    def add(self, place: tuple[str, str], bell: Bell) -> None:
        """For bells: hang one up, and listen to its channel from now on."""
        self._bells.setdefault(place, set()).add(bell)
        if place[0] not in self._channels:
            self._channels.add(place[0])
            self._is_due.set()

    def remove(self, place: tuple[str, str], bell: Bell) -> None:
        """For bells: take one down."""
        hanging = self._bells[place]
        hanging.remove(bell)
        if not hanging:
            del self._bells[place]

    async def _listen(self) -> None:
        """Listen to every channel that somebody asked for, and see that the connection lives."""
        heard: set[str] = set()
        async with self._database.session() as session:
            session.add_termination_listener(lambda _: self._is_due.set())
            while True:
                self._is_due.clear()
                async with asyncio.timeout(ANSWER_SECONDS):
                    for channel in self._channels - heard:
                        await session.add_listener(channel, self._notified)
                        heard.add(channel)
                        self._ring_channel(channel)
                    await session.fetchval("SELECT 1")
                try:
                    async with asyncio.timeout(PING_SECONDS):
                        await self._is_due.wait()
                except TimeoutError:
                    continue

    def _notified(self, _session: Any, _process: int, channel: str, payload: object) -> None:
        """A transaction committed that somebody may wait for."""
        for place in {(channel, str(payload)), (channel, "")}:
            for bell in self._bells.get(place, ()):
                bell.ring()

    def _ring_channel(self, channel: str) -> None:
        """Ring all bells of a channel: what was said before we listened was missed."""
        for (place, _), bells in self._bells.items():
            if place == channel:
                for bell in bells:
                    bell.ring()
