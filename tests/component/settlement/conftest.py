"""Settlement on a database of its own."""

from collections.abc import AsyncIterator

import pytest

from fallow_chassis.postgres import Database
from fallow_chassis.testing import DatabaseFactory, ManualClock, SequentialIds
from tests.component.settlement.market import Market


@pytest.fixture
async def database(
    database_factory: DatabaseFactory, clock: ManualClock, ids: SequentialIds
) -> AsyncIterator[Database]:
    """A migrated database of the test's own."""
    opened = await Database.connect(
        await database_factory("fallow_settlement"), pool_size=6, ids=ids, clock=clock, source="services/settlement"
    )
    yield opened
    await opened.close()


@pytest.fixture
def market(database: Database, clock: ManualClock) -> Market:
    """A market in miniature on that database."""
    return Market(database, clock)
