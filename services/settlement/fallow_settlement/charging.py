"""Charging as it is done: one transaction for some hundreds of escrows that charges them, tops them up or suspends them.

The escrows' rows are locked first, then their generations, so two ticks never charge the same time. Charges, their ledger
transfers, the sums of escrow and generations and the events stand or fall together: a kill at any moment leaves either
none of them or all, and the next tick goes on from what is proven and not charged.
"""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Final

from fallow_chassis.postgres import Database, UnitOfWork
from fallow_settlement import escrow_store, metering_store
from fallow_settlement.domain import escrow as escrows
from fallow_settlement.domain import moves
from fallow_settlement.domain.charge import ATTESTED, TERM, Charge, Metering, charge_all
from fallow_settlement.domain.escrow import LIVE, PAYING, Escrow, EscrowState
from fallow_settlement.domain.ledger import AccountKind, account_id
from fallow_settlement.domain.rules import Rules
from fallow_settlement.events import state_charged, state_closed, state_low, state_suspended, state_topped_up
from fallow_settlement.holding import free_balance, hold_funds, return_rest
from fallow_settlement.ledger_store import lock_accounts, must_post

LISTED_ORDERS: Final = 10_000
"""How many orders to charge are listed at once."""
CHARGES_TOGETHER: Final = 1_000
"""How many charges one transaction makes; those of one order are never parted."""
CHARGED_AT_ONCE: Final = 2
"""Transactions that charge at one time: one computes while the database works for the other."""
PAGE_ORDERS: Final = 500
"""How many orders one look at the database lists."""
KEEP_PARKED_PROOFS: Final = timedelta(days=1)
KEEP_TOMBSTONES: Final = timedelta(days=1)
"""Far longer than any call to open an escrow may still be on its way; nobody opens a withdrawn order after that."""


class Charging:
    """The timers of charging."""

    def __init__(self, database: Database, rules: Rules) -> None:
        """Take where escrows stand and what this installation decides about money."""
        self._database = database
        self._rules = rules

    async def charge_due(self) -> None:
        """Charge every escrow whose generations have proven time that is not charged."""
        after = ""
        while True:
            async with self._database.read() as connection:
                orders = await escrow_store.list_chargeable(connection, after, LISTED_ORDERS)
            async with asyncio.TaskGroup() as group:
                waiting = _together(orders)
                for _ in range(CHARGED_AT_ONCE):
                    group.create_task(self._charge_each(waiting))
            if len(orders) < LISTED_ORDERS:
                return
            after = orders[-1][0]

    async def _charge_each(self, waiting: Iterator[list[str]]) -> None:
        """Charge what an iterator that others read too still has."""
        for together in waiting:
            async with self._database.transaction() as unit:
                await charge_orders(unit, together, self._rules)

    async def close_ended(self) -> None:
        """Make the final charges of ended orders whose final proofs are there or waited for long enough."""
        after = ""
        while True:
            async with self._database.read() as connection:
                orders = await escrow_store.list_closing(connection, after, PAGE_ORDERS)
            for order_id in orders:
                async with self._database.transaction() as unit:
                    await close_order(unit, order_id, self._rules)
            if len(orders) < PAGE_ORDERS:
                return
            after = orders[-1]

    async def forget(self) -> None:
        """Forget proofs whose lease never came, and tombstones that no call in flight can be older than."""
        async with self._database.transaction() as unit:
            now = unit.clock.now()
            await metering_store.drop_parked_before(unit.connection, now - KEEP_PARKED_PROOFS)
            await escrow_store.drop_tombstones_before(unit.connection, now - KEEP_TOMBSTONES)


def _together(orders: Sequence[tuple[str, int]]) -> Iterator[list[str]]:
    """Orders whose charges go into one transaction."""
    listed: list[str] = []
    charges = 0
    for order_id, count in orders:
        if listed and charges + count > CHARGES_TOGETHER:
            yield listed
            listed, charges = [], 0
        listed.append(order_id)
        charges += count
    if listed:
        yield listed


async def charge_orders(unit: UnitOfWork, order_ids: Sequence[str], rules: Rules) -> None:
    """Charge what is proven; top up or warn where the runway is short; suspend where the funds fell short."""
    found = [escrow for escrow in await escrow_store.lock_escrows(unit.connection, order_ids) if escrow.state in LIVE]
    meterings = await metering_store.lock_to_charge(unit.connection, [escrow.order_id for escrow in found])
    ready = await _topped_up(unit, [(escrow, meterings[escrow.order_id]) for escrow in found], rules)
    charged = await _charged(unit, [(escrow, meterings[escrow.order_id]) for escrow in ready], rules)
    warned = [_warned(unit, escrow, meterings[escrow.order_id], rules) for escrow in charged]
    changed = [after for before, after in zip(found, warned, strict=True) if after != before]
    if changed:
        await escrow_store.save_escrows(unit.connection, changed)


