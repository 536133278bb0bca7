"""Opening escrows: many at a time in one transaction, each with an outcome of its own.

OpenEscrow is idempotent by the order: the row keeps what opened it, so a repeat with the same input answers the escrow
as it is now, and other input is refused. Checks run in this order: asset, amount, tombstone or release, other input,
funds. Funds go to who asked first: a group is decided in its order, and one that is refused leaves the others as they
are. A repeat inside one group sees what the first of it left.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fallow_chassis.errors import REQUEST_ID_REUSED, DomainError
from fallow_chassis.postgres import Database, UnitOfWork
from fallow_settlement import escrow_store
from fallow_settlement.domain import escrow as escrows
from fallow_settlement.domain.escrow import Escrow, EscrowState
from fallow_settlement.domain.reasons import ESCROW_RELEASED
from fallow_settlement.domain.rules import Rules
from fallow_settlement.escrow_store import Opened
from fallow_settlement.holding import Hold, hold_many


@dataclass(frozen=True, slots=True)
class Opening:
    """What opens an escrow; ids without their collections, sums in micros."""

    order_id: str
    account_id: str
    asset: str
    amount: int
    budget: int
    auto_top_up: bool

    def as_row(self) -> dict[str, str | int | bool]:
        """What the row keeps, to recognise a repeat."""
        return {
            "account_id": self.account_id,
            "asset": self.asset,
            "amount": self.amount,
            "budget": self.budget,
            "auto_top_up": self.auto_top_up,
        }


class EscrowOpening:
    """The use-case of opening escrows."""

    def __init__(self, database: Database, rules: Rules) -> None:
        """Take where escrows stand and what this installation decides about money."""
        self._database = database
        self._rules = rules

    async def open_escrows(self, openings: Sequence[Opening]) -> list[Escrow | Exception]:
        """Hold funds for orders, in one transaction; the escrow or the refusal of each."""
        outcomes: list[Escrow | Exception | None] = [self._refusal(opening) for opening in openings]
        async with self._database.transaction() as unit:
            await escrow_store.lock_names(unit.connection, {opening.order_id for opening in openings})
            while places := [place for place, outcome in enumerate(outcomes) if outcome is None]:
                # The first of each order; what repeats one of them comes in the next turn and finds it.
                firsts = {openings[place].order_id: place for place in reversed(places)}
                turn = {order_id: openings[place] for order_id, place in sorted(firsts.items(), key=lambda one: one[1])}
                for order_id, outcome in (await _open_turn(unit, turn)).items():
                    outcomes[firsts[order_id]] = outcome
        return [outcome for outcome in outcomes if outcome is not None]

    def _refusal(self, opening: Opening) -> DomainError | None:
        """Why an opening is refused whatever is stored, or None."""
        try:
            self._rules.check_asset(opening.asset, "amount.asset")
            escrows.check_amount(opening.amount, "amount.micros")
        except DomainError as error:
            return error
        return None


async def _open_turn(unit: UnitOfWork, turn: Mapping[str, Opening]) -> dict[str, Escrow | DomainError]:
    """The outcomes of openings of different orders, by order; decided in the order of the mapping."""
    existing = await escrow_store.load_opened(unit.connection, turn.keys())
    outcomes: dict[str, Escrow | DomainError] = {
        order_id: _repeated(found, turn[order_id]) for order_id, found in existing.items()
    }
    now = unit.clock.now()
    new = [
        escrows.opened(
            opening.order_id,
            opening.account_id,
            opening.asset,
            opening.amount,
            budget=opening.budget,
            auto_top_up=opening.auto_top_up,
            now=now,
        )
        for order_id, opening in turn.items()
        if order_id not in existing
    ]
    refusals = await hold_many(unit, [Hold(escrow, escrow.deposited, "open") for escrow in new])
    opened: list[Opened] = []
    for escrow, refusal in zip(new, refusals, strict=True):
        if refusal is not None:
            outcomes[escrow.order_id] = refusal
            continue
        opened.append(Opened(escrow, turn[escrow.order_id].as_row()))
        outcomes[escrow.order_id] = escrow
    await escrow_store.insert_escrows(unit.connection, opened)
    return outcomes


def _repeated(found: Opened, opening: Opening) -> Escrow | DomainError:
    """Answer an opening of an escrow that exists."""
    name = f"escrows/{opening.order_id}"
    if found.escrow.state is EscrowState.TOMBSTONE:
        return DomainError(ESCROW_RELEASED, "the escrow was released before it was opened", metadata={"name": name})
    if found.opening != opening.as_row():
        return DomainError(
            REQUEST_ID_REUSED, "the escrow of this order was opened with other input", metadata={"resource": name}
        )
    if found.escrow.state is EscrowState.CLOSED:
        return DomainError(ESCROW_RELEASED, "the escrow was closed", metadata={"name": name})
    return found.escrow
