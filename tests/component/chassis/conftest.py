"""A real Postgres for the chassis's own tests, one server a run and one database a test."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from fallow_chassis.clock import SystemClock
from fallow_chassis.ids import RandomIds
from fallow_chassis.migrations import migrate
from fallow_chassis.postgres import Database
from fallow_stack.engines.postgres import Postgres

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def chassis_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A running server with a migrated template database."""
    server = Postgres(Path(tmp_path_factory.mktemp("postgres")), durable=False)

    async def start() -> None:
        await server.start()
        await migrate(await server.ensure_database("chassis_template"), "fallow_chassis")

    asyncio.run(start())
    yield server
    asyncio.run(server.stop())


async def new_database(server: Postgres, template: str) -> str:
    """The address of a database of one's own."""
    name = f"chassis_{next(_numbers)}"
    connection = await asyncpg.connect(server.url)
    try:
        await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE {template}')
    finally:
        await connection.close()
    return server.database_url(name)


@pytest.fixture
async def empty_url(chassis_postgres: Postgres) -> str:
    """The address of a database without any table."""
    return await new_database(chassis_postgres, "template0")


@pytest.fixture
async def database_url(chassis_postgres: Postgres) -> str:
    """The address of a database with the chassis's tables."""
    return await new_database(chassis_postgres, "chassis_template")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A database with the chassis's tables."""
    clock = SystemClock()
    opened = await Database.connect(
        database_url, pool_size=8, ids=RandomIds(clock), clock=clock, source="services/sample"
    )
    yield opened
    await opened.close()
