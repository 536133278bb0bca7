"""The role that settlement serves as in the embedded stack: it keeps the books and cannot change what was booked."""

import secrets
from collections.abc import AsyncIterator

import asyncpg
import pytest

from fallow_chassis.migrations import let_serve, pending
from fallow_chassis.testing import DatabaseFactory


@pytest.fixture
async def serving(database_factory: DatabaseFactory) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    """A connection as a role with the rights to serve; the role goes with the test."""
    url = await database_factory("fallow_settlement")
    role = f"serving_{secrets.token_hex(6)}"
    owner = await asyncpg.connect(url)
    await owner.execute(f'CREATE ROLE "{role}"')
    for _ in range(2):
        await let_serve(url, role)
    assert await pending(url, "fallow_settlement") == []
    connection = await asyncpg.connect(url)
    await connection.execute(f'SET ROLE "{role}"')
    yield connection
    await connection.close()
    await owner.execute(f'DROP OWNED BY "{role}"')
    await owner.execute(f'DROP ROLE "{role}"')
    await owner.close()


REFUSED = [
    "UPDATE transfer SET amount = 1",
    "DELETE FROM transfer",
    "TRUNCATE transfer CASCADE",
    "UPDATE charge SET amount = 1",
    "DELETE FROM charge",
    "DELETE FROM batch_charge",
    "DELETE FROM ledger_account",
    "TRUNCATE outbox",
    "DELETE FROM chassis_migration",
    "ALTER TABLE transfer DISABLE TRIGGER ALL",
    "DROP TRIGGER transfer_never_changes ON transfer",
    "CREATE TABLE mine (id int)",
]


@pytest.mark.parametrize("statement", REFUSED)
async def test_what_was_booked_is_not_for_the_serving_role_to_change(
    serving: "asyncpg.Connection[asyncpg.Record]", statement: str
) -> None:
    """Goal: no right to change transfers, whatever the code does. Method: each way of doing so, by that role."""
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await serving.execute(statement)


async def test_what_serving_needs_is_there(serving: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Goal: rights enough to keep books. Method: write, change and delete where the service does."""
    answers = [
        await serving.execute(statement)
        for statement in (
            "INSERT INTO ledger_account VALUES ('balance-a-usdc', 'BALANCE', 'a', 'usdc', true, 0, 0, 0, 0, 0, now())",
            "UPDATE ledger_account SET create_time = now(), version = version + 1",
            "DELETE FROM unbatched_charge",
            "SELECT * FROM transfer, charge, batch_charge, chassis_migration",
        )
    ]
    assert answers == ["INSERT 0 1", "UPDATE 1", "DELETE 0", "SELECT 0"]
