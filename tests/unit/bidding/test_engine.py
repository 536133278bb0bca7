"""What holds of the engine's core, over inventories and needs that Hypothesis makes up, and on small ones by hand."""

import json
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fallow_bidding.domain.demand import GpuAlternative, GpuNeed, ReplicaSet, TermKind
from fallow_bidding.domain.engine.asks import RATE_MICROS_MAX, Asks
from fallow_bidding.domain.engine.engine import NOT_FOR_SALE, Engine
from fallow_bidding.domain.engine.inventory import Choice, Inventory
from fallow_bidding.domain.engine.mix import Mix, Snapshot
from fallow_bidding.domain.engine.needs import Kind, Need
from fallow_bidding.domain.engine.policies import POLICIES, make_policy
from fallow_bidding.domain.engine.records import replay, to_record
from fallow_bidding.domain.engine.slots import slots
from fallow_bidding.domain.engine.states import StateTable
from fallow_bidding.domain.pricing import group_price_micros
from fallow_bidding.domain.supply import Health, Node, PriceSchedule, ReservedTier, Supplier
from tests.unit.bidding.market import CORE, GIB, device, node, supplier

MODELS = ("h100", "a100", "l4")

_devices = st.lists(st.tuples(st.sampled_from(MODELS), st.sampled_from((0, 250, 510, 1_000, 1_000))), max_size=8)
_nodes = st.lists(st.tuples(_devices, st.integers(1, 64), st.integers(1, 64)), min_size=1, max_size=4)
_models = st.lists(st.sampled_from(MODELS), max_size=2).map(lambda names: tuple(sorted(set(names))))


@st.composite
def needs(draw: st.DrawFn) -> Need:
    """Any need: none, a share, or whole devices."""
    cpu_milli, memory_bytes = draw(st.integers(0, 16)) * CORE, draw(st.integers(0, 16)) * GIB
    storage = draw(st.sampled_from(((), (("ephemeral", 3 * GIB),), (("nvme", GIB),))))
    count = draw(st.sampled_from((0, 1, 1, 1, 2, 4)))
    if not count:
        return Need(cpu_milli, memory_bytes, storage=storage)
    milli = draw(st.sampled_from((1, 250, 333, 510, 999, 1_000))) if count == 1 else 1_000
    return Need(cpu_milli, memory_bytes, count, milli, models=draw(_models), storage=storage)


@st.composite
def markets(draw: st.DrawFn) -> list[Supplier]:
    """Up to three providers with up to four nodes of up to eight devices, partly in use, of mixed models."""
    made = []
    for number in range(draw(st.integers(1, 3))):
        nodes = []
        for index, (gpus, cores, memory) in enumerate(draw(_nodes)):
            gpu = tuple(
                device(f"{number}-{index}-{at}", model=model, free_milli=free) for at, (model, free) in enumerate(gpus)
            )
            nodes.append(Node(f"n{index}", cores * CORE, memory * GIB, {"ephemeral": 8 * GIB}, gpu))
        reputation_milli = draw(st.integers(0, 2))
        made.append(
            supplier(f"p{number}", *nodes, create_time_ms=draw(st.integers(0, 2)), reputation_milli=reputation_milli)
        )
    return made


def play(market: list[Supplier], wanted: list[Need], policy: str) -> tuple[Engine, list[tuple[Need, Choice | None]]]:
    """Let needs arrive one after another."""
    engine = Engine(Inventory(market), make_policy(policy, 7))
    decisions = []
    for need in wanted:
        engine.arrive(need)
        choice = engine.decide(need)
        if choice is not None:
            engine.take(need, choice)
        decisions.append((need, choice))
    return engine, decisions


def shuffled(market: list[Supplier], source: random.Random) -> list[Supplier]:
    """The same suppliers, nodes and devices in another order."""
    mixed = []
    for one in market:
        nodes = [replace(each, devices=tuple(source.sample(each.devices, len(each.devices)))) for each in one.nodes]
        mixed.append(replace(one, nodes=tuple(source.sample(nodes, len(nodes)))))
    return source.sample(mixed, len(mixed))


def names(inventory: Inventory, choice: Choice | None) -> tuple[str, ...]:
    """A choice in words: provider, node, devices."""
    if choice is None:
        return ()
    provider = inventory.suppliers[inventory.provider[choice.row]].provider_id
    node_id = inventory.nodes[inventory.node[choice.row]].node_id
    return provider, node_id, *(inventory.device_ids[choice.row][at] for at in choice.devices)


