"""A database for each test, copied from a template that was migrated once a run.

A template is named after its package and a hash of all its migrations, and made under a draft name that is changed only
when the migrations ran, so that a template that is there is complete. An advisory lock lets one process make it while
the others wait; any number of test processes may share one server.
"""

import hashlib
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from fallow_chassis.migrations import CHASSIS_PACKAGE, load_migrations, migrate

TEMPLATE_LOCK_KEY: Final = 0x0FA1_1033_0000_0002


class DatabaseFactory:
    """Makes databases on the server of ``admin_url`` and drops them again.

    url = await factory("fallow_order")
    """

    def __init__(self, admin_url: str) -> None:
        """``admin_url`` is a database in which nothing is stored, by a user that may create others."""
        self._admin_url = admin_url
        self._made: list[str] = []

    async def __call__(self, package: str = CHASSIS_PACKAGE) -> str:
        """The address of a fresh database with the chassis's tables and the package's."""
        return await self._copy(await self._template(package), package)

    async def empty(self) -> str:
        """The address of a fresh database with no table at all."""
        return await self._copy("template0", "empty")

    async def drop_all(self) -> None:
        """Drop what this factory made, cutting off who is still connected."""
        async with self._admin() as connection:
            while self._made:
                await connection.execute(f'DROP DATABASE IF EXISTS "{self._made.pop()}" WITH (FORCE)')

    async def _copy(self, template: str, package: str) -> str:
        """Create a database from a template."""
        name = f"test_{package}_{secrets.token_hex(6)}"
        async with self._admin() as connection:
            await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        self._made.append(name)
        return self._url(name)

    async def _template(self, package: str) -> str:
        """The name of the package's template, made first if it is not there."""
        assert re.fullmatch(r"[a-z_]+", package), f"{package!r} is no package of ours"
        digest = hashlib.sha256()
        for owner in dict.fromkeys((CHASSIS_PACKAGE, package)):
            for migration in load_migrations(owner):
                digest.update(migration.checksum)
        name = f"template_{package}_{digest.hexdigest()[:16]}"
        async with self._admin() as connection:
            await connection.execute("SELECT pg_advisory_lock($1)", TEMPLATE_LOCK_KEY)
            if not await connection.fetchval("SELECT count(*) FROM pg_database WHERE datname = $1", name):
                draft = f"draft_{secrets.token_hex(6)}"
                await connection.execute(f'CREATE DATABASE "{draft}" TEMPLATE template0')
                await migrate(self._url(draft), package)
                # Migrating hangs up without waiting for the server to notice.
                await connection.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1", draft
                )
                await connection.execute(f'ALTER DATABASE "{draft}" RENAME TO "{name}"')
        return name

    def _url(self, name: str) -> str:
        """The address of another database of the same server."""
        return urlunsplit(urlsplit(self._admin_url)._replace(path=f"/{name}"))

    @asynccontextmanager
    async def _admin(self) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
        """A connection to the admin database; closing it lets go of its lock."""
        connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(self._admin_url)
        try:
            yield connection
        finally:
            await connection.close()
