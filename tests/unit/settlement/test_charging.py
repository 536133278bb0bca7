"""Charging: sums to date, exact over any split, never beyond what is held."""

import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow_receipts import due_micros as receipt_due
from fallow_settlement.domain.charge import Metering, charge_all, charge_id
from fallow_settlement.domain.charging import Rates, due_micros, share_out, split_charge, split_to_date
from fallow_settlement.domain.metering import Meter

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PRICES = st.integers(0, 10**15)
TIMES = st.integers(0, 10**9)
SHARES = st.integers(0, 10_000)


def metering(lease: str, price: int, proven_ms: int, rates: Rates) -> Metering:
    """A generation with some proven time."""
    meter = Meter(NOW, 1_000, proven_ms=proven_ms)
    return Metering(
        "order", 0, 1, lease, "tenant", "provider", "owner", bytes(32), "usdc", price, rates, meter, ready=True
    )


@pytest.mark.parametrize(
    ("price", "running_ms", "due"),
    [
        (3_600_000, 1, 1),
        (3_599_999, 1, 0),
        (1, 3_600_000, 1),
        (1, 3_599_999, 0),
        (0, 10**9, 0),
        (1_800_000, 60_000, 30_000),
    ],
)
def test_a_price_is_for_an_hour_and_rounds_down(price: int, running_ms: int, due: int) -> None:
    """Goal: micros an hour times milliseconds. Method: a table at the edges."""
    assert due_micros(price, running_ms) == due


@given(PRICES, st.lists(TIMES, max_size=20))
def test_any_split_of_time_charges_the_same(price: int, cuts: list[int]) -> None:
    """Goal: no micro lost or gained however often it is charged. Method: cut a span at random, sum the differences."""
    edges = [0, *sorted(cuts)]
    total = sum(due_micros(price, after) - due_micros(price, before) for before, after in itertools.pairwise(edges))
    assert total == due_micros(price, edges[-1])
    assert all(
        due_micros(price, after) - due_micros(price, before) == receipt_due(price, before, after)
        for before, after in itertools.pairwise(edges)
    ), "the service and the receipt agree"


@given(st.lists(st.integers(0, 10**9), max_size=20), SHARES, SHARES)
def test_any_split_of_a_sum_shares_the_same(amounts: list[int], take: int, pool: int) -> None:
    """Goal: fee and pool do not depend on how often it is charged. Method: split a sum at random, add the parts."""
    rates = Rates(take, pool)
    charged = provider = fee = community = 0
    for amount in amounts:
        parts = split_charge(charged, amount, rates)
        charged += amount
        provider, fee, community = provider + parts.provider, fee + parts.fee, community + parts.pool
    whole = split_to_date(charged, rates)
    assert (provider, fee, community) == (whole.provider, whole.fee, whole.pool)
    assert provider + fee + community == charged


@pytest.mark.parametrize(
    ("charged", "take", "pool", "parts"),
    [
        (10_000, 2_000, 0, (8_000, 2_000, 0)),
        (10_000, 2_000, 1_000, (8_000, 1_800, 200)),
        (4, 2_000, 10_000, (4, 0, 0)),
        (5, 2_000, 9_999, (4, 1, 0)),
        (9, 2_000, 10_000, (8, 0, 1)),
    ],
)
def test_shares_round_down(charged: int, take: int, pool: int, parts: tuple[int, int, int]) -> None:
    """Goal: rounding favours the provider, then the platform. Method: a table at the edges."""
    split = split_to_date(charged, Rates(take, pool))
    assert (split.provider, split.fee, split.pool) == parts


def test_an_empty_escrow_is_not_charged() -> None:
    """Goal: no charges of nothing. Method: proven time, and no funds."""
    assert charge_all((metering("lease", 3_600_000, 5, Rates(0, 0)),), 0, NOW) == ((), (), True)


def test_the_last_charge_of_an_empty_escrow_says_what_is_short() -> None:
    """Goal: no debt goes unsaid when nothing more can come. Method: proven time, no funds, the last charge."""
    charges, changed, short = charge_all((metering("lease", 3_600_000, 5, Rates(0, 0)),), 0, NOW, last=True)
    assert ([(charge.amount, charge.short) for charge in charges], short) == ([(0, 5)], True)
    assert changed[0].charged_ms == changed[0].meter.proven_ms


@given(st.integers(0, 10**12), st.lists(st.integers(0, 10**12), max_size=12))
def test_a_shortfall_is_shared_pro_rata(held: int, dues: list[int]) -> None:
    """Goal: all that is held is used, nobody gets more than is due, shares are fair to a micro. Method: random dues."""
    parts = share_out(held, dues)
    total = sum(dues)
    assert sum(parts) == min(held, total)
    for part, due in zip(parts, dues, strict=True):
        assert part <= due
        if total > held:
            assert abs(part * total - held * due) <= total


@given(
    st.lists(st.tuples(st.integers(1, 10**9), st.integers(1, 10**7)), min_size=1, max_size=5),
    st.integers(0, 10**10),
    SHARES,
    SHARES,
)
def test_charges_never_pass_the_escrow(leases: list[tuple[int, int]], held: int, take: int, pool: int) -> None:
    """Goal: the sum of charges is what is held at most, and each says what it is short of. Method: random leases."""
    meterings = tuple(
        metering(f"lease{index}", price, proven_ms, Rates(take, pool))
        for index, (price, proven_ms) in enumerate(leases)
    )
    charges, changed, short = charge_all(meterings, held, NOW)
    total = sum(item.due for item in meterings)
    assert short == (total > held)
    assert sum(charge.amount for charge in charges) == (min(held, total) if held else 0)
    for charge in charges:
        assert charge.amount + charge.short == receipt_due(
            charge.price_micros_per_hour, charge.from_running_ms, charge.to_running_ms
        )
        assert charge.fee + charge.pool + charge.provider_part == charge.amount
    again, _, _ = charge_all(changed, held - sum(charge.amount for charge in charges), NOW)
    assert again == (), "what was charged is not charged again"


def test_the_id_of_a_charge_is_derived_from_what_it_is() -> None:
    """Goal: making a charge twice makes the same one. Method: compare ids of equal and different charges."""
    assert charge_id("order", 0, 1, 1) == charge_id("order", 0, 1, 1)
    different = {
        charge_id("order", 0, 1, 1),
        charge_id("order", 0, 1, 2),
        charge_id("order", 0, 2, 1),
        charge_id("order", 1, 1, 1),
    }
    assert len(different) == 4
