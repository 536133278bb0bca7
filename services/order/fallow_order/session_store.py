"""Accounts, nonces and API keys in Postgres: each named query of ``sql/sessions.sql`` behind a typed function."""

from datetime import datetime

import asyncpg

from fallow_chassis.postgres import Connection
from fallow_order.domain.oidc import OidcIdentity
from fallow_order.domain.session import Account, ApiKey
from fallow_order.store import QUERIES


async def insert_nonce(
    connection: Connection, nonce: str, *, address: str, peer: str, created_at: datetime, expires_at: datetime
) -> None:
    """Keep a nonce until it is taken or runs out."""
    await connection.execute(QUERIES.get("insert_nonce"), nonce, address, peer, created_at, expires_at)


async def count_nonces(connection: Connection, peer: str, now: datetime) -> tuple[int, datetime | None]:
    """Challenges that a peer has not answered, and when the first of them runs out."""
    row = await connection.fetchrow(QUERIES.get("count_nonces"), peer, now)
    assert row is not None, "a count is always there"
    return row["waiting"], row["next_at"]


async def take_nonce(connection: Connection, nonce: str) -> tuple[str, datetime] | None:
    """Take a nonce: its address and expiry, once; None if it is not there (any more)."""
    row = await connection.fetchrow(QUERIES.get("take_nonce"), nonce)
    return None if row is None else (row["address"], row["expires_at"])


async def delete_old_nonces(connection: Connection, now: datetime, limit: int) -> None:
    """Forget nonces that ran out."""
    await connection.execute(QUERIES.get("delete_old_nonces"), now, limit)


async def ensure_account(connection: Connection, new_id: str, address: str, now: datetime) -> Account:
    """The account of an address; made with ``new_id`` if there is none."""
    await connection.execute(QUERIES.get("insert_account"), new_id, address, now)
    row = await connection.fetchrow(QUERIES.get("load_account_by_address"), address)
    assert row is not None, "the account was just made or was there"
    return _account(row)


async def ensure_account_of_identity(
    connection: Connection, new_id: str, identity: OidcIdentity, now: datetime
) -> Account:
    """The account of an issuer's subject; made with ``new_id`` if there is none."""
    row = await connection.fetchrow(QUERIES.get("load_account_by_identity"), identity.issuer, identity.subject)
    if row is None:
        values = identity.issuer, identity.subject, new_id, now
        await connection.execute(QUERIES.get("insert_account_of_identity"), *values)
        row = await connection.fetchrow(QUERIES.get("load_account_by_identity"), identity.issuer, identity.subject)
    assert row is not None, "the account was just made or was there"
    return _account(row)


async def load_account(connection: Connection, account_id: str) -> Account | None:
    """One account, or None."""
    row = await connection.fetchrow(QUERIES.get("load_account"), account_id)
    return None if row is None else _account(row)


async def insert_api_key(connection: Connection, key: ApiKey, secret_hash: bytes) -> None:
    """Store a key with the hash of its secret."""
    await connection.execute(
        QUERIES.get("insert_api_key"),
        key.id,
        key.account,
        key.display_name,
        list(key.scopes),
        secret_hash,
        key.created_at,
        key.expires_at,
    )


async def load_api_key(connection: Connection, key_id: str, account_id: str) -> ApiKey | None:
    """One key of an account, or None."""
    row = await connection.fetchrow(QUERIES.get("load_api_key"), key_id, account_id)
    return None if row is None else _api_key(row)


async def use_api_key(connection: Connection, secret_hash: bytes, now: datetime) -> ApiKey | None:
    """The key of a secret's hash, noting its use; None if there is none."""
    row = await connection.fetchrow(QUERIES.get("use_api_key"), secret_hash, now)
    return None if row is None else _api_key(row)


async def list_api_keys(connection: Connection, account_id: str, *, before_id: str, limit: int) -> list[ApiKey]:
    """Keys of an account, newest first, from before an id (empty: from the newest)."""
    return [_api_key(row) for row in await connection.fetch(QUERIES.get("list_api_keys"), account_id, before_id, limit)]


async def count_api_keys(connection: Connection, account_id: str, now: datetime) -> int:
    """Keys of an account that have not run out."""
    return int(await connection.fetchval(QUERIES.get("count_api_keys"), account_id, now))


async def delete_old_api_keys(connection: Connection, before: datetime, limit: int) -> None:
    """Forget keys that ran out before an instant."""
    await connection.execute(QUERIES.get("delete_old_api_keys"), before, limit)


async def delete_api_key(connection: Connection, key_id: str, account_id: str) -> bool:
    """Revoke a key; False if the account has none of that id."""
    status = await connection.execute(QUERIES.get("delete_api_key"), key_id, account_id)
    return status == "DELETE 1"


def _account(row: asyncpg.Record) -> Account:
    """An account of a row."""
    return Account(row["id"], row["address"] or "", row["created_at"])


def _api_key(row: asyncpg.Record) -> ApiKey:
    """A key of a row."""
    return ApiKey(
        id=row["id"],
        account=row["account"],
        display_name=row["display_name"],
        scopes=tuple(row["scopes"]),
        created_at=row["created_at"],
        last_used_at=row["last_used_at"],
        expires_at=row["expires_at"],
    )
