"""Databases for the chassis's own tests, on the run's Postgres."""

from collections.abc import AsyncIterator

import pytest

from fallow_chassis.clock import SystemClock
from fallow_chassis.ids import RandomIds
from fallow_chassis.postgres import Database
from fallow_chassis.testing import DatabaseFactory


@pytest.fixture
async def empty_url(database_factory: DatabaseFactory) -> str:
    """The address of a database without any table."""
    return await database_factory.empty()


@pytest.fixture
async def database_url(database_factory: DatabaseFactory) -> str:
    """The address of a database with the chassis's tables."""
    return await database_factory("fallow_chassis")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A database with the chassis's tables."""
    clock = SystemClock()
    opened = await Database.connect(
        database_url, pool_size=8, ids=RandomIds(clock), clock=clock, source="services/sample"
    )
    yield opened
    await opened.close()
