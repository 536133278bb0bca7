"""Where one replica goes. Constraints mask rows; price and reputation choose the provider; the policy its nodes.

``decide`` looks and changes nothing; ``take`` makes a decision stand. Verdicts are kept by (need, state), so that most
of a decision is one look into a column: rows that share a state share its verdict. They are dropped when the mix has
changed. Nothing depends on the order in which states were met, so what is kept equals what would be computed anew.
``decide`` goes over all rows and says what is right; ``book.Book`` finds the same with few rows looked at.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fallow_bidding.domain.engine.inventory import Bools, Choice, Floats, Integers, Inventory
from fallow_bidding.domain.engine.mix import Mix, Snapshot
from fallow_bidding.domain.engine.needs import Need
from fallow_bidding.domain.engine.policies import Policy
from fallow_bidding.domain.engine.states import StateTable
from fallow_bidding.domain.supply import WHOLE_DEVICE_MILLI

NOT_FOR_SALE: Final = -1
"""The ask of a row that is not sold for what the order pays in, or not at all."""
COST_STEPS: Final = 1_000
"""Steps of a cost in one milli-GPU."""
PRICE_EVERY: Final = 16
"""Arrivals between two looks at what slots are worth, at least."""
ROWS_AN_ARRIVAL: Final = 100
"""In a market of more rows than 16 times this, a look, which costs as much as there are states, is as much rarer."""
RELEASES_MAX: Final = 1 << 16
"""Rows that are remembered as having got something back; with more, all count as such."""
STATES_MAX: Final = 1 << 16
"""States that are kept before those that no row is in are forgotten."""


@dataclass(slots=True)
class _Column:
    """Verdicts of one need by state: NaN where none was made, infinite where there is no room."""

    cost: Floats
    position: NDArray[np.int16]
    lost: NDArray[np.int16]
    allowed: Bools


class Engine:
    """An inventory, what was learned of the mix, and a policy."""

    def __init__(self, inventory: Inventory, policy: Policy, given: Snapshot | None = None) -> None:
        """With ``given`` the mix is taken as it is and arrivals teach nothing."""
        self.inventory = inventory
        self.policy = policy
        self.mix = Mix()
        self.table = StateTable(inventory)
        self._columns: dict[Need, _Column] = {}
        self._is_given = given is not None
        self._slot_prices = np.zeros((len(inventory.kinds), 0))
        self._has_prices = False
        self._price_every = max(PRICE_EVERY, inventory.rows // ROWS_AN_ARRIVAL)
        self._priced_at = -self._price_every
        self._rows = np.arange(inventory.rows)
        self.releases: list[int] = []
        self.releases_forgotten = 0
        self._first_row = np.searchsorted(inventory.node, np.arange(len(inventory.nodes) + 1))
        self.reputation_milli = np.array([one.reputation_milli for one in inventory.suppliers], np.int64)
        if given is not None:
            self.learn(given)

    @property
    def slot_prices(self) -> Floats:
        """What slots cost by kind and class, as decisions count it now."""
        return self._slot_prices

    def arrive(self, need: Need) -> None:
        """Count a need that has come, whether or not it will be placed."""
        if self._is_given:
            self.mix.arrivals += 1
        elif self.mix.add(need):
            self.learn(self.mix.snapshot)
        if self.mix.arrivals >= self._priced_at + self._price_every:
            self._price_now()

    def learn(self, snapshot: Snapshot) -> None:
        """Take a mix; all verdicts are made anew."""
        self.mix.learn(snapshot)
        self.policy.learn(self.mix.snapshot, self.inventory.kinds, self.inventory.free_milli.shape[1])
        self._forget()
        self._price_now()

    def price(self, slot_prices: Floats) -> None:
        """Count slots at these prices, in steps of cost, from now on."""
        self._slot_prices = np.rint(slot_prices)
        self._has_prices = bool(self._slot_prices.any())
        self._priced_at = self.mix.arrivals

    def decide(self, need: Need, asks: Integers | None = None, eligible: Bools | None = None) -> Choice | None:
        """The best place for one replica, or None. ``asks`` is the price by row, ``eligible`` masks rows."""
        rows = self._rows if eligible is None else np.flatnonzero(eligible)
        return self.choose(need, rows, None if asks is None else asks[rows])

    def choose(self, need: Need, rows: Integers, asks: Integers | None = None) -> Choice | None:
        """The best place on some rows, which are in falling age, or None; ``asks`` is the price by these rows."""
        if len(rows) == 1 and (asks is None or asks[0] != NOT_FOR_SALE) and self._is_plain(need, int(rows[0])):
            return self._choice(need, int(rows[0]), 0) if self.has_room(need, rows)[0] else None
        numbers = self.table.row_state[rows]
        column = self._column(need, numbers)
        cost = column.cost[numbers]
        if self._has_prices:
            cost = cost + (column.lost[numbers] * self._slot_prices[self.inventory.kind[rows]]).sum(axis=1)
        if not need.gpu_count:
            cost = np.where(self.inventory.first[rows], cost, np.inf)
        if need.storage:
            cost = np.where(self.inventory.has_storage(need, rows), cost, np.inf)
        if asks is not None:
            cost = np.where(self._best_provider(rows, asks, np.isfinite(cost)), cost, np.inf)
        least = cost.min(initial=np.inf)
        if not np.isfinite(least):
            return None
        row = self.policy.draw(self.mix.arrivals, rows[cost == least])
        return self._choice(need, row, int(column.position[self.table.row_state[row]]))

    def has_room(self, need: Need, rows: Integers) -> Bools:
        """Which of some rows could take a replica now."""
        fits = self.table.states(self.table.row_state[rows]).fits(need, self.allowed(need))
        if not need.gpu_count:
            fits &= self.inventory.first[rows]
        return fits & self.inventory.has_storage(need, rows) if need.storage else fits

    def decide_group(
        self, needs: Sequence[Need], rows: Sequence[Integers], asks: Sequence[Integers]
    ) -> tuple[Choice, ...] | None:
        """Places for all replicas of a group, or None if they do not all fit; each has rows, with their prices.

        The largest are placed first; the choices are in the order of ``needs``. Nothing is taken.
        """
        choices: dict[int, Choice] = {}
        by_size = sorted(range(len(needs)), key=lambda at: (-needs[at].total_milli, -needs[at].memory_bytes, at))
        for at in by_size:
            choice = self.choose(needs[at], rows[at], asks[at])
            if choice is None:
                break
            self.take(needs[at], choice)
            choices[at] = choice
        for at, choice in choices.items():
            self.give_back(needs[at], choice)
        return tuple(choices[at] for at in range(len(needs))) if len(choices) == len(needs) else None

    def allowed(self, need: Need) -> Bools:
        """By kind, whether its devices would do."""
        column = self._columns.get(need)
        if column is None:
            allowed = np.array([need.allows(kind) for kind in self.inventory.kinds], np.bool_)
            lost = np.empty((0, self.policy.classes), np.int16)
            column = self._columns[need] = _Column(np.empty(0), np.empty(0, np.int16), lost, allowed)
        return column.allowed

    def take(self, need: Need, choice: Choice) -> None:
        """Make a decision stand."""
        self.inventory.take(need, choice)
        self._update(choice.row)

    def give_back(self, need: Need, choice: Choice) -> None:
        """Undo what ``take`` did."""
        self.inventory.give_back(need, choice)
        self._update(choice.row)
        self._release(int(self.inventory.node[choice.row]))

    def restate(
        self, row: int, cpu_milli: int, memory_bytes: int, storage_bytes: Mapping[str, int], free_milli: Sequence[int]
    ) -> None:
        """Say anew what is free of a row and its node; all rows of a node must be restated."""
        inventory, node = self.inventory, self.inventory.node[row]
        inventory.cpu_milli[node], inventory.memory_bytes[node] = cpu_milli, memory_bytes
        inventory.storage_bytes[node] = [storage_bytes.get(name, 0) for name in inventory.classes]
        inventory.free_milli[row, : len(free_milli)] = free_milli
        self._update(int(row))
        self._release(int(node))

    def _price_now(self) -> None:
        """Ask the policy what slots are worth."""
        self.price(self.policy.prices(self.inventory, self.table) * COST_STEPS)

    def _update(self, row_changed: int) -> None:
        """Look anew at the pools of a node of which something changed."""
        node = int(self.inventory.node[row_changed])
        for row in range(int(self._first_row[node]), int(self._first_row[node + 1])):
            self.table.update(row)
        if self.table.count > max(STATES_MAX, 4 * self.inventory.rows):
            self._forget()

    def _forget(self) -> None:
        """Drop all verdicts and the states that no row is in."""
        self.table.rebuild()
        self._columns.clear()

    def _release(self, node: int) -> None:
        """Remember that the rows of a node got something back."""
        if len(self.releases) >= RELEASES_MAX:
            self.releases_forgotten += len(self.releases)
            self.releases.clear()
        self.releases += range(int(self._first_row[node]), int(self._first_row[node + 1]))

    def _is_plain(self, need: Need, row: int) -> bool:
        """Whether a row has no two different places for a need, so that none must be judged."""
        if need.is_whole or not need.gpu_count:
            return True
        return len({free for free in self.inventory.free_milli[row].tolist() if free >= need.gpu_milli}) == 1

    def _best_provider(self, rows: Integers, asks: Integers, fitting: Bools) -> Bools:
        """Of some rows those of the cheapest provider that fits: then the best reputation, the greatest age, the id."""
        fitting = fitting & (asks != NOT_FOR_SALE)
        if not fitting.any():
            return fitting
        best: Bools = fitting & (asks == asks[fitting].min())
        provider = self.inventory.provider[rows]
        reputation = self.reputation_milli[provider]
        best &= reputation == reputation[best].max()
        best &= provider == provider[best][0]
        return best

    def _column(self, need: Need, numbers: Integers) -> _Column:
        """The verdicts of a need, complete for some states."""
        self.allowed(need)
        column = self._columns[need]
        missing = self.table.capacity - len(column.cost)
        if missing:
            column.cost = np.concatenate((column.cost, np.full(missing, np.nan)))
            column.position = np.concatenate((column.position, np.zeros(missing, np.int16)))
            column.lost = np.concatenate((column.lost, np.zeros((missing, column.lost.shape[1]), np.int16)))
        unknown = np.isnan(column.cost[numbers])
        if unknown.any():
            self._judge(need, column, np.unique(numbers[unknown]))
        return column

    def _judge(self, need: Need, column: _Column, numbers: Integers) -> None:
        """Make the verdicts of some states."""
        states = self.table.states(numbers)
        fits = states.fits(need, column.allowed)
        column.cost[numbers] = np.inf
        if fits.any():
            verdict = self.policy.judge(need, states.pick(fits))
            # Whole numbers: sums of floats in another order would differ in their last digits.
            column.cost[numbers[fits]] = np.rint(verdict.cost * COST_STEPS)
            column.position[numbers[fits]] = verdict.position
            column.lost[numbers[fits]] = verdict.lost

    def _choice(self, need: Need, row: int, position: int) -> Choice:
        """The devices of a row: untouched ones for whole devices, or the first one as free as the state says."""
        free = self.inventory.free_milli[row]
        if not need.gpu_count:
            return Choice(row)
        if need.is_whole:
            return Choice(row, tuple(np.flatnonzero(free == WHOLE_DEVICE_MILLI)[: need.gpu_count].tolist()))
        return Choice(row, (int(np.argmax(free == -np.sort(-free)[position])),))
