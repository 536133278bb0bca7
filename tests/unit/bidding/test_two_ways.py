"""A decision through the lists by price is the decision of a look at all providers, whatever came and went before."""

import itertools
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from fallow_bidding.domain.demand import GpuAlternative, GpuNeed, GroupDemand, OrderDemand, ReplicaSet, TermKind
from fallow_bidding.domain.engine.mix import Snapshot
from fallow_bidding.domain.engine.needs import Need
from fallow_bidding.domain.explanation import FITTING
from fallow_bidding.domain.matching import OFFERS_TOLD, Decision, GroupMatch, Market, decide, decide_in_full
from fallow_bidding.domain.placement import NodeUse
from fallow_bidding.domain.preemption import SpotLease, without
from fallow_bidding.domain.supply import Health, Node, PriceSchedule, ReservedTier, StandingOffer, Supplier
from tests.unit.bidding.market import CORE, GIB, device, node, supplier

MODELS = ("h100", "a100", "l4")
REGIONS = ("here", "there")
AUDITORS = ("0xa", "0xb")
MIX = Snapshot(((Need(CORE, GIB, 1, 500), 3), (Need(CORE, GIB, 1, 1_000), 2), (Need(CORE, GIB, 2, 1_000), 1)))
# Few different prices, so that many are equal.
_micros = st.sampled_from((0, 1, 1, 1, 2, 900))
_devices = st.builds(
    device,
    st.just(""),
    model=st.sampled_from(MODELS),
    free_milli=st.sampled_from((0, 250, 500, 1_000, 1_000)),
    health=st.sampled_from((Health.HEALTHY, Health.HEALTHY, Health.UNKNOWN, Health.FAILED)),
    interface=st.sampled_from(("sxm", "pcie")),
    vram_bytes=st.sampled_from((40 * GIB, 80 * GIB)),
)
_schedules = st.builds(
    PriceSchedule,
    st.just("usdc"),
    st.dictionaries(st.sampled_from(MODELS), _micros),
    _micros,
    _micros,
    st.dictionaries(st.sampled_from(("ephemeral", "ram")), _micros),
    st.sampled_from((0, 0, 3)),
    st.lists(st.builds(ReservedTier, st.sampled_from((0, 5)), st.sampled_from((0, 100, 500))), max_size=2).map(tuple),
    st.sampled_from((0, 300)),
)
_nodes = st.lists(
    st.builds(
        Node,
        st.just(""),
        st.integers(1, 8).map(lambda cores: cores * CORE),
        st.integers(1, 16).map(lambda gib: gib * GIB),
        st.just({"ephemeral": 6 * GIB}),
        st.lists(_devices, max_size=4).map(tuple),
        st.sampled_from(((), ("docker",), ("exec",))),
    ),
    max_size=3,
)
_gpus = st.none() | st.builds(
    GpuNeed,
    st.integers(1, 2),
    vendor=st.sampled_from(("", "", "nvidia", "amd")),
    models=st.lists(st.sampled_from(MODELS), max_size=2).map(tuple),
    vram_bytes_min=st.sampled_from((0, 0, 80 * GIB)),
    interface=st.sampled_from(("", "", "pcie")),
    alternatives=st.lists(
        st.builds(GpuAlternative, model=st.sampled_from(MODELS), interface=st.sampled_from(("", "sxm"))), max_size=2
    ).map(tuple),
)
_gpus |= st.builds(GpuNeed, st.just(1), milli=st.sampled_from((1, 250, 333, 999)))


@st.composite
def suppliers(draw: st.DrawFn) -> list[Supplier]:
    """Up to six providers of every sort."""
    made = []
    for number in range(draw(st.integers(1, 6))):
        nodes = [
            replace(
                node,
                node_id=f"n{at}",
                devices=tuple(replace(one, device_id=f"{at}-{place}") for place, one in enumerate(node.devices)),
            )
            for at, node in enumerate(draw(_nodes))
        ]
        offer = StandingOffer(f"offer-{number}", draw(_schedules), draw(st.sampled_from((None, None, 5))))
        made.append(
            Supplier(
                provider_id=f"p{number}",
                account=f"accounts/{number}",
                region=draw(st.sampled_from(REGIONS)),
                create_time_ms=draw(st.integers(0, 1)),
                attributes=draw(st.dictionaries(st.just("tier"), st.sampled_from(("one", "two")))),
                audited=draw(st.dictionaries(st.sampled_from(AUDITORS), st.just(frozenset({"tier"})))),
                reputation_milli=draw(st.sampled_from((400, 500))),
                unavailable=draw(st.sampled_from(("", "", "", "draining"))),
                offers={} if draw(st.integers(0, 9)) == 0 else {"usdc": offer},
                nodes=tuple(nodes),
            )
        )
    return made


