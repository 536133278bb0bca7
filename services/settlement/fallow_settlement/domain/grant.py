"""Grants from the community pool: paid once, by two operators' words, neither of whom gets it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

APPROVALS: Final = 2
"""How many operators must approve a grant."""
USUAL_WAIT: Final = timedelta(days=30)
LONGEST_WAIT: Final = timedelta(days=90)
"""How long a grant may wait for its approvals, as a rule and at most."""


class GrantState(StrEnum):
    """State of a grant."""

    PROPOSED = "PROPOSED"
    PAID = "PAID"
    EXPIRED = "EXPIRED"


@dataclass(frozen=True, slots=True)
class Grant:
    """A grant; ``approvers`` are the operators who have approved it, each once."""

    id: str
    account_id: str
    asset: str
    amount: int
    reason: str
    creator: str
    create_time: datetime
    expire_time: datetime
    pay_time: datetime | None = None
    approvers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Nobody approves what is his, and a payment has its approvals."""
        assert self.account_id not in self.approvers, "nobody approves a grant of his own"
        assert self.pay_time is None or len(self.approvers) >= APPROVALS, "a grant is paid by its approvals"

    def state(self, now: datetime) -> GrantState:
        """Where it stands at an instant."""
        if self.pay_time is not None:
            return GrantState.PAID
        return GrantState.EXPIRED if now >= self.expire_time else GrantState.PROPOSED
