"""What tests of every package stand on: a clock and ids that obey, tokens, databases from a template, a server.

Nothing here starts an engine: the stack does, and the fixtures in ``tests/conftest.py`` bring both together.
"""

from fallow_chassis.testing.background import in_background
from fallow_chassis.testing.databases import DatabaseFactory
from fallow_chassis.testing.servers import ServedService, serving
from fallow_chassis.testing.time import ManualClock, SequentialIds
from fallow_chassis.testing.tokens import TestIdentity

__all__ = [
    "DatabaseFactory",
    "ManualClock",
    "SequentialIds",
    "ServedService",
    "TestIdentity",
    "in_background",
    "serving",
]
