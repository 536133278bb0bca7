"""Holds every service's SQL against its own migrations: what Postgres cannot prepare cannot run."""

import asyncpg
import pytest

from fallow_chassis.sql import Queries
from fallow_chassis.testing import DatabaseFactory

PACKAGES = ["fallow_order", "fallow_bidding", "fallow_settlement"]


@pytest.mark.parametrize("package", PACKAGES)
async def test_every_query_prepares(package: str, database_factory: DatabaseFactory) -> None:
    """Goal: no query fails by a misspelt column. Method: PREPARE each on a database with the service's migrations."""
    queries = Queries.load(package)
    assert queries.names()
    connection = await asyncpg.connect(await database_factory(package))
    failures = []
    for name in queries.names():
        try:
            await connection.prepare(queries.get(name))
        except asyncpg.PostgresError as error:
            failures.append(f"{package}: {name}: {error}")
    await connection.close()
    assert not failures, "\n" + "\n".join(failures)
