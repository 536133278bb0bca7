"""Waking those who watch an order.

Whoever writes an order notifies ``fallow_order`` with its id in the same transaction; one connection of this process
listens and wakes the watchers of that order here. A notification is only a hint: watchers read the database, and look
again after ``POLL_SECONDS`` without one, so a lost connection delays an answer and loses none.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import asyncpg

from fallow_chassis.logging import get_logger
from fallow_chassis.postgres import Database
from fallow_chassis.retry import is_retryable, wait_seconds
from fallow_order.store import QUERIES

CHANNEL: Final = "fallow_order"
POLL_SECONDS: Final = 2.0
PING_SECONDS: Final = 10.0

_log = get_logger(__name__)


class OrderSignals:
    """Who waits for which order in this process."""

    def __init__(self, database: Database) -> None:
        """Listen on a database once ``run`` runs."""
        self._database = database
        self._waiting: dict[str, set[asyncio.Event]] = {}

    async def run(self) -> None:
        """Listen until cancelled; connects again where the connection is lost."""
        attempt = 0
        while True:
            try:
                async with self._database.session() as connection:
                    await connection.add_listener(CHANNEL, self._notified)
                    attempt = 0
                    self._wake_all()
                    await self._stay(connection)
            except Exception as error:
                if not is_retryable(error):
                    raise
                attempt += 1
                _log.warning("order_signals_lost", attempt=attempt, error=repr(error))
                await asyncio.sleep(wait_seconds(attempt))

    @contextmanager
    def watching(self, order_id: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever the order may have changed."""
        event = asyncio.Event()
        self._waiting.setdefault(order_id, set()).add(event)
        try:
            yield event
        finally:
            waiting = self._waiting[order_id]
            waiting.discard(event)
            if not waiting:
                del self._waiting[order_id]

    async def _stay(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Hold the connection and see that it lives."""
        while True:
            await asyncio.sleep(PING_SECONDS)
            async with asyncio.timeout(PING_SECONDS):
                await connection.fetchval(QUERIES.get("ping"))

    def _notified(self, _connection: Any, _process: int, _channel: str, payload: object) -> None:
        """Wake the watchers of one order."""
        for event in self._waiting.get(str(payload), ()):
            event.set()

    def _wake_all(self) -> None:
        """Wake all watchers: changes may have been missed."""
        for waiting in self._waiting.values():
            for event in waiting:
                event.set()
