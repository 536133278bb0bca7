"""The chain's file: py-evm's key-value database, an index of logs and a few settings, in SQLite.

py-evm writes a block in many pieces. All of them, and the block's logs, go into one SQLite transaction, which the node
opens around the mining of each block; so after a kill at any point the file holds whole blocks only. Writing outside
such a transaction is a programmer's error: a call that only reads must not leave anything behind.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from eth.abc import AtomicWriteBatchAPI
from eth.db.atomic import AtomicDBWriteBatch
from eth.db.backends.base import BaseAtomicDB

from fallow_chassis.sql import Queries

CACHE_KIBIBYTES: Final = 16 * 1024
LOGS_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class LogRow:
    """One event of one transaction; hashes, addresses and data as 0x and hexadecimal digits."""

    block_number: int
    log_index: int
    block_hash: str
    transaction_hash: str
    transaction_index: int
    address: str
    topics: tuple[str, ...]
    data: str


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Which logs are asked for. Each list holds the values allowed; None allows any. Blocks are both included."""

    first_block: int
    last_block: int
    addresses: tuple[str, ...] | None = None
    topics: tuple[tuple[str, ...] | None, ...] = ()


class ChainStore(BaseAtomicDB):
    """One SQLite file as py-evm's database. For one thread of one process; `open` it once."""

    def __init__(self, path: Path) -> None:
        queries = Queries.load("fallow_stack")
        self._get_item = queries.get("chain_get_item")
        self._has_item = queries.get("chain_has_item")
        self._set_item = queries.get("chain_set_item")
        self._delete_item = queries.get("chain_delete_item")
        self._get_setting = queries.get("chain_get_setting")
        self._set_setting = queries.get("chain_set_setting")
        self._add_log = queries.get("chain_add_log")
        self._find_logs = queries.get("chain_find_logs")
        self._connection = sqlite3.connect(path, isolation_level=None)
        # A commit survives the death of this process; a power cut may take the last blocks, but never part of one.
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", f"cache_size = -{CACHE_KIBIBYTES}"):
            self._connection.execute(f"PRAGMA {pragma}")
        with self.transaction():
            self._connection.execute(queries.get("chain_create_item"))
            self._connection.execute(queries.get("chain_create_log"))
            self._connection.execute(queries.get("chain_create_log_index"))
            self._connection.execute(queries.get("chain_create_setting"))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make everything that is written within stand, or nothing of it."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    # py-evm's database

    def __getitem__(self, key: bytes) -> bytes:
        row = self._connection.execute(self._get_item, (key,)).fetchone()
        if row is None:
            raise KeyError(key)
        return bytes(row[0])

    def __setitem__(self, key: bytes, value: bytes) -> None:
        assert self._connection.in_transaction, "a write outside the transaction of a block"
        self._connection.execute(self._set_item, (key, value))

    def __delitem__(self, key: bytes) -> None:
        assert self._connection.in_transaction, "a delete outside the transaction of a block"
        if self._connection.execute(self._delete_item, (key,)).rowcount == 0:
            raise KeyError(key)

    def _exists(self, key: bytes) -> bool:
        return self._connection.execute(self._has_item, (key,)).fetchone() is not None

    @contextmanager
    def atomic_batch(self) -> Iterator[AtomicWriteBatchAPI]:
        """Gather writes and make them at the end, unless an exception comes; within the block's transaction."""
        with AtomicDBWriteBatch._commit_unless_raises(self) as batch:  # noqa: SLF001 - py-evm's own AtomicDB does so
            yield batch

    # settings

    def setting(self, name: str) -> str | None:
        """Return a setting, or None before it was made."""
        row = self._connection.execute(self._get_setting, (name,)).fetchone()
        return None if row is None else str(row[0])

    def make_setting(self, name: str, value: str) -> None:
        """Write a setting for good; it must not stand yet."""
        assert self._connection.in_transaction, "settings are made with the genesis block"
        self._connection.execute(self._set_setting, (name, value))

    # logs

    def add_logs(self, rows: Sequence[LogRow]) -> None:
        """Index the logs of a block, in the block's transaction."""
        assert self._connection.in_transaction, "logs are written with their block"
        self._connection.executemany(
            self._add_log,
            [
                (
                    row.block_number,
                    row.log_index,
                    row.block_hash,
                    row.transaction_hash,
                    row.transaction_index,
                    row.address,
                    *row.topics,
                    *(None,) * (4 - len(row.topics)),
                    row.data,
                )
                for row in rows
            ],
        )

    def find_logs(self, wanted: LogFilter) -> list[LogRow]:
        """Return matching logs in order, at most LOGS_MAX + 1 of them (one too many tells that there are more)."""
        topics = [None if choice is None else json.dumps(choice) for choice in wanted.topics]
        topics += [None] * (4 - len(topics))
        rows = self._connection.execute(
            self._find_logs,
            {
                "first_block": wanted.first_block,
                "last_block": wanted.last_block,
                "addresses": None if wanted.addresses is None else json.dumps(wanted.addresses),
                "topics_0": topics[0],
                "topics_1": topics[1],
                "topics_2": topics[2],
                "topics_3": topics[3],
                "topic_count": len(wanted.topics),
                "limit": LOGS_MAX + 1,
            },
        ).fetchall()
        return [_log_row(row) for row in rows]


def _log_row(row: tuple[Any, ...]) -> LogRow:
    number, index, block_hash, transaction_hash, transaction_index, address, *topics, data = row
    return LogRow(
        block_number=number,
        log_index=index,
        block_hash=block_hash,
        transaction_hash=transaction_hash,
        transaction_index=transaction_index,
        address=address,
        topics=tuple(topic for topic in topics if topic is not None),
        data=data,
    )
