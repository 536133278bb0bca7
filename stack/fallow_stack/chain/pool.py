"""Transactions that cannot be mined at once: their nonce is not the next one, or the base fee is above their cap.

The rules are those of go-ethereum's pool as far as a client can see them: one transaction per sender and nonce, a
replacement must raise both fees by a tenth, the pool is bounded. It lives in memory: a restart empties it, and a client
that wants its transaction mined sends it again, as on any chain.
"""

from collections.abc import Iterator
from typing import Final, Generic, Protocol, TypeVar

from fallow_stack.chain.errors import refused

POOL_TRANSACTIONS_MAX: Final = 1024
REPLACEMENT_PERCENT: Final = 10


class PooledTransaction(Protocol):
    """What the pool needs to know of a signed transaction."""

    @property
    def hash(self) -> bytes:
        """Its hash."""
        ...

    @property
    def sender(self) -> bytes:
        """Who signed it."""
        ...

    @property
    def nonce(self) -> int:
        """Its place among the sender's transactions."""
        ...

    @property
    def max_fee_per_gas(self) -> int:
        """The cap on what it pays, in wei."""
        ...

    @property
    def max_priority_fee_per_gas(self) -> int:
        """The cap on the tip within, in wei."""
        ...


Transaction = TypeVar("Transaction", bound=PooledTransaction)


class Pool(Generic[Transaction]):
    """Waiting transactions by sender and nonce."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, dict[int, Transaction]] = {}
        self._hashes: dict[bytes, Transaction] = {}

    def __len__(self) -> int:
        return len(self._hashes)

    def find(self, transaction_hash: bytes) -> Transaction | None:
        """Return the waiting transaction of that hash."""
        return self._hashes.get(transaction_hash)

    def add(self, transaction: Transaction) -> None:
        """Take a transaction in, in place of the one with its sender and nonce if it pays enough more."""
        if transaction.hash in self._hashes:
            raise refused("already known")
        row = self._waiting.setdefault(transaction.sender, {})
        standing = row.get(transaction.nonce)
        if standing is not None and not _replaces(transaction, standing):
            raise refused("replacement transaction underpriced")
        if standing is None and len(self._hashes) >= POOL_TRANSACTIONS_MAX:
            if not row:
                del self._waiting[transaction.sender]
            raise refused("txpool is full")
        if standing is not None:
            del self._hashes[standing.hash]
        row[transaction.nonce] = transaction
        self._hashes[transaction.hash] = transaction

    def remove(self, transaction: Transaction) -> None:
        """Let a transaction go, mined or not."""
        del self._hashes[transaction.hash]
        row = self._waiting[transaction.sender]
        del row[transaction.nonce]
        if not row:
            del self._waiting[transaction.sender]

    def senders(self) -> tuple[bytes, ...]:
        """Return who has transactions waiting, in the order in which they came."""
        return tuple(self._waiting)

    def at(self, sender: bytes, nonce: int) -> Transaction | None:
        """Return the sender's transaction with that nonce."""
        return self._waiting.get(sender, {}).get(nonce)

    def stale(self, sender: bytes, next_nonce: int) -> Iterator[Transaction]:
        """Yield the sender's transactions whose nonce has been used."""
        row = self._waiting.get(sender, {})
        yield from [transaction for nonce, transaction in row.items() if nonce < next_nonce]

    def nonce_after(self, sender: bytes, next_nonce: int) -> int:
        """Return the next nonce once the sender's unbroken row of waiting transactions is mined."""
        row = self._waiting.get(sender, {})
        while next_nonce in row:
            next_nonce += 1
        return next_nonce


def _replaces(transaction: PooledTransaction, standing: PooledTransaction) -> bool:
    """Tell whether both fees rise by the tenth that a replacement must pay, rounded up, against the newcomer."""
    return all(
        new * 100 >= old * (100 + REPLACEMENT_PERCENT) and new > old
        for new, old in (
            (transaction.max_fee_per_gas, standing.max_fee_per_gas),
            (transaction.max_priority_fee_per_gas, standing.max_priority_fee_per_gas),
        )
    )
