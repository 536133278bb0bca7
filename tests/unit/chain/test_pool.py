"""The pool of waiting transactions: one for each sender and nonce, a tenth more to replace, bounded."""

import dataclasses

import pytest

from fallow_stack.chain.errors import RpcError
from fallow_stack.chain.pool import POOL_TRANSACTIONS_MAX, Pool

ANN, BEN = b"a" * 20, b"b" * 20


@dataclasses.dataclass(frozen=True)
class Waiting:
    hash: bytes
    sender: bytes
    nonce: int
    max_fee_per_gas: int = 100
    max_priority_fee_per_gas: int = 10


def refusal(pool: Pool[Waiting], transaction: Waiting) -> str:
    with pytest.raises(RpcError) as caught:
        pool.add(transaction)
    return caught.value.message


def test_the_same_transaction_is_known() -> None:
    """Goal: sending again is told. Method: add one twice."""
    pool: Pool[Waiting] = Pool()
    pool.add(Waiting(b"1", ANN, 5))
    assert refusal(pool, Waiting(b"1", ANN, 5)) == "already known"
    assert len(pool) == 1


@pytest.mark.parametrize(
    ("fee", "tip", "taken"),
    [(110, 11, True), (109, 11, False), (110, 10, False), (200, 10, False), (100, 11, False), (1000, 1000, True)],
)
def test_a_replacement_pays_a_tenth_more_of_both(*, fee: int, tip: int, taken: bool) -> None:
    """Goal: go-ethereum's replacement rule. Method: fees around the tenth."""
    pool: Pool[Waiting] = Pool()
    pool.add(Waiting(b"1", ANN, 5))
    newer = Waiting(b"2", ANN, 5, fee, tip)
    if taken:
        pool.add(newer)
        assert (pool.find(b"1"), pool.find(b"2"), pool.at(ANN, 5)) == (None, newer, newer)
    else:
        assert refusal(pool, newer) == "replacement transaction underpriced"
        assert pool.find(b"2") is None
    assert len(pool) == 1


def test_fees_of_nothing_are_not_replaced_by_nothing() -> None:
    """Goal: a tenth of nothing is still more than nothing. Method: replace fees of zero by zero."""
    pool: Pool[Waiting] = Pool()
    pool.add(Waiting(b"1", ANN, 5, 0, 0))
    assert refusal(pool, Waiting(b"2", ANN, 5, 0, 0)) == "replacement transaction underpriced"


def test_the_unbroken_row_counts() -> None:
    """Goal: the pending nonce skips what waits without a gap. Method: 5, 6 and 8 wait."""
    pool: Pool[Waiting] = Pool()
    for nonce in (5, 6, 8):
        pool.add(Waiting(bytes([nonce]), ANN, nonce))
    assert [pool.nonce_after(ANN, nonce) for nonce in (4, 5, 6, 7, 8)] == [4, 7, 7, 7, 9]
    assert pool.nonce_after(BEN, 3) == 3
    assert [stale.nonce for stale in pool.stale(ANN, 7)] == [5, 6]


def test_the_pool_is_bounded_and_empties() -> None:
    """Goal: memory has a bound. Method: fill it, one too many, replace within, remove all."""
    pool: Pool[Waiting] = Pool()
    waiting = [Waiting(index.to_bytes(2, "big"), ANN, index) for index in range(POOL_TRANSACTIONS_MAX)]
    for transaction in waiting:
        pool.add(transaction)
    assert refusal(pool, Waiting(b"more", BEN, 0)) == "txpool is full"
    assert pool.senders() == (ANN,)
    pool.add(Waiting(b"instead", ANN, 0, 200, 20))
    pool.remove(Waiting(b"instead", ANN, 0, 200, 20))
    for transaction in waiting[1:]:
        pool.remove(transaction)
    assert (len(pool), pool.senders()) == (0, ())
