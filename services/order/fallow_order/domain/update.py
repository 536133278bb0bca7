"""Changes of a live order: what may not be changed any more, and the order as it is after a change.

The order's parts were checked as those of a new one before; here stand the checks that need its present: they run in the
order of the groups, then term, then budget. A restoring change asks settlement for what the order is already: after a refusal,
and after a group has ended on its own.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from fallow_chassis.errors import DomainError, invalid_field
from fallow_order.domain.draft import OrderDraft
from fallow_order.domain.hold import hold_micros
from fallow_order.domain.order import ENDING, GroupState, Order, noted
from fallow_order.domain.reasons import BUDGET_TOO_LOW, PRICE_LIMIT_TOO_LOW, TERM_TOO_SHORT

_MILLISECOND: Final = timedelta(milliseconds=1)
_LEASED: Final = frozenset({GroupState.LEASED, GroupState.RUNNING, GroupState.SUSPENDED})


@dataclass(frozen=True, slots=True)
class Holding:
    """What settlement is asked to hold for an order; a budget of None is no bound."""

    asset: str
    hold_micros: int
    budget_micros: int | None
    auto_top_up: bool


@dataclass(frozen=True, slots=True)
class Update:
    """What an order is to be. ``revisions`` are those of its groups' workloads; ``summary`` tells people what changes."""

    specification: bytes
    labels: tuple[tuple[str, str], ...]
    holding: Holding
    term_ms: int | None
    revisions: tuple[int, ...]
    summary: str

    def __post_init__(self) -> None:
        """Hold what must never be otherwise."""
        assert self.holding.hold_micros > 0, "an order without a hold could run unpaid"
        assert all(revision > 0 for revision in self.revisions), "a revision is numbered from 1"


@dataclass(frozen=True, slots=True)
class PendingUpdate:
    """A change on its way, under its number; ``restoring`` where settlement is only to hold what the order asks for by now."""

    order_id: str
    number: int
    request_id: str
    restoring: bool
    update: Update


def holding(order: Order) -> Holding:
    """What an order asks settlement to hold now."""
    return Holding(order.asset, order.hold_micros, order.budget_micros, order.auto_top_up)


def present(order: Order) -> Update:
    """What an order is: the change that changes nothing."""
    revisions = tuple(group.revision for group in order.groups)
    return Update(order.specification, order.labels, holding(order), order.term_ms, revisions, "")


def planned(order: Order, draft: OrderDraft, limits: Sequence[int], changed: Collection[int], now: datetime) -> Update:
    """The change that makes an order what the draft says; its summary is empty where that is what it is.

    ``limits`` are the price limits until now, ``changed`` the groups whose workload is another.
    Errors: INVALID_FIELD, PRICE_LIMIT_TOO_LOW, TERM_TOO_SHORT, BUDGET_TOO_LOW.
    """
    assert order.state not in ENDING, "an ended order takes no change"
    relimited = {index for index, limit in enumerate(limits) if limit != draft.limits[index]}
    for index, group in enumerate(order.groups):
        keeps_lease = group.state in _LEASED and index not in changed
        if index in relimited and keeps_lease and draft.limits[index] < group.price_micros_per_hour:
            raise DomainError(
                PRICE_LIMIT_TOO_LOW,
                f"group {group.group_id} runs at {group.price_micros_per_hour} micros an hour, fixed until its workload "
                "changes: set at least that limit",
                metadata={
                    "group_id": group.group_id,
                    "asset": group.price_asset,
                    "price_micros_per_hour": str(group.price_micros_per_hour),
                },
            )
        if group.state is GroupState.ENDED and (index in changed or index in relimited):
            raise invalid_field(f"order.groups[{index}]", "the group has ended and takes no change")
    _check_term(order, draft.term_ms, now)
    if draft.budget_micros is not None and draft.budget_micros < order.charged_micros:
        raise DomainError(
            BUDGET_TOO_LOW,
            f"the order has cost {order.charged_micros} micros already: ask for at least that, or close it",
            metadata={"asset": order.asset, "spent_micros": str(order.charged_micros)},
        )
    wanted = holding(order)
    terms = (draft.term_ms, draft.budget_micros, draft.auto_top_up)
    # What asks for no other money holds what it did.
    if relimited or terms != (order.term_ms, order.budget_micros, order.auto_top_up):
        live = [draft.limits[group.index] for group in order.groups if group.state is not GroupState.ENDED]
        hold = hold_micros(live, draft.term_ms, draft.budget_micros)
        wanted = Holding(order.asset, hold, draft.budget_micros, draft.auto_top_up)
    revisions = tuple(group.revision + (group.index in changed) for group in order.groups)
    update = Update(draft.specification, draft.labels, wanted, draft.term_ms, revisions, "")
    return replace(update, summary=_summary(order, update, relimited))


def without_ended(order: Order, limits: Sequence[int]) -> Order:
    """The order, asking for no more than its groups that go on need; ``limits`` are the price limits of all groups."""
    live = [limits[group.index] for group in order.groups if group.state is not GroupState.ENDED]
    if order.state in ENDING or not sum(live):
        return order
    return replace(order, hold_micros=min(order.hold_micros, hold_micros(live, order.term_ms, order.budget_micros)))


def applied(order: Order, update: Update, now: datetime) -> Order:
    """The order after a change; it stands in the order's history, with what changed."""
    assert order.state not in ENDING, "an ended order takes no change"
    groups = tuple(
        replace(group, revision=revision) for group, revision in zip(order.groups, update.revisions, strict=True)
    )
    changed = replace(
        order,
        specification=update.specification,
        labels=update.labels,
        hold_micros=update.holding.hold_micros,
        budget_micros=update.holding.budget_micros,
        auto_top_up=update.holding.auto_top_up,
        term_ms=update.term_ms,
        groups=groups,
    )
    return noted(changed, update.summary, now)


def _check_term(order: Order, term_ms: int | None, now: datetime) -> None:
    """Refuse a term that is over already."""
    if term_ms is None or order.ready_at is None or term_ms == order.term_ms:
        return
    ran_ms = (now - order.ready_at) // _MILLISECOND
    if ran_ms >= term_ms:
        raise DomainError(
            TERM_TOO_SHORT,
            f"the order has run for {ran_ms} ms, and the term would be {term_ms} ms: ask for more, or close it",
            metadata={"ran_ms": str(ran_ms), "term_ms": str(term_ms)},
        )


def _summary(order: Order, update: Update, relimited: Collection[int]) -> str:
    """What a change is about, for people; empty where nothing changes."""
    before = present(order)
    parts = [
        f"workload of {group.group_id} (revision {revision})"
        for group, revision in zip(order.groups, update.revisions, strict=True)
        if revision != group.revision
    ]
    parts += [f"price limit of {order.groups[index].group_id}" for index in sorted(relimited)]
    if update.holding.budget_micros != before.holding.budget_micros:
        parts.append("budget")
    if update.holding.auto_top_up != before.holding.auto_top_up:
        parts.append("automatic top-up on" if update.holding.auto_top_up else "automatic top-up off")
    if update.term_ms != before.term_ms:
        parts.append("duration")
    if update.labels != before.labels:
        parts.append("labels")
    return f"changed: {', '.join(parts)}" if parts else ""
