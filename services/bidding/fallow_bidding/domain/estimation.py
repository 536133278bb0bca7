"""What an order would come to if it were opened now: under its own terms and mode, and under each other kind of term.

Pure: the engine's own decision on copies of one market, with explicit bids nowhere, since a round that is sealed tells
nobody its bids. So of an auction is known what standing offers alone would make of it, and how many could bid.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from fallow_bidding.domain.demand import OrderDemand, TermKind
from fallow_bidding.domain.explanation import FITTING, GroupExplanation
from fallow_bidding.domain.matching import MAX_PRICE_MICROS, Decision, Market, decide_in_full
from fallow_bidding.domain.pricing import total_micros

TIERS_MAX: Final = 8
"""The most reserved terms that are told, the shortest."""


@dataclass(frozen=True, slots=True)
class TermEstimate:
    """The order under one kind of term; ``price_micros`` is None without a match, ``duration_ms`` a tier's least."""

    kind: TermKind
    duration_ms: int | None
    price_micros: int | None
    fitting: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """Prices are those of all groups together, or None where not all of them would match.

    ``fitting`` and ``candidates`` count the providers of the group that has the fewest: within the limit, and whatever
    they ask. ``matching_micros`` is the price at which the order would match without its limits.
    """

    best_micros: int | None
    worst_micros: int | None
    fitting: int
    candidates: int
    matching_micros: int | None
    terms: tuple[TermEstimate, ...]


def estimate(order: OrderDemand, market: Market) -> Estimate:
    """Decide about an order, and about the same order on other terms; ``market`` is left as it is."""
    own = decide_in_full(order, market.fork())
    groups = tuple(replace(group, price_limit_micros=MAX_PRICE_MICROS) for group in order.groups)
    lifted = decide_in_full(replace(order, groups=groups, second_price=False), market.fork())
    best = _total(own)
    return Estimate(
        best_micros=best,
        worst_micros=None if best is None else max(best, sum(max(_prices(story)) for story in own.explanations)),
        fitting=_fitting(own),
        candidates=min(
            (sum(offer.price_micros is not None for offer in story.offers) for story in lifted.explanations), default=0
        ),
        matching_micros=_total(lifted),
        terms=tuple(_on_terms(order, lifted, market)),
    )


def _on_terms(order: OrderDemand, lifted: Decision, market: Market) -> Iterator[TermEstimate]:
    """The order on demand, on spot terms, and at each tier that an offer which could take it has."""
    wanted: list[tuple[TermKind, int | None]] = [(TermKind.ON_DEMAND, None), (TermKind.SPOT, None)]
    wanted += [(TermKind.RESERVED, duration_ms) for duration_ms in _tiers(lifted, market)]
    for kind, duration_ms in wanted:
        changed = replace(order, term_kind=kind, duration_ms=order.duration_ms if duration_ms is None else duration_ms)
        decision = decide_in_full(changed, market.fork())
        yield TermEstimate(kind, duration_ms, _total(decision), _fitting(decision))


def _tiers(lifted: Decision, market: Market) -> list[int]:
    """The least durations of the tiers of all offers that could take a group, shortest first."""
    able = {offer.offer_id for story in lifted.explanations for offer in story.offers if offer.price_micros is not None}
    offers = (offer for supplier in market.suppliers for offer in supplier.offers.values() if offer.offer_id in able)
    found = {tier.duration_ms_min for offer in offers for tier in offer.prices.reserved_tiers}
    return sorted(found)[:TIERS_MAX]


def _total(decision: Decision) -> int | None:
    """The price of all groups together; None where one has no match."""
    if not decision.explanations or len(decision.matches) < len(decision.explanations):
        return None
    return total_micros([match.price_micros for match in decision.matches])


def _fitting(decision: Decision) -> int:
    """The providers that fit within the limit, of the group that has the fewest."""
    return min((len(_prices(story)) for story in decision.explanations), default=0)


def _prices(story: GroupExplanation) -> list[int]:
    """Prices of the offers that fit a group within its limit."""
    return [
        offer.price_micros for offer in story.offers if offer.price_micros is not None and offer.loss_reason in FITTING
    ]
