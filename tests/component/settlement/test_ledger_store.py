"""The ledger on Postgres: what the database itself refuses, and what many writers at once leave behind."""

import asyncio
import random
from dataclasses import replace

import asyncpg
import pytest

from fallow_chassis.postgres import Database
from fallow_chassis.testing import ManualClock
from fallow_settlement.domain.ledger import Account, AccountKind, Phase, Result, Transfer, TransferReason, new_account
from fallow_settlement.ledger_store import MAX_TRANSFERS, close_account, expire_overdue, load_accounts, post_transfers

VAULT = new_account(AccountKind.VAULT, "", "usdc")
ALICE = new_account(AccountKind.BALANCE, "alice", "usdc")
BOB = new_account(AccountKind.BALANCE, "bob", "usdc")
FUND = Transfer("fund", VAULT.id, ALICE.id, "usdc", 1_000, TransferReason.DEPOSIT, "s")
WRITERS = 8
ROUNDS = 12


async def post(database: Database, *transfers: Transfer) -> tuple[Result, ...]:
    """Create transfers in a transaction of their own."""
    async with database.transaction() as unit:
        return await post_transfers(unit.connection, [VAULT, ALICE, BOB], transfers, unit.clock.now())


async def balances(database: Database) -> dict[str, Account]:
    """The accounts as they stand."""
    async with database.read() as connection:
        return await load_accounts(connection, [VAULT.id, ALICE.id, BOB.id])


async def test_transfers_are_idempotent_by_id(database: Database) -> None:
    """Goal: a repeat changes nothing and is told so. Method: post twice, then with other input."""
    assert await post(database, FUND) == (Result.OK,)
    assert await post(database, FUND) == (Result.EXISTS,)
    assert await post(database, replace(FUND, amount=2)) == (Result.EXISTS_WITH_DIFFERENT_INPUT,)
    assert (await balances(database))[ALICE.id].available == 1_000


async def test_the_longest_list_is_one_write(database: Database) -> None:
    """Goal: 8,190 transfers in one go, each with its answer. Method: as many, of which the last ones are beyond the funds."""
    moves = [
        Transfer(f"t-{number}", ALICE.id, BOB.id, "usdc", 1, TransferReason.HOLD, "s")
        for number in range(MAX_TRANSFERS - 1)
    ]
    results = await post(database, FUND, *moves)
    assert results == (Result.OK,) * 1_001 + (Result.EXCEEDS_CREDITS,) * (MAX_TRANSFERS - 1_001)
    found = await balances(database)
    assert (found[ALICE.id].available, found[BOB.id].available, found[ALICE.id].version) == (0, 1_000, 1)


async def test_a_pending_transfer_is_resolved_once(database: Database) -> None:
    """Goal: reserved money is not spendable, and post and void exclude each other. Method: reserve, spend, void, post."""
    reserve = Transfer("r", ALICE.id, BOB.id, "usdc", 900, TransferReason.HOLD, "s", Phase.PENDING)
    spend = Transfer("x", ALICE.id, BOB.id, "usdc", 200, TransferReason.HOLD, "s")
    assert await post(database, FUND, reserve, spend) == (Result.OK, Result.OK, Result.EXCEEDS_CREDITS)
    void = replace(reserve, id="v", phase=Phase.VOID_PENDING, pending_id="r")
    assert await post(database, void, spend) == (Result.OK, Result.OK)
    late = replace(void, id="p", phase=Phase.POST_PENDING)
    assert await post(database, late) == (Result.PENDING_TRANSFER_ALREADY_VOIDED,)
    found = await balances(database)
    assert (found[ALICE.id].available, found[BOB.id].available, found[ALICE.id].debits_pending) == (800, 200, 0)


async def test_a_chain_is_written_whole_or_not(database: Database) -> None:
    """Goal: all or none on the database too. Method: a chain that falls, the same ids in one that stands, and its repeat."""
    first = Transfer("a", ALICE.id, BOB.id, "usdc", 600, TransferReason.HOLD, "s", linked=True)
    last = Transfer("b", ALICE.id, BOB.id, "usdc", 600, TransferReason.HOLD, "s")
    assert await post(database, FUND, first, last) == (Result.OK, Result.LINKED_TRANSFER_FAILED, Result.EXCEEDS_CREDITS)
    assert (await balances(database))[BOB.id].available == 0
    assert await post(database, first, replace(last, amount=400)) == (Result.OK, Result.OK)
    assert await post(database, first, replace(last, amount=400)) == (Result.EXISTS, Result.LINKED_TRANSFER_FAILED)
    assert await post(database, replace(first, linked=False)) == (Result.EXISTS_WITH_DIFFERENT_INPUT,)
    assert (await balances(database))[BOB.id].available == 1_000