@settings(deadline=None)
@given(markets(), st.lists(needs(), min_size=1, max_size=25), st.sampled_from(POLICIES))
def test_nothing_is_oversold(market: list[Supplier], wanted: list[Need], policy: str) -> None:
    """Goal: no policy sells what is not there. Method: add up all choices, against what the suppliers had at first."""
    inventory = Inventory(market)
    cpu, memory = inventory.cpu_milli.copy(), inventory.memory_bytes.copy()
    storage, free = inventory.storage_bytes.copy(), inventory.free_milli.copy()
    engine, decisions = play(market, wanted, policy)
    for need, choice in decisions:
        if choice is None:
            continue
        at = inventory.node[choice.row]
        cpu[at] -= need.cpu_milli
        memory[at] -= need.memory_bytes
        for name, size in need.storage:
            storage[at, inventory.classes.index(name)] -= size
        before = [int(free[choice.row, column]) for column in choice.devices]
        assert len(set(choice.devices)) == need.gpu_count, (
            "a share lives on one device, whole devices are different ones"
        )
        assert not need.is_whole or all(milli == 1_000 for milli in before), "whole devices are untouched"
        assert need.allows(inventory.kinds[inventory.kind[choice.row]]), "of the kind that was asked for"
        free[choice.row, list(choice.devices)] -= need.gpu_milli
    assert min(cpu.min(), memory.min(), storage.min(initial=0), free.min()) >= 0, "nothing is oversold"
    assert (engine.inventory.free_milli == free).all(), "the inventory says the same"
    assert (engine.inventory.cpu_milli == cpu).all(), "the inventory says the same"


@settings(deadline=None)
@given(markets(), st.lists(needs(), min_size=1, max_size=20), st.sampled_from(POLICIES))
def test_what_fits_is_placed(market: list[Supplier], wanted: list[Need], policy: str) -> None:
    """Goal: a need is refused only where it fits nowhere. Method: try every row and its freest devices by hand."""
    engine, decisions = play(market, wanted, policy)
    need, choice = decisions[-1]
    if choice is not None:
        engine.give_back(need, choice)
    inventory, found = engine.inventory, False
    for row in range(inventory.rows):
        freest = np.argsort(-inventory.free_milli[row], kind="stable")[: need.gpu_count]
        found = found or inventory.fits(need, Choice(row, tuple(int(at) for at in freest)))
    assert found == (choice is not None), "placed if and only if it fits"


@settings(deadline=None)
@given(
    markets(), st.lists(needs(), min_size=1, max_size=15), st.sampled_from(POLICIES), st.randoms(use_true_random=False)
)
def test_the_order_of_the_input_does_not_matter(
    market: list[Supplier], wanted: list[Need], policy: str, source: random.Random
) -> None:
    """Goal: same inputs, same decisions. Method: shuffle suppliers, nodes and devices."""
    first, decisions = play(market, wanted, policy)
    second, again = play(shuffled(market, source), wanted, policy)
    assert [names(first.inventory, choice) for _, choice in decisions] == [
        names(second.inventory, choice) for _, choice in again
    ]


@pytest.mark.parametrize("policy", ["best_fit", "dot_product"])
def test_a_record_knows_the_largest_node_that_was_seen(policy: str) -> None:
    """Goal: what weighs by the largest node weighs by the same after a replay. Method: fill that node, then decide."""
    gpus = (device("a", free_milli=250), device("b", model="l4"), device("c", model="l4"))
    nodes = (Node("n0", 3 * CORE, GIB, {}, ()), Node("n1", 3 * CORE, GIB, {}, gpus))
    engine, _ = play([supplier("p0", *nodes)], [Need(3 * CORE, 0, 2, 1_000)], policy)
    record = to_record(engine, Need(0, 0))
    assert replay(json.loads(json.dumps(record))) == record["choice"]


