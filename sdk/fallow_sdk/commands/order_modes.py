"""How `fallow order create` says in which market and on which terms an order is placed."""

import re
from datetime import timedelta

import typer

from fallow.order.v1 import order_pb2
from fallow_sdk.client import Mode

_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_RULES = {"first": order_pb2.AUCTION_RULE_FIRST_PRICE, "second": order_pb2.AUCTION_RULE_SECOND_PRICE}


def parse_span(text: str, option: str) -> timedelta:
    """`500ms`, `30s`, `10m`, `12h` or `30d`. Raises a usage error."""
    match = re.fullmatch(r"([1-9][0-9]{0,8})(ms|s|m|h|d)", text)
    if match is None:
        raise typer.BadParameter("must be a number of ms, s, m, h or d, such as 30s", param_hint=option)
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


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


def terms_of(*, spot: bool, reserved: str) -> order_pb2.Terms | None:
    """The terms that the options ask for; None leaves them to the order. Raises a usage error."""
    if spot and reserved:
        raise typer.BadParameter("goes not with --reserved", param_hint="--spot")
    if spot:
        return order_pb2.Terms(kind=order_pb2.TERM_KIND_SPOT)
    if not reserved:
        return None
    terms = order_pb2.Terms(kind=order_pb2.TERM_KIND_RESERVED)
    terms.duration.FromTimedelta(parse_span(reserved, "--reserved"))
    return terms
