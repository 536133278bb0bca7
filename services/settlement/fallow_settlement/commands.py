"""What the order service and tenants ask of an escrow that is open: top up, resize and release. One transaction each."""

from google.protobuf.message import Message

from fallow_chassis.errors import DomainError, FieldViolation
from fallow_chassis.idempotency import claim
from fallow_chassis.postgres import Database, UnitOfWork
from fallow_settlement import escrow_store, metering_store
from fallow_settlement.charging import add_funds, needed_to_resume
from fallow_settlement.domain import escrow as escrows
from fallow_settlement.domain import moves
from fallow_settlement.domain.escrow import Escrow, EscrowState, Resize
from fallow_settlement.domain.reasons import (
    ASSET_UNKNOWN,
    ESCROW_NOT_FOUND,
)
from fallow_settlement.domain.rules import Rules
from fallow_settlement.escrow_store import Opened
from fallow_settlement.events import state_closed, state_resized
from fallow_settlement.holding import hold_funds, return_rest
from fallow_settlement.ledger_store import must_post

TOP_UP_METHOD = "fallow.settlement.v1.EscrowService/TopUpEscrow"
RESIZE_METHOD = "fallow.settlement.v1.EscrowService/ResizeEscrow"


class EscrowCommands:
    """The use-cases of escrows."""

    def __init__(self, database: Database, rules: Rules) -> None:
        """Take where escrows stand and what this installation decides about money."""
        self._database = database
        self._rules = rules

    async def top_up(
        self, order_id: str, asset: str, amount: int, *, caller: str, request_id: str, request: Message
    ) -> Escrow:
        """Add funds from the tenant's free balance; ``caller`` is an account (its own escrow only) or a service."""
        self._rules.check_asset(asset, "amount.asset")
        escrows.check_amount(amount, "amount.micros")
        async with self._database.transaction() as unit:
            escrow = await escrow_store.load_escrow(unit.connection, order_id, lock=True)
            check_visible(escrow, order_id, caller)
            assert escrow is not None, "an escrow that is visible exists"
            taken = await claim(
                unit,
                caller=caller,
                method=TOP_UP_METHOD,
                request_id=request_id,
                request=request,
                resource=f"escrows/{order_id}",
            )
            if not taken.first:
                return escrow
            _check_asset(escrow, asset)
            meterings = await metering_store.load_order_meterings(unit.connection, order_id, lock=True)
            escrow = await add_funds(unit, escrow, amount, needed_to_resume(meterings))
            await escrow_store.save_escrow(unit.connection, escrow)
            return escrow

    async def resize(
        self, order_id: str, asset: str, wanted: Resize, *, caller: str, request_id: str, request: Message
    ) -> Escrow:
        """Hold another sum from now on; a repeat, and a change that a later one has overtaken, change nothing."""
        self._rules.check_asset(asset, "amount.asset")
        escrows.check_amount(wanted.amount, "amount.micros")
        async with self._database.transaction() as unit:
            escrow = await escrow_store.load_escrow(unit.connection, order_id, lock=True)
            if escrow is not None and escrow.state is EscrowState.TOMBSTONE:
                escrow = None
            check_visible(escrow, order_id, caller)
            assert escrow is not None, "an escrow that is visible exists"
            taken = await claim(
                unit,
                caller=caller,
                method=RESIZE_METHOD,
                request_id=request_id,
                request=request,
                resource=f"escrows/{order_id}",
            )
            if not taken.first or wanted.number <= escrow.resizes:
                return escrow
            _check_asset(escrow, asset)
            meterings = await metering_store.load_order_meterings(unit.connection, order_id, lock=True)
            after = escrows.resized(escrow, wanted, sum(metering.due for metering in meterings))
            await _move_difference(unit, escrow, after)
            after = state_resized(unit, after)
            await escrow_store.save_escrow(unit.connection, after)
            return after

    async def release(self, order_id: str) -> Escrow:
        """Return all funds of an order that never opened to the market, or leave a tombstone."""
        async with self._database.transaction() as unit:
            await escrow_store.lock_names(unit.connection, [order_id])
            escrow = await escrow_store.load_escrow(unit.connection, order_id, lock=True)
            if escrow is None:
                escrow = escrows.tombstone(order_id, unit.clock.now())
                await escrow_store.insert_escrows(unit.connection, [Opened(escrow, {})])
                return escrow
            has_leases = await metering_store.has_metering(unit.connection, order_id)
            released = escrows.released(escrow, has_leases=has_leases, now=unit.clock.now())
            if released is escrow:
                return escrow
            await return_rest(unit, escrow)
            released = state_closed(unit, released)
            await escrow_store.save_escrow(unit.connection, released)
            return released


async def _move_difference(unit: UnitOfWork, before: Escrow, after: Escrow) -> None:
    """Move what a resize added or gave back; raises INSUFFICIENT_FUNDS with what is short."""
    if after.held > before.held:
        await hold_funds(unit, before, after.held - before.held, f"resize-{after.resizes}")
    elif after.held < before.held:
        move = moves.give_back(before, before.held - after.held, f"resize-{after.resizes}")
        await must_post(unit.connection, move.accounts, move.transfers, unit.clock.now())


def check_visible(escrow: Escrow | None, order_id: str, caller: str) -> None:
    """Refuse an escrow that does not exist or is another account's, with the same words."""
    hidden = escrow is None or (caller.startswith("accounts/") and caller != f"accounts/{escrow.account_id}")
    if hidden:
        raise DomainError(
            ESCROW_NOT_FOUND, f"there is no escrow escrows/{order_id}", metadata={"name": f"escrows/{order_id}"}
        )


def _check_asset(escrow: Escrow, asset: str) -> None:
    """Refuse a sum of another asset than the escrow's."""
    if asset != escrow.asset:
        raise DomainError(
            ASSET_UNKNOWN,
            f"the escrow holds {escrow.asset}, not {asset}",
            metadata={"asset": asset, "assets": escrow.asset},
            violations=(FieldViolation("amount.asset", f"the escrow holds {escrow.asset}"),),
        )
