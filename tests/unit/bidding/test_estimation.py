"""What an order would come to: its own terms and mode, other terms, and how far a limit is from a match."""

from dataclasses import replace

from fallow_bidding.domain.demand import TermKind
from fallow_bidding.domain.estimation import TIERS_MAX, TermEstimate, estimate
from fallow_bidding.domain.matching import Market
from fallow_bidding.domain.supply import ReservedTier, Supplier
from tests.unit.bidding.market import group, order, prices, supplier

HOUR_MS = 3_600_000
TIERS = (ReservedTier(24 * HOUR_MS, 100), ReservedTier(720 * HOUR_MS, 400))


def market() -> list[Supplier]:
    """A cheap one without discounts, one with tiers, one for spot terms alone cheap, and one that is away."""
    return [
        supplier("plain", micros=1_000),
        supplier("tiered", schedule=prices(1_100, reserved_tiers=TIERS)),
        supplier("spot", schedule=prices(2_000, spot_discount_milli=700)),
        supplier("away", schedule=prices(1, reserved_tiers=(ReservedTier(1, 1),)), unavailable="draining"),
    ]


def test_each_kind_of_term_is_told_with_its_tiers() -> None:
    """Goal: a tenant sees what a longer or a spot term saves. Method: offers with tiers and a spot discount; the price
    of each is that of the cheapest on those terms, and who is away has no tier.
    """
    found = estimate(order(group(price_limit_micros=1_500)), Market(market()))
    assert (found.best_micros, found.worst_micros, found.fitting, found.candidates) == (1_000, 1_100, 2, 3)
    assert found.matching_micros == 1_000
    assert found.terms == (
        TermEstimate(TermKind.ON_DEMAND, None, 1_000, 2),
        TermEstimate(TermKind.SPOT, None, 600, 3),
        TermEstimate(TermKind.RESERVED, 24 * HOUR_MS, 990, 2),
        TermEstimate(TermKind.RESERVED, 720 * HOUR_MS, 660, 2),
    )


def test_the_best_price_is_on_the_orders_own_terms() -> None:
    """Goal: what is told first is what would be leased. Method: the same order spot, and reserved for a week."""
    wanted = order(group(price_limit_micros=1_500))
    spot = estimate(replace(wanted, term_kind=TermKind.SPOT), Market(market()))
    week = estimate(replace(wanted, term_kind=TermKind.RESERVED, duration_ms=168 * HOUR_MS), Market(market()))
    assert (spot.best_micros, week.best_micros) == (600, 990)


def test_an_auction_tells_what_standing_offers_would_make_of_it() -> None:
    """Goal: what is known before any bid. Method: a second price with two offers that fit, then with one alone, which
    would be paid the limit.
    """
    wanted = replace(order(group(price_limit_micros=1_500)), second_price=True)
    two = estimate(wanted, Market(market()))
    assert (two.best_micros, two.worst_micros, two.fitting, two.candidates) == (1_100, 1_100, 2, 3)
    alone = estimate(wanted, Market([market()[0]]))
    assert (alone.best_micros, alone.worst_micros, alone.matching_micros) == (1_500, 1_500, 1_000)


def test_an_order_that_rests_learns_how_far_it_is_from_a_match() -> None:
    """Goal: a limit order knows the price that would do. Method: two groups with limits too low, and a market without
    any provider that could.
    """
    wanted = order(group(price_limit_micros=500), group(price_limit_micros=5_000, index=1))
    found = estimate(wanted, Market(market()))
    assert (found.best_micros, found.worst_micros, found.fitting, found.candidates) == (None, None, 0, 2)
    assert found.matching_micros == 2_100
    nobody = estimate(wanted, Market(market()[3:]))
    assert (nobody.matching_micros, nobody.candidates) == (None, 0)
    assert [term.price_micros for term in nobody.terms] == [None, None]


def test_tiers_are_bounded() -> None:
    """Goal: an estimate costs a bounded number of decisions. Method: one offer with more tiers than are told."""
    tiers = tuple(ReservedTier(number * HOUR_MS, number) for number in range(1, TIERS_MAX + 5))
    found = estimate(order(), Market([supplier(schedule=prices(1_000, reserved_tiers=tiers))]))
    told = [term.duration_ms for term in found.terms if term.kind is TermKind.RESERVED]
    assert told == [number * HOUR_MS for number in range(1, TIERS_MAX + 1)]
