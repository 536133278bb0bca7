"""The reasons that the bidding service's errors carry."""

from typing import Final

from fallow_chassis.errors import ErrorReason

PUBLIC_KEY_TAKEN: Final = ErrorReason(
    "PUBLIC_KEY_TAKEN",
    "ALREADY_EXISTS",
    "The public key belongs to a provider of another account.",
    "Make a new key for this site and register it.",
)
PROVIDER_NOT_FOUND: Final = ErrorReason(
    "PROVIDER_NOT_FOUND",
    "NOT_FOUND",
    "There is no such provider, or it is not the caller's.",
    "Check the name; only a provider's owner may change it.",
)
OFFER_NOT_FOUND: Final = ErrorReason(
    "OFFER_NOT_FOUND",
    "NOT_FOUND",
    "There is no such offer, or it is not the caller's.",
    "Check the name; only a provider's owner may withdraw its offers.",
)
ASSET_UNKNOWN: Final = ErrorReason(
    "ASSET_UNKNOWN",
    "INVALID_ARGUMENT",
    "This market does not trade in this asset.",
    "Use one of the assets that the metadata names.",
)
LEASE_NOT_FOUND: Final = ErrorReason(
    "LEASE_NOT_FOUND",
    "NOT_FOUND",
    "There is no such lease, or it is not the caller's.",
    "Check the name; a tenant sees its own leases, an owner those of its providers.",
)
LEASE_ENDED: Final = ErrorReason(
    "LEASE_ENDED",
    "FAILED_PRECONDITION",
    "The lease has ended, so nobody gets a grant on it or gives it up.",
    "Look up the order's current lease.",
)
ORDER_NOT_FOUND: Final = ErrorReason(
    "ORDER_NOT_FOUND",
    "NOT_FOUND",
    "Bidding has not heard of this order.",
    "An order that was just created may take a moment to arrive; try again.",
)
AUDITOR_SIGNATURE_INVALID: Final = ErrorReason(
    "AUDITOR_SIGNATURE_INVALID",
    "INVALID_ARGUMENT",
    "An auditor's signature does not verify over the provider's key and the attributes that stand beside it.",
    "Ask the auditor to sign them (`fallow provider sign-attributes`), or leave the signature that the violation names out.",
)
AUCTION_NOT_FOUND: Final = ErrorReason(
    "AUCTION_NOT_FOUND",
    "NOT_FOUND",
    "There is no such auction, or the caller may not see it.",
    "Check the name; an auction shows to its order's tenant and to owners of providers.",
)
AUCTION_CLOSED: Final = ErrorReason(
    "AUCTION_CLOSED",
    "FAILED_PRECONDITION",
    "The auction is over, and nothing was placed or picked.",
    "Look for the next round of the order by ListAuctions.",
)
AUCTION_NOT_MANUAL: Final = ErrorReason(
    "AUCTION_NOT_MANUAL",
    "FAILED_PRECONDITION",
    "The market decides this auction at its close; nobody picks a bid.",
    "Wait for the close, or order with match_mode MANUAL.",
)
BID_NOT_FOUND: Final = ErrorReason(
    "BID_NOT_FOUND",
    "NOT_FOUND",
    "There is no such bid in the auction any more.",
    "List the bids again and pick another.",
)
BID_DOES_NOT_FIT: Final = ErrorReason(
    "BID_DOES_NOT_FIT",
    "FAILED_PRECONDITION",
    "The provider cannot take the group now: the metadata names the constraint that it does not meet.",
    "Bid with another provider, or mend its offer or inventory; a tenant picks another bid.",
)
INVENTORY_INVALID: Final = ErrorReason(
    "INVENTORY_INVALID",
    "INVALID_ARGUMENT",
    "The inventory report cannot be true, or is too large: two devices or nodes of one id, a name that the contract does not have, a size out of bounds.",
    "Mend the report; the last good one stays in force.",
)
LINK_MESSAGE_INVALID: Final = ErrorReason(
    "LINK_MESSAGE_INVALID",
    "INVALID_ARGUMENT",
    "The message on the provider link is not what its subject carries.",
    "Send the message that the subject names, of this release's contract.",
)
HEARTBEAT_OLD: Final = ErrorReason(
    "HEARTBEAT_OLD",
    "FAILED_PRECONDITION",
    "A later heartbeat of the provider's agent was taken before this one.",
    "Nothing needs to be done: the next heartbeat counts.",
)

REASONS: Final = (
    PUBLIC_KEY_TAKEN,
    PROVIDER_NOT_FOUND,
    OFFER_NOT_FOUND,
    ASSET_UNKNOWN,
    LEASE_NOT_FOUND,
    LEASE_ENDED,
    ORDER_NOT_FOUND,
    AUDITOR_SIGNATURE_INVALID,
    AUCTION_NOT_FOUND,
    AUCTION_CLOSED,
    AUCTION_NOT_MANUAL,
    BID_NOT_FOUND,
    BID_DOES_NOT_FIT,
    INVENTORY_INVALID,
    LINK_MESSAGE_INVALID,
    HEARTBEAT_OLD,
)
"""All of them, for docs/errors.md."""
