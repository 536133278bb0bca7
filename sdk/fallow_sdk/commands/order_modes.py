"""How `fallow order create` and `estimate` say in which market and on which terms an order is placed."""

from dataclasses import dataclass

import typer

from fallow.order.v1 import order_pb2
from fallow_sdk.client import Mode
from fallow_sdk.commands.options import parse_span
from fallow_sdk.money import parse_amount
from fallow_sdl.settings import DEFAULTS

_RULES = {"first": order_pb2.AUCTION_RULE_FIRST_PRICE, "second": order_pb2.AUCTION_RULE_SECOND_PRICE}


@dataclass(frozen=True, slots=True)
class TermWishes:
    """The options about terms as they were written; empty ones were not."""

    spot: bool = False
    reserved: str = ""
    duration: str = ""
    budget: str = ""
    match_timeout: str = ""
    auto_top_up: bool = False


def mode_of(auction: str, window: str, *, manual: bool) -> Mode | None:
    """The market mode that the options ask for; None leaves it to the order. Raises a usage error."""
    if manual and (auction or window):
        raise typer.BadParameter("goes with neither --auction nor --window", param_hint="--manual")
    if manual:
        return Mode(match_mode=order_pb2.MATCH_MODE_MANUAL)
    if not auction:
        if window:
            raise typer.BadParameter("goes with --auction only", param_hint="--window")
        return None
    if auction not in _RULES:
        raise typer.BadParameter("must be `first` or `second`", param_hint="--auction")
    if not window:
        raise typer.BadParameter("must be given with --auction, such as 30s", param_hint="--window")
    return Mode(order_pb2.MATCH_MODE_AUCTION, _RULES[auction], parse_span(window, "--window"))


def terms_of(wishes: TermWishes) -> order_pb2.Terms | None:
    """The terms that the options ask for; None leaves them to the order. Raises a usage error."""
    if wishes.spot and wishes.reserved:
        raise typer.BadParameter("goes not with --reserved", param_hint="--spot")
    if wishes.duration and wishes.reserved:
        raise typer.BadParameter("goes not with --reserved, which is the duration", param_hint="--duration")
    if wishes == TermWishes():
        return None
    terms = order_pb2.Terms(auto_top_up=wishes.auto_top_up)
    if wishes.spot:
        terms.kind = order_pb2.TERM_KIND_SPOT
    if wishes.reserved:
        terms.kind = order_pb2.TERM_KIND_RESERVED
        terms.duration.FromTimedelta(parse_span(wishes.reserved, "--reserved"))
    if wishes.duration:
        terms.duration.FromTimedelta(parse_span(wishes.duration, "--duration"))
    if wishes.match_timeout:
        terms.match_timeout.FromTimedelta(parse_span(wishes.match_timeout, "--match-timeout"))
    if wishes.budget:
        try:
            terms.budget.CopyFrom(parse_amount(wishes.budget, DEFAULTS.asset))
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--budget") from None
    return terms
