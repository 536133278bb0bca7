"""What people write to say which orders they mean, and what they are shown of orders."""

from datetime import UTC, datetime

import pytest
import typer
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console

from fallow.order.v1 import order_pb2
from fallow.type.v1 import lease_pb2, money_pb2
from fallow_sdk.commands.options import parse_pairs
from fallow_sdk.commands.order_filters import parse_states, parse_time
from fallow_sdk.commands.order_tables import history_table, order_tables, transition_cells
from fallow_sdk.errors import FallowError, FieldViolation

ID = "0123456789abcdefghjkmnpqrs"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-31", "2026-01-31T00:00:00Z"),
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
        ("2026-01-31T12:00:00+02:00", "2026-01-31T10:00:00Z"),
        ("2026-01-31 12:00:00.250", "2026-01-31T12:00:00.250Z"),
    ],
)
def test_a_time_is_read_as_written(text: str, expected: str) -> None:
    """Goal: ISO 8601, UTC where no zone is named. Method: a table."""
    found = parse_time(text, "--since")
    assert found is not None
    assert found.ToJsonString() == expected


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1_800), ("2h", 7_200), ("7d", 604_800)])
def test_a_time_may_be_so_long_ago(text: str, seconds: int) -> None:
    """Goal: people count back from now. Method: the distance of two readings, one of them of no time at all."""
    then, now = parse_time(text, "--since"), parse_time("0s", "--since")
    assert then is not None
    assert now is not None
    assert seconds <= now.seconds - then.seconds + 1 <= seconds + 2
    assert parse_time("", "--since") is None


@pytest.mark.parametrize("text", ["yesterday", "2x", "-2h", "2026-13-01", "999999d", "1h30m"])
def test_what_is_no_time_is_refused_with_advice(text: str) -> None:
    """Goal: a usage error says what to write. Method: texts that are none."""
    with pytest.raises(typer.BadParameter, match="write 2h, 7d, 2026-01-31"):
        parse_time(text, "--since")


def test_states_and_labels_are_read_or_refused_with_advice() -> None:
    """Goal: names in any case, labels as key=value. Method: good and bad ones of each."""
    assert parse_states(["running", "OPEN"]) == [order_pb2.ORDER_STATE_RUNNING, order_pb2.ORDER_STATE_OPEN]
    with pytest.raises(typer.BadParameter, match="there are: pending, open, matched, running"):
        parse_states(["unspecified"])
    assert parse_pairs(["team=blue", "empty=", "sum=a=b"], "--label") == {"team": "blue", "empty": "", "sum": "a=b"}
    for labels, advice in (
        (["team"], "write key=value"),
        (["=x"], "write key=value"),
        (["a=1", "a=2"], "stands twice"),
    ):
        with pytest.raises(typer.BadParameter, match=advice):
            parse_pairs(labels, "--label")


def _lost() -> order_pb2.OrderTransition:
    return order_pb2.OrderTransition(
        sequence=7,
        source_state=order_pb2.ORDER_STATE_RUNNING,
        target_state=order_pb2.ORDER_STATE_RUNNING,
        reason="unreachable: no heartbeat for 60 s",
        transition_time=Timestamp(seconds=1_800_000_000),
        group_id="main",
        source_group_state=order_pb2.GROUP_STATE_RUNNING,
        target_group_state=order_pb2.GROUP_STATE_LOST,
        lease=f"leases/{ID}",
        provider=f"providers/{ID}",
        generation=1,
    )


def test_a_history_tells_who_had_the_lease_and_why_it_was_lost() -> None:
    """Goal: each change in one line, names whole. Method: a loss and the order's own change, on a narrow terminal."""
    own = order_pb2.OrderTransition(sequence=1, target_state=order_pb2.ORDER_STATE_PENDING, reason="stored")
    when = datetime.fromtimestamp(1_800_000_000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    assert transition_cells(_lost()) == (
        "7", when, "group main", "RUNNING → LOST", f"leases/{ID}", f"providers/{ID}",
        "unreachable: no heartbeat for 60 s",
    )  # fmt: skip
    assert transition_cells(own)[2:] == ("order", "PENDING", "-", "-", "stored")
    console = Console(width=120)
    with console.capture() as printed:
        console.print(history_table([own, _lost()]))
    assert f"leases/{ID}" in printed.get()
    assert f"providers/{ID}" in printed.get()


def test_an_order_in_full_says_how_it_ended() -> None:
    """Goal: state, money, groups, end. Method: a closed order of two groups, one of which never had a lease."""
    price = money_pb2.Price(asset="usdc", micros_per_hour=1_500_000)
    order = order_pb2.Order(
        name=f"orders/{ID}",
        state=order_pb2.ORDER_STATE_CLOSED,
        group_binding=order_pb2.GROUP_BINDING_EACH,
        close_reason=lease_pb2.END_REASON_EXPIRED,
        close_detail="no match within 600 s",
        labels={"team": "blue"},
        groups=[
            order_pb2.Group(group_id="a", price_limit=price, state=order_pb2.GROUP_STATE_ENDED),
            order_pb2.Group(group_id="b", price_limit=price, price=price, lease=f"leases/{ID}", generation=2),
        ],
    )
    console = Console(width=200)
    with console.capture() as printed:
        for table in order_tables(order):
            console.print(table)
    for text in (
        "expired: no match within 600 s",
        "each on its own",
        "team=blue",
        "up to 1.500000 USDC/h",
        f"leases/{ID}",
        "not yet",
    ):
        assert text in printed.get()


def test_an_error_says_what_to_do() -> None:
    """Goal: people are told what was wrong and what to do. Method: an error with a field and advice."""
    error = FallowError(
        "INVALID_ARGUMENT", "INVALID_FIELD", "no", violations=(FieldViolation("a.b", "too low"),), action="Mend it."
    )
    assert str(error) == "INVALID_FIELD (INVALID_ARGUMENT): no\n  a.b: too low\n  Mend it."