async def close_order(unit: UnitOfWork, order_id: str, rules: Rules) -> None:
    """Close an ended order's escrow, once nothing more can be proven or the wait is over."""
    escrow = await escrow_store.load_escrow(unit.connection, order_id, lock=True)
    assert escrow is not None, "an escrow is never deleted"
    if escrow.state is not EscrowState.CLOSING:
        return
    assert escrow.end_time is not None, "a closing escrow knows when its order ended"
    meterings = await metering_store.load_order_meterings(unit.connection, order_id, lock=True)
    waited = unit.clock.now() - escrow.end_time >= timedelta(milliseconds=rules.final_wait_ms)
    if not waited and not all(metering.is_settled for metering in meterings):
        return
    (escrow,) = await _charged(unit, [(escrow, meterings)], rules, last=True)
    if any(metering.early_close_ms for metering in meterings):
        meterings = await metering_store.load_order_meterings(unit.connection, order_id, lock=True)
        (escrow,) = await _charged(unit, [(escrow, meterings)], rules, level=TERM, last=True)
    await return_rest(unit, escrow)
    escrow = state_closed(unit, escrows.closed(escrow, unit.clock.now()))
    await escrow_store.save_escrow(unit.connection, escrow)


def runway(escrow: Escrow, meterings: tuple[Metering, ...]) -> int | None:
    """Milliseconds that the rest lasts after what is due already; None while nothing runs."""
    return escrows.runway_ms(escrow.held, sum(metering.due for metering in meterings), running_price(meterings))


def needed_to_resume(meterings: tuple[Metering, ...]) -> int:
    """Micros that a used-up escrow of these generations must hold to go on."""
    return escrows.needed_to_resume(sum(metering.due for metering in meterings), running_price(meterings))


def running_price(meterings: tuple[Metering, ...]) -> int:
    """Micros an hour of all generations that run now."""
    return sum(metering.price_micros_per_hour for metering in meterings if metering.is_running)


async def _topped_up(
    unit: UnitOfWork, listed: Sequence[tuple[Escrow, tuple[Metering, ...]]], rules: Rules
) -> list[Escrow]:
    """The escrows, those with more funds whose runway is short and whose tenants allow it."""
    short = {escrow.order_id: escrow for escrow, meterings in listed if _wants_more(escrow, meterings, rules)}
    balances = {account_id(AccountKind.BALANCE, escrow.account_id, escrow.asset) for escrow in short.values()}
    # All at once and in their order: two ticks that top up for the same tenants never wait for each other.
    await lock_accounts(unit.connection, sorted(balances))
    for order_id, escrow in short.items():
        amount = escrows.next_top_up(escrow, await free_balance(unit.connection, escrow.account_id, escrow.asset))
        if amount:
            short[order_id] = await add_funds(unit, escrow, amount, 0)
    return [short.get(escrow.order_id, escrow) for escrow, _ in listed]


def _wants_more(escrow: Escrow, meterings: tuple[Metering, ...], rules: Rules) -> bool:
    """Whether it is time for an automatic top-up."""
    if escrow.top_up == 0 or escrow.state not in PAYING:
        return False
    due = min(escrow.held, sum(metering.due for metering in meterings))
    # What is due leaves the escrow in this very tick.
    return escrows.is_short(escrows.charged(escrow, due), runway(escrow, meterings), rules.low_runway_ms)


async def add_funds(unit: UnitOfWork, escrow: Escrow, amount: int, needed: int) -> Escrow:
    """The escrow with more of its tenant's free balance; a used-up one goes on if it then holds ``needed``."""
    after = escrows.topped_up(escrow, amount, needed)
    await hold_funds(unit, after, amount, f"top-up-{escrow.version + 1}")
    return state_topped_up(unit, escrow, after)


async def _charged(
    unit: UnitOfWork,
    listed: Sequence[tuple[Escrow, tuple[Metering, ...]]],
    rules: Rules,
    *,
    level: str = ATTESTED,
    last: bool = False,
) -> list[Escrow]:
    """Charge all that is proven, or with the level ``TERM`` owed by terms closed early, of some escrows' generations; the escrows after it, used up where the funds fell short."""
    now = unit.clock.now()
    charges: list[Charge] = []
    changed: list[Metering] = []
    after: list[Escrow] = []
    for before, meterings in listed:
        escrow = before
        made, advanced, short = charge_all(meterings, escrow.held, now, level=level, last=last)
        charges += made
        changed += advanced
        for charge in made:
            escrow = state_charged(unit, escrows.charged(escrow, charge.amount), charge)
        if short and escrow.state in PAYING:
            escrow = state_suspended(unit, escrows.used_up(escrow, now + timedelta(milliseconds=rules.grace_ms)))
        after.append(escrow)
    await metering_store.insert_charges(unit.connection, charges)
    await metering_store.save_charged(unit.connection, changed)
    move = moves.charge(charges)
    await must_post(unit.connection, move.accounts, move.transfers, now)
    return after


def _warned(unit: UnitOfWork, escrow: Escrow, meterings: tuple[Metering, ...], rules: Rules) -> Escrow:
    """The escrow, LOW where its runway is short; what was due is charged by now."""
    if escrow.state is not EscrowState.OPEN:
        return escrow
    runway_ms = escrows.runway_ms(escrow.held, 0, running_price(meterings))
    if not escrows.is_short(escrow, runway_ms, rules.low_runway_ms):
        return escrow
    return state_low(unit, escrows.low(escrow), runway_ms)