async def test_a_pending_transfer_expires(database: Database, clock: ManualClock) -> None:
    """Goal: what is reserved for a time comes back, and whoever looks first makes no difference. Method: post a moment
    before the time; another at the time, before and after the ledger has ended it; ended twice.
    """
    early = Transfer("early", ALICE.id, BOB.id, "usdc", 300, TransferReason.HOLD, "s", Phase.PENDING, timeout_ms=5_000)
    late = replace(early, id="late")
    assert await post(database, FUND, early, late) == (Result.OK,) * 3
    clock.advance(milliseconds=4_999)
    assert await expire_overdue(database) == 0
    posting = replace(early, id="p", phase=Phase.POST_PENDING, pending_id="early", timeout_ms=0)
    assert await post(database, posting) == (Result.OK,)
    clock.advance(milliseconds=1)
    too_late = replace(posting, id="q", pending_id="late")
    assert await post(database, too_late) == (Result.PENDING_TRANSFER_EXPIRED,)
    assert (await balances(database))[ALICE.id].debits_pending == 300
    assert [await expire_overdue(database) for _ in range(2)] == [1, 0]
    assert await post(database, too_late, replace(too_late, id="v", phase=Phase.VOID_PENDING)) == (
        Result.PENDING_TRANSFER_EXPIRED,
        Result.PENDING_TRANSFER_EXPIRED,
    )
    found = await balances(database)
    assert (found[ALICE.id].available, found[ALICE.id].debits_pending, found[BOB.id].available) == (700, 0, 300)


async def test_expiry_races_with_a_post(database: Database, clock: ManualClock) -> None:
    """Goal: one end each, whoever comes first. Method: many pending transfers; posts and expiries at once at their time."""
    pending = [
        Transfer(f"r-{number}", ALICE.id, BOB.id, "usdc", 10, TransferReason.HOLD, "s", Phase.PENDING, timeout_ms=1_000)
        for number in range(50)
    ]
    await post(database, FUND, *pending)
    clock.advance(milliseconds=999)
    posts = [
        replace(one, id=f"p-{one.id}", phase=Phase.POST_PENDING, pending_id=one.id, timeout_ms=0) for one in pending
    ]
    async with asyncio.TaskGroup() as group:
        answers = [group.create_task(post(database, one)) for one in posts]
        clock.advance(milliseconds=1)
        expiry = group.create_task(expire_overdue(database))
    posted = sum(task.result() == (Result.OK,) for task in answers)
    assert posted + expiry.result() + await expire_overdue(database) == 50
    found = await balances(database)
    assert (found[BOB.id].available, found[ALICE.id].debits_pending) == (10 * posted, 0)


async def test_a_closed_account_stays_closed(database: Database) -> None:
    """Goal: nothing moves where nothing may. Method: close with a pending transfer; spend, fund; void; by SQL."""
    reserve = Transfer("r", ALICE.id, BOB.id, "usdc", 900, TransferReason.HOLD, "s", Phase.PENDING)
    await post(database, FUND, reserve)
    for _ in range(2):
        async with database.transaction() as unit:
            await close_account(unit.connection, ALICE.id)
    spend = Transfer("x", ALICE.id, BOB.id, "usdc", 1, TransferReason.HOLD, "s")
    assert await post(database, spend, replace(FUND, id="more")) == (
        Result.DEBIT_ACCOUNT_CLOSED,
        Result.CREDIT_ACCOUNT_CLOSED,
    )
    assert await post(database, replace(reserve, id="v", phase=Phase.VOID_PENDING, pending_id="r")) == (Result.OK,)
    found = (await balances(database))[ALICE.id]
    assert (found.closed, found.available, found.debits_pending) == (True, 1_000, 0)
    for statement in (
        "UPDATE ledger_account SET closed = false, version = version + 1 WHERE owner = 'alice'",
        "UPDATE ledger_account SET debits_posted = 5, version = version + 1 WHERE owner = 'alice'",
    ):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            async with database.transaction() as unit:
                await unit.connection.execute(statement)


INSERT = """
    INSERT INTO transfer (id, debit_account, credit_account, asset, amount, phase, pending_id, reason, subject,
                          debit_version, credit_version, create_time)
    VALUES ('forged', $1, $2, 'usdc', 5, 'POSTED', NULL, 'HOLD', 's', $3, $4, now())
"""

FORGERIES = {
    "a transfer is changed": "UPDATE transfer SET amount = 1",
    "a transfer is deleted": "DELETE FROM transfer",
    "transfers are truncated": "TRUNCATE transfer CASCADE",
    "charges are truncated": "TRUNCATE charge CASCADE",
    "places in batches are truncated": "TRUNCATE batch_charge",
    "an account is deleted": "DELETE FROM ledger_account WHERE id = 'balance-bob-usdc'",
    "a balance moves by itself": "UPDATE ledger_account SET credits_posted = 5, version = version + 1 WHERE owner = 'bob'",
    "a version moves back": "UPDATE ledger_account SET version = 0 WHERE owner = 'alice'",
    "debits pass credits": "UPDATE ledger_account SET debits_posted = 2000, version = version + 1 WHERE owner = 'alice'",
    "an account starts with money": (
        "INSERT INTO ledger_account VALUES ('balance-eve-usdc', 'BALANCE', 'eve', 'usdc', true, 0, 5, 0, 0, 0, now())"
    ),
    "an unbounded balance": (
        "INSERT INTO ledger_account VALUES ('balance-eve-usdc', 'BALANCE', 'eve', 'usdc', false, 0, 0, 0, 0, 0, now())"
    ),
}


