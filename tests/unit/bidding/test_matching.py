"""The engine's decision as tables: each constraint, the choice among those that fit, groups together, and the story."""

import pytest

from fallow_bidding.domain.constraints import STEPS
from fallow_bidding.domain.demand import GpuAlternative, GpuNeed, OrderDemand, ReplicaSet, TermKind
from fallow_bidding.domain.engine.mix import Snapshot
from fallow_bidding.domain.engine.needs import Need
from fallow_bidding.domain.explanation import ADVICE, GroupExplanation
from fallow_bidding.domain.matching import Market, decide, decide_in_full
from fallow_bidding.domain.supply import Health, Node, ReservedTier, StandingOffer, Supplier
from tests.unit.bidding.market import (
    CORE,
    GIB,
    device,
    group,
    node,
    order,
    prices,
    replica_set,
    supplier,
    unhealthy,
)

A100_PRICES = prices(gpu_micros_by_model={"a100": 1_000_000})
KINDS = (GpuAlternative("nvidia", "h100", 80 * GIB, "sxm"), GpuAlternative("", "a100", 80 * GIB))

CONSTRAINTS: list[tuple[str, Supplier, OrderDemand]] = [
    ("provider_state", supplier(unavailable="draining"), order()),
    ("provider_state", supplier(nodes=()), order()),
    ("excluded_providers", supplier("p1"), order(group(excluded=frozenset({"p1"})))),
    ("device_health", supplier("p1", unhealthy(Health.FAILED)), order()),
    ("device_health", supplier("p1", unhealthy(Health.DEGRADED)), order()),
    ("gpu_vendor", supplier(), order(group(replica_set(gpu=GpuNeed(1, vendor="amd"))))),
    ("gpu_model", supplier(), order(group(replica_set(gpu=GpuNeed(1, models=("a100", "h200")))))),
    ("vram", supplier(), order(group(replica_set(gpu=GpuNeed(1, vram_bytes_min=80 * GIB + 1))))),
    (
        "gpu_alternatives",
        supplier("p1", node(devices=(device("g", model="a100", vram_bytes=40 * GIB), device("h", interface="pcie")))),
        order(group(replica_set(gpu=GpuNeed(1, models=("a100", "h100"), alternatives=KINDS)))),
    ),
    ("gpu_interface", supplier(), order(group(replica_set(gpu=GpuNeed(1, interface="pcie"))))),
    ("device_free", supplier("p1", node(devices=(device("g", free_milli=999),))), order()),
    (
        "device_free",
        supplier("p1", node(devices=(device("g", free_milli=499),))),
        order(group(replica_set(gpu=GpuNeed(1, milli=500)))),
    ),
    ("gpu_count", supplier("p1", node("a"), node("b")), order(group(replica_set(gpu=GpuNeed(2))))),
    (
        "gpu_count",
        supplier("p1", node(devices=(device("g"), device("h", model="h200")))),
        order(group(replica_set(gpu=GpuNeed(2)))),
    ),
    (
        "runtime",
        supplier("p1", node(drivers=("docker",))),
        order(group(replica_set(gpu=GpuNeed(1), image="exec:host"))),
    ),
    (
        "runtime",
        supplier("p1", node(drivers=("exec",))),
        order(group(replica_set(gpu=GpuNeed(1), image="nginx"))),
    ),
    ("cpu", supplier(), order(group(replica_set(gpu=GpuNeed(1), cpu_milli=32 * CORE + 1)))),
    ("memory", supplier(), order(group(replica_set(gpu=GpuNeed(1), memory_bytes=128 * GIB + 1)))),
    (
        "memory",
        supplier(),
        order(group(replica_set(gpu=GpuNeed(1), storage_bytes_by_class={"ram": 127 * GIB + 1}))),
    ),
    ("storage", supplier(), order(group(replica_set(gpu=GpuNeed(1), storage_bytes_by_class={"beta3": 1})))),
    (
        "storage",
        supplier(),
        order(group(replica_set(gpu=GpuNeed(1), storage_bytes_by_class={"ephemeral": 500 * GIB + 1}))),
    ),
    ("region", supplier(), order(group(regions=("us-east", "us-west")))),
    ("attributes", supplier(attributes={"tier": "home"}), order(group(attributes={"tier": "datacentre"}))),
    ("attributes", supplier(attributes={"tier": "home"}), order(group(attributes={"tier": "data*"}))),
    ("attributes", supplier(), order(group(attributes={"tier": "*"}))),
    ("auditors", supplier(audited={"x": frozenset()}), order(group(auditors_any_of=("a", "b")))),
    ("auditors", supplier(audited={"a": frozenset()}), order(group(auditors_all_of=("a", "b")))),
    ("reputation", supplier(reputation_milli=499), order(group(reputation_milli_min=500))),
    ("asset", supplier(), order(group(asset="eurc"))),
    ("term", supplier(term_ms_max=999), order(duration_ms=1_000)),
    ("gpu_price", supplier(schedule=prices(gpu_micros_by_model={"h200": 1})), order()),
    ("placement", supplier("p1", node(devices=2)), order(group(replica_set(replicas=3, gpu=GpuNeed(1))))),
    ("placement", supplier(), order(group(replica_set(replicas=2, cpu_milli=17 * CORE)))),
    ("price_limit", supplier(micros=10_000_001), order()),
]
FITTING: list[tuple[Supplier, OrderDemand]] = [
    (supplier("p1", unhealthy(Health.UNKNOWN)), order()),
    (supplier(), order(group(replica_set(gpu=GpuNeed(1, vendor="nvidia", models=("a100", "h100"), interface="sxm"))))),
    (supplier(), order(group(replica_set(gpu=GpuNeed(1, vram_bytes_min=80 * GIB))))),
    (supplier(), order(group(replica_set(gpu=GpuNeed(1, alternatives=KINDS))))),
    (
        supplier("p1", node(devices=(device("g", model="a100", interface="pcie"),)), schedule=A100_PRICES),
        order(group(replica_set(gpu=GpuNeed(1, alternatives=KINDS)))),
    ),
    (
        supplier("p1", node(devices=(device("g", free_milli=500),))),
        order(group(replica_set(gpu=GpuNeed(1, milli=500)))),
    ),
    (supplier("p1", node(drivers=("exec",))), order(group(replica_set(gpu=GpuNeed(1), image="exec:host")))),
    (supplier("p1", node(drivers=("mock",))), order(group(replica_set(gpu=GpuNeed(1), image="nginx")))),
    (supplier(), order(group(replica_set(gpu=GpuNeed(1), cpu_milli=32 * CORE, memory_bytes=128 * GIB)))),
    (supplier(), order(group(regions=("us-east", "eu-west")))),
    (supplier(attributes={"tier": "datacentre"}), order(group(attributes={"tier": "data*"}))),
    (
        supplier(audited={"a": frozenset(), "b": frozenset()}),
        order(group(auditors_any_of=("b", "c"), auditors_all_of=("a",))),
    ),
    (supplier(reputation_milli=500), order(group(reputation_milli_min=500))),
    (supplier(term_ms_max=1_000), order(duration_ms=1_000)),
    (supplier(term_ms_max=1_000), order()),
    (supplier(micros=10_000_000), order()),
    (supplier(schedule=prices(gpu_micros_by_model={})), order(group(replica_set()))),
]


