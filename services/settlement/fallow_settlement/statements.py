"""Statements: what an account had at both ends of a month, and each posted transfer that moved it in between.

An account's money in an asset has four parts, which are sums of ledger accounts: free, held in escrows of its orders,
earned, and owed (withdrawn, and not claimed on the chain yet). In each part, opening plus movements is closing, exactly.
"""

from dataclasses import dataclass, field
from datetime import MAXYEAR, UTC, datetime

from fallow_chassis.errors import invalid_field
from fallow_chassis.paging import TimePlace
from fallow_chassis.postgres import Database
from fallow_settlement.domain.ledger import AccountKind, TransferReason
from fallow_settlement.ledger_store import QUERIES

DECEMBER = 12


@dataclass(frozen=True, slots=True)
class Parts:
    """Micros of one asset; of a movement, what it changed."""

    asset: str
    free: int = 0
    held: int = 0
    earned: int = 0
    owed: int = 0


@dataclass(frozen=True, slots=True)
class Movement:
    """A transfer as its account sees it."""

    transfer_id: str
    time: datetime
    reason: TransferReason
    subject: str
    change: Parts


@dataclass(frozen=True, slots=True)
class Statement:
    """A month, or a page of it: ``opening`` and ``closing`` by asset, movements oldest first."""

    opening: tuple[Parts, ...] = ()
    closing: tuple[Parts, ...] = ()
    movements: list[Movement] = field(default_factory=list)


class Statements:
    """The reads."""

    def __init__(self, database: Database) -> None:
        """Take the database."""
        self._database = database

    async def of(self, account: str, month: str, after: TimePlace | None, limit: int) -> Statement:
        """An account's statement of ``month`` (such as 2026-11, in UTC); movements from after a place."""
        start, end = _bounds(month)
        time, identifier = (None, "") if after is None else after
        async with self._database.read() as connection:
            sums = await connection.fetch(QUERIES.get("load_statement_sums"), account, start, end)
            rows = await connection.fetch(
                QUERIES.get("list_statement_movements"), account, start, end, time, identifier, limit
            )
        return Statement(
            opening=_parts([(row["asset"], row["kind"], row["opening"]) for row in sums]),
            closing=_parts([(row["asset"], row["kind"], row["closing"]) for row in sums]),
            movements=[
                Movement(
                    transfer_id=row["id"],
                    time=row["create_time"],
                    reason=TransferReason(row["reason"]),
                    subject=row["subject"],
                    change=Parts(row["asset"], row["free"], row["held"], row["earned"], row["owed"]),
                )
                for row in rows
            ],
        )


def _bounds(month: str) -> tuple[datetime, datetime]:
    """The first instants of a month and of the one after it."""
    year, number = (int(part) for part in month.split("-"))
    if not 1 <= number <= DECEMBER or year < 1:
        raise invalid_field("name", f"{month} is no month; write it as 2026-11")
    following = (year + 1, 1) if number == DECEMBER else (year, number + 1)
    if following[0] > MAXYEAR:
        raise invalid_field("name", f"{month} is too far away")
    return datetime(year, number, 1, tzinfo=UTC), datetime(*following, 1, tzinfo=UTC)


def _parts(sums: list[tuple[str, str, int]]) -> tuple[Parts, ...]:
    """Sums by asset and kind of ledger account as parts, in the order of assets."""
    found = {(asset, AccountKind(kind)): amount for asset, kind, amount in sums}
    return tuple(
        Parts(
            asset,
            free=found.get((asset, AccountKind.BALANCE), 0),
            held=found.get((asset, AccountKind.ESCROW), 0),
            earned=found.get((asset, AccountKind.EARNINGS), 0),
            owed=found.get((asset, AccountKind.PAYABLE), 0),
        )
        for asset in sorted({asset for asset, _ in found})
    )