_sets = st.builds(
    ReplicaSet,
    st.just(""),
    st.integers(1, 3),
    st.integers(1, 3).map(lambda cores: cores * CORE),
    st.integers(1, 4).map(lambda gib: gib * GIB),
    _gpus,
    st.dictionaries(st.sampled_from(("ephemeral", "ram")), st.integers(1, 3).map(lambda gib: gib * GIB)),
    st.sampled_from(("", "", "exec:host", "image")),
)
_groups = st.builds(
    GroupDemand,
    st.just(0),
    st.just(""),
    st.lists(_sets, min_size=1, max_size=2).map(
        lambda sets: tuple(replace(one, service=f"s{at}") for at, one in enumerate(sets))
    ),
    st.just("usdc"),
    st.sampled_from((0, 5, 100, 10**9, 10**9)),
    regions=st.sampled_from(((), (), ("here",))),
    attributes=st.sampled_from(({}, {}, {"tier": "one"}, {"tier": "t*"})),
    auditors_any_of=st.sampled_from(((), (), AUDITORS)),
    auditors_all_of=st.sampled_from(((), (), ("0xa",))),
    excluded=st.sampled_from((frozenset(), frozenset({"p0", "p1"}))),
    reputation_milli_min=st.sampled_from((0, 0, 450)),
    bids=st.just({}) | st.dictionaries(st.sampled_from(("p0", "p1", "p2")), st.sampled_from((0, 1, 4, 10**9))),
)
_orders = st.builds(
    OrderDemand,
    st.just("o"),
    st.lists(_groups, min_size=1, max_size=2).map(
        lambda groups: tuple(replace(one, index=at, group_id=f"g{at}") for at, one in enumerate(groups))
    ),
    together=st.booleans(),
    term_kind=st.sampled_from(TermKind),
    duration_ms=st.sampled_from((None, 4, 6)),
    second_price=st.booleans(),
)


def release(match: GroupMatch, demand: OrderDemand, market: Market) -> None:
    """Give back what a match took."""
    market.give_back(match.provider_id, *held(match, demand))


def held(match: GroupMatch, demand: OrderDemand) -> tuple[list, list[NodeUse]]:  # type: ignore[type-arg]
    """What a match takes: shares of devices, and of nodes."""
    sets = {item.service: item for item in demand.groups[match.group_index].replica_sets}
    uses = [
        NodeUse(place.node_id, one.cpu_milli, one.memory_bytes_taken, one.disk_bytes_by_class)
        for place in match.placements
        for one in (sets[place.service],)
    ]
    return [share for place in match.placements for share in place.devices], uses


def check_stories(quick: Decision, full: Decision) -> None:
    """The same matches; who is matched throughout is told the best offers of the full story, others the full story."""
    assert quick.matches == full.matches, "the lists find what a look at all providers finds"
    if len(full.matches) < len(full.explanations):
        assert quick == full, "who is not matched gets the full story"
        return
    for short, story in zip(quick.explanations, full.explanations, strict=True):
        fits = [offer for offer in story.offers if offer.loss_reason in FITTING and offer.price_micros is not None]
        assert list(short.offers) == fits[:OFFERS_TOLD]
        assert short.matching_price_micros == story.matching_price_micros


@settings(max_examples=300, deadline=None)
@given(
    suppliers(),
    st.lists(st.tuples(_orders, st.booleans()), min_size=1, max_size=6),
    st.sampled_from((MIX, Snapshot())),
)
def test_the_lists_decide_what_a_look_at_all_decides(
    sellers: list[Supplier], wanted: list[tuple[OrderDemand, bool]], mix: Snapshot
) -> None:
    """Goal: one answer, two ways. Method: orders of every sort one after another on one market of each way, whose lists and
    columns live on; some matches are given back, and some orders are tried on a fork first.
    """
    quick, full = Market(sellers, mix=mix), Market(sellers, mix=mix)
    for demand, is_released in wanted:
        forks = quick.fork(), full.fork()
        check_stories(decide(demand, forks[0]), decide_in_full(demand, forks[1]))
        decided = decide(demand, quick), decide_in_full(demand, full)
        check_stories(*decided)
        assert quick.present() == full.present(), "the same room is taken"
        if is_released:
            for match in decided[0].matches:
                release(match, demand, quick)
                release(match, demand, full)


