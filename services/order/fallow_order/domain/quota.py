"""How much of something one caller may have at once, and the answer to who wants more.

A quota is held in the transaction that would break it: lock the account (and no other), count what it has, decide here,
write. ``limit`` 0 is no limit, and then nothing is locked or counted.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from fallow_chassis.errors import DomainError
from fallow_order.domain.reasons import QUOTA_EXCEEDED

LIVE_ORDERS: Final = "live_orders"
API_KEYS: Final = "api_keys"
SIGN_IN_CHALLENGES: Final = "sign_in_challenges"
RETRY_AFTER_MS: Final = 10_000
"""How long to wait where only the caller's own doing (closing an order, deleting a key) makes room."""


def room(limit: int, used: int) -> int | None:
    """How many more fit; None where there is no limit."""
    assert limit >= 0, "a limit is not negative"
    assert used >= 0, "nobody has less than nothing"
    return None if limit == 0 else max(0, limit - used)


def check_quota(quota: str, *, limit: int, used: int, retry_after_ms: int = RETRY_AFTER_MS) -> None:
    """Pass if one more fits, or raise QUOTA_EXCEEDED."""
    if room(limit, used) == 0:
        raise quota_exceeded(quota, limit=limit, used=used, retry_after_ms=retry_after_ms)


def over_quota(accounts: Sequence[str], live: Mapping[str, int], limit: int) -> list[int | None]:
    """What becomes of new orders that are stored together, one entry each, in turn: None for one that fits, or how many
    its account has, those of the same batch among them. ``live`` is what each account had before.
    """
    used = dict(live)
    found: list[int | None] = []
    for account in accounts:
        if room(limit, used[account]) == 0:
            found.append(used[account])
            continue
        used[account] += 1
        found.append(None)
    return found


def quota_exceeded(quota: str, *, limit: int, used: int, retry_after_ms: int = RETRY_AFTER_MS) -> DomainError:
    """The error for one too many: which quota, its limit, how much of it is used, when to try again."""
    assert retry_after_ms > 0, "a wait is longer than nothing"
    return DomainError(
        QUOTA_EXCEEDED,
        f"the limit of {limit} {quota.replace('_', ' ')} is reached",
        metadata={"quota": quota, "limit": str(limit), "used": str(used)},
        retry_after_ms=retry_after_ms,
    )
