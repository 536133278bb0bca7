"""Channels of the database on which a change is told to those who wait for it in any process of this service."""

from typing import Final

MARKET_CHANNEL: Final = "fallow_bidding_market"
"""Orders, offers or capacity changed: the engine looks again."""
COMMAND_CHANNEL: Final = "fallow_bidding_command"
"""A command waits to be sent."""
TRADE_CHANNEL: Final = "fallow_bidding_trade"
"""Leases were made: who follows the trades looks again."""
LEASE_CHANNEL: Final = "fallow_bidding_lease"
"""The lease of that id changed: who watches it looks again."""