@pytest.mark.parametrize(("constraint", "provider", "demand"), CONSTRAINTS)
def test_each_constraint_removes_what_it_names(constraint: str, provider: Supplier, demand: OrderDemand) -> None:
    """Goal: a provider that breaks one constraint is removed by that one, which the funnel, the offer's loss and the
    advice all name. Method: one provider that fits but for it.
    """
    decision = decide(demand, Market([provider]))
    assert decision.matches == ()
    (story,) = decision.explanations
    emptied = next(step for step in story.funnel if step.providers_after == 0)
    assert emptied.constraint == constraint
    assert [offer.loss_reason for offer in story.offers] == ([] if constraint == "asset" else [constraint])
    assert story.advice == ADVICE[constraint]


@pytest.mark.parametrize(("provider", "demand"), FITTING)
def test_what_just_fits_is_matched(provider: Supplier, demand: OrderDemand) -> None:
    """Goal: bounds are inclusive. Method: a provider that meets each constraint exactly."""
    decision = decide(demand, Market([provider]))
    assert [match.provider_id for match in decision.matches] == [provider.provider_id]


def test_constraints_stand_in_their_documented_order() -> None:
    """Goal: the order of the design holds: vendor, model, VRAM, interface, count, CPU, memory, storage, region,
    attributes, auditors, trust, term. Method: compare the names, and that each has advice.
    """
    names = [name for name, _ in STEPS]
    documented = [
        "gpu_vendor",
        "gpu_model",
        "vram",
        "gpu_interface",
        "gpu_count",
        "cpu",
        "memory",
        "storage",
        "region",
        "attributes",
        "auditors",
        "reputation",
        "term",
    ]
    assert [name for name in names if name in documented] == documented
    assert {*names, "placement", "price_limit"} == set(ADVICE)


