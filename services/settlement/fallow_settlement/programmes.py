"""Incentive programmes as they are done: started, paid day by day, ended.

A day of a programme is paid in one transaction, under the programme's own lock: its shares, their transfers and the next day stand or
fall together, so a kill at any moment leaves the day paid or not, and two processes pay it once. The ledger keeps the budget in an
account of the programme's own, which can never be overdrawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from google.protobuf.message import Message

from fallow_chassis.errors import DomainError, invalid_field
from fallow_chassis.idempotency import claim
from fallow_chassis.paging import TimePlace
from fallow_chassis.postgres import Connection, Database, UnitOfWork
from fallow_settlement import programme_store
from fallow_settlement.domain import moves
from fallow_settlement.domain.escrow import check_amount
from fallow_settlement.domain.ledger import AccountKind, account_id
from fallow_settlement.domain.programme import Programme, Share, shares
from fallow_settlement.domain.reasons import POOL_TOO_SMALL, PROGRAMME_NOT_FOUND
from fallow_settlement.domain.rules import Rules
from fallow_settlement.ledger_store import MAX_TRANSFERS, lock_accounts, must_post

CREATE_METHOD: Final = "fallow.settlement.v1.ProgrammeService/CreateProgramme"
LONGEST: Final = timedelta(days=731)
"""How far ahead a programme or a promotion may end."""
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Wish:
    """A programme as an operator asks for it; ``auditors`` are in lower case."""

    model: str
    asset: str
    target_milli: int
    reference_micros_per_hour: int
    budget: int
    auditors: tuple[str, ...]
    end_time: datetime


class Programmes:
    """The use-cases."""

    def __init__(self, database: Database, rules: Rules) -> None:
        """Take where programmes stand, and the assets that are taken."""
        self._database = database
        self._rules = rules

    async def create(self, wish: Wish, creator: str, *, request_id: str, request: Message) -> Programme:
        """Start a programme with its budget out of the pool; a repeat answers the programme of the first call."""
        self._rules.check_asset(wish.asset, "programme.budget.asset")
        check_amount(wish.budget, "programme.budget.micros")
        check_amount(wish.reference_micros_per_hour, "programme.reference_price.micros_per_hour")
        async with self._database.transaction() as unit:
            identifier = unit.ids.new()
            taken = await claim(
                unit,
                caller=f"accounts/{creator}",
                method=CREATE_METHOD,
                request_id=request_id,
                request=request,
                resource=f"programmes/{identifier}",
            )
            if not taken.first:
                return await _loaded(unit.connection, taken.resource.removeprefix("programmes/"))
            now = unit.clock.now()
            if not now < wish.end_time <= now + LONGEST:
                raise invalid_field("programme.end_time", "must be after now, and within two years")
            programme = Programme(
                id=identifier,
                model=wish.model,
                asset=wish.asset,
                target_milli=wish.target_milli,
                reference_micros_per_hour=wish.reference_micros_per_hour,
                budget=wish.budget,
                auditors=wish.auditors,
                creator=creator,
                create_time=now,
                end_time=wish.end_time,
                next_day=now.date(),
            )
            await check_pool(unit, programme.asset, programme.budget)
            await programme_store.insert_programme(unit.connection, programme)
            move = moves.programme_funded(programme)
            await must_post(unit.connection, move.accounts, move.transfers, now)
            return programme

    async def end(self, programme_id: str) -> Programme:
        """Let a programme count nothing from now on; it is paid and closed as soon as this day is settled."""
        async with self._database.transaction() as unit:
            await _loaded(unit.connection, programme_id, lock=True)
            await programme_store.end_programme(unit.connection, programme_id, unit.clock.now())
            return await _loaded(unit.connection, programme_id)

    async def get(self, programme_id: str) -> Programme:
        """A programme; PROGRAMME_NOT_FOUND for none."""
        async with self._database.read() as connection:
            return await _loaded(connection, programme_id)

    async def list_all(self, before: TimePlace | None, limit: int) -> list[Programme]:
        """Programmes, newest first."""
        async with self._database.read() as connection:
            return await programme_store.list_programmes(connection, before, limit)

    async def report(
        self, programme_id: str, before: tuple[date, str] | None, limit: int
    ) -> tuple[Programme, list[Share]]:
        """A programme and what it counted and paid, newest day first."""
        async with self._database.read() as connection:
            programme = await _loaded(connection, programme_id)
            return programme, await programme_store.list_shares(connection, programme_id, before, limit)

    async def pay_due(self) -> int:
        """Pay every day of every programme that is settled; returns how many days."""
        async with self._database.read() as connection:
            running = await programme_store.list_running(connection)
        paid = 0
        for programme_id in running:
            while await self._pay_day(programme_id):
                paid += 1
        return paid

    async def _pay_day(self, programme_id: str) -> bool:
        """Pay the next day of a programme, and close it after its last one; False where the day is not settled yet."""
        async with self._database.transaction() as unit:
            programme = await _loaded(unit.connection, programme_id, lock=True)
            now = unit.clock.now()
            if not programme.is_due(now):
                return False
            until = programme.counted_until(programme.next_day)
            paid = shares(programme, await programme_store.load_sums(unit.connection, programme, until))
            await programme_store.insert_shares(unit.connection, programme_id, paid)
            await self._post(unit, programme, paid)
            closes = programme.is_last_day
            await programme_store.save_programme(
                unit.connection, programme_id, programme.next_day + _DAY, now if closes else None
            )
            if closes:
                after = await _loaded(unit.connection, programme_id)
                move = moves.programme_closed(after)
                if after.left:
                    await must_post(unit.connection, move.accounts, move.transfers, now)
            return True

    async def _post(self, unit: UnitOfWork, programme: Programme, paid: Sequence[Share]) -> None:
        """Make the transfers of a day."""
        for start in range(0, len(paid), MAX_TRANSFERS):
            move = moves.programme_paid(programme, paid[start : start + MAX_TRANSFERS])
            await must_post(unit.connection, move.accounts, move.transfers, unit.clock.now())


async def check_pool(unit: UnitOfWork, asset: str, amount: int) -> None:
    """Hold the community pool; POOL_TOO_SMALL where it does not have so much."""
    pool = account_id(AccountKind.POOL, "", asset)
    locked = await lock_accounts(unit.connection, [pool])
    held = locked[pool].available if pool in locked else 0
    if amount > held:
        raise DomainError(
            POOL_TOO_SMALL,
            f"the community pool holds {held} micros of {asset}, not {amount}",
            metadata={"asset": asset, "held_micros": str(held), "wanted_micros": str(amount)},
        )


async def _loaded(connection: Connection, programme_id: str, *, lock: bool = False) -> Programme:
    """A programme that must be there."""
    programme = await programme_store.load_programme(connection, programme_id, lock=lock)
    if programme is None:
        raise DomainError(PROGRAMME_NOT_FOUND, "there is no such programme", metadata={"programme": programme_id})
    return programme
