"""Clock, ids, errors, events, settings, SQL files, wire values, retries, context: tables."""

import asyncio
import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import asyncpg
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from fallow_chassis import errors, wire
from fallow_chassis.clock import SystemClock, truncate_to_millisecond
from fallow_chassis.context import (
    GrantClaims,
    Identity,
    bounded_seconds,
    current_identity,
    deadline_in,
    identity_set,
    remaining_seconds,
)
from fallow_chassis.errors import DomainError, ErrorReason
from fallow_chassis.events import EventDraft, MalformedEventError, Record, event_headers, parse_event
from fallow_chassis.ids import RandomIds, id_from_bytes
from fallow_chassis.retry import is_retryable, wait_seconds
from fallow_chassis.settings import ServiceSettings, SettingsError
from fallow_chassis.sql import Queries, QueryError, parse_queries
from fallow_receipts import id_to_word
from tests.unit.chassis.sample import Request, ThingHappened

INSTANT = datetime(2026, 11, 23, 8, 15, 0, 123_000, tzinfo=UTC)


class Still:
    """A clock that stands still, and can be set back."""

    def __init__(self) -> None:
        self.time = INSTANT

    def now(self) -> datetime:
        return self.time

    def monotonic_ms(self) -> int:
        return 0


def test_the_clock_reads_whole_milliseconds_in_utc() -> None:
    """Goal: an instant survives the wire and the database. Method: truncate; read twice."""
    odd = datetime(2026, 1, 1, 1, 0, 0, 999_999, tzinfo=timezone(timedelta(hours=1)))
    assert truncate_to_millisecond(odd) == datetime(2026, 1, 1, 0, 0, 0, 999_000, tzinfo=UTC)
    now = SystemClock().now()
    assert now.microsecond % 1_000 == 0
    assert now.utcoffset() == timedelta(0)
    assert SystemClock().monotonic_ms() <= SystemClock().monotonic_ms()


def test_ids_increase_and_are_version_7() -> None:
    """Goal: sortable ids of RFC 9562's shape. Method: ten thousand in one millisecond, then with the clock set back."""
    clock = Still()
    ids = RandomIds(clock)
    made = [ids.new() for _ in range(10_000)]
    clock.time = INSTANT - timedelta(hours=1)
    made.extend(ids.new() for _ in range(10))
    assert made == sorted(set(made))
    raw = id_to_word(made[0])[16:]
    assert raw[6] >> 4 == 7
    assert raw[8] >> 6 == 0b10
    assert int.from_bytes(raw[:6], "big") == round(INSTANT.timestamp() * 1_000)
    assert re.fullmatch("[0-9a-hjkmnp-tv-z]{26}", made[0])


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16))
def test_ids_and_bytes_are_one_to_one_and_in_one_order(first: bytes, second: bytes) -> None:
    """Goal: text sorts as bytes do. Method: any two values."""
    assert id_to_word(id_from_bytes(first))[16:] == first
    assert (first < second) == (id_from_bytes(first) < id_from_bytes(second))


@pytest.mark.parametrize("length", [0, 15, 17])
def test_what_is_no_id_is_refused(length: int) -> None:
    """Goal: one text per id. Method: too few and too many bytes."""
    with pytest.raises(ValueError, match="an id has 16 bytes"):
        id_from_bytes(bytes(length))


def test_reasons_are_unique_and_well_formed() -> None:
    """Goal: a reason is a word with a code. Method: the chassis's own; then malformed ones."""
    words = [reason.reason for reason in errors.REASONS]
    assert len(words) == len(set(words))
    with pytest.raises(AssertionError):
        ErrorReason("lower", "INTERNAL", "", "")
    with pytest.raises(AssertionError):
        ErrorReason("UPPER", "NO_SUCH_CODE", "", "")


def draft(version: int = 3) -> EventDraft:
    return EventDraft("things.v1", "a", version, ThingHappened(thing="a"), subject="things/a")


