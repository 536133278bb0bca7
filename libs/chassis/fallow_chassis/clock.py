"""Time comes in through here, and nowhere else.

Everything that needs the hour or a duration takes a ``Clock`` as a parameter, so that a test can hand in one that it
moves by hand. Instants are UTC and whole milliseconds, because that is what the database and the wire keep: an instant
that survives a round trip unchanged can be compared for equality. Durations come from a monotonic reading, never from
the difference of two instants.
"""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where instants and durations are read."""

    def now(self) -> datetime:
        """The present instant: aware, UTC, truncated to a whole millisecond."""
        ...

    def monotonic_ms(self) -> int:
        """Milliseconds since an arbitrary origin; never goes back, not even when the wall clock is set."""
        ...


class SystemClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        """The present instant: aware, UTC, truncated to a whole millisecond."""
        return truncate_to_millisecond(datetime.now(UTC))

    def monotonic_ms(self) -> int:
        """Milliseconds since an arbitrary origin; never goes back."""
        return time.monotonic_ns() // 1_000_000


def truncate_to_millisecond(instant: datetime) -> datetime:
    """Cut an aware instant down to a whole millisecond, in UTC."""
    assert instant.tzinfo is not None, "an instant without a zone means nothing"
    in_utc = instant.astimezone(UTC)
    return in_utc.replace(microsecond=in_utc.microsecond // 1_000 * 1_000)
