"""The rows of an inventory by asking price, for each need, so that a decision looks at few of them.

For a need, rows that are sold for it stand in the order price, reputation, age, id of the provider. Rows that are equal
in all of these are a shelf: one provider's, at one price. The first shelf on which there is room holds the decision, and
the policy chooses on it. Each row has a mark that says that there may be room. A mark is cleared when a look
finds none, and set when something came back to the row's node: taking only makes less room, so a row without a mark has none
for certain. ``decide`` therefore equals ``Engine.decide`` with the same asks, always.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fallow_bidding.domain.engine.asks import Asks
from fallow_bidding.domain.engine.engine import NOT_FOR_SALE, Engine
from fallow_bidding.domain.engine.inventory import Bools, Choice, Integers
from fallow_bidding.domain.engine.needs import Need

LOOK_ROWS: Final = 32
"""Rows of the first look; each further one is four times as long, as far as ``LOOK_ROWS_MAX``."""
LOOK_ROWS_MAX: Final = 2_048
LISTS_MAX: Final = 1_024
"""Needs whose lists are kept, the oldest are made anew when they are asked for."""

_Places = NDArray[np.int32]


@dataclass(slots=True)
class _List:
    """The rows sold for one need, cheapest first; ``place`` is where a row stands, -1 for one that is not there.

    ``shelf`` numbers each place's shelf, ``bound`` says where shelves begin, and where the last one ends.
    """

    rows: _Places
    place: _Places
    shelf: _Places
    bound: Integers
    marked: Bools
    seen: int


class Book:
    """An engine's rows by what is asked for them under one asset and term."""

    def __init__(self, engine: Engine, asks: Asks) -> None:
        """Lists are made when a need first comes."""
        self._engine = engine
        self._asks = asks
        self._lists: dict[Need, _List] = {}

    def decide(self, need: Need) -> Choice | None:
        """The best place for one replica, or None. Nothing is taken."""
        found = self._lists.get(need)
        if found is None:
            found = self._make(need)
        self._mark(found)
        start, length = 0, LOOK_ROWS
        while True:
            start += int(found.marked[start:].argmax()) if start < len(found.marked) else 0
            if start >= len(found.marked) or not found.marked[start]:
                return None
            window = start + np.flatnonzero(found.marked[start : start + length])
            room = self._engine.has_room(need, found.rows[window].astype(np.int64))
            found.marked[window[~room]] = False
            if room.any():
                return self._on_shelf(need, found, int(found.shelf[window[room.argmax()]]))
            start, length = start + length, min(4 * length, LOOK_ROWS_MAX)

    def _on_shelf(self, need: Need, found: _List, shelf: int) -> Choice:
        """The choice on a shelf that has room."""
        first, end = int(found.bound[shelf]), int(found.bound[shelf + 1])
        rows = found.rows[first:end][found.marked[first:end]].astype(np.int64)
        choice = self._engine.choose(need, rows)
        assert choice is not None, "a shelf with room for a need takes it"
        return choice

    def _mark(self, found: _List) -> None:
        """Mark the rows to which something came back since this list was last looked at."""
        engine = self._engine
        fresh = found.seen - engine.releases_forgotten
        if fresh < 0:
            found.marked[:] = True
        elif fresh < len(engine.releases):
            places = found.place[engine.releases[fresh:]]
            found.marked[places[places >= 0]] = True
        found.seen = engine.releases_forgotten + len(engine.releases)

    def _make(self, need: Need) -> _List:
        """The list of a need; the oldest one goes where there are too many."""
        engine, inventory = self._engine, self._engine.inventory
        asks = self._asks.of(need)
        sold = (asks != NOT_FOR_SALE) & (inventory.device_count >= need.gpu_count)
        sold &= engine.allowed(need)[inventory.kind] if need.gpu_count else inventory.first
        rows = np.flatnonzero(sold)
        reputation = engine.reputation_milli[inventory.provider[rows]]
        # The sort is stable and rows are in the order age, id: the last two keys are there already.
        rows = rows[np.lexsort((-reputation, asks[rows]))]
        keys = np.stack((asks[rows], engine.reputation_milli[inventory.provider[rows]], inventory.provider[rows]))
        begins = np.ones(len(rows), np.bool_)
        begins[1:] = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
        place = np.full(inventory.rows, -1, np.int32)
        place[rows] = np.arange(len(rows))
        if len(self._lists) >= LISTS_MAX:
            del self._lists[next(iter(self._lists))]
        made = self._lists[need] = _List(
            rows=rows.astype(np.int32),
            place=place,
            shelf=(np.cumsum(begins) - 1).astype(np.int32),
            bound=np.append(np.flatnonzero(begins), len(rows)),
            marked=np.ones(len(rows), np.bool_),
            seen=engine.releases_forgotten + len(engine.releases),
        )
        return made