def test_the_funnel_counts_devices_and_providers() -> None:
    """Goal: each step tells what it left. Method: four providers with 2, 3, 1 and 4 devices, of which one is drained,
    one has the wrong model and one is too dear.
    """
    suppliers = [
        supplier("p1", node(devices=2), unavailable="draining"),
        supplier("p2", node(devices=tuple(device(f"g{i}", model="a100") for i in range(3)))),
        supplier("p3", node(devices=1), micros=99_000_000),
        supplier("p4", node(devices=4)),
    ]
    wanted = order(group(replica_set(gpu=GpuNeed(1, models=("h100",)))))
    (story,) = decide_in_full(wanted, Market(suppliers)).explanations
    funnel = {step.constraint: (step.devices_before, step.devices_after, step.providers_after) for step in story.funnel}
    assert funnel["provider_state"] == (10, 8, 3)
    assert funnel["gpu_vendor"] == (8, 8, 3)
    assert funnel["gpu_model"] == (8, 5, 2)
    assert funnel["placement"] == (5, 5, 2)
    assert funnel["price_limit"] == (5, 4, 1)
    offers = [(offer.provider_id, offer.price_micros, offer.won, offer.loss_reason) for offer in story.offers]
    assert offers == [
        ("p4", 1_000_000, True, ""),
        ("p3", 99_000_000, False, "price_limit"),
        ("p1", None, False, "provider_state"),
        ("p2", None, False, "gpu_model"),
    ]
    assert story.matching_price_micros == 1_000_000


@pytest.mark.parametrize(
    ("winner", "loser", "reason"),
    [
        (supplier("p9", micros=1, create_time_ms=9), supplier("p1", micros=2, reputation_milli=1_000), "dearer"),
        (supplier("p9", reputation_milli=2, create_time_ms=9), supplier("p1", reputation_milli=1), "reputation"),
        (supplier("p9", create_time_ms=1), supplier("p1", create_time_ms=2), "younger"),
        (supplier("p1"), supplier("p9"), "younger"),
    ],
)
def test_the_best_offer_wins(winner: Supplier, loser: Supplier, reason: str) -> None:
    """Goal: price decides, then reputation, then age, then the id. Method: pairs that differ in one, in both orders."""
    for suppliers in ([winner, loser], [loser, winner]):
        decision = decide(order(), Market(suppliers))
        assert [match.provider_id for match in decision.matches] == [winner.provider_id]
        (story,) = decision.explanations
        assert {offer.provider_id: offer.loss_reason for offer in story.offers} == {
            winner.provider_id: "",
            loser.provider_id: reason,
        }


def test_groups_are_matched_together_or_not_at_all() -> None:
    """Goal: an order whose second group finds nobody gets no lease, leaves the room untouched, and says so. Method: one
    device for two groups; then each on its own.
    """
    market = Market([supplier("p1", node(devices=1))])
    demand = order(group(index=0), group(index=1))
    decision = decide(demand, market)
    assert decision.matches == ()
    assert [offer.loss_reason for story in decision.explanations for offer in story.offers] == [
        "other_group",
        "device_free",
    ]
    assert "all groups or none" in decision.explanations[0].advice
    each = decide(order(group(index=0), group(index=1), together=False), market)
    assert [match.group_index for match in each.matches] == [0]
    assert decide(order(), market).matches == ()


def test_scarce_groups_choose_first() -> None:
    """Goal: a group with one possible provider is not robbed of it by one that has two. Method: the choosy group is
    last, and its only provider is the cheaper one.
    """
    market = Market([supplier("cheap", micros=1, region="here"), supplier("dear", micros=2, region="there")])
    decision = decide(order(group(index=0), group(index=1, regions=("here",))), market)
    assert [(match.group_index, match.provider_id) for match in decision.matches] == [(0, "dear"), (1, "cheap")]


def test_matches_take_room_from_the_market() -> None:
    """Goal: what one order took the next does not get. Method: three orders for two devices."""
    market = Market([supplier("p1", node(devices=2))])
    taken = [decide(order(), market).matches for _ in range(3)]
    assert [len(matches) for matches in taken] == [1, 1, 0]
    devices = [
        share.device_id for matches in taken for match in matches for p in match.placements for share in p.devices
    ]
    assert sorted(devices) == ["n1-g0", "n1-g1"]


