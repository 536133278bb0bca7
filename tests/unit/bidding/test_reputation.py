"""The formula of reputation: its worked example, where it begins, what moves it, and what does not."""

import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow_bidding.domain.leases import EndReason
from fallow_bidding.domain.reputation import (
    HORIZON_DAYS,
    HOUR_MS,
    MONTH,
    NEUTRAL_MILLI,
    WEEK,
    LeaseFact,
    Reputation,
    Tally,
    Uptime,
    judge,
    score_milli,
    tally,
    tally_days,
    time_to_start_ms,
    weight,
)
from fallow_bidding.domain.silence import Outage

NOW = datetime(2026, 5, 20, 12, tzinfo=UTC)
DOCUMENT = Path(__file__).parents[3] / "docs" / "reputation.md"
FULL = 100_000


def hours(count: float) -> timedelta:
    """So many hours."""
    return timedelta(hours=count)


def fact(**fields: Any) -> LeaseFact:
    """A lease that a tenant closed after a paid hour, but for ``fields``."""
    end = fields.pop("end_time", NOW)
    usual = {
        "create_time": NOW - hours(2),
        "accept_time": NOW - hours(2),
        "ready_time": NOW - hours(1),
        "end_time": end,
        "end_reason": None if end is None else EndReason.TENANT,
        "seen_by_market": True,
        "running_ms": HOUR_MS,
        "price_micros": FULL,
    }
    return LeaseFact(**{**usual, **fields})


def uptime(silences: tuple[Outage, ...] = (), outages: tuple[Outage, ...] = (), age: timedelta = MONTH) -> Uptime:
    """A provider's silences and the market's outages since its registration."""
    return Uptime(NOW - age, silences, outages, timedelta(seconds=15))


def judged(*facts: LeaseFact, up: Uptime | None = None, outages: tuple[Outage, ...] = ()) -> Reputation:
    """The reputation that leases make."""
    return judge(tally_days(facts, outages, NOW.date()), up or uptime(), time_to_start_ms(facts, NOW), NOW)


def documented_lease(text: dict[str, Any]) -> LeaseFact:
    """A lease of the document's example."""
    end = NOW - timedelta(days=text["ended_days_ago"]) if "ended_days_ago" in text else None
    create = (end or NOW) - hours(text["running_hours"]) - hours(1)
    return LeaseFact(
        create_time=create,
        accept_time=create,
        ready_time=create + timedelta(seconds=text["start_seconds"]) if "start_seconds" in text else None,
        end_time=end,
        end_reason=EndReason(text["reason"]) if "reason" in text else None,
        seen_by_market=True,
        running_ms=text["running_hours"] * HOUR_MS,
        price_micros=text["price_micros"],
        ran_elsewhere=text.get("ran_elsewhere", False),
    )


def test_the_documents_example_is_what_the_code_computes() -> None:
    """Goal: whoever follows the document gets our number. Method: read its block, recompute it, and its sums by hand."""
    block = tomllib.loads(DOCUMENT.read_text("utf-8").partition("```toml\n")[2].partition("```")[0])
    facts = [documented_lease(text) for text in block["lease"]]
    silence = Outage(NOW - timedelta(days=3), NOW - timedelta(days=3) + hours(12))
    found = judged(*facts, up=uptime((silence,), age=timedelta(days=100)))
    result = block["result"]
    good, bad = result.pop("good_hours"), result.pop("bad_hours")
    assert {name: getattr(found, name) for name in result} == result
    assert found.reliability_milli == (1_000 * good + 500 * 24) // (good + bad + 24)


def test_nobody_begins_high_or_low() -> None:
    """Goal: a provider of which nothing is known stands in the middle. Method: no time, no lease."""
    assert judged(up=uptime(age=timedelta())) == Reputation()
    assert Reputation().score_milli == NEUTRAL_MILLI


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (fact(), Tally(1, 0, 1_000, 0, HOUR_MS)),
        (fact(price_micros=FULL // 4), Tally(1, 0, 250, 0, HOUR_MS // 4)),
        (fact(price_micros=9 * FULL), Tally(1, 0, 1_000, 0, HOUR_MS)),
        (fact(price_micros=0), Tally(1, 0, 0, 0, 0)),
        (fact(running_ms=9 * HOUR_MS), Tally(1, 0, 1_000, 0, 9 * HOUR_MS)),
        (fact(end_time=None), Tally(1, 0, 1_000, 0, HOUR_MS)),
        (fact(end_reason=EndReason.PROVIDER), Tally(1, 1, 1_000, 0, HOUR_MS)),
        (fact(end_reason=EndReason.DEVICE), Tally(1, 1, 1_000, 0, HOUR_MS)),
        (fact(end_reason=EndReason.UNREACHABLE), Tally(1, 1, 1_000, 0, HOUR_MS)),
        (fact(end_reason=EndReason.UNREACHABLE, ready_time=None, running_ms=0), Tally(1, 1, 0, 1, 0)),
        (fact(end_reason=EndReason.WORKLOAD, ready_time=None, running_ms=0), Tally(1, 0, 0, 0, 0)),
        (fact(end_reason=EndReason.WORKLOAD, ready_time=None, running_ms=0, ran_elsewhere=True), Tally(1, 0, 0, 1, 0)),
        (fact(end_reason=EndReason.WORKLOAD, ran_elsewhere=True), Tally(1, 0, 1_000, 0, HOUR_MS)),
        (fact(end_reason=EndReason.REFUSED, accept_time=None, ready_time=None, running_ms=0), Tally(0, 0, 0, 1, 0)),
        (
            fact(end_reason=EndReason.REFUSED, accept_time=None, ready_time=None, running_ms=0, seen_by_market=False),
            Tally(),
        ),
        (fact(end_reason=EndReason.PREEMPTED), Tally(1, 0, 1_000, 0, HOUR_MS)),
        (fact(end_reason=EndReason.SUPERSEDED, ready_time=None, running_ms=0), Tally(1, 0, 0, 0, 0)),
    ],
)
def test_what_a_lease_adds(one: LeaseFact, expected: Tally) -> None:
    """Goal: only what is the provider's doing counts for or against it. Method: one lease of each kind."""
    assert tally(one, ()) == expected


