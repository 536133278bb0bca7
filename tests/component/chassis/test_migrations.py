"""Migrations on a real database: order, checksums, rivals, crashes."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from fallow_chassis.migrations import MigrationError, load_migrations, migrate, pending


class Package:
    """A package on the import path whose migrations a test writes."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.folder = folder / name / "migrations"
        self.folder.mkdir(parents=True)
        (folder / name / "__init__.py").write_text("")

    def write(self, file: str, text: str) -> None:
        (self.folder / file).write_text(text)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    """A package with one migration."""
    name = f"sample_{tmp_path.name.replace('-', '_')}"
    monkeypatch.syspath_prepend(str(tmp_path))
    made = Package(tmp_path, name)
    made.write("0001_first.sql", "CREATE TABLE first (id bigint);\nINSERT INTO first VALUES (1);")
    yield made
    sys.modules.pop(name, None)


async def rows(url: str, query: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(query))
    finally:
        await connection.close()


async def test_chassis_tables_come_first_and_once(empty_url: str, package: Package) -> None:
    """Goal: a fresh database gets everything in order, and a second run nothing. Method: migrate twice."""
    *chassis, own = await pending(empty_url, package.name)
    assert chassis[0] == "fallow_chassis/0001_chassis"
    assert all(name.startswith("fallow_chassis/") for name in chassis)
    assert own == f"{package.name}/0001_first"
    assert await migrate(empty_url, package.name) == [*chassis, own]
    assert await migrate(empty_url, package.name) == []
    assert await pending(empty_url, package.name) == []
    assert len(await rows(empty_url, "SELECT * FROM first")) == 1


async def test_a_later_migration_runs_alone(empty_url: str, package: Package) -> None:
    """Goal: an upgrade runs what is new. Method: add a file after the first run."""
    await migrate(empty_url, package.name)
    package.write("0002_second.sql", "ALTER TABLE first ADD COLUMN name text")
    assert await migrate(empty_url, package.name) == [f"{package.name}/0002_second"]


async def test_a_changed_file_is_refused(empty_url: str, package: Package) -> None:
    """Goal: what ran is never rewritten. Method: change a file after it ran; nothing else may run either."""
    await migrate(empty_url, package.name)
    package.write("0001_first.sql", "CREATE TABLE first (id bigint, extra text);")
    package.write("0002_second.sql", "CREATE TABLE second (id bigint)")
    with pytest.raises(MigrationError, match="was changed after it ran"):
        await migrate(empty_url, package.name)
    with pytest.raises(MigrationError, match="was changed after it ran"):
        await pending(empty_url, package.name)
    assert (await rows(empty_url, "SELECT to_regclass('second') AS found"))[0]["found"] is None


async def test_a_failed_migration_leaves_nothing(empty_url: str, package: Package) -> None:
    """Goal: a migration is all or nothing. Method: fail in the second statement, mend the file, run again."""
    package.write("0002_second.sql", "CREATE TABLE second (id bigint); SELECT 1 / 0;")
    with pytest.raises(MigrationError, match="0002_second failed"):
        await migrate(empty_url, package.name)
    assert (await rows(empty_url, "SELECT to_regclass('second') AS found"))[0]["found"] is None
    package.write("0002_second.sql", "CREATE TABLE second (id bigint)")
    assert await migrate(empty_url, package.name) == [f"{package.name}/0002_second"]


async def test_a_migration_and_its_note_are_one(empty_url: str, package: Package) -> None:
    """Goal: what ran is noted, or did not run. Method: a migration that makes its own note fail."""
    package.write("0002_second.sql", "CREATE TABLE second (id bigint); ALTER TABLE chassis_migration RENAME TO gone;")
    with pytest.raises(MigrationError, match="0002_second failed"):
        await migrate(empty_url, package.name)
    assert (await rows(empty_url, "SELECT to_regclass('second') AS found"))[0]["found"] is None


async def test_rivals_run_each_migration_once(empty_url: str, package: Package) -> None:
    """Goal: any number of processes may migrate at once. Method: eight do; the slow insert would show a second run."""
    package.write("0002_slow.sql", "SELECT pg_sleep(0.2); INSERT INTO first VALUES (2);")
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(migrate(empty_url, package.name)) for _ in range(8)]
    assert sorted(len(task.result()) for task in tasks)[:-1] == [0] * 7
    assert [row["id"] for row in await rows(empty_url, "SELECT id FROM first ORDER BY id")] == [1, 2]


async def test_a_database_ahead_of_the_code_is_fine(empty_url: str, package: Package) -> None:
    """Goal: the last release runs on the expanded schema. Method: take a file away after it ran."""
    package.write("0002_second.sql", "CREATE TABLE second (id bigint)")
    await migrate(empty_url, package.name)
    (package.folder / "0002_second.sql").unlink()
    assert await pending(empty_url, package.name) == []
    assert await migrate(empty_url, package.name) == []


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("0003_gap.sql", "without gaps"),
        ("0001_twice.sql", "without gaps"),
        ("2_short.sql", "NNNN_name"),
        ("0002-Dash.sql", "NNNN_name"),
    ],
)
def test_malformed_folders_are_refused(package: Package, file: str, message: str) -> None:
    """Goal: the numbers tell the order. Method: names that leave a gap, stand twice or have another shape."""
    package.write(file, "SELECT 1")
    with pytest.raises(MigrationError, match=message):
        load_migrations(package.name)
