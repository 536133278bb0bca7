"""Metering: what a provider's claims earn, whatever it claims and in whatever order it is heard."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow_settlement.domain.metering import LONGEST_GAP_MS, RECENT_RECEIPTS, Claim, Meter, count, end

START = datetime(2026, 1, 1, tzinfo=UTC)
INTERVAL_MS = 5_000
METER = Meter(START, INTERVAL_MS)


def at(milliseconds: int) -> datetime:
    """An instant of the market's clock."""
    return START + timedelta(milliseconds=milliseconds)


def claim(sequence: int, running_ms: int, received_ms: int, *, final: bool = False, outage_ms: int = 0) -> Claim:
    """A claim and when it was heard."""
    return Claim(sequence, running_ms, final, at(received_ms), outage_ms)


def proven(*claims: Claim, meter: Meter = METER) -> int:
    """Proven time after some claims."""
    for item in claims:
        meter = count(meter, item)
    return meter.proven_ms


TABLE = [
    ("honest from the start", 3_000, [claim(1, 3_000, 3_000)]),
    ("the start-up is not charged", 1_000, [claim(1, 1_000, 40_000)]),
    ("a first claim beyond the clock earns one interval of slack", 9_000, [claim(1, 99_000, 4_000)]),
    ("a first claim long after the lease is no proof of all of it", 65_000, [claim(1, 900_000, 900_000)]),
    ("two honest claims", 8_000, [claim(1, 3_000, 3_000), claim(2, 8_000, 8_000)]),
    ("a lost claim costs nothing", 18_000, [claim(1, 3_000, 3_000), claim(4, 18_000, 18_000)]),
    ("a late one and an early one", 13_000, [claim(1, 3_000, 6_000), claim(2, 8_000, 8_000), claim(3, 13_000, 13_500)]),
    (
        "a lie earns what passed and the slack once",
        25_000,
        [claim(1, 0, 0), claim(2, 99_000, 10_000), claim(3, 199_000, 20_000)],
    ),
    ("the same claim twice", 3_000, [claim(1, 3_000, 3_000), claim(1, 3_000, 9_000)]),
    ("the same number with another claim", 3_000, [claim(1, 3_000, 3_000), claim(1, 8_000, 8_000)]),
    ("an older claim", 8_000, [claim(2, 8_000, 8_000), claim(1, 3_000, 8_100)]),
    ("a counter that went back", 8_000, [claim(1, 8_000, 8_000), claim(2, 1_000, 9_000)]),
    ("a gap of exactly the limit is paid", 63_000, [claim(1, 3_000, 3_000), claim(2, 63_000, 63_000)]),
    ("a gap beyond it is not", 3_000, [claim(1, 3_000, 3_000), claim(2, 64_000, 63_001)]),
    ("after a gap it goes on", 8_000, [claim(1, 3_000, 3_000), claim(2, 90_000, 90_000), claim(3, 95_000, 95_000)]),
    ("the market's own absence is paid", 90_000, [claim(1, 3_000, 3_000), claim(2, 90_000, 90_000, outage_ms=30_000)]),
    ("but only its own", 3_000, [claim(1, 3_000, 3_000), claim(2, 90_000, 90_000, outage_ms=20_000)]),
    ("nothing after the final claim", 5_000, [claim(1, 5_000, 5_000, final=True), claim(2, 9_000, 9_000)]),
]


