"""The topics that this service writes and reads."""

from typing import Final

LEASES_TOPIC: Final = "fallow.bidding.leases.v1"
"""Key order id: LeaseCreated, LeaseRunning, LeaseEnded, GroupEnded, OrderEnded."""
MARKET_TOPIC: Final = "fallow.bidding.market.v1"
"""Key provider id: ProviderRegistered, OfferPublished, OfferWithdrawn, OnlineTimeCounted."""
PROOFS_TOPIC: Final = "fallow.bidding.proofs.v1"
"""Key provider id, not versioned: ProofsReceived."""
ORDERS_TOPIC: Final = "fallow.order.orders.v1"
"""Read; key order id."""
