"""An order and its groups: what is known of them, and how facts change it.

An order is a value; each transition returns a new one. Facts of bidding come in order among themselves, and so do those
of settlement, but not across the two: an escrow may be reported closed before the end of its order is. Therefore every
fact is folded in by what it says, not by when it comes: a group takes a fact only of its present generation or a later
one, and an order is CLOSED only once both its end and its escrow's close are known. A fact that changes nothing returns
the same order.

Every change of state is noted in ``changes`` with its reason; the store writes those as rows and clears them.
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
    """One group: where it runs now. ``highest_generation`` counts generations that only a grant told of, too."""

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


@dataclass(frozen=True, slots=True)
class Change:
    """One step from a state to the next; ``source`` is None for the first."""

    sequence: int
    source: OrderState | None
    target: OrderState
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Order:
    """An order. ``specification`` is what the tenant asked for, without workloads, as the contract's message in bytes.

    Amounts are micros of ``asset``. ``revision`` counts writes, ``sequence`` changes of state, ``event_version`` events.
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
        assert self.state is not OrderState.CLOSED or self.close_reason is not None, "an end has a reason"

    @property
    def etag(self) -> str:
        """What an update sends back to show that it has seen the present."""
        return f"{self.id[-6:]}-{self.revision}"


def move(order: Order, target: OrderState, reason: str, now: datetime) -> Order:
    """The order in the next state; the same order if it is there already."""
    if order.state is target:
        return order
    assert target in _NEXT[order.state], f"an order never goes from {order.state} to {target}"
    sequence = order.sequence + 1
    change = Change(sequence, order.state, target, reason, now)
    return replace(order, state=target, sequence=sequence, changes=(*order.changes, change))


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
    funded = replace(order, held_micros=held_micros, opened_at=now)
    return move(funded, OrderState.OPEN, "funds are held; looking for a match", now)


def close_requested(order: Order, reason: EndReason, detail: str, now: datetime) -> Order:
    """The order once its end was asked for; one that is ending or ended stays as it is."""
    if order.state in ENDING:
        return order
    closing = replace(order, close_reason=reason, close_detail=detail)
    return move(closing, OrderState.CLOSING, detail or f"end asked for: {reason.lower()}", now)


def never_opened_closed(order: Order, now: datetime) -> Order:
    """A CLOSING order that never reached the market, once its funds were released: closed without cost."""
    assert order.state is OrderState.CLOSING, "only an ending order closes"
    assert order.opened_at is None, "the end of an opened order is bidding's to say"
    done = replace(order, held_micros=0, end_confirmed=True, escrow_closed=True, closed_at=now)
    return move(_groups_ended(done), OrderState.CLOSED, "closed before it was open; nothing was charged", now)


def lease_created(
    order: Order, index: int, generation: int, lease: str, provider: str, price: tuple[str, int], now: datetime
) -> Order:
    """A match for one group. An older generation, or one of an ended order, changes nothing."""
    group = _group(order, index)
    if group is None or generation <= group.generation or order.state is OrderState.CLOSED:
        return order
    leased = replace(
        group,
        state=GroupState.ENDED if order.state in ENDING else GroupState.LEASED,
        generation=generation,
        highest_generation=max(generation, group.highest_generation),
        lease=lease,
        provider=provider,
        price_asset=price[0],
        price_micros_per_hour=price[1],
        endpoints=(),
    )
    changed = _with_group(order, leased)
    has_all = all(other.state in {GroupState.LEASED, GroupState.RUNNING} for other in changed.groups)
    if changed.state is OrderState.OPEN and has_all:
        return move(changed, OrderState.MATCHED, "all groups are leased; workloads are starting", now)
    return changed


def lease_running(order: Order, index: int, generation: int, endpoints: tuple[Endpoint, ...], now: datetime) -> Order:
    """One group is ready. RUNNING once all are."""
    group = _group(order, index)
    if group is None or generation != group.generation or order.state in ENDING:
        return order
    changed = _with_group(order, replace(group, state=GroupState.RUNNING, endpoints=endpoints))
    if any(other.state is not GroupState.RUNNING for other in changed.groups):
        return changed
    ready = replace(changed, ready_at=changed.ready_at or now)
    if ready.state is OrderState.OPEN:
        ready = move(ready, OrderState.MATCHED, "all groups are leased; workloads are starting", now)
    return move(ready, OrderState.RUNNING, "all groups are ready", now)


def lease_suspended(order: Order, index: int, generation: int, now: datetime) -> Order:
    """A lease was paused for want of funds."""
    group = _group(order, index)
    if group is None or generation != group.generation or order.state in ENDING or order.state is OrderState.OPEN:
        return order
    return move(order, OrderState.SUSPENDED, "paused for want of funds", now)


def lease_ended(order: Order, index: int, generation: int, *, releasing: bool, detail: str, now: datetime) -> Order:
    """A lease ended; ``releasing`` says that the group is being leased again."""
    group = _group(order, index)
    if group is None or generation != group.generation:
        return order
    state = GroupState.LOST if releasing and order.state not in ENDING else GroupState.ENDED
    changed = _with_group(order, replace(group, state=state, endpoints=()))
    if state is GroupState.LOST:
        return move(changed, OrderState.DEGRADED, detail or "a group was lost and is being leased again", now)
    return changed


def order_ended(order: Order, reason: EndReason, detail: str, now: datetime) -> Order:
    """Bidding says that nothing of the order runs on; its reason is the one that counts."""
    if order.end_confirmed or order.state is OrderState.CLOSED:
        return order
    # Whoever asked for this end said why in words of their own; bidding only knows who asked.
    kept = order.close_detail if order.close_reason is reason else ""
    ended = replace(order, close_reason=reason, close_detail=kept or detail, end_confirmed=True)
    ended = move(_groups_ended(ended), OrderState.CLOSING, detail or f"ended: {reason.lower()}", now)
    return _closed_if_done(ended, now)


def escrow_changed(order: Order, charged_micros: int, held_micros: int) -> Order:
    """What settlement says of the escrow while it is open."""
    if order.escrow_closed:
        return order
    return replace(order, charged_micros=charged_micros, held_micros=held_micros)


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


def labelled(order: Order, labels: tuple[tuple[str, str], ...]) -> Order:
    """The order with other labels."""
    assert order.state not in ENDING, "an ended order takes no change"
    return replace(order, labels=labels)


def _closed_if_done(order: Order, now: datetime) -> Order:
    """CLOSED once bidding has confirmed the end and settlement the money."""
    if not (order.end_confirmed and order.escrow_closed):
        return order
    return move(replace(order, closed_at=now), OrderState.CLOSED, "the money has returned", now)


def _group(order: Order, index: int) -> Group | None:
    """One group by its index."""
    return order.groups[index] if 0 <= index < len(order.groups) else None


def _with_group(order: Order, group: Group) -> Order:
    """The order with one group replaced."""
    groups = tuple(group if other.index == group.index else other for other in order.groups)
    return replace(order, groups=groups)


def _groups_ended(order: Order) -> Order:
    """The order with all its groups ended."""
    return replace(order, groups=tuple(replace(group, state=GroupState.ENDED, endpoints=()) for group in order.groups))
