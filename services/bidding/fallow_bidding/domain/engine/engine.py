"""Where one replica goes. Constraints mask rows; price and reputation choose the provider; the policy its nodes.

``decide`` looks and changes nothing; ``take`` makes a decision stand. Verdicts are kept by (need, state), so that most
of a decision is one look into a column: rows that share a state share its verdict. They are dropped when the mix has
changed. Nothing depends on the order in which states were met, so what is kept equals what would be computed anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

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
"""Arrivals between two looks at what slots are worth."""
STATES_MAX: Final = 1 << 16
"""States that are kept before those that no row is in are forgotten."""


@dataclass(slots=True)
class _Column:
    """Verdicts of one need by state: NaN where none was made, infinite where there is no room."""

    cost: Floats
    position: Integers
    lost: Integers
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
        self._row_prices = np.zeros((inventory.rows, 0))
        self._priced_at = -PRICE_EVERY
        self._first_row = np.searchsorted(inventory.node, np.arange(len(inventory.nodes) + 1))
        self._reputation = np.array([one.reputation_milli for one in inventory.suppliers], np.int64)
        if given is not None:
            self.learn(given)

    @property
    def slot_prices(self) -> Floats:
        """What slots cost by kind and class, as decisions count it now."""
        return self._slot_prices

    def arrive(self, need: Need) -> None:
        """Count a need that has come, whether or not it will be placed."""
        if self.mix.add(need) and not self._is_given:
            self.learn(self.mix.snapshot)
        if self.mix.arrivals >= self._priced_at + PRICE_EVERY:
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
        self._row_prices = self._slot_prices[self.inventory.kind]
        self._priced_at = self.mix.arrivals

    def decide(self, need: Need, asks: Integers | None = None, eligible: Bools | None = None) -> Choice | None:
        """The best place for one replica, or None. ``asks`` is the price by row, ``eligible`` masks rows."""
        column, row_state = self._column(need), self.table.row_state
        cost = column.cost[row_state]
        if self._row_prices.any():
            cost = cost + (column.lost[row_state] * self._row_prices).sum(axis=1)
        if not need.gpu_count:
            cost = np.where(self.inventory.first, cost, np.inf)
        if need.storage:
            cost = np.where(self.inventory.has_storage(need), cost, np.inf)
        if eligible is not None:
            cost = np.where(eligible, cost, np.inf)
        if asks is not None:
            cost = np.where(self._best_provider(asks, np.isfinite(cost)), cost, np.inf)
        least = cost.min(initial=np.inf)
        if not np.isfinite(least):
            return None
        row = self.policy.draw(self.mix.arrivals, np.flatnonzero(cost == least))
        return self._choice(need, row, int(column.position[row_state[row]]))

    def decide_group(self, needs: Sequence[Need], provider: int) -> tuple[Choice, ...] | None:
        """Places for all replicas of a group on the nodes of one provider, or None if they do not all fit.

        The largest are placed first; the choices are in the order of ``needs``. Nothing is taken.
        """
        eligible = self.inventory.provider == provider
        choices: dict[int, Choice] = {}
        by_size = sorted(range(len(needs)), key=lambda at: (-needs[at].total_milli, -needs[at].memory_bytes, at))
        for at in by_size:
            choice = self.decide(needs[at], eligible=eligible)
            if choice is None:
                break
            self.take(needs[at], choice)
            choices[at] = choice
        for at, choice in choices.items():
            self.give_back(needs[at], choice)
        return tuple(choices[at] for at in range(len(needs))) if len(choices) == len(needs) else None

    def take(self, need: Need, choice: Choice) -> None:
        """Make a decision stand."""
        self.inventory.take(need, choice)
        self._update(choice)

    def give_back(self, need: Need, choice: Choice) -> None:
        """Undo what ``take`` did."""
        self.inventory.give_back(need, choice)
        self._update(choice)

    def _price_now(self) -> None:
        """Ask the policy what slots are worth."""
        self.price(self.policy.prices(self.inventory, self.table) * COST_STEPS)

    def _update(self, choice: Choice) -> None:
        """Look anew at the pools of a node of which something changed."""
        node = int(self.inventory.node[choice.row])
        for row in range(int(self._first_row[node]), int(self._first_row[node + 1])):
            self.table.update(row)
        if self.table.count > max(STATES_MAX, 4 * self.inventory.rows):
            self._forget()

    def _forget(self) -> None:
        """Drop all verdicts and the states that no row is in."""
        self.table.rebuild()
        self._columns.clear()

    def _best_provider(self, asks: Integers, fitting: Bools) -> Bools:
        """The rows of the cheapest provider among fitting rows: then the best reputation, the greatest age, the id."""
        provider = self.inventory.provider
        rows = np.flatnonzero(fitting & (asks != NOT_FOR_SALE))
        best = np.zeros(len(fitting), np.bool_)
        if len(rows):
            rows = rows[asks[rows] == asks[rows].min()]
            reputation = self._reputation[provider[rows]]
            rows = rows[reputation == reputation.max()]
            best[rows[provider[rows] == provider[rows[0]]]] = True
        return best

    def _column(self, need: Need) -> _Column:
        """The verdicts of a need, complete for all states that rows are in."""
        table, column = self.table, self._columns.get(need)
        if column is None:
            allowed = np.array([need.allows(kind) for kind in self.inventory.kinds], np.bool_)
            column = _Column(np.empty(0), np.empty(0, np.int64), np.empty((0, self.policy.classes), np.int64), allowed)
            self._columns[need] = column
        missing = table.capacity - len(column.cost)
        if missing:
            column.cost = np.concatenate((column.cost, np.full(missing, np.nan)))
            column.position = np.concatenate((column.position, np.zeros(missing, np.int64)))
            column.lost = np.concatenate((column.lost, np.zeros((missing, column.lost.shape[1]), np.int64)))
        unknown = np.isnan(column.cost[table.row_state])
        if unknown.any():
            self._judge(need, column, np.unique(table.row_state[unknown]))
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
