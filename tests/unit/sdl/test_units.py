"""Quantities: exact, integers, rounded up."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow_sdl.units import parse_bytes, parse_card_bytes, parse_cpu_milli, parse_duration_seconds, parse_whole


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1000), ("0.5", 500), (".5", 500), ("2.0", 2000), ("250m", 250), ("0.0001", 1), ("1.5m", 2), ("2.", 2000)],
)
def test_processor_time(text: str, value: int) -> None:
    """Goal: thousandths of a core. Method: a table."""
    assert parse_cpu_milli(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("1k", 1000), ("1Ki", 1024), ("1.5Gi", 3 << 29), ("2G", 2 * 10**9), ("1Ei", 1 << 60), ("0.3k", 300),
     ("1 Gi", 1 << 30), ("0.0001k", 1),
     ("8gb", 8 * 10**9), ("8GB", 8 * 10**9), ("2gi", 2 << 30), ("2GiB", 2 << 30), ("5K", 5000)],
)  # fmt: skip
def test_sizes(text: str, value: int) -> None:
    """Goal: bytes. Method: a table."""
    assert parse_bytes(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "-1",
        "1m",
        "1b",
        "1gbb",
        "1ig",
        "1i",
        "1e3",
        "0x10",
        "1,5",
        "1_000",
        "Gi",
        "1" * 40,
        "inf",
        "nan",
        "1.2.3",
        "٣",
    ],
)
def test_what_is_no_quantity(text: str) -> None:
    """Goal: no guessing. Method: texts that some parsers take."""
    for parse in (parse_bytes, parse_cpu_milli, parse_whole):
        if text == "1m" and parse is parse_cpu_milli:
            continue
        with pytest.raises(ValueError, match="must be"):
            parse(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("24h", 86_400), ("1h30m", 5_400), ("1.5s", Fraction(3, 2)), ("250ms", Fraction(1, 4)), ("0s", 0), ("1us", Fraction(1, 10**6))],
)  # fmt: skip
def test_durations(text: str, seconds: int | Fraction) -> None:
    """Goal: times as Go writes them, exact. Method: a table."""
    assert parse_duration_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "24", "h", "-1h", "1 h", "1d", "1h-1m", "1h" * 9])
def test_what_is_no_duration(text: str) -> None:
    """Goal: no guessing. Method: texts that look like a time."""
    with pytest.raises(ValueError, match="must be a time"):
        parse_duration_seconds(text)


def test_a_cards_label_is_decimal() -> None:
    """Goal: the card that is named fits. Method: an 80 GiB card reports 81,559 MiB, a 24 GiB card 24,564 MiB."""
    assert 79 * 10**9 < parse_card_bytes("80Gi") <= 81_559 << 20
    assert parse_card_bytes("24Gi") <= 24_564 << 20


@given(st.integers(0, 10**15), st.sampled_from(["", "k", "Mi"]))
def test_whole_numbers_survive(number: int, unit: str) -> None:
    """Goal: nothing is lost. Method: whole numbers with units, by plain multiplication."""
    assert parse_bytes(f"{number}{unit}") == number * {"": 1, "k": 1000, "Mi": 1 << 20}[unit]
