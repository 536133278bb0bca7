"""Orders and their groups as the engine keeps them: what is wanted, which generation it is at, what failed."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from fallow_bidding.domain.leases import EndReason


class GroupState(StrEnum):
    """State of a group on the market."""

    OPEN = "OPEN"
    LEASED = "LEASED"
    ENDED = "ENDED"


@dataclass(frozen=True, slots=True)
class MarketOrder:
    """An order as bidding knows it. ``body`` is the event's order, None where the order was ended unheard."""

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


@dataclass(frozen=True, slots=True)
class MarketGroup:
    """One group of an order. ``generation`` is that of its newest lease, 0 before the first."""

    order_id: str
    group_index: int
    group_id: str
    state: GroupState = GroupState.OPEN
    generation: int = 0
    excluded_providers: frozenset[str] = frozenset()
    failures: int = 0
    hold_until: datetime | None = None
    decision: dict[str, Any] | None = None

    def is_matchable(self, now: datetime) -> bool:
        """Whether the engine may lease it now."""
        return self.state is GroupState.OPEN and (self.hold_until is None or self.hold_until <= now)
