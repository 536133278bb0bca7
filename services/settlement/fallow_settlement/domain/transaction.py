"""A transaction on its way to the chain: which step comes next, and what it may cost.

    PENDING -> SIGNED -> SENT -> MINED -> FINAL        and MINED -> SENT when a reorganisation takes its block away
                          ^ <- LOST <------+             when the chain was rolled back below it and an operator decides

The nonce and the signed bytes are stored before anything is sent, so a crash at any point repeats nothing: the same
bytes go out again. Raising the fee signs new bytes with the same nonce; any of the attempts may be the one that is
mined. ABANDONED means that the nonce went to somebody else's transaction; a new one takes its place. LOST ones wait, in
the order of their batches, and each goes out again when it is the only one on its way (``resending``).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

BUMP_NUMERATOR: Final = 1_125
BUMP_DENOMINATOR: Final = 1_000
"""Nodes take a replacement that pays 10 % more on both fees; 12.5 % leaves room for their rounding."""


class TransactionState(StrEnum):
    """State of a transaction."""

    PENDING = "PENDING"
    SIGNED = "SIGNED"
    SENT = "SENT"
    MINED = "MINED"
    FINAL = "FINAL"
    LOST = "LOST"
    ABANDONED = "ABANDONED"


ANCHORED: Final = frozenset({TransactionState.MINED, TransactionState.FINAL})
"""States in which a batch stands on the chain."""


class Step(StrEnum):
    """What to do next with a transaction."""

    SIGN = "SIGN"
    SEND = "SEND"
    BUMP = "BUMP"
    MARK_MINED = "MARK_MINED"
    MARK_LOST = "MARK_LOST"
    FINALIZE = "FINALIZE"
    ABANDON = "ABANDON"
    WAIT = "WAIT"


@dataclass(frozen=True, slots=True)
class Fees:
    """Fees of a type 2 transaction in wei per gas."""

    max_fee: int
    max_priority_fee: int

    def __post_init__(self) -> None:
        """A tip is part of the fee."""
        assert 0 <= self.max_priority_fee <= self.max_fee, "the tip is part of the fee"


@dataclass(frozen=True, slots=True)
class Sight:
    """What the chain says now about a transaction.

    ``receipt_block``: block of the canonical receipt of any of its attempts, None without one. ``reverted``: the receipt
    says so. ``anchored``: the contract holds our commitment. ``nonce_used``: the sender's nonce is beyond ours.
    ``waited_ms``: how long the last attempt has been out.
    """

    head: int
    receipt_block: int | None
    reverted: bool
    anchored: bool
    nonce_used: bool
    waited_ms: int


def next_step(state: TransactionState, sight: Sight, *, confirmations: int, bump_after_ms: int) -> Step:
    """The next step; a table test holds each row."""
    assert confirmations >= 1, "being mined is the first confirmation"
    if state is TransactionState.PENDING:
        return Step.SIGN
    if sight.receipt_block is None:
        return _without_receipt(state, sight, bump_after_ms)
    if sight.reverted and not sight.anchored:
        return Step.ABANDON
    if state in {TransactionState.SIGNED, TransactionState.SENT}:
        return Step.MARK_MINED
    deep = sight.head - sight.receipt_block + 1 >= confirmations
    return Step.FINALIZE if deep and sight.anchored else Step.WAIT


def _without_receipt(state: TransactionState, sight: Sight, bump_after_ms: int) -> Step:
    """The step of a transaction that is in no block now."""
    if state is TransactionState.MINED:
        return Step.MARK_LOST
    if sight.nonce_used:
        # Somebody else's transaction took the nonce: ours can never be mined.
        return Step.ABANDON
    if state is TransactionState.SENT and sight.waited_ms >= bump_after_ms:
        return Step.BUMP
    return Step.SEND


def market_fees(base_fee: int, priority_fee: int, cap: int) -> Fees:
    """Fees that pay for two doublings of the base fee, within the cap."""
    max_fee = min(cap, 2 * base_fee + priority_fee)
    return Fees(max_fee, min(priority_fee, max_fee))


def bumped_fees(old: Fees, market: Fees, cap: int) -> Fees | None:
    """Fees of a replacement: 12.5 % more on both, rounded up, or the market's where they are higher.

    None where that would pass the cap: the old bytes are sent again instead.
    """
    bumped = Fees(
        max(_raised(old.max_fee), market.max_fee), max(_raised(old.max_priority_fee), market.max_priority_fee)
    )
    return None if bumped.max_fee > cap else bumped


def _raised(fee: int) -> int:
    """A fee with 12.5 % on top, rounded up, and one more so that 0 grows too."""
    return -(-fee * BUMP_NUMERATOR // BUMP_DENOMINATOR) + 1
