"""The mix of needs that has arrived: what the engine expects to be asked for next.

It is learned from arrivals alone. There is no prior: the first need is the whole mix until others come. The engine
looks at a ``Snapshot``, which is taken again each time the arrivals have grown by half, so that what is computed from
it can be kept in between. Old arrivals fade: all counts are halved once they reach ``ARRIVALS_MAX``.
"""

from dataclasses import dataclass
from typing import Final

from fallow_bidding.domain.engine.needs import Need

ARRIVALS_MAX: Final = 1 << 16
"""Arrivals that the counts may sum to before they are halved."""
NEEDS_MAX: Final = 1_024
"""Different needs in a snapshot, the most frequent ones."""
FIRST_SNAPSHOTS: Final = 20
"""Arrivals before the second snapshot."""
ARRIVALS_BETWEEN_MAX: Final = 1 << 14
"""Arrivals between two snapshots, at most."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Needs with their counts, sorted by need; the sum is at least 1."""

    counts: tuple[tuple[Need, int], ...] = ()


class Mix:
    """Counts of the needs that have arrived."""

    def __init__(self) -> None:
        """Nothing has arrived yet."""
        self.arrivals = 0
        self._counts: dict[Need, int] = {}
        self._sum = 0
        self._next = 1
        self.snapshot = Snapshot()

    def add(self, need: Need) -> bool:
        """Count one arrival; tells whether there is a new snapshot."""
        self.arrivals += 1
        self._counts[need] = self._counts.get(need, 0) + 1
        self._sum += 1
        if self._sum >= ARRIVALS_MAX:
            self._counts = {known: count // 2 for known, count in self._counts.items() if count >= 2}
            self._sum = sum(self._counts.values())
        if self.arrivals < self._next:
            return False
        step = min(self._next // 2, ARRIVALS_BETWEEN_MAX)
        self._next = max(FIRST_SNAPSHOTS, self._next + step)
        self.learn(Snapshot(tuple(sorted(self._counts.items()))))
        return True

    def learn(self, snapshot: Snapshot) -> None:
        """Take a snapshot for the mix; of too many needs the most frequent stay."""
        counts = sorted(snapshot.counts, key=lambda pair: (-pair[1], pair[0]))[:NEEDS_MAX]
        self.snapshot = Snapshot(tuple(sorted(counts)))
