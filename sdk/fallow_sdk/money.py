"""Amounts as people write them. Money is an integer of micros everywhere else."""

from decimal import Decimal, InvalidOperation

from fallow.type.v1 import money_pb2

MICROS_PER_UNIT = 1_000_000


def parse_amount(text: str, asset: str) -> money_pb2.Amount:
    """`12.5` of an asset as an Amount. Raises ValueError for anything but a positive number of 6 decimals."""
    try:
        micros = Decimal(text) * MICROS_PER_UNIT
    except InvalidOperation:
        raise ValueError(f"{text!r} is not a number; write for example 12.5") from None
    if not micros.is_finite() or micros != micros.to_integral_value() or micros <= 0 or micros >= 2**63:
        raise ValueError(f"{text!r} is not a positive amount with at most 6 decimals")
    return money_pb2.Amount(asset=asset, micros=int(micros))


def show_micros(micros: int, asset: str) -> str:
    """Micros as people read them: `1.250000 USDC`."""
    sign = "-" if micros < 0 else ""
    whole, rest = divmod(abs(micros), MICROS_PER_UNIT)
    return f"{sign}{whole:,}.{rest:06d} {asset.upper()}"


def show_amount(amount: money_pb2.Amount) -> str:
    """An Amount as people read it."""
    return show_micros(amount.micros, amount.asset)


def show_price(price: money_pb2.Price) -> str:
    """A Price as people read it: `1.250000 USDC/h`."""
    return f"{show_micros(price.micros_per_hour, price.asset)}/h"
