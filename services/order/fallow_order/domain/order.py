"""An order and its groups: what is known of them, and how facts change it.

An order is a value; each transition returns a new one. Facts of bidding come in order among themselves, and so do those
of settlement, but not across the two: an escrow may be reported closed before the end of its order is. Therefore every
fact is folded in by what it says, not by when it comes: a group takes a fact only of its present generation or a later
one, and an order is CLOSED only once both its end and its escrow's close are known. A fact that changes nothing returns
the same order.

The state of an open order follows from its groups, of which those that have ended count as absent: OPEN while one that
never had a lease looks for one, else DEGRADED while one is lost, RUNNING once all run, MATCHED before they first do.

Every change of state, of the order or of a group, is noted in ``changes`` with its reason and its time; the store
writes those as rows and clears them. A fact of the market bears the time at which the market saw it.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final


class OrderState(StrEnum):
    """State of an order, as the contract names it."""

    PENDING = "PENDING"
    OPEN = "OPEN"
    MATCHED = "MATCHED"
    RUNNING = "RUNNING"
    DEGRADED = "DEGRADED"
    SUSPENDED = "SUSPENDED"
    CLOSING = "CLOSING"
    CLOSED = "CLOSED"


class GroupState(StrEnum):
    """State of a group, as the contract names it."""

    OPEN = "OPEN"
    LEASED = "LEASED"
    RUNNING = "RUNNING"
    LOST = "LOST"
    ENDED = "ENDED"
    SUSPENDED = "SUSPENDED"


class EndReason(StrEnum):
    """Why an order ended, as the contract names it."""

    TENANT = "TENANT"
    TERM = "TERM"
    FUNDS = "FUNDS"
    PROVIDER = "PROVIDER"
    UNREACHABLE = "UNREACHABLE"
    DEVICE = "DEVICE"
    WORKLOAD = "WORKLOAD"
    PREEMPTED = "PREEMPTED"
    EXPIRED = "EXPIRED"
    REFUSED = "REFUSED"
    SUPERSEDED = "SUPERSEDED"


ENDING: Final = frozenset({OrderState.CLOSING, OrderState.CLOSED})
_DETAILS: Final = {
    EndReason.TENANT: "the tenant closed it",
    EndReason.TERM: "its longest running time is over",
    EndReason.FUNDS: "its funds are used up",
    EndReason.PROVIDER: "its provider ended it",
    EndReason.UNREACHABLE: "its provider could not be reached",
    EndReason.DEVICE: "a device failed",
    EndReason.WORKLOAD: "the workload could not start, or stopped for good",
    EndReason.PREEMPTED: "another order took its devices",
    EndReason.EXPIRED: "it found no match in time",
    EndReason.REFUSED: "the provider refused it",
    EndReason.SUPERSEDED: "a newer generation took its place",
}
"""What people are told where nobody said more."""
_NEXT: Final = {
    OrderState.PENDING: frozenset({OrderState.OPEN, OrderState.CLOSING}),
    OrderState.OPEN: frozenset({OrderState.MATCHED, OrderState.DEGRADED, OrderState.CLOSING}),
    OrderState.MATCHED: frozenset({OrderState.RUNNING, OrderState.DEGRADED, OrderState.SUSPENDED, OrderState.CLOSING}),
    OrderState.RUNNING: frozenset({OrderState.DEGRADED, OrderState.SUSPENDED, OrderState.CLOSING}),
    OrderState.DEGRADED: frozenset({OrderState.RUNNING, OrderState.SUSPENDED, OrderState.CLOSING}),
    OrderState.SUSPENDED: frozenset({OrderState.RUNNING, OrderState.DEGRADED, OrderState.CLOSING}),
    OrderState.CLOSING: frozenset({OrderState.CLOSED}),
    OrderState.CLOSED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A place where a group answers."""

    service: str
    container_port: int
    uri: str
    replica: int


