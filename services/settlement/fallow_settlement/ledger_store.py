"""The ledger in Postgres: loads what a list of transfers concerns, lets the domain decide, writes everything at once.

Accounts are locked in the order of their ids and written before the transfers that name their new versions. The database
checks both (see the migrations): a transfer that moved no account is refused at once, a balance that moved by anything but
its transfers at commit.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import asyncpg

from fallow_chassis.paging import TimePlace
from fallow_chassis.postgres import Connection, Database
from fallow_chassis.sql import Queries
from fallow_settlement.domain.ledger import (
    Account,
    AccountKind,
    Book,
    Outcome,
    Phase,
    Result,
    Transfer,
    TransferReason,
    create_transfers,
)

MAX_TRANSFERS: Final = 8_190
"""The most transfers of one list."""
EXPIRED_TOGETHER: Final = 1_000
"""How many pending transfers expire in one transaction."""
RESOLVED: Final = frozenset(
    {
        Result.EXISTS,
        Result.PENDING_TRANSFER_ALREADY_POSTED,
        Result.PENDING_TRANSFER_ALREADY_VOIDED,
        Result.PENDING_TRANSFER_EXPIRED,
    }
)
"""What a pending transfer answers that was resolved."""

QUERIES: Final = Queries.load("fallow_settlement")
_TRANSFER_COLUMNS: Final = (
    "id",
    "debit_account",
    "credit_account",
    "asset",
    "amount",
    "phase",
    "pending_id",
    "reason",
    "subject",
    "debit_version",
    "credit_version",
    "create_time",
    "linked",
    "timeout_ms",
    "expire_time",
)


async def post_transfers(
    connection: Connection, accounts: Iterable[Account], transfers: Sequence[Transfer], now: datetime
) -> tuple[Result, ...]:
    """Create transfers, each with its result; ``accounts`` are made first where they do not exist yet."""
    assert len(transfers) <= MAX_TRANSFERS, "a longer list is several"
    if not transfers:
        return ()
    await _make_accounts(connection, accounts, now)
    book = await _lock_book(connection, transfers, now)
    outcome = create_transfers(book, transfers)
    await _write(connection, outcome, now)
    return outcome.results


async def must_post(
    connection: Connection, accounts: Iterable[Account], transfers: Sequence[Transfer], now: datetime
) -> None:
    """Create transfers of which none may be refused; one that exists with the same input is fine."""
    results = await post_transfers(connection, accounts, transfers, now)
    refused = [
        f"{transfer.id}: {result}"
        for transfer, result in zip(transfers, results, strict=True)
        if result not in {Result.OK, Result.EXISTS}
    ]
    assert not refused, f"transfers that had to pass were refused: {refused}"


async def expire_overdue(database: Database) -> int:
    """End the pending transfers whose time is over, a list of them at a time; returns how many."""
    ended = 0
    while True:
        async with database.transaction() as unit:
            now = unit.clock.now()
            rows = await unit.connection.fetch(QUERIES.get("list_overdue_transfers"), now, EXPIRED_TOGETHER)
            overdue = [_transfer(row) for row in rows]
            moves = [
                replace(
                    one,
                    id=f"expiry-{one.id}",
                    phase=Phase.EXPIRE_PENDING,
                    pending_id=one.id,
                    linked=False,
                    timeout_ms=0,
                )
                for one in overdue
            ]
            results = await post_transfers(unit.connection, (), moves, now)
        # One that somebody resolved a moment before is answered so, and stays resolved.
        assert set(results) <= {Result.OK, *RESOLVED}, f"expiries were answered {set(results)}"
        ended += results.count(Result.OK)
        if len(overdue) < EXPIRED_TOGETHER:
            return ended


async def close_account(connection: Connection, account: str) -> None:
    """Let an account take part in no new transfer; a repeat changes nothing."""
    await connection.execute(QUERIES.get("close_ledger_account"), account)


async def load_accounts(connection: Connection, ids: Sequence[str]) -> dict[str, Account]:
    """Accounts by id; those that do not exist are left out."""
    rows = await connection.fetch(QUERIES.get("load_ledger_accounts"), list(ids))
    return {row["id"]: _account(row) for row in rows}


async def lock_accounts(connection: Connection, ids: Iterable[str]) -> dict[str, Account]:
    """Accounts by id, held until the transaction ends; those that do not exist are left out."""
    rows = await connection.fetch(QUERIES.get("lock_ledger_accounts"), sorted(ids))
    return {row["id"]: _account(row) for row in rows}


async def list_accounts(connection: Connection, after: str, limit: int) -> list[Account]:
    """Accounts in the order of their ids, from after ``after``."""
    rows = await connection.fetch(QUERIES.get("list_ledger_accounts"), after, limit)
    return [_account(row) for row in rows]


async def list_transfers(
    connection: Connection, account: str, before: TimePlace | None, limit: int
) -> list[tuple[Transfer, datetime]]:
    """Transfers with their times, newest first; ``account`` filters, empty lists all."""
    time, identifier = (None, "") if before is None else before
    rows = await connection.fetch(QUERIES.get("list_transfers"), account, time, identifier, limit)
    return [(_transfer(row), row["create_time"]) for row in rows]


async def _make_accounts(connection: Connection, accounts: Iterable[Account], now: datetime) -> None:
    """Make accounts that do not exist yet."""
    wanted = {account.id: account for account in accounts}.values()
    await connection.execute(
        QUERIES.get("make_ledger_accounts"),
        [account.id for account in wanted],
        [account.kind.value for account in wanted],
        [account.owner for account in wanted],
        [account.asset for account in wanted],
        [account.debits_must_not_exceed_credits for account in wanted],
        now,
    )


async def _lock_book(connection: Connection, transfers: Sequence[Transfer], now: datetime) -> Book:
    """Lock the accounts that the transfers touch and load what is known of them."""
    account_ids = {transfer.debit_account for transfer in transfers} | {
        transfer.credit_account for transfer in transfers
    }
    pending_ids = sorted({transfer.pending_id for transfer in transfers if transfer.pending_id})
    ids = sorted({transfer.id for transfer in transfers} | set(pending_ids))
    # The lock comes first: whoever holds the same accounts has committed before the transfers are read.
    locked = await lock_accounts(connection, account_ids)
    known = await connection.fetch(QUERIES.get("load_transfers"), ids)
    resolved = await connection.fetch(QUERIES.get("load_resolutions"), pending_ids) if pending_ids else []
    return Book(
        locked,
        {row["id"]: _transfer(row) for row in known},
        {row["pending_id"]: Phase(row["phase"]) for row in resolved},
        frozenset(row["id"] for row in known if row["expire_time"] is not None and row["expire_time"] <= now),
    )


async def _write(connection: Connection, outcome: Outcome, now: datetime) -> None:
    """Write the touched accounts, then the accepted transfers."""
    if not outcome.accepted:
        return
    accounts = sorted(outcome.accounts.values(), key=lambda account: account.id)
    status = await connection.execute(
        QUERIES.get("update_ledger_accounts"),
        [account.id for account in accounts],
        [account.debits_posted for account in accounts],
        [account.credits_posted for account in accounts],
        [account.debits_pending for account in accounts],
        [account.credits_pending for account in accounts],
        [account.version for account in accounts],
    )
    assert status == f"UPDATE {len(accounts)}", "every touched account was locked, so it is there"
    await connection.copy_records_to_table(
        "transfer",
        columns=_TRANSFER_COLUMNS,
        records=[
            (
                transfer.id,
                transfer.debit_account,
                transfer.credit_account,
                transfer.asset,
                transfer.amount,
                transfer.phase.value,
                transfer.pending_id or None,
                transfer.reason.value,
                transfer.subject,
                outcome.accounts[transfer.debit_account].version,
                outcome.accounts[transfer.credit_account].version,
                now,
                transfer.linked,
                transfer.timeout_ms,
                now + timedelta(milliseconds=transfer.timeout_ms) if transfer.timeout_ms else None,
            )
            for transfer in outcome.accepted
        ],
    )


def _account(row: asyncpg.Record) -> Account:
    """An account from its row."""
    return Account(
        id=row["id"],
        kind=AccountKind(row["kind"]),
        owner=row["owner"],
        asset=row["asset"],
        debits_must_not_exceed_credits=row["debits_must_not_exceed_credits"],
        debits_posted=row["debits_posted"],
        credits_posted=row["credits_posted"],
        debits_pending=row["debits_pending"],
        credits_pending=row["credits_pending"],
        version=row["version"],
        closed=row["closed"],
    )


def _transfer(row: asyncpg.Record) -> Transfer:
    """A transfer from its row."""
    return Transfer(
        id=row["id"],
        debit_account=row["debit_account"],
        credit_account=row["credit_account"],
        asset=row["asset"],
        amount=row["amount"],
        reason=TransferReason(row["reason"]),
        subject=row["subject"],
        phase=Phase(row["phase"]),
        pending_id=row["pending_id"] or "",
        linked=row["linked"],
        timeout_ms=row["timeout_ms"],
    )
