"""What the order service and tenants ask for: open, top up, resize and release an escrow. One transaction each.

OpenEscrow is idempotent by the order: the row keeps what opened it, so a repeat with the same input answers the escrow
as it is now, and other input is refused. Checks run in this order: asset, amount, tombstone or release, other input,
funds.
"""

from dataclasses import dataclass

from google.protobuf.message import Message

from fallow_chassis.errors import REQUEST_ID_REUSED, DomainError
from fallow_chassis.idempotency import claim
from fallow_chassis.postgres import Connection, Database, UnitOfWork
from fallow_settlement import escrow_store, metering_store
from fallow_settlement.domain import escrow as escrows
from fallow_settlement.domain import moves
from fallow_settlement.domain.escrow import Escrow, EscrowState, Resize
from fallow_settlement.domain.ledger import AccountKind, Result, account_id
from fallow_settlement.domain.reasons import (
    ASSET_UNKNOWN,
    ESCROW_NOT_FOUND,
    ESCROW_RELEASED,
    INSUFFICIENT_FUNDS,
)
from fallow_settlement.domain.rules import Rules
from fallow_settlement.events import state_closed, state_opened, state_resized, state_topped_up
from fallow_settlement.ledger_store import load_accounts, must_post, post_transfers

TOP_UP_METHOD = "fallow.settlement.v1.EscrowService/TopUpEscrow"
RESIZE_METHOD = "fallow.settlement.v1.EscrowService/ResizeEscrow"


@dataclass(frozen=True, slots=True)
class Opening:
    """What opens an escrow; ids without their collections, sums in micros."""

    order_id: str
    account_id: str
    asset: str
    amount: int
    budget: int
    auto_top_up: bool

    def as_row(self) -> dict[str, str | int | bool]:
        """What the row keeps, to recognise a repeat."""
        return {
            "account_id": self.account_id,
            "asset": self.asset,
            "amount": self.amount,
            "budget": self.budget,
            "auto_top_up": self.auto_top_up,
        }


class EscrowCommands:
    """The use-cases of escrows."""

    def __init__(self, database: Database, rules: Rules) -> None:
        """Take where escrows stand and what this installation decides about money."""
        self._database = database
        self._rules = rules

    async def open_escrow(self, opening: Opening) -> Escrow:
        """Hold funds for an order."""
        self._rules.check_asset(opening.asset)
        escrows.check_amount(opening.amount, "amount.micros")
        async with self._database.transaction() as unit:
            await escrow_store.lock_name(unit.connection, opening.order_id)
            existing = await escrow_store.load_escrow(unit.connection, opening.order_id)
            if existing is not None:
                return await _repeated_opening(unit.connection, existing, opening)
            escrow = escrows.opened(
                opening.order_id,
                opening.account_id,
                opening.asset,
                opening.amount,
                budget=opening.budget,
                auto_top_up=opening.auto_top_up,
                now=unit.clock.now(),
            )
            await hold_funds(unit, escrow, opening.amount, "open")
            escrow = state_opened(unit, escrow)
            await escrow_store.insert_escrow(unit.connection, escrow, opening.as_row())
            return escrow

    async def top_up(self, order_id: str, asset: str, amount: int, *, caller: str, request: Message) -> Escrow:
        """Add funds from the tenant's free balance; ``caller`` is an account (its own escrow only) or a service."""
        self._rules.check_asset(asset)
        escrows.check_amount(amount, "amount.micros")
        request_id: str = getattr(request, "request_id")  # noqa: B009 - any request that has one
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
            escrow = escrows.topped_up(escrow, amount)
            await hold_funds(unit, escrow, amount, f"top-up-{escrow.version + 1}")
            escrow = state_topped_up(unit, escrow)
            await escrow_store.save_escrow(unit.connection, escrow)
            return escrow

    async def resize(
        self, order_id: str, asset: str, wanted: Resize, *, caller: str, request_id: str, request: Message
    ) -> Escrow:
        """Hold another sum from now on; a repeat, and a change that a later one has overtaken, change nothing."""
        self._rules.check_asset(asset)
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
            await escrow_store.lock_name(unit.connection, order_id)
            escrow = await escrow_store.load_escrow(unit.connection, order_id, lock=True)
            if escrow is None:
                escrow = escrows.tombstone(order_id, unit.clock.now())
                await escrow_store.insert_escrow(unit.connection, escrow, {})
                return escrow
            has_leases = await metering_store.has_metering(unit.connection, order_id)
            released = escrows.released(escrow, has_leases=has_leases, now=unit.clock.now())
            if released is escrow:
                return escrow
            await return_rest(unit, escrow)
            released = state_closed(unit, released)
            await escrow_store.save_escrow(unit.connection, released)
            return released


async def hold_funds(unit: UnitOfWork, escrow: Escrow, amount: int, key: str) -> None:
    """Move free balance into an escrow; raises INSUFFICIENT_FUNDS with what is short."""
    move = moves.hold(escrow, amount, key)
    results = await post_transfers(unit.connection, move.accounts, move.transfers, unit.clock.now())
    if results[0] is Result.EXCEEDS_CREDITS:
        free = await free_balance(unit.connection, escrow.account_id, escrow.asset)
        raise DomainError(
            INSUFFICIENT_FUNDS,
            f"the free balance is {free} micros of {escrow.asset}, and {amount} are needed",
            metadata={
                "asset": escrow.asset,
                "needed_micros": str(amount),
                "free_micros": str(free),
                "short_micros": str(amount - free),
            },
        )
    assert results[0] is Result.OK, f"a hold was answered {results[0]}"


async def _move_difference(unit: UnitOfWork, before: Escrow, after: Escrow) -> None:
    """Move what a resize added or gave back; raises INSUFFICIENT_FUNDS with what is short."""
    if after.held > before.held:
        await hold_funds(unit, before, after.held - before.held, f"resize-{after.resizes}")
    elif after.held < before.held:
        move = moves.give_back(before, before.held - after.held, f"resize-{after.resizes}")
        await must_post(unit.connection, move.accounts, move.transfers, unit.clock.now())


async def return_rest(unit: UnitOfWork, escrow: Escrow) -> None:
    """Move what an escrow still holds back to the free balance."""
    move = moves.release(escrow)
    await must_post(unit.connection, move.accounts, move.transfers, unit.clock.now())


async def free_balance(connection: Connection, account: str, asset: str) -> int:
    """Micros that an account may spend; 0 for one that the ledger has never seen."""
    identifier = account_id(AccountKind.BALANCE, account, asset)
    found = (await load_accounts(connection, [identifier])).get(identifier)
    return 0 if found is None else found.available


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
        )


async def _repeated_opening(connection: Connection, existing: Escrow, opening: Opening) -> Escrow:
    """Answer an opening of an escrow that exists."""
    if existing.state is EscrowState.TOMBSTONE:
        raise DomainError(
            ESCROW_RELEASED,
            "the escrow was released before it was opened",
            metadata={"name": f"escrows/{opening.order_id}"},
        )
    if await escrow_store.load_opening(connection, opening.order_id) != opening.as_row():
        raise DomainError(
            REQUEST_ID_REUSED,
            "the escrow of this order was opened with other input",
            metadata={"resource": f"escrows/{opening.order_id}"},
        )
    if existing.state is EscrowState.CLOSED:
        raise DomainError(ESCROW_RELEASED, "the escrow was closed", metadata={"name": f"escrows/{opening.order_id}"})
    return existing