def test_headers_are_read_as_they_were_written() -> None:
    """Goal: CloudEvents there and back. Method: a draft's headers parsed."""
    headers = event_headers(draft(), event_id="e1", source="services/order", time=INSTANT, trace="00-1-2-01")
    assert headers["ce_time"] == "2026-11-23T08:15:00.123Z"
    event = parse_event(Record("things.v1", "a", b"", headers))
    assert (event.id, event.type, event.key, event.version) == ("e1", "fallow.sample.v1.ThingHappened", "a", 3)
    assert (event.time, event.source, event.subject) == (INSTANT, "services/order", "things/a")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ce_id", None),
        ("ce_id", ""),
        ("ce_type", None),
        ("ce_time", None),
        ("ce_time", "yesterday"),
        ("ce_time", "2026-11-23T08:15:00"),
        ("ce_sequence", "many"),
        ("ce_sequence", "-1"),
    ],
)
def test_malformed_headers_are_refused(name: str, value: str | None) -> None:
    """Goal: half an event is none. Method: spoil one header."""
    headers = event_headers(draft(), event_id="e1", source="s", time=INSTANT, trace="")
    if value is None:
        del headers[name]
    else:
        headers[name] = value
    with pytest.raises(MalformedEventError):
        parse_event(Record("things.v1", "a", b"", headers))


def test_drafts_hold_their_bounds() -> None:
    """Goal: a nonsense draft is a bug. Method: no topic, no key, a negative version."""
    for topic, key, version in (("", "a", 1), ("t", "", 1), ("t", "a", -1)):
        with pytest.raises(AssertionError):
            EventDraft(topic, key, version, ThingHappened())


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: FALLOW_ variables, secrets out of sight, a missing one named. Method: set some."""
    monkeypatch.setenv("FALLOW_DATABASE_URL", "postgresql://fallow:hunter2@localhost/order")
    monkeypatch.setenv("FALLOW_POOL_SIZE", "3")
    settings = ServiceSettings()
    assert settings.required("database_url").endswith("/order")
    assert settings.pool_size == 3
    assert "hunter2" not in repr(settings)
    with pytest.raises(SettingsError, match="FALLOW_NATS_URL is not set"):
        settings.required("nats_url")


def test_queries_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: named SQL. Method: two files of a package; then a name that stands twice, and one that is not there."""
    folder = tmp_path / "sample_sql_package"
    (folder / "sql").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "sql" / "a.sql").write_text(
        "-- about a\n\n-- name: one\nSELECT 1;\n\n-- name: two\n-- why\nSELECT\n  2;\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    queries = Queries.load("sample_sql_package")
    assert queries.names() == ("one", "two")
    assert queries.get("one") == "SELECT 1"
    assert queries.get("two") == "-- why\nSELECT\n  2"
    with pytest.raises(QueryError, match="no query named three"):
        queries.get("three")
    (folder / "sql" / "b.sql").write_text("-- name: one\nSELECT 3\n")
    with pytest.raises(QueryError, match="stands twice"):
        Queries.load("sample_sql_package")


@pytest.mark.parametrize(
    "text", ["SELECT 1", "-- name: Bad\nSELECT 1", "-- name: a\n\n-- name: b\nSELECT 1", "-- name:\nx"]
)
def test_malformed_query_files_are_refused(text: str) -> None:
    """Goal: nothing is dropped in silence. Method: SQL without a name, bad names, a name without SQL."""
    with pytest.raises(QueryError):
        list(parse_queries(text, "x.sql"))


@given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(UTC)))  # noqa: DTZ001
def test_instants_survive_the_wire(instant: datetime) -> None:
    """Goal: a millisecond is kept, before 1970 too. Method: any instant there and back."""
    cut = truncate_to_millisecond(instant)
    assert wire.from_timestamp(wire.to_timestamp(cut)) == cut


def test_timestamps_are_cut_to_the_millisecond() -> None:
    """Goal: what others send more precisely. Method: nanoseconds."""
    assert wire.from_timestamp(Timestamp(seconds=1, nanos=1_999_999)) == datetime(
        1970, 1, 1, 0, 0, 1, 1_000, tzinfo=UTC
    )