def test_a_need_with_alternatives_is_written_and_read() -> None:
    """Goal: a recorded need asks for the same kinds. Method: two alternatives in any order, as JSON and back."""
    kinds = (GpuAlternative("", "h100", 80 * GIB), GpuAlternative("nvidia", "a100", 0, "pcie"))
    need = Need.of(ReplicaSet("s", 1, CORE, GIB, GpuNeed(1, alternatives=kinds)))
    assert need == Need.of(ReplicaSet("s", 1, CORE, GIB, GpuNeed(1, alternatives=kinds[::-1] + kinds)))
    again = Need.from_record(json.loads(json.dumps(need.to_record())))
    assert again == need
    assert [again.allows(Kind.of(one)) for one in (device("a"), device("b", interface="pcie"))] == [True, True]
    assert not again.allows(Kind.of(device("c", vram_bytes=79 * GIB)))
    assert not again.allows(Kind.of(device("d", model="a100")))
    assert again.allows(Kind.of(device("e", model="a100", interface="pcie", vram_bytes=1)))


@settings(deadline=None)
@given(markets(), st.lists(needs(), min_size=1, max_size=20), needs(), st.sampled_from(POLICIES))
def test_what_is_kept_equals_what_is_computed_anew(
    market: list[Supplier], wanted: list[Need], last: Need, policy: str
) -> None:
    """Goal: caches change no decision. Method: decide once more in an engine that was built from the present state."""
    engine, _ = play(market, wanted, policy)
    record = to_record(engine, last)
    assert replay(record) == record["choice"], "a record replays to its own answer"
    fresh = StateTable(engine.inventory)
    kept = engine.table
    for row in range(engine.inventory.rows):
        one, other = kept.states(kept.row_state[[row]]), fresh.states(fresh.row_state[[row]])
        assert one.free.tolist() == other.free.tolist(), "a row's state is that of the inventory"
        assert (one.kind, one.cpu_milli, one.memory_bytes, one.devices) == (
            other.kind,
            other.cpu_milli,
            other.memory_bytes,
            other.devices,
        )


def test_giving_back_restores_everything() -> None:
    """Goal: a lease that ends frees what it took. Method: take and give back, and decide again."""
    engine = Engine(Inventory([supplier("p1", node("n1", 4))]), make_policy("least_waste"))
    need = Need(CORE, GIB, 1, 300)
    engine.arrive(need)
    choice = engine.decide(need)
    assert choice is not None, "the market is empty"
    engine.take(need, choice)
    assert int(engine.inventory.free_milli.sum()) == 3_700, "a share was taken"
    engine.give_back(need, choice)
    assert int(engine.inventory.free_milli.sum()) == 4_000, "and came back"
    assert engine.decide(need) == choice, "the same state, the same decision"
    with pytest.raises(AssertionError, match="more came back"):
        engine.give_back(need, choice)


def test_price_chooses_before_fit() -> None:
    """Goal: price, then reputation, then age choose the provider. Method: four providers, made equal one by one."""
    market = [
        supplier("dear", node("n1"), create_time_ms=0, reputation_milli=900),
        supplier("cheap", node("n2"), create_time_ms=3, reputation_milli=500),
        supplier("trusted", node("n3"), create_time_ms=4, reputation_milli=800),
        supplier("old", node("n4"), create_time_ms=2, reputation_milli=500),
    ]
    engine, need = Engine(Inventory(market), make_policy("least_waste")), Need(CORE, GIB, 1, 1_000)
    engine.arrive(need)

    def chosen(**asks: int) -> tuple[str, ...]:
        order = [one.provider_id for one in engine.inventory.suppliers]
        return names(engine.inventory, engine.decide(need, np.array([asks.get(one, NOT_FOR_SALE) for one in order])))

    assert chosen(dear=9, cheap=7, trusted=8, old=8)[0] == "cheap", "the lowest ask"
    assert chosen(dear=9, cheap=7, trusted=7, old=7)[0] == "trusted", "then the best reputation"
    assert chosen(dear=9, cheap=7, old=7)[0] == "old", "then the greatest age"
    assert chosen(dear=9)[0] == "dear", "what is not for sale does not count"
    assert chosen() == (), "and may leave nothing"


def test_unhealthy_devices_are_no_part_of_the_inventory() -> None:
    """Goal: a failed device takes no lease. Method: a node with one failed and one degraded device."""
    gpus = (device("a", health=Health.FAILED), device("b", health=Health.DEGRADED), device("c"))
    inventory = Inventory([supplier("p1", node("n1", gpus))])
    assert inventory.device_ids == (("c",),), "only the healthy one counts"