@pytest.mark.parametrize(("expected", "claims"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_claims_earn_what_the_table_says(expected: int, claims: list[Claim]) -> None:
    """Goal: each rule of metering. Method: a row for each."""
    assert proven(*claims) == expected


ENDS = [
    ("a cut before any claim", 4_000, [claim(1, 9_000, 9_000)], 4_000, 4_000 + INTERVAL_MS),
    ("a cut between two claims", 6_000, [claim(1, 3_000, 3_000), claim(2, 9_000, 9_000)], 3_000, 9_000),
    (
        "a cut at a claim",
        9_000,
        [claim(1, 3_000, 3_000), claim(2, 9_000, 9_000), claim(3, 14_000, 14_000)],
        9_000,
        9_000,
    ),
    ("a cut that a long claim spans", 6_000, [claim(1, 3_000, 3_000), claim(2, 20_000, 20_000)], 11_000, 11_000),
    ("a cut after all", 60_000, [claim(1, 3_000, 3_000)], 3_000, 3_000),
]


@pytest.mark.parametrize(("cut_ms", "claims", "least", "most"), [row[1:] for row in ENDS], ids=[row[0] for row in ENDS])
def test_nothing_is_proven_after_the_end(cut_ms: int, claims: list[Claim], least: int, most: int) -> None:
    """Goal: charge_through_time bounds the time, whenever it is learnt. Method: end before, between and after."""
    outcomes = set()
    for position in range(len(claims) + 1):
        meter = METER
        for index, item in enumerate(claims):
            if index == position:
                meter = end(meter, at(cut_ms), 0)
            meter = count(meter, item)
        outcomes.add(end(meter, at(cut_ms), 0).proven_ms)
    assert len(outcomes) == 1, "the order of facts does not matter"
    assert least <= outcomes.pop() <= most


def test_what_is_charged_stays_charged() -> None:
    """Goal: an end that comes late takes nothing back. Method: charge beyond the cut, then cut."""
    meter = count(count(METER, claim(1, 3_000, 3_000)), claim(2, 8_000, 8_000))
    assert end(meter, at(3_000), 8_000).proven_ms == 8_000
    assert end(meter, at(3_000), 0).proven_ms == 3_000


def test_a_cut_knows_the_slack_of_its_time() -> None:
    """Goal: a cut gives no slack that was used before it. Method: two claims that use it up, a third, a cut after two."""
    meter = METER
    for item in (claim(1, 5_000, 1_000), claim(2, 10_000, 3_000), claim(3, 20_000, 10_000)):
        meter = count(meter, item)
    assert meter.proven_ms == 15_000
    # 5 s and 3 s until the second claim, with no slack left; from there to the cut it is one second.
    assert end(meter, at(4_000), 0).proven_ms == 9_000


def test_a_second_end_only_moves_earlier() -> None:
    """Goal: ends are idempotent. Method: end at two instants in both orders."""
    assert end(end(METER, at(5), 0), at(9), 0) == end(end(METER, at(9), 0), at(5), 0) == end(METER, at(5), 0)


def test_the_memory_of_receipts_is_bounded() -> None:
    """Goal: a meter's row does not grow. Method: count more claims than it keeps, then cut before them all."""
    meter = METER
    for number in range(1, RECENT_RECEIPTS + 10):
        meter = count(meter, claim(number, number * 5_000, number * 5_000))
    assert len(meter.recent) == RECENT_RECEIPTS
    assert end(meter, at(1), 0).proven_ms <= meter.proven_ms - (RECENT_RECEIPTS - 1) * 5_000


CLAIMS = st.lists(
    st.tuples(st.integers(0, 90_000), st.integers(0, 200_000), st.integers(0, 30_000)), min_size=1, max_size=40
)


@given(CLAIMS)
def test_credit_never_exceeds_what_passed_at_the_market(steps: list[tuple[int, int, int]]) -> None:
    """Goal: no sequence of lies earns more than the market's own time and one interval. Method: random claims."""
    meter = METER
    now = running = 0
    for number, (passed, growth, outage) in enumerate(steps, start=1):
        now += passed
        running += growth
        after = count(meter, claim(number, running, now, outage_ms=outage))
        assert meter.proven_ms <= after.proven_ms <= running
        meter = after
        assert meter.proven_ms <= now + INTERVAL_MS
    assert 0 <= meter.slack <= INTERVAL_MS


@given(CLAIMS, st.data())
def test_duplicates_and_old_claims_change_nothing(steps: list[tuple[int, int, int]], data: st.DataObject) -> None:
    """Goal: delivery at least once is harmless. Method: repeat earlier claims at random places."""
    claims = []
    now = running = 0
    for number, (passed, growth, outage) in enumerate(steps, start=1):
        now += passed
        running += growth
        claims.append(claim(number, running, now, outage_ms=outage))
    repeated = []
    for index, item in enumerate(claims):
        repeated.append(item)
        repeated += data.draw(st.lists(st.sampled_from(claims[: index + 1]), max_size=2))
    assert proven(*repeated) == proven(*claims)


@given(st.integers(1, 60), st.integers(0, 4_999), st.integers(1, 30))
def test_an_honest_provider_is_paid_in_full(number: int, jitter_ms: int, lost_every: int) -> None:
    """Goal: lateness within an interval and lost heartbeats cost nothing. Method: honest claims, heard late at random."""
    meter = METER
    heard = 0
    for index in range(1, number + 1):
        if index % (lost_every + 1) == 0 and index != number and lost_every > 1:
            continue
        late = jitter_ms if index % 2 else 0
        meter = count(meter, claim(index, index * INTERVAL_MS, index * INTERVAL_MS + late))
        heard = index * INTERVAL_MS
    assert meter.proven_ms == heard


def test_the_limits_are_what_the_design_says() -> None:
    """Goal: a change of the limit is seen. Method: compare with the sentence of the design."""
    assert LONGEST_GAP_MS == 60_000
    assert replace(METER).slack == INTERVAL_MS


@given(
    st.lists(st.tuples(st.integers(500, INTERVAL_MS), st.integers(0, INTERVAL_MS)), min_size=1, max_size=30),
    st.lists(st.integers(0, 29), max_size=10),
)
def test_honest_claims_earn_what_ran_however_they_come(steps: list[tuple[int, int]], again: list[int]) -> None:
    """Goal: late, lost in between, repeated and reordered claims cost nobody anything. Method: an honest counter told at
    random times, each claim late by up to an interval, some twice; the last one is heard last.
    """
    told, ran = [], 0
    for sequence, (passed, late) in enumerate(steps, start=1):
        ran += passed
        told.append(claim(sequence, ran, ran + late))
    repeats = [replace(told[index], receive_time=at(ran)) for index in again if index < len(told)]
    heard = sorted([*told, *repeats], key=lambda item: (item.receive_time, -item.sequence))
    last = max(item.receive_time for item in heard)
    final = Claim(len(steps) + 1, ran, final=True, receive_time=last)
    meter = METER
    for item in [*heard, final]:
        meter = count(meter, item)
        assert meter.proven_ms <= ran
    assert meter.proven_ms == ran
