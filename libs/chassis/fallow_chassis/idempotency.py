"""One request, one effect: a repeat of a call finds what the first one made.

A caller sends a ``request_id`` of its own choice with every write that moves money or allocates a device. The claim is
a row in the command's own transaction, by caller, method and id, with a hash of the input. Two calls with one id that
run at once wait for each other at the row: the second sees the first's outcome, or, if that rolled back, is the first.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import asyncpg
from google.protobuf.message import Message

from fallow_chassis.errors import REQUEST_ID_REUSED, DomainError, FieldViolation, invalid_field
from fallow_chassis.postgres import Database, UnitOfWork
from fallow_chassis.sql import Queries
from fallow_chassis.wire import request_hash

MAX_REQUEST_ID_CHARACTERS: Final = 128
KEEP_CLAIMS: Final = timedelta(days=30)
"""How long a repeat is recognised."""
DELETE_BATCH_ROWS: Final = 5_000

_CLAIM_ATTEMPTS: Final = 3
_QUERIES: Final = Queries.load("fallow_chassis")


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request id stands for: the resource of the first call, and whether that call is this one."""

    resource: str
    first: bool


@dataclass(frozen=True, slots=True)
class ClaimWish:
    """A claim that a call wants: its caller, method and request id, the hash of its input, what it is about to make."""

    caller: str
    method: str
    request_id: str
    digest: bytes
    resource: str

    @classmethod
    def of(cls, *, caller: str, method: str, request_id: str, request: Message, resource: str) -> "ClaimWish":
        """The wish of a call; INVALID_FIELD for an empty or overlong id."""
        if not request_id:
            raise invalid_field("request_id", "must be set: repeat it to repeat the call safely")
        if len(request_id) > MAX_REQUEST_ID_CHARACTERS:
            raise invalid_field("request_id", f"must have at most {MAX_REQUEST_ID_CHARACTERS} characters")
        return cls(caller, method, request_id, request_hash(request), resource)

    @property
    def key(self) -> tuple[str, str, str]:
        """What is claimed."""
        return self.caller, self.method, self.request_id


async def claim(
    unit: UnitOfWork, *, caller: str, method: str, request_id: str, request: Message, resource: str
) -> Claim:
    """Claim a request id for this call, or learn what the call that had it before made.

    ``resource`` is the name of what this call is about to make; ``method`` is ``package.Service/Method``. Raises
    INVALID_FIELD for an empty or overlong id, REQUEST_ID_REUSED if the id came with other input before. The claim
    stands if, and only if, the transaction commits.
    """
    wish = ClaimWish.of(caller=caller, method=method, request_id=request_id, request=request, resource=resource)
    (outcome,) = await claim_many(unit, [wish])
    if isinstance(outcome, DomainError):
        raise outcome
    return outcome


async def claim_many(unit: UnitOfWork, wishes: Sequence[ClaimWish]) -> list[Claim | DomainError]:
    """Claim many request ids at once; one claim, or REQUEST_ID_REUSED, for each. Of two equal ids the earlier is first."""
    outcomes: list[Claim | DomainError | None] = [None] * len(wishes)
    for _ in range(_CLAIM_ATTEMPTS):
        open_places = [place for place, outcome in enumerate(outcomes) if outcome is None]
        if not open_places:
            break
        # The earliest of equal ids goes first; the others look at what it left.
        firsts = {wishes[place].key: place for place in reversed(open_places)}
        mine = await _insert_claims(unit, [wishes[place] for place in sorted(firsts.values())])
        for key in mine:
            outcomes[firsts[key]] = Claim(wishes[firsts[key]].resource, first=True)
        others = [place for place in open_places if outcomes[place] is None]
        if others:
            # A row that went away between the two statements (it was old and was swept) leaves the id free again.
            found = await _load_claims(unit, {wishes[place].key for place in others})
            for place in others:
                if (row := found.get(wishes[place].key)) is not None:
                    outcomes[place] = _repeated(wishes[place], row)
    known = [outcome for outcome in outcomes if outcome is not None]
    assert len(known) == len(wishes), "a claim that is neither inserted nor there"
    return known


async def _insert_claims(unit: UnitOfWork, wishes: Sequence[ClaimWish]) -> list[tuple[str, str, str]]:
    """Insert claims that nobody has, in one order for all, so that two groups never wait for each other."""
    rows = await unit.connection.fetch(
        _QUERIES.get("insert_claims"),
        [wish.caller for wish in wishes],
        [wish.method for wish in wishes],
        [wish.request_id for wish in wishes],
        [wish.digest for wish in wishes],
        [wish.resource for wish in wishes],
        unit.clock.now(),
    )
    return [(row["caller"], row["method"], row["request_id"]) for row in rows]


async def _load_claims(
    unit: UnitOfWork, keys: Collection[tuple[str, str, str]]
) -> dict[tuple[str, str, str], asyncpg.Record]:
    """Claims by what is claimed."""
    callers, methods, request_ids = zip(*keys, strict=True)
    rows = await unit.connection.fetch(_QUERIES.get("load_claims"), callers, methods, request_ids)
    return {(row["caller"], row["method"], row["request_id"]): row for row in rows}


def _repeated(wish: ClaimWish, row: asyncpg.Record) -> Claim | DomainError:
    """What a wish gets whose id was claimed before."""
    if row["request_hash"] == wish.digest:
        return Claim(row["resource"], first=False)
    return DomainError(
        REQUEST_ID_REUSED,
        "this request_id came with other input before",
        metadata={"resource": row["resource"]},
        violations=(FieldViolation("request_id", "was used with other input"),),
    )


async def forget(unit: UnitOfWork, *, caller: str, method: str, resource: str) -> None:
    """Free the request id whose call made ``resource``, once that is undone: a repeat starts anew."""
    await forget_many(unit, method=method, made=[(caller, resource)])


async def forget_many(unit: UnitOfWork, *, method: str, made: Sequence[tuple[str, str]]) -> None:
    """Free the request ids whose calls made these resources, each beside its caller."""
    callers, resources = [caller for caller, _ in made], [resource for _, resource in made]
    await unit.connection.execute(_QUERIES.get("delete_claims_of"), callers, method, resources)


async def sweep_claims(database: Database) -> int:
    """Forget claims older than ``KEEP_CLAIMS``; returns how many."""
    forgotten = 0
    while True:
        async with database.transaction() as unit:
            status = await unit.connection.execute(
                _QUERIES.get("delete_claims"), database.clock.now() - KEEP_CLAIMS, DELETE_BATCH_ROWS
            )
        count = int(status.rpartition(" ")[2])
        forgotten += count
        if count < DELETE_BATCH_ROWS:
            return forgotten
