"""A transaction's next step and its fees."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow_settlement.domain.transaction import (
    Fees,
    Sight,
    Step,
    TransactionState,
    bumped_fees,
    market_fees,
    next_step,
)

PENDING, SIGNED, SENT, MINED = (
    TransactionState.PENDING,
    TransactionState.SIGNED,
    TransactionState.SENT,
    TransactionState.MINED,
)


def sight(
    block: int | None = None,
    *,
    head: int = 10,
    reverted: bool = False,
    anchored: bool = True,
    used: bool = False,
    waited: int = 0,
) -> Sight:
    """What the chain says."""
    return Sight(head, block, reverted, anchored, used, waited)


TABLE = [
    ("not signed yet", PENDING, sight(), Step.SIGN),
    ("signed, nobody has seen it", SIGNED, sight(), Step.SEND),
    ("signed, mined before the crash was noticed", SIGNED, sight(10), Step.MARK_MINED),
    ("sent, waits: send again", SENT, sight(waited=59_999), Step.SEND),
    ("sent, waits for too long", SENT, sight(waited=60_000), Step.BUMP),
    ("signed with a higher fee, not sent yet", SIGNED, sight(waited=60_000), Step.SEND),
    ("sent and mined", SENT, sight(9), Step.MARK_MINED),
    ("mined, not deep enough", MINED, sight(9), Step.WAIT),
    ("mined and deep enough", MINED, sight(8), Step.FINALIZE),
    ("deep, but the contract says otherwise", MINED, sight(8, anchored=False), Step.WAIT),
    ("the block is gone", MINED, sight(), Step.MARK_LOST),
    ("the nonce went to somebody else", SENT, sight(used=True), Step.ABANDON),
    ("signed, and the nonce went to somebody else", SIGNED, sight(used=True), Step.ABANDON),
    ("reverted, and our header is not there", SENT, sight(9, reverted=True, anchored=False), Step.ABANDON),
    ("reverted, but our header is there", SENT, sight(9, reverted=True), Step.MARK_MINED),
]


@pytest.mark.parametrize(("state", "seen", "step"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_the_next_step(state: TransactionState, seen: Sight, step: Step) -> None:
    """Goal: each state and sight has one step. Method: a row for each."""
    assert next_step(state, seen, confirmations=3, bump_after_ms=60_000) is step


FEES = st.integers(0, 10**12)


@given(FEES, FEES, FEES, FEES)
def test_a_replacement_pays_an_eighth_more_on_both_fees(old_tip: int, old_rest: int, tip: int, rest: int) -> None:
    """Goal: any node takes the replacement. Method: compare with 12.5 % in exact fractions."""
    old, market = Fees(old_tip + old_rest, old_tip), Fees(tip + rest, tip)
    new = bumped_fees(old, market, 10**15)
    assert new is not None
    assert new.max_fee * 1_000 >= old.max_fee * 1_125
    assert new.max_priority_fee * 1_000 >= old.max_priority_fee * 1_125
    assert new.max_fee > old.max_fee
    assert new.max_fee >= market.max_fee


def test_fees_never_pass_the_cap() -> None:
    """Goal: a spike costs no more than the cap. Method: ask for more in both ways."""
    assert bumped_fees(Fees(90, 1), Fees(1, 1), cap=100) is None
    assert market_fees(10**12, 5, cap=100) == Fees(100, 5)
    assert market_fees(10**12, 500, cap=100) == Fees(100, 100)
    assert market_fees(7, 1, cap=100) == Fees(15, 1)
