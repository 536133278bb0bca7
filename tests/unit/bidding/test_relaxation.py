"""What would let a group match: single changes, each of which holds on the same market, and time."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings

from fallow_bidding.convert.relaxations import advice_of
from fallow_bidding.domain.demand import GpuAlternative, GpuNeed, OrderDemand
from fallow_bidding.domain.matching import Market, decide
from fallow_bidding.domain.placement import DeviceShare, NodeUse
from fallow_bidding.domain.relaxation import (
    TRIALS_MAX,
    Freeing,
    Relaxation,
    Trials,
    find_free_time,
    find_relaxations,
    relaxed,
)
from fallow_bidding.domain.supply import Supplier
from tests.unit.bidding.market import CORE, GIB, device, group, node, order, prices, replica_set, supplier
from tests.unit.bidding.test_matching_properties import orders, suppliers

NOW = datetime(2026, 1, 1, tzinfo=UTC)
H100 = GpuNeed(1, models=("h100",))


def told(wanted: OrderDemand, *market: Supplier) -> list[Relaxation]:
    """What is told of an order on a market."""
    return list(find_relaxations(wanted, Trials(Market(market))))


def gpus(need: GpuNeed, **fields: Any) -> OrderDemand:
    """An order of one replica with GPUs."""
    return order(group(replica_set(gpu=need), **fields))


CASES: list[tuple[str, OrderDemand, Supplier, Relaxation]] = [
    ("price", order(group(price_limit_micros=5)), supplier(micros=7), Relaxation("price_limit", "", 7, 7)),
    (
        "model",
        gpus(GpuNeed(1, models=("a100", "l4"))),
        supplier(micros=7),
        Relaxation("gpu_model", "h100", 0, 7),
    ),
    ("vendor", gpus(GpuNeed(1, vendor="amd")), supplier(micros=7), Relaxation("gpu_vendor", "nvidia", 0, 7)),
    ("interface", gpus(GpuNeed(1, interface="pcie")), supplier(micros=7), Relaxation("gpu_interface", "sxm", 0, 7)),
    ("vram", gpus(GpuNeed(1, vram_bytes_min=96 * GIB)), supplier(micros=7), Relaxation("vram", "", 80 * GIB, 7)),
    (
        "an alternative",
        gpus(GpuNeed(1, alternatives=(GpuAlternative("", "h100", 0, "pcie"), GpuAlternative("", "a100")))),
        supplier(micros=7),
        Relaxation("gpu_alternatives", "h100", 0, 7),
    ),
    ("count", gpus(GpuNeed(8)), supplier("p1", node(devices=5), micros=7), Relaxation("gpu_count", "", 5, 35)),
    ("region", order(group(regions=("us",))), supplier(micros=7), Relaxation("region", "eu-west", 0, 7)),
    (
        "attribute",
        order(group(attributes={"tier": "gold", "host": "x"})),
        supplier(micros=7, attributes={"tier": "gold"}),
        Relaxation("attributes", "host", 0, 7),
    ),
    (
        "auditor",
        order(group(auditors_all_of=("accounts/a",))),
        supplier(micros=7),
        Relaxation("auditors", "", 0, 7),
    ),
    (
        "reputation",
        order(group(reputation_milli_min=900)),
        supplier(micros=7, reputation_milli=850),
        Relaxation("reputation", "", 850, 7),
    ),
    (
        "term",
        order(duration_ms=7_200_000),
        supplier(micros=7, term_ms_max=3_600_000),
        Relaxation("term", "", 3_600_000, 7),
    ),
    (
        "cpu",
        order(group(replica_set(gpu=GpuNeed(1), cpu_milli=48 * CORE))),
        supplier(micros=7),
        Relaxation("cpu", "", 32 * CORE, 7),
    ),
    (
        "memory",
        order(group(replica_set(gpu=GpuNeed(1), memory_bytes=256 * GIB))),
        supplier(micros=7),
        Relaxation("memory", "", 128 * GIB, 7),
    ),
    (
        "storage",
        order(group(replica_set(gpu=GpuNeed(1), storage_bytes_by_class={"ephemeral": 1_000 * GIB}))),
        supplier(micros=7),
        Relaxation("storage", "ephemeral", 500 * GIB, 7),
    ),
    (
        "replicas",
        order(group(replica_set(replicas=4, gpu=GpuNeed(1)))),
        supplier("p1", node(devices=3), micros=7),
        Relaxation("placement", "", 3, 21),
    ),
]


@pytest.mark.parametrize(
    ("wanted", "market", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_each_constraint_can_give_way(wanted: OrderDemand, market: Supplier, expected: Relaxation) -> None:
    """Goal: the one constraint that keeps an order from its match is told, with the bound that would do. Method: a table
    with an order for each constraint; a search by halves may fall short by 1/256 of what was asked, never go beyond.
    """
    (change,) = told(wanted, market)
    assert (change.constraint, change.value, change.price_micros) == (
        expected.constraint,
        expected.value,
        expected.price_micros,
    )
    assert expected.limit * 0.99 <= change.limit <= expected.limit
    assert advice_of(change, "usdc").endswith(".")


def test_the_cheapest_change_comes_first() -> None:
    """Goal: a tenant reads the best way first. Method: a price limit, a region and a model in the way of three
    providers, each of another price; no change helps with a fourth that lacks two things.
    """
    market = [
        supplier("dear", micros=900),
        supplier("far", micros=300, region="us"),
        supplier("other", node(devices=(device("g", model="l4"),)), schedule=prices(gpu_micros_by_model={"l4": 200})),
        supplier(
            "both",
            node(devices=(device("g", model="t4"),)),
            schedule=prices(gpu_micros_by_model={"t4": 1}),
            region="us",
        ),
    ]
    wanted = gpus(H100, price_limit_micros=500, regions=("eu-west",))
    assert [
        (change.constraint, change.value, change.limit, change.price_micros) for change in told(wanted, *market)
    ] == [
        ("gpu_model", "l4", 0, 200),
        ("region", "us", 0, 300),
        ("price_limit", "", 900, 900),
    ]


def test_alternatives_give_way_each_with_its_own_bounds() -> None:
    """Goal: a tenant that named kinds learns which of their bounds is in the way. Method: too little VRAM, and another
    model, on a market that has neither.
    """
    kinds = gpus(GpuNeed(1, models=("h100", "l4"), alternatives=(GpuAlternative("", "h100", 96 * GIB),)))
    assert told(kinds, supplier(micros=7)) == [
        Relaxation("gpu_alternatives", "h100", 0, 7),
        Relaxation("vram", "", 80 * GIB, 7),
    ]
    wanted = gpus(GpuNeed(1, models=("a100",), alternatives=(GpuAlternative("", "a100", 80 * GIB),)))
    assert told(wanted, supplier(micros=7)) == [Relaxation("gpu_model", "h100", 0, 7)]


def test_what_no_single_change_mends_is_told_as_nothing() -> None:
    """Goal: no false hope. Method: no provider, one that is away, one that lacks two things, one that would need either
    vendor for one of two replicas.
    """
    assert told(order()) == []
    assert told(order(), supplier(unavailable="draining")) == []
    assert told(gpus(GpuNeed(1, vendor="amd", interface="pcie")), supplier()) == []
    mixed = supplier("p1", node(devices=(device("a"), device("b", vendor="amd"))))
    sets = [replica_set(name, gpu=GpuNeed(1, vendor="nvidia")) for name in ("a", "b")]
    assert told(order(group(*sets)), mixed) == []


def test_the_search_is_bounded() -> None:
    """Goal: an order with everything wrong costs no more than others. Method: count decisions; stop a search early."""
    asked: list[int] = []

    def may_go_on() -> bool:
        asked.append(1)
        return True

    attributes = {f"key-{number}": "x" for number in range(200)}
    sets = [replica_set(f"s{n}", 64, GpuNeed(64), cpu_milli=10**6, memory_bytes=10**15) for n in range(4)]
    wanted = order(group(*sets, attributes=attributes, regions=("x",)), duration_ms=1)
    assert find_relaxations(wanted, Trials(Market([supplier()]), may_go_on)) == ()
    assert len(asked) <= TRIALS_MAX
    assert find_relaxations(gpus(H100, price_limit_micros=1), Trials(Market([supplier()]), lambda: False)) == ()


@given(suppliers(), orders())
@settings(max_examples=60, deadline=None)
def test_a_told_change_makes_the_order_match(market: list[Supplier], wanted: list[OrderDemand]) -> None:
    """Goal: what is told is true. Method: for made-up markets and orders make each told change and decide anew: it
    matches, at the price told. On the same market: without a mix the first group that was tried is the mix.
    """
    for whole in wanted:
        for item in whole.groups:
            alone = replace(whole, groups=(item,), together=True)
            if decide(alone, Market(market)).matches:
                continue
            trials = Trials(Market(market))
            for change in find_relaxations(alone, trials):
                (match,) = decide(relaxed(alone, change), trials.market.fork()).matches
                assert match.price_micros == change.price_micros


def freeing(minutes: int, device_id: str, provider_id: str = "p1") -> Freeing:
    """A whole device, a core and a GiB of node n1 that come free."""
    use = NodeUse("n1", CORE, GIB, {})
    return Freeing(NOW + timedelta(minutes=minutes), provider_id, (DeviceShare("n1", device_id, 1_000),), (use,))


@pytest.mark.parametrize(
    ("count", "freed", "minutes"),
    [
        (1, [(5, "a"), (9, "b")], 5),
        (2, [(5, "a"), (9, "b"), (20, "c")], 9),
        (3, [(5, "a"), (9, "b"), (20, "c"), (30, "x")], 20),
        (4, [(5, "a"), (9, "b"), (20, "c")], None),
        (1, [], None),
        (1, [(5, "elsewhere"), (7, "c")], 7),
    ],
)
def test_the_soonest_moment_is_found(count: int, freed: list[tuple[int, str]], minutes: int | None) -> None:
    """Goal: who waits knows until when. Method: a node with three leased devices that come free one after another,
    beside some that nobody knows.
    """
    taken = node(devices=tuple(device(name, free_milli=0) for name in "abc"))
    freeings = [freeing(after, name) for after, name in freed]
    found = find_free_time(gpus(GpuNeed(count)), Trials(Market([supplier("p1", taken)])), freeings)
    assert found == (None if minutes is None else NOW + timedelta(minutes=minutes))