def test_a_share_prefers_a_hole_that_nothing_else_would_fill() -> None:
    """Goal: the policy looks ahead. Method: needs of 300 and 700 alone; a 300 goes beside a 700, not onto a new device."""
    gpus = (device("a", free_milli=300), device("b"))
    engine = Engine(Inventory([supplier("p1", node("n1", gpus))]), make_policy("least_waste"))
    small, large = Need(CORE, GIB, 1, 300), Need(CORE, GIB, 1, 700)
    engine.learn(Snapshot(((small, 1), (large, 1))))
    choice = engine.decide(small)
    assert choice is not None, "it fits"
    assert engine.inventory.device_ids[choice.row][choice.devices[0]] == "a", "where it leaves nothing over"


def test_the_last_room_for_big_needs_is_not_broken() -> None:
    """Goal: big needs are not starved. Method: one untouched node, one used; a whole device is asked where both fit."""
    used = tuple(device(f"a{at}", free_milli=1_000 if at < 2 else 0) for at in range(8))
    engine = Engine(Inventory([supplier("p1", node("n1", 8), node("n2", used))]), make_policy("least_waste"))
    big, small = Need(8 * CORE, 8 * GIB, 8, 1_000), Need(CORE, GIB, 1, 1_000)
    engine.learn(Snapshot(((small, 50), (big, 10))))
    choice = engine.decide(small)
    assert choice is not None, "it fits"
    assert names(engine.inventory, choice)[1] == "n2", "the untouched node is kept"
    assert engine.slot_prices.max() > 0, "because its slot has a price"


def test_the_mix_is_taken_again_as_it_grows() -> None:
    """Goal: snapshots are few. Method: count them over a thousand arrivals."""
    mix, need = Mix(), Need(CORE, GIB, 1, 1_000)
    taken = [number for number in range(1, 1_001) if mix.add(need)]
    assert taken[:4] == [1, 20, 30, 45], "at first, then each time half as many have come again"
    assert mix.snapshot.counts == ((need, taken[-1]),), "the last one holds all arrivals up to then"


@pytest.mark.parametrize("policy", POLICIES)
def test_a_mix_that_was_given_is_what_a_record_holds(policy: str) -> None:
    """Goal: a decision under a given mix replays. Method: arrivals of another mix, enough for many snapshots of their own."""
    rare, common = Need(CORE, GIB, 2, 1_000), Need(2 * CORE, GIB, 1, 500)
    mix = Snapshot(((rare, 1), (common, 9)))
    engine = Engine(Inventory([supplier("p1", node("n1", 8), node("n2", 4))]), make_policy(policy), mix)
    for _ in range(50):
        engine.arrive(rare)
    record = to_record(engine, common)
    assert record["mix"] == [[need.to_record(), count] for need, count in mix.counts]
    assert record["arrivals"] == 50
    assert replay(record) == record["choice"]


def test_needs_of_one_size_are_two_classes_by_processor_time() -> None:
    """Goal: room for the heavy is not taken for room for the light. Method: as many of each; what each class is, its share, and
    what presses on it.
    """
    light, heavy = Need(8 * CORE, 8 * GIB, 8, 1_000), Need(16 * CORE, 8 * GIB, 8, 1_000)
    found = slots(Snapshot(((light, 10), (heavy, 10))), [Kind("nvidia", "h100", 80 * GIB, "sxm")])
    assert found.size.tolist() == [8, 8]
    assert found.cpu_milli.tolist() == [8 * CORE, 16 * CORE]
    assert found.share.tolist() == [0.5, 0.5]
    assert [round(pressure.share, 6) for pressure in found.pressures] == [1.0, 0.5], "the heavy press on both"
    alike = slots(Snapshot(((light, 10),)), [Kind("nvidia", "h100", 80 * GIB, "sxm")])
    assert alike.size.tolist() == [8], "a class of nothing is none"


