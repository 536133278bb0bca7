"""The ways in which the order service refuses; each is registered, so that docs/errors.md lists it."""

from typing import Final

from fallow_chassis.errors import ErrorReason

ORDER_NOT_FOUND: Final = ErrorReason(
    "ORDER_NOT_FOUND",
    "NOT_FOUND",
    "There is no such order, or it is another account's.",
    "Check the name, or list the orders of the account.",
)
ORDER_CLOSED: Final = ErrorReason(
    "ORDER_CLOSED",
    "FAILED_PRECONDITION",
    "The order is ending or has ended and takes no change.",
    "Create a new order.",
)
ORDER_WITHDRAWN: Final = ErrorReason(
    "ORDER_WITHDRAWN",
    "ABORTED",
    "The order was withdrawn while this call tried to open it; nothing is held.",
    "Repeat the call: it makes the order anew.",
)
ETAG_MISMATCH: Final = ErrorReason(
    "ETAG_MISMATCH",
    "ABORTED",
    "The order changed since the etag was read.",
    "Get the order again and repeat the change on what it is now.",
)
UPDATE_IN_PROGRESS: Final = ErrorReason(
    "UPDATE_IN_PROGRESS",
    "ABORTED",
    "The order is being opened, or another change of it is on its way.",
    "Wait as RetryInfo says, get the order again and repeat the change on what it is then.",
)
UPDATE_WITHDRAWN: Final = ErrorReason(
    "UPDATE_WITHDRAWN",
    "ABORTED",
    "The change was withdrawn while this call tried to make it; the order is as it was.",
    "Repeat the call: it makes the change anew.",
)
PRICE_LIMIT_TOO_LOW: Final = ErrorReason(
    "PRICE_LIMIT_TOO_LOW",
    "FAILED_PRECONDITION",
    "The price limit is below the price of the group's present lease, which is fixed while its workload stays.",
    "Set a limit of at least the metadata's price_micros_per_hour, or change the workload too, or close the order.",
)
TERM_TOO_SHORT: Final = ErrorReason(
    "TERM_TOO_SHORT",
    "FAILED_PRECONDITION",
    "The order has run for longer than the term that was asked for.",
    "Ask for a term of more than the metadata's ran_ms, or close the order.",
)
BUDGET_TOO_LOW: Final = ErrorReason(
    "BUDGET_TOO_LOW",
    "FAILED_PRECONDITION",
    "The order has cost, or owes, more than the budget that was asked for.",
    "Ask for a budget of at least the metadata's spent_micros, or close the order.",
)
SDL_INVALID: Final = ErrorReason(
    "SDL_INVALID",
    "INVALID_ARGUMENT",
    "The text is not a Stack Definition Language file that can be converted.",
    "Correct what the violations name: each has the path and the line.",
)
LEASE_NOT_FOUND: Final = ErrorReason(
    "LEASE_NOT_FOUND",
    "NOT_FOUND",
    "There is no such lease, or its order has ended.",
    "Drop the generation: nothing of it may run.",
)
WORKLOAD_KEY_MISSING: Final = ErrorReason(
    "WORKLOAD_KEY_MISSING",
    "UNAVAILABLE",
    "The workload cannot be opened now: the key that sealed it was taken out of the service's settings.",
    "Try again later; the platform's operator was told and must put the key back.",
)
GENERATION_OLD: Final = ErrorReason(
    "GENERATION_OLD",
    "FAILED_PRECONDITION",
    "A newer generation of the group exists.",
    "Stop the old generation; the newer one's command names its own.",
)
ACCOUNT_NOT_FOUND: Final = ErrorReason(
    "ACCOUNT_NOT_FOUND",
    "NOT_FOUND",
    "There is no such account, or it is not the caller's.",
    "Use accounts/me.",
)
SIGN_IN_MESSAGE_INVALID: Final = ErrorReason(
    "SIGN_IN_MESSAGE_INVALID",
    "INVALID_ARGUMENT",
    "The text is no EIP-4361 message for this service.",
    "Sign the challenge's text unchanged.",
)
SIGN_IN_SIGNATURE_INVALID: Final = ErrorReason(
    "SIGN_IN_SIGNATURE_INVALID",
    "UNAUTHENTICATED",
    "The signature is malformed or was not made by the address in the message.",
    "Sign the text with EIP-191 personal_sign by the wallet that the challenge was made for.",
)
SIGN_IN_NONCE_USED: Final = ErrorReason(
    "SIGN_IN_NONCE_USED",
    "UNAUTHENTICATED",
    "The nonce is unknown, was made for another address, or was used before.",
    "Ask for a new challenge and sign that.",
)
SIGN_IN_EXPIRED: Final = ErrorReason(
    "SIGN_IN_EXPIRED",
    "UNAUTHENTICATED",
    "The message's time is over, or has not come.",
    "Ask for a new challenge and sign that.",
)
OIDC_TOKEN_INVALID: Final = ErrorReason(
    "OIDC_TOKEN_INVALID",
    "UNAUTHENTICATED",
    "The identity token is not of an issuer that this market takes, does not verify, or is for somebody else.",
    "Ask the issuer for an identity token whose audience is this market's name with it.",
)
OIDC_TOKEN_EXPIRED: Final = ErrorReason(
    "OIDC_TOKEN_EXPIRED",
    "UNAUTHENTICATED",
    "The identity token verifies but its time is over.",
    "Ask the issuer for a fresh one.",
)
QUOTA_EXCEEDED: Final = ErrorReason(
    "QUOTA_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "The account, or the address, has as many of these as it may; nothing was stored.",
    "Make room (close an order, delete a key, answer a challenge) or wait as RetryInfo says; the metadata names the quota.",
)
API_KEY_INVALID: Final = ErrorReason(
    "API_KEY_INVALID",
    "UNAUTHENTICATED",
    "The key is unknown, revoked or has run out.",
    "Make a new key.",
)
API_KEY_NOT_FOUND: Final = ErrorReason(
    "API_KEY_NOT_FOUND",
    "NOT_FOUND",
    "There is no such key, or it is another account's.",
    "List the keys of the account.",
)

REASONS: Final[tuple[ErrorReason, ...]] = (
    ORDER_NOT_FOUND,
    ORDER_CLOSED,
    ORDER_WITHDRAWN,
    ETAG_MISMATCH,
    UPDATE_IN_PROGRESS,
    UPDATE_WITHDRAWN,
    PRICE_LIMIT_TOO_LOW,
    TERM_TOO_SHORT,
    BUDGET_TOO_LOW,
    SDL_INVALID,
    LEASE_NOT_FOUND,
    WORKLOAD_KEY_MISSING,
    GENERATION_OLD,
    ACCOUNT_NOT_FOUND,
    SIGN_IN_MESSAGE_INVALID,
    SIGN_IN_SIGNATURE_INVALID,
    SIGN_IN_NONCE_USED,
    SIGN_IN_EXPIRED,
    OIDC_TOKEN_INVALID,
    OIDC_TOKEN_EXPIRED,
    QUOTA_EXCEEDED,
    API_KEY_INVALID,
    API_KEY_NOT_FOUND,
)