def test_our_own_outage_excuses_who_could_not_be_reached() -> None:
    """Goal: unknown is not down. Method: leases that ended as unreachable or unanswered on either side of an outage."""
    outage = Outage(NOW - timedelta(minutes=10), NOW - timedelta(minutes=5))
    for reason in (EndReason.UNREACHABLE, EndReason.REFUSED):
        for minutes, is_excused in ((11, False), (7, True), (4, True), (2, False)):
            one = fact(end_reason=reason, ready_time=None, end_time=NOW - timedelta(minutes=minutes))
            assert (tally(one, (outage,)).starts_failed == 0) is is_excused, (reason, minutes)
    assert tally(fact(end_reason=EndReason.PROVIDER, end_time=NOW - timedelta(minutes=4)), (outage,)).early_closes == 1


def test_uptime_leaves_out_what_the_market_missed() -> None:
    """Goal: a share of the time in which somebody listened. Method: a day's silence; the same with the market away half of
    it; one that is short but for the market's absence; overlapping ones.
    """
    day = Outage(NOW - hours(48), NOW - hours(24))
    full = uptime().share_milli(WEEK, NOW)
    assert full == (1_000 * 168 + 500 * 6) // 174
    assert uptime((day,)).share_milli(WEEK, NOW) == (1_000 * 144 + 500 * 6) // 174
    half = Outage(NOW - hours(48), NOW - hours(36))
    assert uptime((day,), (half,)).share_milli(WEEK, NOW) == (1_000 * 144 + 500 * 6) // 162
    short = Outage(NOW - hours(36) - timedelta(seconds=5), NOW - hours(24) + timedelta(seconds=10))
    away = Outage(NOW - hours(36), NOW - hours(24))
    assert uptime((short,), (away,)).share_milli(WEEK, NOW) == (1_000 * 156 + 500 * 6) // 162
    assert uptime((day, half)).share_milli(WEEK, NOW) == uptime((day,)).share_milli(WEEK, NOW)
    assert uptime((day,), age=hours(24)).share_milli(WEEK, NOW) == (1_000 * 24 + 500 * 6) // 30


def test_what_is_old_fades() -> None:
    """Goal: a sin weighs half after a month and nothing after six. Method: one early close at growing ages."""
    scores = [
        judged(fact(end_reason=EndReason.PROVIDER, running_ms=0, end_time=NOW - timedelta(days=age))).score_milli
        for age in range(0, HORIZON_DAYS + 1, 5)
    ]
    assert scores == sorted(scores)
    assert scores[0] < scores[-1] == judged().score_milli
    assert (weight(0), weight(30), weight(60), weight(HORIZON_DAYS)) == (1 << 20, 1 << 19, 1 << 18, 0)
    assert weight(15) == (1 << 20) * 3 // 4
    assert all(weight(age) >= weight(age + 1) for age in range(HORIZON_DAYS))


def test_many_tiny_leases_are_worth_the_little_that_they_ran() -> None:
    """Goal: friends cannot buy a score by the number of their leases. Method: a thousand seconds of running, in one lease and
    in a thousand, beside one honest lease of a week.
    """
    tiny = judged(*(fact(running_ms=1_000, ready_time=NOW, create_time=NOW) for _ in range(1_000)))
    one = judged(fact(running_ms=1_000_000))
    honest = judged(fact(running_ms=168 * HOUR_MS))
    assert tiny.reliability_milli == one.reliability_milli < honest.reliability_milli
    assert tiny.start_success_milli <= one.start_success_milli < honest.start_success_milli
    assert tiny.time_to_start_ms is None


@given(
    paid=st.integers(0, 10**12),
    early=st.integers(0, 1_000),
    starts=st.integers(0, 10**7),
    failed=st.integers(0, 10**4),
    start_ms=st.none() | st.integers(0, 10**9),
)
def test_the_score_is_bounded_and_moves_the_right_way(
    paid: int, early: int, starts: int, failed: int, start_ms: int | None
) -> None:
    """Goal: no facts leave the scale, more good never lowers, more bad never raises. Method: any facts, and one more."""

    def of(**fields: int) -> int:
        usual = {"early_closes": early, "starts_milli": starts, "starts_failed": failed, "paid_ms": paid}
        return judge({NOW.date(): Tally(**{**usual, **fields})}, uptime(), start_ms, NOW).score_milli

    score = of()
    assert 0 <= score <= 1_000
    assert of(paid_ms=paid + HOUR_MS) >= score
    assert of(starts_milli=starts + 1_000) >= score
    assert of(early_closes=early + 1) <= score
    assert of(starts_failed=failed + 1) <= score
    if start_ms is not None:
        assert score_milli(1, 1, 1, 1, start_ms + 1_000) <= score_milli(1, 1, 1, 1, start_ms)
