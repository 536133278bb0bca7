"""What people write to say which orders they mean."""

import re
from datetime import UTC, datetime, timedelta

import typer
from google.protobuf.timestamp_pb2 import Timestamp

from fallow.order.v1 import order_pb2

_AGO = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_states(names: list[str]) -> list["order_pb2.OrderState.ValueType"]:
    """States by their names, in any case. Raises a usage error that says what there is."""
    known = {name.removeprefix("ORDER_STATE_"): number for name, number in order_pb2.OrderState.items() if number}
    for name in names:
        if name.upper() not in known:
            raise typer.BadParameter(f"no state {name!r}; there are: {', '.join(known).lower()}", param_hint="--state")
    return [known[name.upper()] for name in names]


def parse_time(text: str, option: str) -> Timestamp | None:
    """An instant: so long ago (`90s`, `30m`, `2h`, `7d`), or a date or time of ISO 8601, UTC where it names no zone.

    None for no text. Raises a usage error for anything else.
    """
    if not text:
        return None
    ago, timestamp = _AGO.fullmatch(text), Timestamp()
    try:
        if ago is not None:
            timestamp.GetCurrentTime()
            instant = timestamp.ToDatetime(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        else:
            instant = datetime.fromisoformat(text)
            instant = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
        timestamp.FromDatetime(instant)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is no time; write 2h, 7d, 2026-01-31 or 2026-01-31T12:00:00Z", param_hint=option
        ) from None
    return timestamp