EXPECTED_MIX = Snapshot(
    tuple(
        (Need(cores * CORE, GIB, count, milli), often)
        for cores, count, milli, often in (
            (1, 0, 0, 1),
            (1, 1, 500, 3),
            (1, 1, 1_000, 1),
            (1, 2, 1_000, 2),
            (1, 4, 1_000, 2),
        )
    )
)

PLACEMENTS: list[tuple[str, tuple[Node, ...], tuple[ReplicaSet, ...], list[tuple[str, list[str]]]]] = [
    (
        "the fuller node is filled up",
        (node("a", devices=4), node("b", devices=2)),
        (replica_set(gpu=GpuNeed(2)),),
        [("b", ["b-g0", "b-g1"])],
    ),
    (
        "a share goes where least is left",
        (node("a", devices=(device("x"), device("y", free_milli=600))),),
        (replica_set(gpu=GpuNeed(1, milli=500)),),
        [("a", ["y"])],
    ),
    (
        "two shares fill one device",
        (node("a", devices=2),),
        (replica_set(replicas=2, gpu=GpuNeed(1, milli=500)),),
        [("a", ["a-g0"]), ("a", ["a-g0"])],
    ),
    (
        "the large replica is placed before the small",
        (node("a", devices=2), node("b", devices=1)),
        (replica_set("small", gpu=GpuNeed(1)), replica_set("large", gpu=GpuNeed(2))),
        [("b", ["b-g0"]), ("a", ["a-g0", "a-g1"])],
    ),
]


@pytest.mark.parametrize(("why", "nodes", "sets", "expected"), PLACEMENTS)
def test_replicas_are_placed_where_they_leave_least(
    why: str, nodes: tuple[Node, ...], sets: tuple[ReplicaSet, ...], expected: list[tuple[str, list[str]]]
) -> None:
    """Goal: nodes and devices are the engine's choice. Method: a table of small nodes, under a mix of all sizes."""
    schedule = prices(gpu_micros_by_model={"h100": 1_000})
    market = Market([supplier("p1", *nodes, schedule=schedule)], mix=EXPECTED_MIX)
    (match,) = decide(order(group(*sets)), market).matches
    placed = [(p.node_id, sorted(share.device_id for share in p.devices)) for p in match.placements]
    assert placed == expected, why


def test_processor_time_beside_gpus_is_kept_for_them() -> None:
    """Goal: a replica without GPU stays off the GPUs. Method: GPUs are asked for with all of their node's cores."""
    mix = Snapshot(((Need(CORE, GIB), 1), (Need(32 * CORE, GIB, 1, 1_000), 1)))
    market = Market([supplier("p1", node("a", devices=1), node("b", devices=0))], mix=mix)
    (match,) = decide(order(group(replica_set())), market).matches
    assert [placement.node_id for placement in match.placements] == ["b"], "where no GPU is stranded"


def test_the_mix_chooses_between_devices() -> None:
    """Goal: what the market places by is the mix that arrived. Method: one replica, two mixes, two places."""
    half = order(group(replica_set(gpu=GpuNeed(1, milli=500))))
    gpus = node(devices=(device("whole"), device("used", free_milli=600)))
    chosen = []
    for beside in (500, 600):
        mix = Snapshot(((Need(CORE, GIB, 1, 500), 1), (Need(CORE, GIB, 1, beside), 3)))
        (match,) = decide(half, Market([supplier("p1", gpus)], mix=mix)).matches
        chosen += [share.device_id for placement in match.placements for share in placement.devices]
    assert chosen == ["used", "whole"], "600 milli are kept where 600 are often asked for"


def test_a_fork_places_in_its_own_room() -> None:
    """Goal: columns shared by forks say what each has free. Method: fill a fork, then place in the market it came from."""
    market = Market([supplier("p1", node(devices=1))])
    fork = market.fork()
    assert decide(order(), fork).matches, "the fork has room"
    assert not decide(order(), fork).matches, "and then has none"
    assert decide(order(), market).matches, "the market still has"
    assert not decide(order(), market).matches, "and then has none"


def test_the_cheaper_model_is_taken_where_any_will_do() -> None:
    """Goal: within a provider the model that costs less is chosen. Method: two models at two prices."""
    both = node(devices=(device("a", model="h100"), device("b", model="l4")))
    schedule = prices(gpu_micros_by_model={"h100": 2_000_000, "l4": 500_000})
    (match,) = decide(order(), Market([supplier("p1", both, schedule=schedule)])).matches
    assert match.price_micros == 500_000
    assert match.placements[0].model == "l4"