@dataclass(frozen=True, slots=True)
class Group:
    """One group: where it runs now. ``highest_generation`` counts generations that only a grant told of, too.

    ``revision`` is that of its workload as it is wanted, which a lease may still have to follow.
    """

    index: int
    group_id: str
    state: GroupState = GroupState.OPEN
    generation: int = 0
    highest_generation: int = 0
    lease: str = ""
    provider: str = ""
    price_asset: str = ""
    price_micros_per_hour: int = 0
    endpoints: tuple[Endpoint, ...] = ()
    revision: int = 1


@dataclass(frozen=True, slots=True)
class GroupStep:
    """What changed of one group, and the lease that it is about; no lease is empty, of generation 0."""

    group_id: str
    source: GroupState
    target: GroupState
    lease: str
    provider: str
    generation: int


@dataclass(frozen=True, slots=True)
class Change:
    """One step of the order, from a state to the next, or of one of its groups, while the order's state stays.

    ``source`` is None for the first.
    """

    sequence: int
    source: OrderState | None
    target: OrderState
    reason: str
    at: datetime
    step: GroupStep | None = None

    def __post_init__(self) -> None:
        """A change is of one thing."""
        assert self.step is None or self.source is self.target, "a step of a group leaves the order's state"


@dataclass(frozen=True, slots=True)
class Order:
    """An order. ``specification`` is what the tenant asked for, without workloads, as the contract's message in bytes.

    Amounts are micros of ``asset``. ``revision`` counts writes, ``sequence`` changes, ``event_version`` events.
    ``end_confirmed`` says that bidding knows of the end, ``escrow_closed`` that settlement returned the money.
    """

    id: str
    account: str
    state: OrderState
    specification: bytes
    labels: tuple[tuple[str, str], ...]
    groups: tuple[Group, ...]
    asset: str
    hold_micros: int
    budget_micros: int | None
    auto_top_up: bool
    match_timeout_ms: int
    term_ms: int | None
    created_at: datetime
    updated_at: datetime
    opened_at: datetime | None = None
    ready_at: datetime | None = None
    closed_at: datetime | None = None
    close_reason: EndReason | None = None
    close_detail: str = ""
    charged_micros: int = 0
    refunded_micros: int = 0
    held_micros: int = 0
    end_confirmed: bool = False
    escrow_closed: bool = False
    revision: int = 0
    sequence: int = 0
    event_version: int = 0
    changes: tuple[Change, ...] = ()

    def __post_init__(self) -> None:
        """Hold what must never be otherwise."""
        assert self.groups, "an order has groups"
        assert self.hold_micros > 0, "an order without a hold could run unpaid"
        assert min(self.charged_micros, self.refunded_micros, self.held_micros) >= 0, "totals are not negative"
        assert self.state not in ENDING or self.close_reason is not None, "an end has a reason"

    @property
    def etag(self) -> str:
        """What an update sends back to show that it has seen the present."""
        return f"{self.id[-6:]}-{self.revision}"


def move(order: Order, target: OrderState, reason: str, now: datetime) -> Order:
    """The order in the next state; the same order if it is there already."""
    if order.state is target:
        return order
    assert target in _NEXT[order.state], f"an order never goes from {order.state} to {target}"
    change = Change(order.sequence + 1, order.state, target, reason, now)
    return replace(order, state=target, sequence=change.sequence, changes=(*order.changes, change))


def start(order: Order, now: datetime) -> Order:
    """A new order with its first change: stored, not yet funded."""
    assert order.state is OrderState.PENDING, "an order starts PENDING"
    assert order.sequence == 0, "an order starts once"
    return replace(
        order, sequence=1, changes=(Change(1, None, OrderState.PENDING, "stored; funds are being held", now),)
    )


def opened(order: Order, held_micros: int, now: datetime) -> Order:
    """The order once its funds are held; one that is past PENDING stays as it is."""
    if order.state is not OrderState.PENDING:
        return order
    held = replace(order, held_micros=held_micros, opened_at=now)
    return move(held, OrderState.OPEN, "funds are held; looking for a match", now)


