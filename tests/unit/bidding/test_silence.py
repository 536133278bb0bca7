"""Silence and our own outages: how much of a time the market was away, and since when a silence counts."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow_bidding.domain.silence import OUTAGE_AFTER, Outage, heard_since, outage_ms, outages_with_present

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """An instant by its seconds."""
    return START + timedelta(seconds=seconds)


def away(*spans: tuple[float, float]) -> list[Outage]:
    """Outages by their seconds."""
    return [Outage(at(start), at(end)) for start, end in spans]


@pytest.mark.parametrize(
    ("outages", "start", "end", "expected"),
    [
        ([], 0, 100, 0),
        (away((10, 20)), 0, 100, 10_000),
        (away((10, 20)), 15, 100, 5_000),
        (away((10, 20)), 0, 15, 5_000),
        (away((10, 20)), 20, 100, 0),
        (away((10, 20)), 0, 10, 0),
        (away((10, 20), (30, 31)), 0, 100, 11_000),
        (away((10, 20), (15, 25)), 0, 100, 15_000),
        (away((15, 25), (10, 20)), 0, 100, 15_000),
        (away((10, 40), (15, 25)), 0, 100, 30_000),
        (away((-50, 500)), 0, 100, 100_000),
    ],
)
def test_an_interval_loses_what_the_market_was_away(
    outages: list[Outage], start: float, end: float, expected: int
) -> None:
    """Goal: overlapping outages count once, and only inside the interval. Method: a table."""
    assert outage_ms(outages, at(start), at(end)) == expected


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)).map(sorted), max_size=6))
def test_outages_never_count_twice(spans: list[list[int]]) -> None:
    """Goal: however outages overlap, their sum is the length of their union. Method: count seconds one by one."""
    outages = away(*((start, end) for start, end in spans))
    seconds = sum(any(start <= second < end for start, end in spans) for second in range(60))
    assert outage_ms(outages, at(0), at(60)) == seconds * 1_000


def test_a_silence_starts_again_after_an_outage() -> None:
    """Goal: our own absence counts against nobody. Method: a heartbeat before, inside and after an outage."""
    outages = away((10, 20))
    assert heard_since(outages, at(5)) == at(20)
    assert heard_since(outages, at(25)) == at(25)
    assert heard_since([], at(5)) == at(5)


def test_a_long_pause_since_the_last_pulse_is_an_outage() -> None:
    """Goal: an outage counts before it is written down. Method: both sides of the least gap, and no pulse at all."""
    pulse = at(0)
    assert outages_with_present([], pulse, pulse + OUTAGE_AFTER - timedelta(milliseconds=1)) == []
    assert outages_with_present([], pulse, pulse + OUTAGE_AFTER) == [Outage(pulse, pulse + OUTAGE_AFTER)]
    assert outages_with_present(away((1, 2)), None, at(99)) == away((1, 2))
