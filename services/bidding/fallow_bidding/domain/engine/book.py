"""The rows of an inventory by asking price, for each group that is asked for, so that a decision looks at few of them.

For a group, rows that are sold for its first lot stand in the order price, reputation, age, id of the provider; the price is the
least that the group can cost with its first lot there. Rows that are equal in all of these are a shelf: one provider's,
at one price. For one replica the first shelf on which there is room holds the decision, and the policy chooses on it; for more
the shelves with room are the order in which providers are worth a look. Each row has a mark that says that there may be room. A mark is
cleared when a look finds none, and set when something came back to the row's node: taking only makes less room, so a row
without a mark has none for certain. ``decide`` therefore equals ``Engine.decide`` with the same asks, always.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fallow_bidding.domain.engine.asks import Asks
from fallow_bidding.domain.engine.engine import NOT_FOR_SALE, Engine
from fallow_bidding.domain.engine.inventory import Bools, Choice, Integers
from fallow_bidding.domain.engine.needs import Lot, Need

LOOK_ROWS: Final = 32
"""Rows of the first look; each further one is four times as long, as far as ``LOOK_ROWS_MAX``."""
LOOK_ROWS_MAX: Final = 2_048
LISTS_MAX: Final = 256
"""Groups whose lists are kept, the oldest are made anew when they are asked for."""

Lots = tuple[Lot, ...]
"""A group as lists know it; the first lot leads."""

_Places = NDArray[np.int32]


@dataclass(slots=True)
class _List:
    """The rows sold for a group, cheapest first; ``place`` is where a row stands, -1 for one that is not there.

    ``shelf`` numbers each place's shelf, ``bound`` says where shelves begin, and where the last one ends; ``price`` and
    ``provider`` are theirs.
    """

    need: Need
    rows: _Places
    place: _Places
    shelf: _Places
    bound: Integers
    price: Integers
    provider: Integers
    marked: Bools
    seen: int


class Book:
    """An engine's rows by what is asked for them under one asset and term."""

    def __init__(self, engine: Engine, asks: Asks) -> None:
        """Lists are made when a group first comes."""
        self._engine = engine
        self._asks = asks
        self._lists: dict[Lots, _List] = {}

    def decide(self, need: Need) -> Choice | None:
        """The best place for one replica, or None. Nothing is taken."""
        found = self._list((Lot.one(need),))
        shelf = next(self._with_room(found), None)
        return None if shelf is None else self._on_shelf(need, found, shelf)

    def sellers(self, lots: Lots) -> Iterator[tuple[int, int]]:
        """Providers that may have room for a group, and the least that each can ask for it, by price, reputation, age, id.

        A provider may come again, at a higher price. Whoever does not come has no room for a replica of the first lot.
        """
        found = self._list(lots)
        for shelf in self._with_room(found):
            yield int(found.price[shelf]), int(found.provider[shelf])

    def _list(self, lots: Lots) -> _List:
        """The list of a group."""
        found = self._lists.get(lots)
        return self._make(lots) if found is None else found

    def _with_room(self, found: _List) -> Iterator[int]:
        """The shelves with room for a replica, cheapest first; those without are passed over."""
        self._mark(found)
        start, length, last = 0, LOOK_ROWS, -1
        while start < len(found.marked):
            start += int(found.marked[start:].argmax())
            if not found.marked[start]:
                return
            window = start + np.flatnonzero(found.marked[start : start + length])
            room = self._engine.has_room(found.need, found.rows[window].astype(np.int64))
            found.marked[window[~room]] = False
            for shelf in found.shelf[window[room]].tolist():
                if shelf != last:
                    last = shelf
                    yield shelf
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

    def _make(self, lots: Lots) -> _List:
        """The list of a group; the oldest one goes where there are too many."""
        engine, inventory, need = self._engine, self._engine.inventory, lots[0].need
        asks = self._asks.least_of(lots)
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
        made = self._lists[lots] = _List(
            need=need,
            rows=rows.astype(np.int32),
            place=place,
            shelf=(np.cumsum(begins) - 1).astype(np.int32),
            bound=np.append(np.flatnonzero(begins), len(rows)),
            price=keys[0, begins],
            provider=keys[2, begins],
            marked=np.ones(len(rows), np.bool_),
            seen=engine.releases_forgotten + len(engine.releases),
        )
        return made