@given(st.integers(min_value=-(10**14), max_value=10**14))
def test_durations_survive_the_wire(milliseconds: int) -> None:
    """Goal: either sign, and a valid Duration. Method: any number of milliseconds."""
    duration = wire.to_duration(milliseconds)
    assert wire.from_duration(duration) == milliseconds
    assert duration.seconds * duration.nanos >= 0


def test_equal_input_has_an_equal_hash() -> None:
    """Goal: a repeat is recognised and nothing else. Method: map order, other text, another type of same bytes."""
    first, second = Request(), Request()
    for key in ("a", "b", "c"):
        first.order.labels[key] = key
    for key in ("c", "b", "a"):
        second.order.labels[key] = key
    assert wire.request_hash(first) == wire.request_hash(second)
    assert wire.request_hash(first) != wire.request_hash(Request())
    assert wire.request_hash(ThingHappened(thing="a")) != wire.request_hash(Request(text="a"))


def test_resource_names_are_taken_apart() -> None:
    """Goal: one collection, one id. Method: good and bad names."""
    assert wire.resource_id("orders/abc", "orders") == "abc"
    for bad in ("", "orders", "orders/", "leases/abc", "orders/a/b", "/orders/a"):
        with pytest.raises(DomainError) as caught:
            wire.resource_id(bad, "orders", field="parent")
        assert caught.value.violations[0].field == "parent"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (asyncpg.DeadlockDetectedError(), True),
        (asyncpg.SerializationError(), True),
        (asyncpg.AdminShutdownError(), True),
        (asyncpg.CannotConnectNowError(), True),
        (asyncpg.TooManyConnectionsError(), True),
        (asyncpg.ConnectionDoesNotExistError(), True),
        (asyncpg.InterfaceError("connection is closed"), True),
        (asyncpg.InterfaceError("cannot perform operation: another operation is in progress"), False),
        (asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress"), True),
        (asyncpg.InternalClientError("cannot switch to state 12; another operation (11) is in progress"), False),
        (asyncpg.UniqueViolationError(), False),
        (asyncpg.UndefinedTableError(), False),
        (DomainError(errors.UNAVAILABLE, "x"), True),
        (DomainError(errors.INVALID_FIELD, "x"), False),
        (ExceptionGroup("x", [ConnectionResetError(), TimeoutError()]), True),
        (ExceptionGroup("x", [ConnectionResetError(), ValueError()]), False),
        (AssertionError(), False),
        (asyncio.CancelledError(), False),
    ],
)
def test_what_passes_by_itself(error: BaseException, expected: bool) -> None:  # noqa: FBT001
    """Goal: wait for databases and networks, not for bugs. Method: a table of errors."""
    assert is_retryable(error) is expected


def test_waits_grow_to_a_bound() -> None:
    """Goal: no storm, and no silence. Method: the first waits and the millionth."""
    assert [wait_seconds(attempt) for attempt in (1, 2, 3)] == [0.1, 0.2, 0.4]
    assert wait_seconds(1_000_000) == 5.0


def test_deadlines_only_shrink() -> None:
    """Goal: an inner call cannot outlive its caller. Method: nest deadlines."""
    assert remaining_seconds() is None
    assert bounded_seconds(7) == 7
    with deadline_in(10):
        with deadline_in(60):
            assert 9 < (remaining_seconds() or 0) <= 10
        with deadline_in(0):
            assert remaining_seconds() == 0
        with deadline_in(None):
            assert 9 < bounded_seconds(20) <= 10
    assert remaining_seconds() is None


def test_identity_belongs_to_its_block() -> None:
    """Goal: no caller leaks. Method: before, in and after a block."""
    with pytest.raises(DomainError) as caught:
        current_identity()
    assert caught.value.has_reason(errors.UNAUTHENTICATED)
    with identity_set(Identity("services/order", "order")):
        assert current_identity().is_service
    with pytest.raises(DomainError):
        current_identity()


def test_grants_hold_their_bounds() -> None:
    """Goal: no grant without sense. Method: an unknown right, a generation of 0."""
    with pytest.raises(AssertionError):
        GrantClaims("a", "o", 0, 1, "l", "p", frozenset({"everything"}))
    with pytest.raises(AssertionError):
        GrantClaims("a", "o", 0, 0, "l", "p", frozenset())
