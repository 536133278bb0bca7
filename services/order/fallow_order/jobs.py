"""Timers: finish or withdraw what was left PENDING, carry ends to bidding, release escrows.

Each job lists what is due, and treats one order at a time, by use-cases that lock and look again; so two processes may
run the same job. A refusal or a failure concerns its order alone: it is noted, put off, and the next one goes on.
"""

from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from fallow_chassis.errors import DomainError
from fallow_chassis.logging import get_logger
from fallow_chassis.postgres import Database
from fallow_order import store
from fallow_order.commands import OrderCommands
from fallow_order.creation import OrderCreation
from fallow_order.domain.order import Order, OrderState
from fallow_order.ports import Escrows, Market

BATCH_ORDERS: Final = 100
RETRY_WAIT: Final = timedelta(seconds=2)
CONFIRMATION_WAIT: Final = timedelta(seconds=60)
"""How long bidding has to state an end that it agreed to, before it is asked again."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SweepTimes:
    """Ages at which an order left PENDING is finished, and withdrawn."""

    finish_after: timedelta
    release_after: timedelta


class OrderJobs:
    """The timers of orders."""

    def __init__(
        self,
        database: Database,
        commands: OrderCommands,
        creation: OrderCreation,
        escrows: Escrows,
        market: Market,
        times: SweepTimes,
    ) -> None:
        """Work through the use-cases."""
        self._database = database
        self._commands = commands
        self._creation = creation
        self._escrows = escrows
        self._market = market
        self._times = times

    async def sweep_pending(self) -> None:
        """Finish orders whose caller went away half-way; withdraw those that cannot be finished in time."""
        now = self._database.clock.now()
        for order in await self._due(OrderState.PENDING, now - self._times.finish_after):
            if now - order.created_at >= self._times.release_after:
                await self._creation.withdraw(order.id)
            else:
                await self._attempt(order.id, "finish", self._creation.finish(order), wait=timedelta(0))

    async def carry_ends(self) -> None:
        """Ask bidding to end what is CLOSING, until it states so; close at once what never reached the market."""
        for order in await self._due(OrderState.CLOSING, self._database.clock.now()):
            if order.opened_at is None:
                await self._attempt(order.id, "release", self._release_unopened(order.id), wait=RETRY_WAIT)
            else:
                await self._attempt(order.id, "end", self._end(order), wait=RETRY_WAIT)

    async def release_escrows(self) -> None:
        """Release the escrows of orders that were withdrawn."""
        now = self._database.clock.now()
        async with self._database.read() as connection:
            due = await store.list_escrow_releases(connection, now, BATCH_ORDERS)
        for order_id in due:
            try:
                await self._escrows.release(order_id)
            except DomainError as error:
                _log.warning("escrow_release_failed", order=f"orders/{order_id}", error=str(error))
                async with self._database.transaction() as unit:
                    await store.postpone_escrow_release(unit.connection, order_id, now + RETRY_WAIT)
                continue
            async with self._database.transaction() as unit:
                await store.delete_escrow_release(unit.connection, order_id)

    async def _end(self, order: Order) -> None:
        """Ask bidding to end an order, and ask again if it does not state so."""
        assert order.close_reason is not None, "an ending order has a reason"
        await self._market.end_order(order.id, order.close_reason)
        await self._commands.postpone(order.id, CONFIRMATION_WAIT)

    async def _release_unopened(self, order_id: str) -> None:
        """Give back what may be held for an order that never opened, and close it."""
        await self._escrows.release(order_id)
        await self._commands.close_unopened(order_id)

    async def _attempt(self, order_id: str, what: str, work: Awaitable[object], *, wait: timedelta) -> None:
        """Do one order's work; where another service fails or refuses, put the order off."""
        try:
            await work
        except DomainError as error:
            _log.warning("order_job_failed", order=f"orders/{order_id}", job=what, error=str(error))
            await self._commands.postpone(order_id, wait)

    async def _due(self, state: OrderState, now: datetime) -> list[Order]:
        """Orders in a state that are due at an instant, the longest due first."""
        async with self._database.read() as connection:
            ids = await store.list_due(connection, state, now, BATCH_ORDERS)
            found = await store.load_orders(connection, ids)
        return [found[order_id] for order_id in ids]