_plain_schedules = st.builds(
    PriceSchedule,
    st.just("usdc"),
    st.fixed_dictionaries({model: st.sampled_from((3, 3, 4, 9)) for model in MODELS[:2]}),
    st.sampled_from((0, 1)),
    group_micros_min=st.sampled_from((0, 5)),
    spot_discount_milli=st.sampled_from((0, 500)),
)
_plain_nodes = st.lists(st.sampled_from(("h100", "a100")), min_size=1, max_size=3)
_plain_sets = st.builds(
    ReplicaSet,
    st.just("s"),
    st.integers(1, 2),
    st.just(CORE),
    st.just(GIB),
    st.sampled_from((GpuNeed(1), GpuNeed(1, 500), None)),
)
_plain_orders = st.builds(
    OrderDemand,
    st.just("o"),
    st.lists(_plain_sets, min_size=1, max_size=2).map(
        lambda sets: (
            GroupDemand(0, "g", tuple(replace(one, service=f"s{at}") for at, one in enumerate(sets)), "usdc", 10**9),
        )
    ),
    term_kind=st.sampled_from((TermKind.ON_DEMAND, TermKind.SPOT)),
    second_price=st.booleans(),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(_plain_schedules, st.lists(_plain_nodes, min_size=1, max_size=2)), min_size=2, max_size=5),
    st.lists(_plain_orders, min_size=3, max_size=3),
    st.lists(st.integers(0, 2) | st.tuples(st.just("end"), st.integers(0, 99)), min_size=5, max_size=20),
)
def test_the_lists_follow_what_comes_and_goes(
    sites: list[tuple[PriceSchedule, list[list[str]]]],
    wanted: list[OrderDemand],
    steps: list[int | tuple[str, int]],
) -> None:
    """Goal: room that was taken and given back is where the lists say. Method: three orders that fit nearly anywhere, again and
    again, until the market is full, with ends between; the same on a market that is laid out anew and looked at in full.
    """
    sellers = [
        supplier(
            f"p{number}",
            *(
                node(f"n{at}", tuple(device(f"{at}-{place}", model=model) for place, model in enumerate(models)))
                for at, models in enumerate(nodes)
            ),
            schedule=schedule,
        )
        for number, (schedule, nodes) in enumerate(sites)
    ]
    market = Market(sellers, mix=MIX)
    prices = market.placer.slot_prices()
    made: list[tuple[GroupMatch, OrderDemand]] = []
    for step in steps:
        if isinstance(step, tuple):
            if made:
                release(*made.pop(step[1] % len(made)), market)
            continue
        anew = Market(market.present(), mix=MIX, slot_prices=prices)
        decision = decide(wanted[step], market)
        check_stories(decision, decide_in_full(wanted[step], anew))
        made += [(match, wanted[step]) for match in decision.matches]


@settings(max_examples=150, deadline=None)
@given(suppliers(), _orders, _orders, st.sampled_from((MIX, Snapshot())))
def test_spot_leases_give_way_as_a_look_at_all_says(
    sellers: list[Supplier], spot: OrderDemand, demand: OrderDemand, mix: Snapshot
) -> None:
    """Goal: what is decided once spot leases have given way is right too. Method: lease some room, then ask what would be
    decided without, and decide in full on a market of its own on which that room is free.
    """
    market = Market(sellers, mix=mix)
    leases = [
        SpotLease(f"{number}", match.provider_id, match.price_micros, *map(tuple, held(match, spot)))
        for number, match in enumerate(decide(spot, market).matches)
    ]
    for count in range(len(leases) + 1):
        for chosen in itertools.combinations(leases, count):
            found = without(demand, market, chosen)
            freed = market.fork()
            for lease in chosen:
                freed.give_back(lease.provider_id, lease.shares, lease.uses)
            if not market.placer.mix.counts:
                continue
            alone = Market(freed.present(), mix=market.placer.mix, slot_prices=market.placer.slot_prices())
            matches = decide_in_full(demand, alone).matches
            assert (found.matches if found else ()) == (matches if len(matches) == len(demand.groups) else ())
