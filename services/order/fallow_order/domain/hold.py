"""How much money an order holds to start with: its price limits for its term, at most one hour, rounded up.

Rounding up never lets an order start with less than its first hour may cost; what is not used returns at the close.
"""

from collections.abc import Iterable
from typing import Final

from fallow_chassis.errors import invalid_field

MILLISECONDS_PER_HOUR: Final = 3_600_000
MAX_HOLD_MICROS: Final = 10**15
"""The largest movement that the ledger takes, a thousand million units of an asset."""


def hold_micros(limits_micros_per_hour: Iterable[int], term_ms: int | None, budget_micros: int | None) -> int:
    """The sum to hold: limits × min(term, 1 h), rounded up, at most the budget. INVALID_FIELD where that is not 1 or more."""
    window_ms = MILLISECONDS_PER_HOUR if term_ms is None else min(term_ms, MILLISECONDS_PER_HOUR)
    assert window_ms > 0, "a term takes time"
    total = sum(limits_micros_per_hour)
    assert total >= 0, "a price limit is not negative"
    hold = -(-total * window_ms // MILLISECONDS_PER_HOUR)
    if budget_micros is not None:
        hold = min(hold, budget_micros)
    if hold < 1:
        raise invalid_field("order.groups[0].price_limit", "the price limits must sum to more than 0")
    if hold > MAX_HOLD_MICROS:
        raise invalid_field("order.groups[0].price_limit", f"the order would hold more than {MAX_HOLD_MICROS} micros")
    return hold