def test_kinds_are_told_apart_by_what_is_asked() -> None:
    """Goal: every constraint on devices counts. Method: a need that fits, and one wrong in each respect."""
    kind = Kind("nvidia", "h100", 80 * GIB, "sxm")
    need = Need(CORE, GIB, 1, 1_000, "nvidia", ("a100", "h100"), 80 * GIB, "sxm")
    assert need.allows(kind), "all holds"
    for wrong in (
        Kind("amd", "h100", 80 * GIB, "sxm"),
        Kind("nvidia", "l4", 80 * GIB, "sxm"),
        Kind("nvidia", "h100", 79 * GIB, "sxm"),
        Kind("nvidia", "h100", 80 * GIB, "pcie"),
    ):
        assert not need.allows(wrong), f"{wrong} is not what was asked for"


def test_a_group_spreads_over_the_nodes_of_one_provider() -> None:
    """Goal: all replicas or none, on one provider. Method: three replicas of two devices on nodes of two and four."""
    market = [supplier("p1", node("n1", 2), node("n2", 4)), supplier("p2", node("n3", 2))]
    engine, need = Engine(Inventory(market), make_policy("least_waste")), Need(CORE, GIB, 2, 1_000)
    engine.arrive(need)
    before = engine.inventory.free_milli.copy()
    rows, free_of_charge = np.arange(2), np.zeros(2, np.int64)
    choices = engine.decide_group([need] * 3, [rows] * 3, [free_of_charge] * 3)
    assert choices is not None, "six devices hold three times two"
    places = [names(engine.inventory, choice) for choice in choices]
    assert sorted(place[1] for place in places) == ["n1", "n2", "n2"], "each replica on one node"
    assert len({name for place in places for name in place[2:]}) == 6, "no device twice"
    other = np.array([2])
    assert engine.decide_group([need] * 2, [other] * 2, [np.zeros(1, np.int64)] * 2) is None, "one fits the other"
    dear = np.array([5, 7])
    cheap = engine.decide_group([need] * 2, [rows] * 2, [dear] * 2)
    assert cheap is not None, "both rows have room"
    assert sorted(names(engine.inventory, choice)[1] for choice in cheap) == ["n1", "n2"], "the cheaper row first"
    assert (engine.inventory.free_milli == before).all(), "looking takes nothing"


@settings(deadline=None)
@given(
    needs(),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.integers(0, 10**7),
    st.sampled_from((0, 125, 999)),
)
def test_asks_are_what_a_group_of_one_replica_costs(
    need: Need, gpu: int, core: int, gib: int, least: int, discount: int
) -> None:
    """Goal: the price that chooses is the price that is charged. Method: the scalar sum, over schedules made up."""
    schedule = PriceSchedule(
        "usdc", {"h100": gpu}, core, gib, {"ephemeral": gib // 7}, least, (ReservedTier(1_000, discount),)
    )
    inventory = Inventory([supplier("p1", node("n1", 1), schedule=schedule), supplier("p2", node("n1", 1))])
    term: dict[str, Any] = {"term_kind": TermKind.RESERVED, "duration_ms": 1_000}
    asks = Asks(inventory, "usdc", **term).of(need)
    gpus = GpuNeed(need.gpu_count, need.gpu_milli) if need.gpu_count else None
    replica_set = ReplicaSet("s", 1, need.cpu_milli, need.memory_bytes, gpus, dict(need.storage))
    schedules = [schedule, PriceSchedule("usdc", {"h100": 1_000_000})]
    expected = [group_price_micros(one, [(replica_set, "h100" if gpus else "")], **term) for one in schedules]
    known = [one for name, one in need.storage if name in inventory.classes]
    assert len(known) < len(need.storage) or asks.tolist() == expected, "to the last micro"
    assert Asks(inventory, "eurc").of(need).tolist() == [NOT_FOR_SALE] * 2, "nobody sells for another asset"


def test_asks_leave_out_what_is_not_sold() -> None:
    """Goal: no price, no sale. Method: a model without a price, a term that is too long, a rate out of bounds."""
    market = [
        supplier("p1", node("n1", (device("a", model="l4"),))),
        supplier("p2", node("n2", 1), term_ms_max=10),
        supplier("p3", node("n3", 1), micros=RATE_MICROS_MAX + 1),
        supplier("p4", node("n4", 1), micros=RATE_MICROS_MAX),
    ]
    inventory = Inventory(market)
    asks = Asks(inventory, "usdc", duration_ms=11).of(Need(0, 0, 1, 1_000))
    assert asks.tolist() == [NOT_FOR_SALE, NOT_FOR_SALE, NOT_FOR_SALE, RATE_MICROS_MAX], "only the last one is sold"
