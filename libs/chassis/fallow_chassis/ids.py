"""Identifiers: UUIDv7 (RFC 9562) written as 26 characters of lower-case Crockford base 32.

Version 7 starts with the millisecond of its making, so rows inserted together lie together in an index and ids sort by
age. Within one millisecond a source counts up (RFC 9562, method 1), so ids of one process are strictly increasing even
when the wall clock steps back. Clients never parse an id.
"""

import secrets
import threading
from typing import Final, Protocol

from fallow_chassis.clock import Clock

ID_LENGTH_CHARACTERS: Final = 26
ID_LENGTH_BYTES: Final = 16

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_COUNTER_BITS: Final = 12
_RANDOM_BITS: Final = 62


class Ids(Protocol):
    """Where new identifiers come from."""

    def new(self) -> str:
        """A fresh id: 26 characters, never given out before."""
        ...


class RandomIds:
    """UUIDv7 from a clock and the operating system's randomness; strictly increasing within one instance."""

    def __init__(self, clock: Clock) -> None:
        """Take the clock whose millisecond starts each id."""
        self._clock = clock
        self._lock = threading.Lock()
        self._last_ms = -1
        self._counter = 0

    def new(self) -> str:
        """A fresh id, greater than every id this instance gave before."""
        with self._lock:
            self._advance()
            value = (
                self._last_ms << 80
                | 0x7 << 76
                | self._counter << 64
                | 0b10 << _RANDOM_BITS
                | secrets.randbits(_RANDOM_BITS)
            )
        return id_from_bytes(value.to_bytes(ID_LENGTH_BYTES, "big"))

    def _advance(self) -> None:
        """Move to the present millisecond, or count up within the last one."""
        now_ms = round(self._clock.now().timestamp() * 1_000)
        if now_ms > self._last_ms:
            self._last_ms = now_ms
            # The top bit starts clear so that a burst within one millisecond has room to count.
            self._counter = secrets.randbits(_COUNTER_BITS - 1)
            return
        self._counter += 1
        if self._counter >= 1 << _COUNTER_BITS:
            self._last_ms += 1
            self._counter = 0


def id_from_bytes(value: bytes) -> str:
    """Write 16 bytes as an id; the order of ids is the order of their bytes."""
    if len(value) != ID_LENGTH_BYTES:
        raise ValueError(f"an id has {ID_LENGTH_BYTES} bytes, not {len(value)}")
    number = int.from_bytes(value, "big")
    digits = []
    for _ in range(ID_LENGTH_CHARACTERS):
        digits.append(_ALPHABET[number & 31])
        number >>= 5
    return "".join(reversed(digits))
