"""Prices of groups: what is summed, and which way it is rounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow_bidding.domain.demand import GpuNeed, ReplicaSet, TermKind
from fallow_bidding.domain.pricing import group_price_micros
from fallow_bidding.domain.supply import PriceSchedule, ReservedTier
from tests.unit.bidding.market import GIB, prices, replica_set

TABLE: list[tuple[str, PriceSchedule, ReplicaSet, int]] = [
    ("a whole GPU", prices(1_000_003), replica_set(gpu=GpuNeed(1)), 1_000_003),
    ("four of them", prices(1_000_003), replica_set(gpu=GpuNeed(4)), 4_000_012),
    ("a third of one, rounded up", prices(1_000_000), replica_set(gpu=GpuNeed(1, milli=333)), 333_000),
    ("one thousandth of little, rounded up", prices(1), replica_set(gpu=GpuNeed(1, milli=1)), 1),
    ("nothing costs nothing", prices(0), replica_set(gpu=GpuNeed(1)), 0),
    ("a core and a half", prices(cpu_core_micros=10), replica_set(cpu_milli=1_500), 15),
    ("memory by the byte, rounded up", prices(memory_gib_micros=2), replica_set(memory_bytes=GIB // 2 + 1), 2),
    ("memory exactly", prices(memory_gib_micros=2), replica_set(memory_bytes=GIB // 2), 1),
    (
        "storage by class, unpriced classes free",
        prices(storage_gib_micros_by_class={"beta3": 3}),
        replica_set(storage_bytes_by_class={"beta3": 2 * GIB, "ephemeral": 9 * GIB}),
        6,
    ),
    ("the least price", prices(5, group_micros_min=77), replica_set(gpu=GpuNeed(1)), 77),
]


@pytest.mark.parametrize(("why", "schedule", "wanted", "expected"), TABLE)
def test_a_replica_costs_the_sum_of_its_parts(
    why: str, schedule: PriceSchedule, wanted: ReplicaSet, expected: int
) -> None:
    """Goal: the price of one replica. Method: a table."""
    model = "" if wanted.gpu is None else "h100"
    assert group_price_micros(schedule, [(wanted, model)]) == expected, why


def test_rounding_happens_once_for_the_group() -> None:
    """Goal: three replicas of a third of a micro cost one micro, not three. Method: exact thirds of memory."""
    third = replica_set(memory_bytes=GIB // 4)
    assert group_price_micros(prices(memory_gib_micros=1), [(third, "")] * 4) == 1
    assert group_price_micros(prices(memory_gib_micros=1), [(third, "")] * 5) == 2


@pytest.mark.parametrize(
    ("kind", "duration_ms", "expected"),
    [
        (TermKind.ON_DEMAND, 10_000, 1_001),
        (TermKind.RESERVED, None, 1_001),
        (TermKind.RESERVED, 999, 1_001),
        (TermKind.RESERVED, 1_000, 901),
        (TermKind.RESERVED, 2_000, 501),
    ],
)
def test_reserved_terms_are_discounted(kind: TermKind, duration_ms: int | None, expected: int) -> None:
    """Goal: the best tier that the term reaches counts, rounded up. Method: a table around the tiers' bounds."""
    schedule = prices(1_001, reserved_tiers=(ReservedTier(2_000, 500), ReservedTier(1_000, 100)))
    price = group_price_micros(
        schedule, [(replica_set(gpu=GpuNeed(1)), "h100")], term_kind=kind, duration_ms=duration_ms
    )
    assert price == expected


@given(
    gpu=st.integers(0, 10**12),
    memory=st.integers(0, 10**9),
    milli=st.integers(1, 999),
    size=st.integers(1 << 20, 1 << 44),
    replicas=st.integers(1, 50),
)
def test_the_provider_gains_less_than_a_micro(gpu: int, memory: int, milli: int, size: int, replicas: int) -> None:
    """Goal: the rounded price is never below the exact one and less than one micro above it. Method: compare in exact
    integers, without the module's own arithmetic.
    """
    wanted = replica_set(gpu=GpuNeed(1, milli=milli), memory_bytes=size, cpu_milli=1)
    price = group_price_micros(prices(gpu, memory_gib_micros=memory), [(wanted, "h100")] * replicas)
    exact = replicas * (gpu * milli * GIB + memory * size * 1_000)
    assert 0 <= price * 1_000 * GIB - exact < 1_000 * GIB