def close_requested(order: Order, reason: EndReason, detail: str, now: datetime) -> Order:
    """The order once its end was asked for; one that is ending or ended stays as it is."""
    if order.state in ENDING:
        return order
    closing = replace(order, close_reason=reason, close_detail=detail or _DETAILS[reason])
    return move(closing, OrderState.CLOSING, _why(reason, detail), now)


def never_opened_closed(order: Order, now: datetime) -> Order:
    """A CLOSING order that never reached the market, once its funds were released: closed without cost."""
    assert order.state is OrderState.CLOSING, "only an ending order closes"
    assert order.opened_at is None, "the end of an opened order is bidding's to say"
    done = replace(order, held_micros=0, end_confirmed=True, escrow_closed=True, closed_at=now)
    why = "closed before it was open; nothing was charged"
    return move(_groups_ended(done, why, now), OrderState.CLOSED, why, now)


def lease_created(
    order: Order, index: int, generation: int, lease: str, provider: str, price: tuple[str, int], now: datetime
) -> Order:
    """A match for one group. An older generation, or one of an order that has ended, changes nothing."""
    group = _group(order, index)
    if group is None or generation <= group.generation or order.end_confirmed:
        return order
    leased = replace(
        group,
        state=GroupState.LEASED,
        generation=generation,
        highest_generation=max(generation, group.highest_generation),
        lease=lease,
        provider=provider,
        price_asset=price[0],
        price_micros_per_hour=price[1],
        endpoints=(),
    )
    return _settled(_with_group(order, leased, "leased; the workload is starting", now), now)


def lease_running(order: Order, index: int, generation: int, endpoints: tuple[Endpoint, ...], now: datetime) -> Order:
    """One group is ready. RUNNING once all are."""
    group = _group(order, index)
    if group is None or generation != group.generation or order.state in ENDING:
        return order
    running = replace(group, state=GroupState.RUNNING, endpoints=endpoints)
    return _settled(_with_group(order, running, "ready", now), now)


def lease_suspended(order: Order, index: int, generation: int, now: datetime) -> Order:
    """A lease was paused for want of funds."""
    group = _group(order, index)
    if group is None or generation != group.generation or order.state in ENDING:
        return order
    return _settled(
        _with_group(order, replace(group, state=GroupState.SUSPENDED), "paused for want of funds", now), now
    )


def lease_ended(
    order: Order, index: int, generation: int, reason: EndReason, detail: str, *, releasing: bool, now: datetime
) -> Order:
    """A lease ended; ``releasing`` says that the group is being leased again."""
    group = _group(order, index)
    if group is None or generation != group.generation:
        return order
    is_lost = releasing and order.state not in ENDING
    state = GroupState.LOST if is_lost else GroupState.ENDED
    why = _why(reason, _own_words(order, reason) or detail)
    changed = _with_group(order, replace(group, state=state, endpoints=()), why, now)
    # Where the group does not come back, GroupEnded or OrderEnded follows and says what becomes of the order.
    return _settled(changed, now, why) if is_lost else changed


def group_ended(order: Order, index: int, reason: EndReason, detail: str, now: datetime) -> Order:
    """One group ended alone; the order goes on with the others, if there are any."""
    group = _group(order, index)
    if group is None or order.end_confirmed:
        return order
    changed = _with_group(order, replace(group, state=GroupState.ENDED, endpoints=()), _why(reason, detail), now)
    return _settled(changed, now)


def order_ended(order: Order, reason: EndReason, detail: str, now: datetime) -> Order:
    """Bidding says that nothing of the order runs on; its reason is the one that counts."""
    if order.end_confirmed or order.state is OrderState.CLOSED:
        return order
    told = _own_words(order, reason) or detail
    why = _why(reason, told)
    ended = replace(order, close_reason=reason, close_detail=told or _DETAILS[reason], end_confirmed=True)
    ended = move(ended, OrderState.CLOSING, why, now)
    return _closed_if_done(_groups_ended(ended, why, now), now)


