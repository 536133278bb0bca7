"""The channel of the database on which a change is told to those who wait for it in any process of this service."""

from typing import Final

ORDER_CHANNEL: Final = "fallow_order"
"""The order of that id changed: who watches it looks again."""
