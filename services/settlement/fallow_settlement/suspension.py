"""Orders whose funds are used up: paused for a grace, resumed by a top-up, ended after it. Timers.

Bidding is told of each suspension and resumption with a count that only grows, and told again until it answers: a call
that was lost, repeated or late changes nothing that a later one has decided. Once the end of an order is decided no top-up
helps any more, and bidding is asked to end it until the end is heard of.
"""

from fallow_chassis.errors import DomainError
from fallow_chassis.logging import get_logger
from fallow_chassis.postgres import Database
from fallow_chassis.retry import is_retryable
from fallow_settlement import escrow_store, metering_store
from fallow_settlement.charging import PAGE_ORDERS, add_funds, needed_to_resume
from fallow_settlement.domain import escrow as escrows
from fallow_settlement.domain.escrow import EscrowState
from fallow_settlement.holding import free_balance
from fallow_settlement.ports import Market

_log = get_logger(__name__)


class Suspension:
    """See the module."""

    def __init__(self, database: Database, market: Market) -> None:
        """Take where escrows stand, and bidding."""
        self._database = database
        self._market = market

    async def resume_or_end(self) -> None:
        """Top up the used-up escrows whose tenants allow it and can; end the orders of those whose grace is over."""
        after = ""
        while True:
            async with self._database.read() as connection:
                orders = await escrow_store.list_suspended(connection, after, PAGE_ORDERS)
            for order_id in orders:
                if await self._is_over(order_id):
                    await self._end(order_id)
            if len(orders) < PAGE_ORDERS:
                return
            after = orders[-1]

    async def tell_market(self) -> None:
        """Tell bidding of the suspensions and resumptions that it does not know of."""
        after = ""
        while True:
            async with self._database.read() as connection:
                untold = await escrow_store.list_untold(connection, after, PAGE_ORDERS)
            for order_id, suspended, number in untold:
                try:
                    await self._market.set_order_suspended(order_id, suspended=suspended, number=number)
                except DomainError as error:
                    if is_retryable(error):
                        raise
                    # What bidding refuses is for people to see; it must not hold back everybody else's.
                    _log.error("suspension_refused", order=order_id, suspended=suspended, error=str(error))
                    continue
                async with self._database.transaction() as unit:
                    escrow = await escrow_store.load_escrow(unit.connection, order_id, lock=True)
                    assert escrow is not None, "an escrow is never deleted"
                    await escrow_store.save_escrow(unit.connection, escrows.pause_told(escrow, number))
            if len(untold) < PAGE_ORDERS:
                return
            after = untold[-1][0]

    async def _is_over(self, order_id: str) -> bool:
        """Whether a suspended order is to be ended; it goes on instead where its automatic top-up is affordable."""
        async with self._database.transaction() as unit:
            escrow = await escrow_store.load_escrow(unit.connection, order_id, lock=True)
            assert escrow is not None, "an escrow is never deleted"
            if escrow.state is not EscrowState.SUSPENDED:
                return False
            if escrow.top_up and escrow.takes_funds:
                meterings = await metering_store.load_order_meterings(unit.connection, order_id, lock=True)
                needed = needed_to_resume(meterings)
                free = await free_balance(unit.connection, escrow.account_id, escrow.asset)
                amount = escrows.next_top_up(escrow, free)
                if amount and escrow.held + amount >= needed:
                    resumed = await add_funds(unit, escrow, amount, needed)
                    await escrow_store.save_escrow(unit.connection, resumed)
                    return False
            after = escrows.end_decided(escrow, unit.clock.now())
            if after is not escrow:
                await escrow_store.save_escrow(unit.connection, after)
            return after.funds_end_asked

    async def _end(self, order_id: str) -> None:
        """Ask bidding to end an order; asked again until the end is heard of."""
        try:
            await self._market.end_order(order_id)
        except DomainError as error:
            if is_retryable(error):
                raise
            _log.error("end_order_refused", order=order_id, error=str(error))