def test_a_reserved_term_gets_its_discount() -> None:
    """Goal: the discount of the longest tier reached counts in the comparison. Method: a dearer list price wins by it."""
    schedule = prices(1_200_000, reserved_tiers=(ReservedTier(1_000, 100), ReservedTier(2_000, 250)))
    suppliers = [supplier("plain"), supplier("tiered", schedule=schedule)]
    reserved = order(term_kind=TermKind.RESERVED, duration_ms=2_000)
    assert [m.price_micros for m in decide(reserved, Market(suppliers)).matches] == [900_000]
    assert [m.provider_id for m in decide(order(duration_ms=2_000), Market(suppliers)).matches] == ["plain"]


def test_a_story_survives_its_json() -> None:
    """Goal: what is stored is what is told. Method: there and back."""
    (story,) = decide_in_full(order(), Market([supplier(), supplier("p2", micros=5)])).explanations
    assert GroupExplanation.from_json(story.to_json()) == story


def test_a_match_is_told_with_what_the_market_is_now() -> None:
    """Goal: the short story of a match becomes whole when it is asked for, and says nothing that was not so. Method: a match; then
    a market in which the winner is dearer, the second has gone, and three others came: as good, dearer, of another region.
    """
    wanted = order(group(regions=("eu-west",)))
    (stored,) = decide(wanted, Market([supplier("p1", micros=5), supplier("p2", micros=6)])).explanations
    assert stored.funnel == ()
    later = [
        supplier("p1", micros=9),
        supplier("p3", micros=4),
        supplier("p4", micros=7),
        supplier("p5", region="asia"),
    ]
    (present,) = decide_in_full(wanted, Market(later)).explanations
    told = stored.at_present(present)
    assert [(one.provider_id, one.price_micros, one.won, one.loss_reason) for one in told.offers] == [
        ("p1", 5, True, ""),
        ("p2", 6, False, "dearer"),
        ("p3", 4, False, "later"),
        ("p4", 7, False, "dearer"),
        ("p5", None, False, "region"),
    ]
    assert told.funnel == present.funnel
    assert told.matching_price_micros == 4


def test_an_offer_in_another_asset_is_not_compared() -> None:
    """Goal: the asset is a constraint like any other. Method: a provider that sells for two assets."""
    two = supplier(
        "p1", offers={"usdc": StandingOffer("a", prices(7)), "eurc": StandingOffer("b", prices(3, asset="eurc"))}
    )
    (match,) = decide(order(group(asset="eurc")), Market([two])).matches
    assert (match.offer_id, match.price_micros, match.asset) == ("b", 3, "eurc")


def test_a_price_beyond_all_bounds_is_not_told() -> None:
    """Goal: sizes without a bound never make a price that the wire cannot hold. Method: the largest volume at the
    highest price.
    """
    huge = 2**63 - 1
    site = supplier(
        "p1",
        node(storage_bytes_by_class={"beta3": huge}),
        schedule=prices(storage_gib_micros_by_class={"beta3": 10**12}),
    )
    wanted = order(group(replica_set(gpu=GpuNeed(1), storage_bytes_by_class={"beta3": huge})))
    (story,) = decide(wanted, Market([site])).explanations
    assert [(offer.price_micros, offer.loss_reason) for offer in story.offers] == [(None, "price_limit")]
    assert story.matching_price_micros is None


@pytest.mark.parametrize(
    "need",
    [
        GpuNeed(1),
        GpuNeed(1, vendor="nvidia"),
        GpuNeed(1, models=("h100",)),
        GpuNeed(1, vram_bytes_min=1),
        GpuNeed(1, interface="sxm"),
    ],
    ids=["any", "vendor", "model", "vram", "interface"],
)
def test_a_node_without_devices_takes_nothing_from_the_others(need: GpuNeed) -> None:
    """Goal: a constraint that is not asked for removes no device. Method: a node without GPUs beside one with two; each ask alone."""
    mixed = supplier("p1", node("cpu", 0), node("gpu", 2))
    decision = decide_in_full(order(group(replica_set(gpu=need))), Market([mixed]))
    (match,) = decision.matches
    assert [placement.node_id for placement in match.placements] == ["gpu"]
    funnel = {step.constraint: step.devices_after for step in decision.explanations[0].funnel}
    assert {funnel[name] for name in ("device_health", "gpu_vendor", "gpu_model", "vram", "gpu_interface")} == {2}
