"""What holds of every decision, over markets and orders that Hypothesis makes up."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from fallow_bidding.domain.demand import GpuAlternative, GpuNeed, GroupDemand, OrderDemand, ReplicaSet
from fallow_bidding.domain.matching import Decision, Market, decide, decide_in_full
from fallow_bidding.domain.supply import Node, PriceSchedule, StandingOffer, Supplier
from tests.unit.bidding.market import CORE, GIB, device

MODELS = ("h100", "a100", "l4")

_devices = st.lists(st.tuples(st.sampled_from(MODELS), st.sampled_from((0, 250, 500, 1_000))), max_size=4)
_nodes = st.lists(st.tuples(_devices, st.integers(1, 8), st.integers(1, 16)), min_size=1, max_size=3)
_needs = st.one_of(
    st.none(),
    st.builds(GpuNeed, st.integers(1, 3), models=st.lists(st.sampled_from(MODELS), max_size=2).map(tuple)),
    st.builds(
        GpuNeed,
        st.integers(1, 2),
        alternatives=st.lists(
            st.builds(GpuAlternative, model=st.sampled_from(MODELS), interface=st.sampled_from(("", "sxm", "pcie"))),
            min_size=1,
            max_size=2,
        ).map(tuple),
    ),
    st.builds(GpuNeed, st.just(1), milli=st.sampled_from((1, 250, 333, 999))),
)


@st.composite
def suppliers(draw: st.DrawFn) -> list[Supplier]:
    """Up to four providers with up to three nodes of up to four devices, partly in use."""
    made = []
    for number in range(draw(st.integers(1, 4))):
        nodes = []
        for index, (gpus, cores, memory) in enumerate(draw(_nodes)):
            devices = tuple(
                device(f"{number}-{index}-{position}", model=model, free_milli=free)
                for position, (model, free) in enumerate(gpus)
            )
            nodes.append(Node(f"n{index}", cores * CORE, memory * GIB, {"ephemeral": 10 * GIB}, devices))
        micros = {model: draw(st.integers(0, 5_000_000)) for model in draw(st.sets(st.sampled_from(MODELS)))}
        offer = StandingOffer(f"offer-{number}", PriceSchedule("usdc", micros, draw(st.integers(0, 1_000))))
        made.append(
            Supplier(
                provider_id=f"p{number}",
                account=f"accounts/{number}",
                region="r",
                create_time_ms=draw(st.integers(0, 2)),
                reputation_milli=draw(st.integers(0, 2)),
                unavailable=draw(st.sampled_from(("", "", "", "draining"))),
                offers={"usdc": offer},
                nodes=tuple(nodes),
            )
        )
    return made


@st.composite
def orders(draw: st.DrawFn) -> list[OrderDemand]:
    """Up to four orders of up to three groups of up to two replica sets."""
    made = []
    for number in range(draw(st.integers(1, 4))):
        groups = []
        for index in range(draw(st.integers(1, 3))):
            sets = tuple(
                ReplicaSet(
                    f"s{position}",
                    draw(st.integers(1, 3)),
                    draw(st.integers(1, 4)) * CORE,
                    draw(st.integers(1, 8)) * GIB,
                    draw(_needs),
                    {"ephemeral": draw(st.integers(1, 6)) * GIB},
                )
                for position in range(draw(st.integers(1, 2)))
            )
            limit = draw(st.integers(0, 10_000_000))
            groups.append(GroupDemand(index, f"g{index}", sets, "usdc", limit))
        made.append(OrderDemand(f"o{number}", tuple(groups), together=draw(st.booleans())))
    return made


def _decide_all(wanted: list[OrderDemand], market: list[Supplier]) -> list[Decision]:
    """Decisions about orders one after another on one market."""
    room = Market(market)
    return [decide(demand, room) for demand in wanted]


@settings(max_examples=150, deadline=None)
@given(suppliers(), orders())
def test_nothing_is_ever_oversold(market: list[Supplier], wanted: list[OrderDemand]) -> None:
    """Goal: over any number of orders no device, core, byte or disk is sold twice, each replica is whole and on one
    node, its devices are of one model, and no price is above its limit. Method: recount from the decisions alone.
    """
    free_devices = {(s.provider_id, d.device_id): d.free_milli for s in market for n in s.nodes for d in n.devices}
    homes = {(s.provider_id, d.device_id): n.node_id for s in market for n in s.nodes for d in n.devices}
    models = {(s.provider_id, d.device_id): d.model for s in market for n in s.nodes for d in n.devices}
    free_nodes = {
        (s.provider_id, n.node_id): [n.cpu_milli, n.memory_bytes, n.storage_bytes_by_class["ephemeral"]]
        for s in market
        for n in s.nodes
    }
    for demand, decision in zip(wanted, _decide_all(wanted, market), strict=True):
        for match in decision.matches:
            group = demand.groups[match.group_index]
            assert match.price_micros <= group.price_limit_micros
            sets = {item.service: item for item in group.replica_sets}
            expected = sorted((item.service, r) for item in group.replica_sets for r in range(item.replicas))
            assert sorted((p.service, p.replica) for p in match.placements) == expected
            for placement in match.placements:
                need = sets[placement.service]
                node = free_nodes[match.provider_id, placement.node_id]
                node[0] -= need.cpu_milli
                node[1] -= need.memory_bytes
                node[2] -= need.storage_bytes_by_class["ephemeral"]
                shares = {share.device_id: share.milli for share in placement.devices}
                assert len(shares) == len(placement.devices) == (0 if need.gpu is None else need.gpu.count)
                assert len({models[match.provider_id, name] for name in shares}) <= 1
                for name, milli in shares.items():
                    assert need.gpu is not None
                    kinds = {(kind.model, kind.interface or "sxm") for kind in need.gpu.alternatives}
                    assert not kinds or (models[match.provider_id, name], "sxm") in kinds
                    assert milli == need.gpu.milli
                    assert homes[match.provider_id, name] == placement.node_id
                    free_devices[match.provider_id, name] -= milli
    assert min(free_devices.values(), default=0) >= 0
    assert min(min(node) for node in free_nodes.values()) >= 0


@settings(max_examples=100, deadline=None)
@given(suppliers(), orders(), st.randoms(use_true_random=False))
def test_the_same_inputs_make_the_same_decision(
    market: list[Supplier], wanted: list[OrderDemand], source: random.Random
) -> None:
    """Goal: a decision can be replayed. Method: decide again with the providers, nodes and devices in other orders."""
    first = _decide_all(wanted, market)
    shuffled = []
    for provider in source.sample(market, len(market)):
        nodes = tuple(source.sample(provider.nodes, len(provider.nodes)))
        shuffled.append(
            Supplier(
                provider.provider_id,
                provider.account,
                provider.region,
                provider.create_time_ms,
                provider.attributes,
                provider.audited,
                provider.reputation_milli,
                provider.unavailable,
                provider.offers,
                nodes,
            )
        )
    assert _decide_all(wanted, shuffled) == first


@settings(max_examples=150, deadline=None)
@given(suppliers(), orders())
def test_together_means_all_or_none(market: list[Supplier], wanted: list[OrderDemand]) -> None:
    """Goal: an order that says together gets all its groups or none, and the story of each agrees with the matches.
    Method: count matches; compare winners.
    """
    for demand, decision in zip(wanted, _decide_all(wanted, market), strict=True):
        if demand.together:
            assert len(decision.matches) in {0, len(demand.groups)}
        won = {
            (story.group_index, offer.provider_id)
            for story in decision.explanations
            for offer in story.offers
            if offer.won
        }
        assert won == {(match.group_index, match.provider_id) for match in decision.matches}


@settings(max_examples=100, deadline=None)
@given(suppliers(), orders())
def test_the_funnel_only_narrows(market: list[Supplier], wanted: list[OrderDemand]) -> None:
    """Goal: each step starts where the last ended, and what is left at the end is who could take the group. Method:
    walk the steps of every story.
    """
    devices = sum(len(node.devices) for provider in market for node in provider.nodes)
    room = Market(market)
    for decision in [decide_in_full(demand, room) for demand in wanted]:
        for story in decision.explanations:
            before, providers = devices, len(market)
            for step in story.funnel:
                assert step.devices_before == before
                assert step.devices_after <= before
                assert step.providers_after <= providers
                before, providers = step.devices_after, step.providers_after
            fitting = [
                o for o in story.offers if o.loss_reason in {"", "dearer", "reputation", "younger", "other_group"}
            ]
            assert len(fitting) == providers
