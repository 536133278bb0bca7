"""The service's tables behind typed functions; each runs a named query of ``sql/``."""

from typing import Final

from fallow_chassis.sql import Queries

QUERIES: Final = Queries.load("fallow_bidding")
