"""The ways in which settlement refuses; each is registered, so that docs/errors.md lists it."""

from typing import Final

from fallow_chassis.errors import ErrorReason

INSUFFICIENT_FUNDS: Final = ErrorReason(
    "INSUFFICIENT_FUNDS",
    "FAILED_PRECONDITION",
    "The free balance is smaller than the sum asked for.",
    "Deposit at least the metadata's short_micros of its asset and repeat with the same request_id.",
)
ASSET_UNKNOWN: Final = ErrorReason(
    "ASSET_UNKNOWN",
    "INVALID_ARGUMENT",
    "This installation does not take the asset.",
    "Use one of the assets that the metadata lists.",
)
AMOUNT_INVALID: Final = ErrorReason(
    "AMOUNT_INVALID",
    "INVALID_ARGUMENT",
    "The sum is not more than 0, or too large for one movement.",
    "Send a sum from 1 to 10^15 micros.",
)
ESCROW_NOT_FOUND: Final = ErrorReason(
    "ESCROW_NOT_FOUND",
    "NOT_FOUND",
    "There is no such escrow, or it is another account's.",
    "Check the name; the id of an escrow is its order's.",
)
ESCROW_RELEASED: Final = ErrorReason(
    "ESCROW_RELEASED",
    "FAILED_PRECONDITION",
    "The escrow was released before this call; the order can no longer open.",
    "Create a new order.",
)
ESCROW_IN_USE: Final = ErrorReason(
    "ESCROW_IN_USE",
    "FAILED_PRECONDITION",
    "Leases of the order exist, so its funds are returned only after the order has ended.",
    "Close the order instead.",
)
ESCROW_CLOSED: Final = ErrorReason(
    "ESCROW_CLOSED",
    "FAILED_PRECONDITION",
    "The escrow takes no more funds: it is closing or closed, or was used up for longer than its grace. One that is used up "
    "takes no change of its order before it was topped up.",
    "Top up a used-up escrow (`fallow order top-up`); else create a new order.",
)
BUDGET_TOO_LOW: Final = ErrorReason(
    "BUDGET_TOO_LOW",
    "FAILED_PRECONDITION",
    "The order has cost, or owes, more than the budget that was asked for.",
    "Ask for a budget of at least the metadata's spent_micros, or close the order.",
)
CHARGE_NOT_FOUND: Final = ErrorReason(
    "CHARGE_NOT_FOUND",
    "NOT_FOUND",
    "There is no such charge, or the caller neither paid nor earned it.",
    "List the charges of the account.",
)
RECEIPT_NOT_READY: Final = ErrorReason(
    "RECEIPT_NOT_READY",
    "FAILED_PRECONDITION",
    "The charge is not in an anchored batch yet.",
    "Ask again after the next batch; RetryInfo says when.",
)
BATCH_NOT_FOUND: Final = ErrorReason(
    "BATCH_NOT_FOUND",
    "NOT_FOUND",
    "There is no batch of that number.",
    "List the batches.",
)
ACCOUNT_NOT_FOUND: Final = ErrorReason(
    "ACCOUNT_NOT_FOUND",
    "NOT_FOUND",
    "There is no such account, or it is not the caller's.",
    "Use accounts/me.",
)
LEDGER_ACCOUNT_NOT_FOUND: Final = ErrorReason(
    "LEDGER_ACCOUNT_NOT_FOUND",
    "NOT_FOUND",
    "The ledger has no such account.",
    "List the accounts of the ledger.",
)
CHAIN_NOT_CONFIGURED: Final = ErrorReason(
    "CHAIN_NOT_CONFIGURED",
    "FAILED_PRECONDITION",
    "This installation runs without a chain, so there is nowhere to deposit.",
    "Ask the platform's operator.",
)
PAYEE_INVALID: Final = ErrorReason(
    "PAYEE_INVALID",
    "INVALID_ARGUMENT",
    "Nobody can be paid at the address.",
    "Name an address that you have the key of; not the zero address, nor one of the platform's contracts.",
)
WITHDRAWALS_HALTED: Final = ErrorReason(
    "WITHDRAWALS_HALTED",
    "UNAVAILABLE",
    "A confirmed deposit has left the chain, and nobody withdraws until that is cleared up.",
    "Repeat with the same request_id later; RetryInfo says when to ask again.",
)
NOTHING_TO_CLAIM: Final = ErrorReason(
    "NOTHING_TO_CLAIM",
    "FAILED_PRECONDITION",
    "No anchored payout root holds anything of the account's that is not claimed.",
    "Create a withdrawal, or wait until the batch that takes it is anchored: list the withdrawals.",
)
PROGRAMME_NOT_FOUND: Final = ErrorReason(
    "PROGRAMME_NOT_FOUND",
    "NOT_FOUND",
    "There is no such programme.",
    "List the programmes.",
)
PROMOTION_NOT_FOUND: Final = ErrorReason(
    "PROMOTION_NOT_FOUND",
    "NOT_FOUND",
    "There is no such promotion.",
    "List the promotions.",
)
GRANT_NOT_FOUND: Final = ErrorReason(
    "GRANT_NOT_FOUND",
    "NOT_FOUND",
    "There is no such grant from the community pool.",
    "List the grants.",
)
GRANT_NOT_OPEN: Final = ErrorReason(
    "GRANT_NOT_OPEN",
    "FAILED_PRECONDITION",
    "The grant's time for approvals is over.",
    "Propose it anew.",
)
OWN_GRANT: Final = ErrorReason(
    "OWN_GRANT",
    "FAILED_PRECONDITION",
    "Nobody approves a grant that he gets.",
    "Ask another operator.",
)
POOL_TOO_SMALL: Final = ErrorReason(
    "POOL_TOO_SMALL",
    "FAILED_PRECONDITION",
    "The community pool does not hold that much.",
    "Ask for less, or wait for charges to fill the pool; the metadata says what it holds.",
)

REASONS: Final[tuple[ErrorReason, ...]] = (
    INSUFFICIENT_FUNDS,
    ASSET_UNKNOWN,
    AMOUNT_INVALID,
    ESCROW_NOT_FOUND,
    ESCROW_RELEASED,
    ESCROW_IN_USE,
    ESCROW_CLOSED,
    BUDGET_TOO_LOW,
    CHARGE_NOT_FOUND,
    RECEIPT_NOT_READY,
    BATCH_NOT_FOUND,
    ACCOUNT_NOT_FOUND,
    LEDGER_ACCOUNT_NOT_FOUND,
    CHAIN_NOT_CONFIGURED,
    PAYEE_INVALID,
    WITHDRAWALS_HALTED,
    NOTHING_TO_CLAIM,
    PROGRAMME_NOT_FOUND,
    PROMOTION_NOT_FOUND,
    GRANT_NOT_FOUND,
    GRANT_NOT_OPEN,
    OWN_GRANT,
    POOL_TOO_SMALL,
)
"""All of them."""