@pytest.mark.parametrize("statement", FORGERIES.values(), ids=FORGERIES.keys())
async def test_the_database_refuses_what_is_no_ledger(database: Database, statement: str) -> None:
    """Goal: no hand on the database unbalances the books. Method: one forgery a row, seen at its commit."""
    await post(database, FUND)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        async with database.transaction() as unit:
            await unit.connection.execute(statement)


@pytest.mark.parametrize(
    ("debit_version", "credit_version"), [(2, 1), (1, 1), (1, 0)], ids=["not applied", "in the past", "no version"]
)
async def test_a_transfer_that_moves_nothing_is_refused(
    database: Database, debit_version: int, credit_version: int
) -> None:
    """Goal: no transfer without its movement. Method: insert one alone, for a version to come and one that is past."""
    await post(database, FUND)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        async with database.transaction() as unit:
            await unit.connection.execute(INSERT, ALICE.id, BOB.id, debit_version, credit_version)


async def test_a_transfer_of_another_amount_than_its_movement_is_refused(database: Database) -> None:
    """Goal: balances move by exactly their transfers. Method: write 5 and move 6."""
    await post(database, FUND)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        async with database.transaction() as unit:
            await unit.connection.execute(INSERT, ALICE.id, BOB.id, 2, 1)
            for column, owner in (("debits_posted", "alice"), ("credits_posted", "bob")):
                await unit.connection.execute(
                    f"UPDATE ledger_account SET {column} = 6, version = version + 1 WHERE owner = '{owner}'"
                )


@pytest.mark.parametrize(
    ("owner", "column"),
    [
        ("alice", "debits_posted"),
        ("alice", "debits_pending"),
        ("bob", "credits_posted"),
        ("bob", "credits_pending"),
    ],
)
async def test_each_sum_of_an_account_is_held_to_its_transfers(database: Database, owner: str, column: str) -> None:
    """Goal: no sum may be off by itself. Method: a transfer of 5 that is booked rightly, and one sum that moves by 1 more."""
    await post(database, FUND)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="moved by other than its transfers"):
        async with database.transaction() as unit:
            for account, posted in (("alice", "debits_posted"), ("bob", "credits_posted")):
                sums = {posted: 5}
                if account == owner:
                    sums[column] = sums.get(column, 0) + 1
                moves = ", ".join(f"{name} = {name} + {by}" for name, by in sums.items())
                await unit.connection.execute(
                    f"UPDATE ledger_account SET {moves}, version = version + 1 WHERE owner = '{account}'"
                )
            await unit.connection.execute(INSERT, ALICE.id, BOB.id, 2, 1)


async def test_many_writers_leave_balances_equal_to_sums(database: Database) -> None:
    """Goal: no lost update, no overdraft, no deadlock that stays. Method: eight writers on three accounts, then add up."""
    await post(database, FUND)
    chance = random.Random(7)
    plans = [
        [
            (chance.choice([(ALICE, BOB), (BOB, ALICE), (VAULT, BOB)]), chance.randint(1, 400), f"{writer}-{number}")
            for number in range(ROUNDS)
        ]
        for writer in range(WRITERS)
    ]

    async def write(plan: list[tuple[tuple[Account, Account], int, str]]) -> None:
        for (debit, credit), amount, name in plan:
            transfer = Transfer(name, debit.id, credit.id, "usdc", amount, TransferReason.HOLD, "s")
            (result,) = await post(database, transfer)
            assert result in {Result.OK, Result.EXCEEDS_CREDITS}

    async with asyncio.TaskGroup() as group:
        for plan in plans:
            group.create_task(write(plan))
    found = await balances(database)
    async with database.read() as connection:
        for account in found.values():
            sums = await connection.fetchrow(
                """SELECT coalesce(sum(amount) FILTER (WHERE debit_account = $1), 0)::bigint AS debits,
                          coalesce(sum(amount) FILTER (WHERE credit_account = $1), 0)::bigint AS credits
                   FROM transfer""",
                account.id,
            )
            assert sums is not None
            assert (account.debits_posted, account.credits_posted) == (sums["debits"], sums["credits"])
    assert found[ALICE.id].available >= 0
    assert found[BOB.id].available >= 0
    assert sum(account.debits_posted - account.credits_posted for account in found.values()) == 0
