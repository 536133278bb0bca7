"""Escrows: funds held for one order, from the opening to the return of the rest.

    (none) -> OPEN, OPEN <-> LOW, either -> SUSPENDED     used up: the order is paused for a grace
    SUSPENDED -> OPEN                                     topped up within the grace; after it the order is ended
    OPEN, LOW, SUSPENDED -> CLOSING -> CLOSED             the order ended; the final charges are made
    (none) -> TOMBSTONE                                   released before it was opened: a later open is refused
    OPEN, LOW -> CLOSED                                   released before any lease was made

At any moment ``deposited = charged + refunded + held``; held is never negative, and 0 once closed. An escrow is never
charged beyond what is held: the tenant's other money is out of reach.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from fallow_chassis.errors import DomainError, FieldViolation
from fallow_settlement.domain.reasons import AMOUNT_INVALID, BUDGET_TOO_LOW, ESCROW_CLOSED, ESCROW_IN_USE

LARGEST_MOVE_MICROS: Final = 10**15
"""The largest sum that one call may move."""

LOW_SHARE: Final = 4
"""An escrow may be low once less than one part in this many is left of what was put in."""


class EscrowState(StrEnum):
    """State of an escrow."""

    OPEN = "OPEN"
    LOW = "LOW"
    SUSPENDED = "SUSPENDED"
    CLOSING = "CLOSING"
    CLOSED = "CLOSED"
    TOMBSTONE = "TOMBSTONE"


LIVE: Final = frozenset({EscrowState.OPEN, EscrowState.LOW, EscrowState.SUSPENDED, EscrowState.CLOSING})
"""States in which funds are held."""
PAYING: Final = frozenset({EscrowState.OPEN, EscrowState.LOW})
"""States in which what runs is paid."""
LEAST_RESUMED_MS: Final = 60_000
"""How long what a used-up escrow is topped up with must last at least, so that nothing is resumed for a moment."""


@dataclass(frozen=True, slots=True)
class Escrow:
    """Funds held for an order; sums in micros of one asset.

    ``hold`` is the sum that its order asked to be held, ``top_up`` the sum that each automatic top-up adds (0: none),
    ``budget`` the most that the order may cost (0: as much as is free). ``version`` counts the events that were stated
    about it, ``resizes`` is the number of the last change that its order asked for. ``pauses`` counts how often it was
    suspended or resumed, ``pauses_told`` is the count that bidding knows of. While it is SUSPENDED ``grace_end_time`` is
    when its order is ended, and ``funds_end_asked`` says that this is decided: no top-up helps any more.
    """

    order_id: str
    account_id: str
    asset: str
    state: EscrowState
    deposited: int
    create_time: datetime
    charged: int = 0
    refunded: int = 0
    top_up: int = 0
    budget: int = 0
    end_time: datetime | None = None
    close_time: datetime | None = None
    funds_end_asked: bool = False
    version: int = 0
    hold: int = 0
    resizes: int = 0
    grace_end_time: datetime | None = None
    pauses: int = 0
    pauses_told: int = 0

    def __post_init__(self) -> None:
        """Hold the sums."""
        assert self.charged >= 0, "nothing is charged back"
        assert self.refunded >= 0, "nothing is refunded back"
        assert self.held >= 0, f"escrow {self.order_id} is charged beyond what it holds"
        if self.state not in LIVE:
            assert self.held == 0, "a closed escrow holds nothing"
        assert self.state is not EscrowState.SUSPENDED or self.grace_end_time is not None, "a suspension has an end"

    @property
    def held(self) -> int:
        """What is left."""
        return self.deposited - self.charged - self.refunded

    @property
    def takes_funds(self) -> bool:
        """Whether funds may be added."""
        return self.state in PAYING or (self.state is EscrowState.SUSPENDED and not self.funds_end_asked)


def check_amount(micros: int, field: str) -> None:
    """Refuse a sum that is not from 1 to 10^15."""
    if not 1 <= micros <= LARGEST_MOVE_MICROS:
        raise DomainError(
            AMOUNT_INVALID,
            f"{field} is {micros} micros, and must be from 1 to {LARGEST_MOVE_MICROS}",
            metadata={"field": field, "micros": str(micros)},
            violations=(FieldViolation(field, f"must be from 1 to {LARGEST_MOVE_MICROS}"),),
        )


def opened(
    order_id: str, account_id: str, asset: str, amount: int, *, budget: int, auto_top_up: bool, now: datetime
) -> Escrow:
    """A new escrow with its first funds; each automatic top-up will add as much again, within the budget."""
    assert amount > 0, "the amount was checked"
    return Escrow(
        order_id=order_id,
        account_id=account_id,
        asset=asset,
        state=EscrowState.OPEN,
        deposited=amount,
        create_time=now,
        top_up=amount if auto_top_up else 0,
        budget=budget,
        hold=amount,
    )


def tombstone(order_id: str, now: datetime) -> Escrow:
    """What a release leaves of an escrow that was never opened."""
    return Escrow(order_id, "", "", EscrowState.TOMBSTONE, 0, now, close_time=now)


def topped_up(escrow: Escrow, amount: int, needed: int) -> Escrow:
    """The escrow with more funds; a used-up one goes on with them, if it then holds ``needed`` micros.

    Errors: ESCROW_CLOSED once its end is decided; AMOUNT_INVALID where a used-up escrow would still hold too little.
    """
    assert amount > 0, "the amount was checked"
    if not escrow.takes_funds:
        raise _takes_no_more(escrow)
    after = replace(escrow, deposited=escrow.deposited + amount, state=EscrowState.OPEN)
    if escrow.state in PAYING:
        return after
    if after.held < needed:
        least = needed - escrow.held
        raise DomainError(
            AMOUNT_INVALID,
            f"the escrow is used up: to go on for a minute it needs at least {least} micros",
            metadata={"field": "amount.micros", "micros": str(amount), "least_micros": str(least)},
            violations=(FieldViolation("amount.micros", f"must be at least {least}"),),
        )
    return replace(after, grace_end_time=None, pauses=escrow.pauses + 1)


def needed_to_resume(owed: int, price_micros_per_hour: int) -> int:
    """Micros that a used-up escrow must hold to go on: what is owed, and a minute of all that will run."""
    return owed + max(1, -(-price_micros_per_hour * LEAST_RESUMED_MS // 3_600_000))


@dataclass(frozen=True, slots=True)
class Resize:
    """What an order asks its escrow to be from now on: ``number`` counts the changes of the order."""

    number: int
    amount: int
    budget: int
    auto_top_up: bool


def resized(escrow: Escrow, wanted: Resize, due: int) -> Escrow:
    """The escrow after a change of its order; ``due`` is what is proven and not charged yet.

    Where the wanted sum rose, what is held beyond what is due is filled up to it; where it fell, at most the difference
    is given back, so that what the tenant put in by hand stays; neither goes beyond the budget. What is due is never
    given back. Errors: ESCROW_CLOSED; BUDGET_TOO_LOW where more than the budget is charged or due.
    """
    assert wanted.amount > 0, "the amount was checked"
    assert wanted.number > escrow.resizes, "an old change is not made again"
    if escrow.state not in PAYING:
        raise _takes_no_more(escrow)
    owed = min(due, escrow.held)
    if wanted.budget and wanted.budget < escrow.charged + owed:
        raise DomainError(
            BUDGET_TOO_LOW,
            f"the budget is {wanted.budget} micros, and {escrow.charged + owed} are charged or due already",
            metadata={"asset": escrow.asset, "spent_micros": str(escrow.charged + owed)},
        )
    held = escrow.held
    if wanted.amount > escrow.hold:
        held = max(held, owed + wanted.amount)
    elif wanted.amount < escrow.hold:
        held = min(held, max(owed + wanted.amount, held - (escrow.hold - wanted.amount)))
    if wanted.budget:
        held = min(held, wanted.budget - escrow.charged)
    assert held >= owed, "what is due stays"
    added = max(0, held - escrow.held)
    return replace(
        escrow,
        state=EscrowState.OPEN if added else escrow.state,
        deposited=escrow.deposited + added,
        refunded=escrow.refunded + max(0, escrow.held - held),
        hold=wanted.amount,
        top_up=wanted.amount if wanted.auto_top_up else 0,
        budget=wanted.budget,
        resizes=wanted.number,
    )


def charged(escrow: Escrow, amount: int) -> Escrow:
    """The escrow after charges of ``amount`` in all."""
    assert escrow.state in LIVE, "only a live escrow is charged"
    assert 0 <= amount <= escrow.held, "never beyond the escrow"
    return replace(escrow, charged=escrow.charged + amount)


def low(escrow: Escrow) -> Escrow:
    """The escrow with a short runway."""
    assert escrow.state is EscrowState.OPEN, "only an open escrow runs low"
    return replace(escrow, state=EscrowState.LOW)


def used_up(escrow: Escrow, grace_end_time: datetime) -> Escrow:
    """The escrow when a charge found less than was due: its order is paused."""
    assert escrow.state in PAYING, "only what pays is used up"
    return replace(escrow, state=EscrowState.SUSPENDED, grace_end_time=grace_end_time, pauses=escrow.pauses + 1)


def end_decided(escrow: Escrow, now: datetime) -> Escrow:
    """The escrow once the grace of its suspension is over: its order is to be ended; before that it stays as it is."""
    if escrow.state is not EscrowState.SUSPENDED or escrow.funds_end_asked:
        return escrow
    assert escrow.grace_end_time is not None, "a suspension has an end"
    return replace(escrow, funds_end_asked=True) if escrow.grace_end_time <= now else escrow


def pause_told(escrow: Escrow, pauses: int) -> Escrow:
    """The escrow once bidding knows of its suspensions and resumptions up to a count."""
    assert pauses <= escrow.pauses, "nobody is told of what was not"
    return replace(escrow, pauses_told=max(escrow.pauses_told, pauses))


def ended(escrow: Escrow, now: datetime) -> Escrow:
    """The escrow after its order has ended: it waits for the final proofs; a repeat changes nothing."""
    if escrow.state is EscrowState.CLOSING or escrow.state not in LIVE:
        return escrow
    return replace(escrow, state=EscrowState.CLOSING, end_time=now)


def closed(escrow: Escrow, now: datetime) -> Escrow:
    """The escrow with its rest returned."""
    assert escrow.state in LIVE, "an escrow closes once"
    after = replace(escrow, state=EscrowState.CLOSED, refunded=escrow.refunded + escrow.held, close_time=now)
    assert after.charged + after.refunded == after.deposited, "what came in went out"
    return after


def released(escrow: Escrow, *, has_leases: bool, now: datetime) -> Escrow:
    """The escrow returned whole, because its order never opened; a repeat changes nothing.

    Errors: ESCROW_IN_USE where leases exist or the order has ended in the ordinary way.
    """
    if escrow.state not in LIVE:
        return escrow
    if has_leases or escrow.state is EscrowState.CLOSING or escrow.charged > 0:
        raise DomainError(
            ESCROW_IN_USE,
            "leases of the order exist; its funds are returned after it has ended",
            metadata={"state": escrow.state.value},
        )
    return closed(escrow, now)


def runway_ms(held: int, owed: int, price_micros_per_hour: int) -> int | None:
    """Milliseconds that the rest lasts at the present price of all running leases; None while nothing runs."""
    if price_micros_per_hour == 0:
        return None
    return max(0, held - owed) * 3_600_000 // price_micros_per_hour


def is_short(escrow: Escrow, runway: int | None, low_runway_ms: int) -> bool:
    """Whether it is time to top up or to warn.

    Both must hold: the rest lasts for less than ``low_runway_ms``, and less than a quarter of what was put in is left.
    The second keeps an order of a few minutes, whose whole hold is short, from being called low at its start.
    """
    put_in = escrow.deposited - escrow.refunded
    return runway is not None and runway < low_runway_ms and escrow.held * LOW_SHARE < put_in


def next_top_up(escrow: Escrow, free: int) -> int:
    """Micros that an automatic top-up adds now: 0 where none is allowed, affordable or within the budget."""
    if escrow.top_up == 0 or not escrow.takes_funds:
        return 0
    room = max(0, escrow.budget - escrow.charged - escrow.held) if escrow.budget else free
    return min(escrow.top_up, free, room)


def _takes_no_more(escrow: Escrow) -> DomainError:
    """The error for funds that come too late."""
    why = "top it up first" if escrow.takes_funds else "it takes no more funds"
    return DomainError(
        ESCROW_CLOSED,
        f"the escrow is {escrow.state.value}: {why}",
        metadata={"state": escrow.state.value},
    )
