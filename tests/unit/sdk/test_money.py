"""Amounts as people write and read them."""

import pytest

from fallow.type.v1 import money_pb2
from fallow_sdk.money import parse_amount, show_micros, show_price


@pytest.mark.parametrize(
    ("text", "micros"), [("1", 1_000_000), ("12.5", 12_500_000), ("0.000001", 1), ("9223372036854.775807", 2**63 - 1)]
)
def test_an_amount_is_exact(text: str, micros: int) -> None:
    """Goal: no micro is lost. Method: a table to the edges."""
    assert parse_amount(text, "usdc") == money_pb2.Amount(asset="usdc", micros=micros)


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "0.0000001", "NaN", "Infinity", "9223372036854.775808", "1e400"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    """Goal: a clear error for anything else. Method: a table of what people mistype."""
    with pytest.raises(ValueError, match=r"amount|number"):
        parse_amount(text, "usdc")


def test_micros_read_well() -> None:
    """Goal: six decimals, sign in front, thousands apart. Method: compare text."""
    assert show_micros(1_234_567_890_123, "usdc") == "1,234,567.890123 USDC"
    assert show_micros(-1, "usdc") == "-0.000001 USDC"
    assert show_price(money_pb2.Price(asset="usdc", micros_per_hour=312_345)) == "0.312345 USDC/h"
