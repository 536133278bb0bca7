"""Which spot leases give way: as few as are needed, the cheapest, and never to somebody who pays less."""

from hypothesis import given
from hypothesis import strategies as st

from fallow_bidding.domain.demand import GpuNeed, GroupDemand, TermKind
from fallow_bidding.domain.matching import Market, decide
from fallow_bidding.domain.placement import DeviceShare, NodeUse
from fallow_bidding.domain.preemption import SpotLease, displace, without
from fallow_bidding.domain.pricing import group_price_micros
from fallow_bidding.domain.supply import Device, Supplier
from tests.unit.bidding.market import CORE, GIB, device, group, node, order, prices, replica_set, supplier


def full(provider_id: str, leases: int, *, free: int = 0, micros: int = 1_000) -> Supplier:
    """A provider whose devices are all leased but for some."""
    devices: tuple[Device, ...] = tuple(
        device(f"{provider_id}-{index}", free_milli=0 if index < leases else 1_000) for index in range(leases + free)
    )
    return supplier(provider_id, node("n", devices=devices), micros=micros)


def lease(provider_id: str, index: int, price: int) -> SpotLease:
    """A lease that holds one device."""
    shares = (DeviceShare("n", f"{provider_id}-{index}", 1_000),)
    return SpotLease(f"{provider_id}-lease-{index}", provider_id, price, shares, (NodeUse("n", CORE, GIB, {}),))


def needs(gpus: int) -> GroupDemand:
    """A group of one replica with this many GPUs."""
    return group(replica_set(gpu=GpuNeed(gpus)))


def test_the_cheapest_leases_that_are_enough_give_way() -> None:
    """Goal: no lease gives way for nothing, dear ones are spared. Method: three leases and a free device; two are needed."""
    market = Market([full("p", 3, free=1)])
    leases = [lease("p", 0, 700), lease("p", 1, 300), lease("p", 2, 500)]
    demand = order(needs(2))
    assert not decide(demand, market.fork()).matches
    taken = displace(demand, market, leases)
    assert taken is not None
    assert [item.price_micros for item in taken.leases] == [300]
    assert taken.matches[0].price_micros == 2_000
    assert taken.market.room("p").free_milli("n", "p-0") == 0
    assert market.room("p").free_milli("n", "p-1") == 0, "the market itself is left as it is"


def test_nobody_gives_way_to_who_pays_less() -> None:
    """Goal: a provider never loses by it; the price for the room may equal what it earned. Method: one lease at, below and
    above what the order would pay.
    """
    market = Market([full("p", 1)])
    for price, gives_way in ((999, True), (1_000, True), (1_001, False)):
        assert (displace(order(), market, [lease("p", 0, price)]) is not None) == gives_way


def test_another_provider_is_asked_where_the_cheapest_would_lose() -> None:
    """Goal: the rule is looked at for each provider. Method: the cheap one's lease pays more than its schedule asks."""
    market = Market([full("cheap", 1, micros=500), full("dear", 1, micros=900)])
    taken = displace(order(), market, [lease("cheap", 0, 501), lease("dear", 0, 900)])
    assert taken is not None
    assert [item.provider_id for item in taken.leases] == ["dear"]


def test_nothing_helps_where_it_would_not_fit_anyhow() -> None:
    """Goal: no notice without a use. Method: more than there is, no candidates, a limit below the price."""
    market = Market([full("p", 2)])
    leases = [lease("p", 0, 1), lease("p", 1, 1)]
    assert displace(order(needs(3)), market, leases) is None
    assert displace(order(needs(1)), market, []) is None
    assert displace(order(group(price_limit_micros=999)), market, leases) is None


def test_groups_that_belong_together_displace_together() -> None:
    """Goal: a gang gets room at two providers, or nobody gives way. Method: two sites of one leased device each, two and
    three groups.
    """
    market = Market([full("p", 1), full("q", 1)])
    leases = [lease("p", 0, 10), lease("q", 0, 10)]
    two = displace(order(group(index=0), group(index=1)), market, leases)
    assert two is not None
    assert {item.provider_id for item in two.leases} == {"p", "q"}
    assert displace(order(group(index=0), group(index=1), group(index=2)), market, leases) is None


def test_what_is_kept_is_decided_anew_in_each_pass() -> None:
    """Goal: the room that was promised is found again by the same inputs. Method: `without` on what `displace` chose."""
    market = Market([full("p", 2)])
    taken = displace(order(), market, [lease("p", 0, 10), lease("p", 1, 20)])
    assert taken is not None
    again = without(order(), market, taken.leases)
    assert again is not None
    assert again.matches == taken.matches


def test_a_spot_term_takes_its_discount() -> None:
    """Goal: schedule × (1 − discount), rounded up; no other term has it. Method: an odd price and a third off."""
    schedule = prices(1_001, spot_discount_milli=333)
    replicas = [(replica_set(gpu=GpuNeed(1)), "h100")]
    assert group_price_micros(schedule, replicas, term_kind=TermKind.SPOT) == 668
    assert group_price_micros(schedule, replicas, term_kind=TermKind.ON_DEMAND) == 1_001
    assert group_price_micros(schedule, replicas, term_kind=TermKind.RESERVED, duration_ms=10**9) == 1_001


@given(
    owned=st.lists(st.lists(st.integers(0, 2_000), max_size=4), min_size=1, max_size=3),
    free=st.integers(0, 1),
    gpus=st.integers(1, 4),
)
def test_every_displacement_is_needed_fair_and_enough(owned: list[list[int]], free: int, gpus: int) -> None:
    """Goal: the demand fits afterwards, each lease was needed, no provider earns less. Method: any leases and needs."""
    sellers = [full(f"p{number}", len(own), free=free) for number, own in enumerate(owned)]
    leases = [lease(f"p{number}", index, price) for number, own in enumerate(owned) for index, price in enumerate(own)]
    market, demand = Market(sellers), order(needs(gpus))
    if decide(demand, market.fork()).matches:
        return
    taken = displace(demand, market, leases)
    if taken is None:
        return
    assert without(demand, market, taken.leases) is not None
    for item in taken.leases:
        assert without(demand, market, [other for other in taken.leases if other is not item]) is None
    (match,) = taken.matches
    assert {item.provider_id for item in taken.leases} == {match.provider_id}
    assert match.price_micros >= sum(item.price_micros for item in taken.leases)
