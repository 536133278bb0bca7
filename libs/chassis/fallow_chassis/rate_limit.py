"""How often one caller may call: a token bucket each, in this process.

A bucket holds up to ``burst`` calls and fills by ``per_second``; a call takes one, and one that finds less is refused
before anything is done, with the time after which it would be let in. Whole milliseconds of a monotonic clock and whole
thousandths of a call, so nothing is lost to rounding: one millisecond at one call a second is one thousandth.

The buckets are an LRU of bounded size. Whoever is forgotten starts with a full bucket again, which is what a caller who
has been away for ``burst / per_second`` has anyway. Replicas of a service count each for itself.
"""

from collections import OrderedDict
from typing import Final

from fallow_chassis.clock import Clock
from fallow_chassis.context import Identity
from fallow_chassis.errors import RATE_LIMITED, DomainError

MAX_BUCKETS: Final = 20_000
"""Callers that are remembered at once; some 4 MB."""
_CALL: Final = 1_000
_UNLIMITED: Final = frozenset({"services", "providers"})


class RateLimiter:
    """Buckets by caller. ``per_second`` 0 lets everybody in always."""

    def __init__(self, per_second: int, burst: int, clock: Clock, *, max_buckets: int = MAX_BUCKETS) -> None:
        """``burst`` is the most calls at once of a caller who was quiet before."""
        assert per_second >= 0, "a rate is not negative"
        assert burst >= 1, "a bucket has room for one call"
        assert max_buckets >= 1, "one caller is remembered"
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._max_buckets = max_buckets
        self._buckets: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def __len__(self) -> int:
        """How many callers are remembered."""
        return len(self._buckets)

    def take(self, caller: str) -> None:
        """Let one call of ``caller`` in, or raise RATE_LIMITED with the time to wait."""
        if self._per_second == 0:
            return
        now_ms = self._clock.monotonic_ms()
        full = self._burst * _CALL
        level, seen_ms = self._buckets.pop(caller, (full, now_ms))
        level = min(full, level + (now_ms - seen_ms) * self._per_second)
        is_let_in = level >= _CALL
        self._buckets[caller] = (level - _CALL if is_let_in else level, now_ms)
        if len(self._buckets) > self._max_buckets:
            self._buckets.popitem(last=False)
        if not is_let_in:
            raise DomainError(
                RATE_LIMITED,
                f"{caller} calls more than {self._per_second} times a second",
                metadata={
                    "quota": "calls_per_second",
                    "limit": str(self._per_second),
                    "burst": str(self._burst),
                    "caller": caller,
                },
                retry_after_ms=-(-(_CALL - level) // self._per_second),
            )


def limited_caller(identity: Identity | None, peer: str) -> str:
    """Whose bucket a call takes from: the subject's, or the peer's where nobody is named; empty for no limit.

    Services are not limited, nor are providers with the grants that the market gave them: what the market asks of them
    is what makes them call.
    """
    if identity is not None:
        return "" if identity.subject.partition("/")[0] in _UNLIMITED else identity.subject
    return f"peers/{peer_host(peer)}"


def peer_host(peer: str) -> str:
    """The host of a peer as gRPC names it (``ipv4:127.0.0.1:50000``, ``ipv6:%5B::1%5D:50000``, ``unix:…``)."""
    kind, _, rest = peer.partition(":")
    if kind not in {"ipv4", "ipv6"}:
        return kind or "unknown"
    host = rest.rpartition(":")[0]
    return host.replace("%5B", "").replace("%5D", "").strip("[]")
