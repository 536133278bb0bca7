"""What a group costs an hour under a price schedule, in whole micros.

The parts (GPUs, cores, memory, storage) are summed as one exact fraction over all replicas and rounded **up** once for
the group: the provider gains, by less than one micro an hour. The schedule's least price comes after that; the discount of
a spot or reserved term comes last and is rounded up as well.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from fallow_bidding.domain.demand import ReplicaSet, TermKind
from fallow_bidding.domain.supply import PriceSchedule

_GIB: Final = 1 << 30
_MILLI: Final = 1_000


def group_price_micros(
    prices: PriceSchedule,
    replicas: Iterable[tuple[ReplicaSet, str]],
    *,
    term_kind: TermKind = TermKind.ON_DEMAND,
    duration_ms: int | None = None,
) -> int:
    """The price of one hour of a group; each replica comes with the GPU model it is placed on ("" without GPU)."""
    numerator = sum(_replica_numerator(prices, replica_set, model) for replica_set, model in replicas)
    price = max(ceiling(numerator, _MILLI * _GIB), prices.group_micros_min)
    discount = discount_milli(prices, term_kind, duration_ms)
    price = ceiling(price * (_MILLI - discount), _MILLI)
    assert price >= 0, "a price is never negative"
    return price


def gpu_micros(prices: PriceSchedule, replica_set: ReplicaSet, model: str) -> int:
    """What a replica's GPUs add, in thousandths of a micro an hour; for comparing models, never for charging."""
    return 0 if replica_set.gpu is None else prices.gpu_micros_by_model[model] * replica_set.gpu.total_milli


def discount_milli(prices: PriceSchedule, term_kind: TermKind, duration_ms: int | None) -> int:
    """In thousandths: of a spot term its own, of a reserved one the largest whose least duration it reaches; else 0."""
    if term_kind is TermKind.SPOT:
        return prices.spot_discount_milli
    if term_kind is not TermKind.RESERVED or duration_ms is None:
        return 0
    reached = [tier.discount_milli for tier in prices.reserved_tiers if duration_ms >= tier.duration_ms_min]
    return max(reached, default=0)


def ceiling(numerator: int, denominator: int) -> int:
    """A quotient rounded up."""
    assert denominator > 0, "a division needs a positive divisor"
    return -(-numerator // denominator)


def total_micros(prices: Sequence[int]) -> int:
    """The price of several groups together."""
    return sum(prices)


def _replica_numerator(prices: PriceSchedule, replica_set: ReplicaSet, model: str) -> int:
    """One replica's price in micros an hour, times 1,000 times 2^30."""
    by_milli = gpu_micros(prices, replica_set, model) + prices.cpu_core_micros * replica_set.cpu_milli
    by_byte = prices.memory_gib_micros * replica_set.memory_bytes
    for storage_class, size_bytes in replica_set.storage_bytes_by_class.items():
        by_byte += prices.storage_gib_micros_by_class.get(storage_class, 0) * size_bytes
    return by_milli * _GIB + by_byte * _MILLI
