"""Migrations: numbered plain SQL, forward only.

``migrations/NNNN_name.sql`` of the chassis come first, then the package's own, each in a transaction of its own, under
one advisory lock, so that any number of processes may migrate at once and each migration runs once. What ran is kept
with a SHA-256 of its text: a file that changed after it ran is refused, and so is one whose number is below what ran
already. A database that has migrations this release does not know is fine: the last release's code runs on the
expanded schema.
"""

import asyncio
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Final

import asyncpg

from fallow_chassis.logging import get_logger
from fallow_chassis.postgres import close_gently
from fallow_chassis.sql import Queries

CHASSIS_PACKAGE: Final = "fallow_chassis"
LOCK_KEY: Final = 0x0FA1_1033_0000_0001
"""The advisory lock that migrating processes wait for, one a database."""
CONNECT_SECONDS: Final = 30.0
LOCK_WAIT: Final = "10s"
"""Longest wait for a lock on a table, as Postgres writes it."""

_FILE_NAME: Final = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_QUERIES: Final = Queries.load(CHASSIS_PACKAGE)
_log = get_logger(__name__)


class MigrationError(Exception):
    """The files are malformed, or do not fit what ran on this database."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its number, its name, its text."""

    package: str
    number: int
    name: str
    text: str

    @property
    def checksum(self) -> bytes:
        """SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).digest()

    @property
    def label(self) -> str:
        """``package/NNNN_name``."""
        return f"{self.package}/{self.number:04}_{self.name}"


def load_migrations(package: str) -> list[Migration]:
    """The migrations of a package in order; MigrationError unless they are numbered 1, 2, 3 … without gaps."""
    folder = resources.files(package) / "migrations"
    found: list[Migration] = []
    if folder.is_dir():
        for file in folder.iterdir():
            if not file.name.endswith(".sql"):
                continue
            match = _FILE_NAME.fullmatch(file.name)
            if match is None:
                raise MigrationError(f"{package}/migrations/{file.name}: the name must be NNNN_name.sql")
            found.append(Migration(package, int(match[1]), match[2], file.read_text(encoding="utf-8")))
    found.sort(key=lambda migration: migration.number)
    numbers = [migration.number for migration in found]
    if numbers != list(range(1, len(found) + 1)):
        raise MigrationError(f"{package}/migrations: the numbers {numbers} are not 1, 2, 3 … without gaps")
    return found


async def migrate(database_url: str, package: str) -> list[str]:
    """Bring a database up to this release: the chassis's tables, then the package's. Returns the labels of what ran.

    Safe to call at any time, by several processes at once, and again after a crash: a migration that did not finish
    left nothing behind.
    """
    ran: list[str] = []
    connection = await _connect(database_url)
    try:
        await connection.execute(_QUERIES.get("lock_migrations"), LOCK_KEY)
        await connection.execute(_QUERIES.get("create_migration_table"))
        for name in _packages(package):
            for migration in await _missing(connection, load_migrations(name)):
                await _apply(connection, migration)
                ran.append(migration.label)
        await connection.execute(_QUERIES.get("unlock_migrations"), LOCK_KEY)
    finally:
        await close_gently(connection)
    return ran


async def let_serve(database_url: str, role: str) -> None:
    """Give a role what serving needs on a migrated database, and no more: it owns nothing, so it changes no table.

    It may read, insert, update and delete rows, but of tables that a trigger ``refuse_change`` guards only what the
    trigger lets pass; it truncates nothing, and only reads which migrations ran. Safe to repeat.
    """
    connection = await _connect(database_url)
    try:
        async with connection.transaction():
            await connection.execute(_QUERIES.get("name_serving_role"), role)
            await connection.execute(_QUERIES.get("grant_serving_role"))
    except asyncpg.PostgresError as error:
        raise MigrationError(f"the role {role} cannot be given its rights: {error}") from error
    finally:
        await close_gently(connection)


async def pending(database_url: str, package: str) -> list[str]:
    """The labels of the migrations that a database still lacks; MigrationError where it does not fit the files."""
    connection = await _connect(database_url)
    try:
        migrations = [migration for name in _packages(package) for migration in load_migrations(name)]
        if not await connection.fetchval(_QUERIES.get("migration_table_exists")):
            return [migration.label for migration in migrations]
        missing = [await _missing(connection, load_migrations(name)) for name in _packages(package)]
        return [migration.label for group in missing for migration in group]
    finally:
        await close_gently(connection)


def _packages(package: str) -> list[str]:
    """The chassis, then the package itself."""
    return [CHASSIS_PACKAGE] if package == CHASSIS_PACKAGE else [CHASSIS_PACKAGE, package]


async def _connect(database_url: str) -> "asyncpg.Connection[asyncpg.Record]":
    """A connection of one's own; a migration may take long, so statements have no limit."""
    async with asyncio.timeout(CONNECT_SECONDS):
        connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
            database_url, server_settings={"application_name": "fallow migrate", "timezone": "UTC"}
        )
    return connection


async def _missing(
    connection: "asyncpg.Connection[asyncpg.Record]", migrations: Sequence[Migration]
) -> list[Migration]:
    """What did not run yet, in order; MigrationError where a file changed or came in below what ran."""
    if not migrations:
        return []
    rows = await connection.fetch(_QUERIES.get("load_migrations"), migrations[0].package)
    ran = {row["number"]: row for row in rows}
    last = max(ran, default=0)
    missing: list[Migration] = []
    for migration in migrations:
        row = ran.get(migration.number)
        if row is None:
            if migration.number < last:
                raise MigrationError(f"{migration.label} is new but {last:04} ran already; give it a higher number")
            missing.append(migration)
        elif row["checksum"] != migration.checksum:
            raise MigrationError(f"{migration.label} was changed after it ran; migrations only go forward")
    return missing


async def _apply(connection: "asyncpg.Connection[asyncpg.Record]", migration: Migration) -> None:
    """Run one migration and note it, in one transaction."""
    try:
        async with connection.transaction():
            # A table that is in use makes the migration fail rather than everybody behind it wait.
            await connection.execute(_QUERIES.get("limit_lock_wait"), LOCK_WAIT)
            await connection.execute(migration.text)
            await connection.execute(
                _QUERIES.get("insert_migration"),
                migration.package,
                migration.number,
                migration.name,
                migration.checksum,
            )
    except asyncpg.PostgresError as error:
        raise MigrationError(f"{migration.label} failed: {error}") from error
    _log.info("migration_applied", migration=migration.label)
