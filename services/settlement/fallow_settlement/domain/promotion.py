"""Promotional fees: another take for the leases of one account."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Promotion:
    """A take in basis points for leases of an account in an asset that are made from ``start_time`` until ``end_time``."""

    id: str
    account_id: str
    asset: str
    take_basis_points: int
    start_time: datetime
    end_time: datetime
    reason: str
    creator: str
    create_time: datetime
