"""Promotional fees as they are done: an account's leases of a time get a take of their own, fixed when each is made."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from google.protobuf.message import Message

from fallow_chassis.errors import DomainError, invalid_field
from fallow_chassis.idempotency import claim
from fallow_chassis.paging import TimePlace
from fallow_chassis.postgres import Connection, Database
from fallow_settlement import programme_store
from fallow_settlement.domain.charging import Rates
from fallow_settlement.domain.promotion import Promotion
from fallow_settlement.domain.reasons import PROMOTION_NOT_FOUND
from fallow_settlement.domain.rules import Rules
from fallow_settlement.programmes import LONGEST

CREATE_METHOD: Final = "fallow.settlement.v1.ProgrammeService/CreatePromotion"


@dataclass(frozen=True, slots=True)
class Wish:
    """A promotion as an operator asks for it; without ``start_time`` it begins now."""

    account_id: str
    asset: str
    take_basis_points: int
    start_time: datetime | None
    end_time: datetime
    reason: str


class Promotions:
    """The use-cases."""

    def __init__(self, database: Database, rules: Rules) -> None:
        """Take where promotions stand, and the assets that are taken."""
        self._database = database
        self._rules = rules

    async def create(self, wish: Wish, creator: str, *, request_id: str, request: Message) -> Promotion:
        """Make a promotion; a repeat answers the promotion of the first call."""
        self._rules.check_asset(wish.asset, "promotion.asset")
        async with self._database.transaction() as unit:
            identifier = unit.ids.new()
            taken = await claim(
                unit,
                caller=f"accounts/{creator}",
                method=CREATE_METHOD,
                request_id=request_id,
                request=request,
                resource=f"promotions/{identifier}",
            )
            if not taken.first:
                return await _loaded(unit.connection, taken.resource.removeprefix("promotions/"))
            now = unit.clock.now()
            # What is past is charged already: a promotion never begins before it was made.
            start_time = max(now, wish.start_time or now)
            if not start_time < wish.end_time <= now + LONGEST:
                raise invalid_field("promotion.end_time", "must be after the start, and within two years")
            promotion = Promotion(
                id=identifier,
                account_id=wish.account_id,
                asset=wish.asset,
                take_basis_points=wish.take_basis_points,
                start_time=start_time,
                end_time=wish.end_time,
                reason=wish.reason,
                creator=creator,
                create_time=now,
            )
            await programme_store.insert_promotion(unit.connection, promotion)
            return promotion

    async def end(self, promotion_id: str) -> Promotion:
        """End a promotion for leases that are made from now on."""
        async with self._database.transaction() as unit:
            await programme_store.end_promotion(unit.connection, promotion_id, unit.clock.now())
            return await _loaded(unit.connection, promotion_id)

    async def list_of(self, account_id: str, before: TimePlace | None, limit: int) -> list[Promotion]:
        """Promotions, newest first; ``account_id`` filters, empty lists all."""
        async with self._database.read() as connection:
            return await programme_store.list_promotions(connection, account_id, before, limit)


async def promoted(connection: Connection, rates: Rates, accounts: set[str], asset: str, instant: datetime) -> Rates:
    """The rates of a lease that is made at an instant for some accounts: the least take that holds."""
    take = await programme_store.load_promoted_take(connection, accounts, asset, instant)
    return rates if take is None else replace(rates, take=min(rates.take, take))


async def _loaded(connection: Connection, promotion_id: str) -> Promotion:
    """A promotion that must be there."""
    promotion = await programme_store.load_promotion(connection, promotion_id)
    if promotion is None:
        raise DomainError(PROMOTION_NOT_FOUND, "there is no such promotion", metadata={"promotion": promotion_id})
    return promotion
