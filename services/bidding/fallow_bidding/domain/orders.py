"""Orders and their groups as the engine keeps them: what is wanted, which generation it is at, what failed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from fallow_bidding.domain.auctions import AuctionMode
from fallow_bidding.domain.leases import EndReason

UNTIL_RELEASED: Final = datetime(9999, 1, 1, tzinfo=UTC)
"""The hold of a group whose last generation must have stopped, however long that takes, before the next is leased."""


class GroupState(StrEnum):
    """State of a group on the market."""

    OPEN = "OPEN"
    LEASED = "LEASED"
    ENDED = "ENDED"


@dataclass(frozen=True, slots=True)
class MarketOrder:
    """An order as bidding knows it. ``body`` is the event's order, None where the order was ended unheard.

    ``together`` says that its groups are leased, and end, all or none. ``gpu_models`` are those that it asks for, sorted.
    ``auction_mode`` says how its first leases are found; None is against standing offers at once. ``suspended``: it is paused
    for want of funds; ``suspension_number`` is that of the last word on it.
    """

    order_id: str
    tenant: str
    market: str
    body: bytes | None
    create_time: datetime
    ended: bool = False
    term_ms: int | None = None
    forbids_overlap: bool = False
    ready_time: datetime | None = None
    end_reason: EndReason | None = None
    end_detail: str = ""
    end_time: datetime | None = None
    open_time: datetime | None = None
    match_timeout_ms: int | None = None
    together: bool = True
    gpu_models: tuple[str, ...] = ()
    auction_mode: AuctionMode | None = None
    suspended: bool = False
    suspension_number: int = 0

    def __post_init__(self) -> None:
        """What may wait knows for how long."""
        assert (self.open_time is None) == (self.match_timeout_ms is None), "a wait has a beginning and a length"
        assert self.ended or self.open_time is not None, "an order that may match was opened"

    @property
    def match_deadline(self) -> datetime | None:
        """When its wait for a first match is over, if the market is never away."""
        if self.open_time is None or self.match_timeout_ms is None:
            return None
        return self.open_time + timedelta(milliseconds=self.match_timeout_ms)


@dataclass(frozen=True, slots=True)
class MarketGroup:
    """One group of an order. ``generation`` is that of its newest lease, 0 before the first.

    ``return_time`` is from when the providers that failed it may have it again, where nobody else fits.
    ``revision`` is that of the workload that it is to run, ``leased_revision`` the one of its newest lease.
    """

    order_id: str
    group_index: int
    group_id: str
    state: GroupState = GroupState.OPEN
    generation: int = 0
    excluded_providers: frozenset[str] = frozenset()
    failures: int = 0
    hold_until: datetime | None = None
    decision: dict[str, Any] | None = None
    return_time: datetime | None = None
    revision: int = 1
    leased_revision: int = 0

    @property
    def waits(self) -> bool:
        """Whether it looks for its first lease."""
        return self.state is GroupState.OPEN and self.generation == 0

    @property
    def is_changed(self) -> bool:
        """Whether its workload is newer than the one that its lease runs."""
        return self.state is GroupState.LEASED and self.leased_revision < self.revision

    @property
    def awaits_release(self) -> bool:
        """Whether it waits until its superseded generation has stopped."""
        return self.state is GroupState.OPEN and self.hold_until == UNTIL_RELEASED

    @property
    def succeeds(self) -> bool:
        """Whether it looks for a lease of a newer workload than its last one had."""
        return self.state is GroupState.OPEN and 0 < self.leased_revision < self.revision

    def is_matchable(self, now: datetime) -> bool:
        """Whether the engine may lease it now."""
        return self.state is GroupState.OPEN and (self.hold_until is None or self.hold_until <= now)

    def may_return(self, now: datetime) -> bool:
        """Whether providers that failed it may have it again, where nobody else fits."""
        return bool(self.excluded_providers) and self.return_time is not None and self.return_time <= now


@dataclass(frozen=True, slots=True)
class Wait:
    """What a wait for a first match has come to: groups whose time is over, or when to look next; nothing waits else."""

    over: tuple[MarketGroup, ...] = ()
    next_time: datetime | None = None


def judge_wait(order: MarketOrder, groups: Sequence[MarketGroup], away_ms: int, now: datetime) -> Wait:
    """Whether an order's groups have waited too long for a first match.

    The wait counts from the opening, without the ``away_ms`` of it in which the market itself was away.
    """
    assert away_ms >= 0, "an absence takes time"
    waiting = tuple(group for group in groups if group.waits)
    deadline = order.match_deadline
    if order.ended or deadline is None or not waiting:
        return Wait()
    deadline += timedelta(milliseconds=away_ms)
    return Wait(over=waiting) if deadline <= now else Wait(next_time=deadline)
