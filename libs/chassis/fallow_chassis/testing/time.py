"""A clock that stands still until it is told to move, and ids that count."""

from datetime import UTC, datetime, timedelta
from typing import Final

from fallow_chassis.clock import truncate_to_millisecond
from fallow_chassis.ids import id_from_bytes

START: Final = datetime(2026, 1, 1, tzinfo=UTC)


class ManualClock:
    """Both times of a ``Clock``; ``advance`` moves them together, ``set_wall`` the wall clock alone."""

    def __init__(self, start: datetime = START) -> None:
        """Stand at ``start``, with the monotonic time at 0."""
        self._now = truncate_to_millisecond(start)
        self._monotonic_ms = 0

    def now(self) -> datetime:
        """The instant it was moved to."""
        return self._now

    def monotonic_ms(self) -> int:
        """The milliseconds it was advanced by."""
        return self._monotonic_ms

    def advance(self, *, seconds: float = 0, milliseconds: int = 0) -> datetime:
        """Move forward by whole milliseconds; the new instant."""
        moved_ms = round(seconds * 1_000) + milliseconds
        assert moved_ms >= 0, "time does not go back; set_wall moves the wall clock alone"
        self._now += timedelta(milliseconds=moved_ms)
        self._monotonic_ms += moved_ms
        return self._now

    def set_wall(self, instant: datetime) -> None:
        """Set the wall clock, backwards too, as an operator or NTP might; the monotonic time stays."""
        self._now = truncate_to_millisecond(instant)


class SequentialIds:
    """Ids 1, 2, 3 … in the form of all ids; ``start`` keeps those of two sources apart."""

    def __init__(self, start: int = 1) -> None:
        """The first id is number ``start``."""
        self._next = start

    def new(self) -> str:
        """The next id."""
        value = self._next
        self._next += 1
        return id_from_bytes(value.to_bytes(16, "big"))
