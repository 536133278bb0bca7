"""How an estimate reads."""

import io

from google.protobuf.duration_pb2 import Duration
from rich.console import Console

from fallow.order.v1 import order_pb2, order_service_pb2
from fallow.type.v1 import money_pb2
from fallow_sdk.commands.order_tables import estimate_tables


def price(micros: int) -> money_pb2.Price:
    """A price in usdc."""
    return money_pb2.Price(asset="usdc", micros_per_hour=micros)


def shown(estimate: order_service_pb2.EstimateOrderResponse) -> str:
    """The tables as text."""
    output = io.StringIO()
    for table in estimate_tables(estimate):
        Console(file=output, width=120).print(table)
    return output.getvalue()


def test_an_order_that_would_rest_is_told_how_far_it_is() -> None:
    """Goal: no match now, and what would do. Method: an estimate without a best price, then one with it."""
    estimate = order_service_pb2.EstimateOrderResponse(matching_price=price(2_000_000), candidate_providers=3)
    text = shown(estimate)
    assert "no match now" in text
    assert "would match at" in text
    assert "0 of 3 that could" in text
    assert "TERMS" not in text
    estimate.best_price.CopyFrom(price(1_000_000))
    assert "would match at" not in shown(estimate)


def test_terms_and_what_they_oblige_to_are_told() -> None:
    """Goal: spot's notice, a reserved term's early close, and a line for each term. Method: one estimate with all."""
    kinds = order_service_pb2.EstimateOrderResponse
    estimate = kinds(
        spot=kinds.SpotTerms(run_min=Duration(seconds=600), notice=Duration(seconds=30)),
        early_close=Duration(seconds=3_600),
        terms=[
            kinds.TermEstimate(kind=order_pb2.TERM_KIND_ON_DEMAND, price=price(1_000_000), fitting_providers=2),
            kinds.TermEstimate(kind=order_pb2.TERM_KIND_RESERVED, duration=Duration(seconds=86_400)),
        ],
    )
    lines = [" ".join(line.split()) for line in shown(estimate).splitlines()]
    assert "may give way after 600 s of running and a notice of 30 s" in lines
    assert "closed early owes the rest of its term, at most 1:00:00 more" in lines
    assert any(line.startswith("on demand - 1") and line.endswith(" 2") for line in lines), lines
    assert "reserved 1 day, 0:00:00 no match now 0" in lines