def escrow_changed(order: Order, charged_micros: int, held_micros: int, refunded_micros: int) -> Order:
    """What settlement says of the escrow while it is open."""
    if order.escrow_closed:
        return order
    return replace(order, charged_micros=charged_micros, held_micros=held_micros, refunded_micros=refunded_micros)


def charge_posted(order: Order, micros: int) -> Order:
    """Settlement has charged a sum. It states charges and the escrow's sums in one order, so adding them up is exact."""
    assert micros >= 0, "a charge is never negative"
    if order.escrow_closed:
        return order
    return replace(order, charged_micros=order.charged_micros + micros, held_micros=max(0, order.held_micros - micros))


def escrow_closed(order: Order, charged_micros: int, refunded_micros: int, now: datetime) -> Order:
    """Settlement has posted the last charge and returned the rest."""
    if order.escrow_closed:
        return order
    done = replace(
        order,
        charged_micros=charged_micros,
        refunded_micros=refunded_micros,
        held_micros=0,
        escrow_closed=True,
    )
    return _closed_if_done(done, now)


def noted(order: Order, what: str, now: datetime) -> Order:
    """The order with a note in its history, of something that changes no state; an ended one takes none."""
    if order.state in ENDING:
        return order
    note = Change(order.sequence + 1, order.state, order.state, what, now)
    return replace(order, sequence=note.sequence, changes=(*order.changes, note))


def _closed_if_done(order: Order, now: datetime) -> Order:
    """CLOSED once bidding has confirmed the end and settlement the money."""
    if not (order.end_confirmed and order.escrow_closed):
        return order
    return move(replace(order, closed_at=now), OrderState.CLOSED, "the money has returned", now)


def _group(order: Order, index: int) -> Group | None:
    """One group by its index."""
    return order.groups[index] if 0 <= index < len(order.groups) else None


def _with_group(order: Order, group: Group, why: str, now: datetime) -> Order:
    """The order with one group replaced, and that noted where its state or its lease is another."""
    before = order.groups[group.index]
    groups = tuple(group if other.index == group.index else other for other in order.groups)
    changed = replace(order, groups=groups)
    if (before.state, before.generation) == (group.state, group.generation):
        return changed
    step = GroupStep(group.group_id, before.state, group.state, group.lease, group.provider, group.generation)
    change = Change(order.sequence + 1, order.state, order.state, why, now, step)
    return replace(changed, sequence=change.sequence, changes=(*order.changes, change))


def _groups_ended(order: Order, why: str, now: datetime) -> Order:
    """The order with all its groups ended."""
    for group in order.groups:
        order = _with_group(order, replace(group, state=GroupState.ENDED, endpoints=()), why, now)
    return order


def _settled(order: Order, now: datetime, why: str = "a group was lost and is being leased again") -> Order:
    """The order in the state that its groups make; ``why`` is told where that is DEGRADED."""
    states = {group.state for group in order.groups} - {GroupState.ENDED}
    if order.state in ENDING or not states or GroupState.OPEN in states:
        return order
    if GroupState.LOST in states:
        return move(order, OrderState.DEGRADED, why, now)
    if order.state is OrderState.OPEN:
        order = move(order, OrderState.MATCHED, "all groups are leased; workloads are starting", now)
    if GroupState.SUSPENDED in states:
        return move(order, OrderState.SUSPENDED, "paused for want of funds: top it up, or it ends", now)
    if states == {GroupState.RUNNING}:
        order = replace(order, ready_at=order.ready_at or now)
        order = move(order, OrderState.RUNNING, "all groups are ready", now)
    return order


def _own_words(order: Order, reason: EndReason) -> str:
    """What whoever asked for this end said of it; bidding only knows who asked. Empty for another end."""
    return order.close_detail if order.close_reason is reason else ""


def _why(reason: EndReason, detail: str) -> str:
    """The reason of an end, for people."""
    return f"{reason.lower()}: {detail or _DETAILS[reason]}"
