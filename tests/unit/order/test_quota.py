"""Quotas: what fits, and what one too many is told."""

import pytest

from fallow_chassis.errors import DomainError
from fallow_order.domain.quota import LIVE_ORDERS, check_quota, over_quota, room
from fallow_order.domain.reasons import QUOTA_EXCEEDED


@pytest.mark.parametrize(
    ("limit", "used", "left"), [(3, 0, 3), (3, 2, 1), (3, 3, 0), (3, 7, 0), (0, 0, None), (0, 1_000_000, None)]
)
def test_room_is_what_is_left(limit: int, used: int, left: int | None) -> None:
    """Goal: the limit is the last that fits; 0 is none. Method: below, at and above it."""
    assert room(limit, used) == left


def test_one_too_many_is_told_which_quota() -> None:
    """Goal: a program can act on the refusal. Method: the last that fits, then one more."""
    check_quota(LIVE_ORDERS, limit=3, used=2)
    with pytest.raises(DomainError) as caught:
        check_quota(LIVE_ORDERS, limit=3, used=3, retry_after_ms=500)
    assert caught.value.has_reason(QUOTA_EXCEEDED)
    assert caught.value.code == "RESOURCE_EXHAUSTED"
    assert caught.value.metadata == {"quota": "live_orders", "limit": "3", "used": "3"}
    assert caught.value.retry_after_ms == 500


def test_a_batch_is_admitted_in_turn() -> None:
    """Goal: orders that are stored together count for each other, and for no other account. Method: one batch."""
    live = {"a": 1, "b": 3, "c": 0}
    assert over_quota(["a", "b", "a", "c", "a"], live, 3) == [None, 3, None, None, 3]
    assert over_quota(["b"] * 9, live, 0) == [None] * 9
    assert live == {"a": 1, "b": 3, "c": 0}
