"""Estimates on the wire."""

from fallow.bidding.v1 import market_service_pb2
from fallow.order.v1 import order_pb2
from fallow.type.v1 import money_pb2
from fallow_bidding.domain.demand import OrderDemand
from fallow_bidding.domain.estimation import Estimate
from fallow_chassis.wire import to_duration


def estimate_message(found: Estimate, order: OrderDemand) -> market_service_pb2.EstimateMatchResponse:
    """What an order would come to; prices are in the asset of its first group, as all of its groups have the same."""
    asset = order.groups[0].asset
    answer = market_service_pb2.EstimateMatchResponse(
        best_price=_price(asset, found.best_micros),
        worst_price=_price(asset, found.worst_micros),
        fitting_providers=found.fitting,
        matching_price=_price(asset, found.matching_micros),
        candidate_providers=found.candidates,
    )
    for term in found.terms:
        answer.terms.add(
            kind=order_pb2.TermKind.Value(f"TERM_KIND_{term.kind}"),
            duration=None if term.duration_ms is None else to_duration(term.duration_ms),
            price=_price(asset, term.price_micros),
            fitting_providers=term.fitting,
        )
    return answer


def _price(asset: str, micros: int | None) -> money_pb2.Price | None:
    """A price, where there is one."""
    return None if micros is None else money_pb2.Price(asset=asset, micros_per_hour=micros)
