"""One request, one effect: a repeat of a call finds what the first one made.

A caller sends a ``request_id`` of its own choice with every write that moves money or allocates a device. The claim is
a row in the command's own transaction, by caller, method and id, with a hash of the input. Two calls with one id that
run at once wait for each other at the row: the second sees the first's outcome, or, if that rolled back, is the first.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

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


async def claim(
    unit: UnitOfWork, *, caller: str, method: str, request_id: str, request: Message, resource: str
) -> Claim:
    """Claim a request id for this call, or learn what the call that had it before made.

    ``resource`` is the name of what this call is about to make; ``method`` is ``package.Service/Method``. Raises
    INVALID_FIELD for an empty or overlong id, REQUEST_ID_REUSED if the id came with other input before. The claim
    stands if, and only if, the transaction commits.
    """
    if not request_id:
        raise invalid_field("request_id", "must be set: repeat it to repeat the call safely")
    if len(request_id) > MAX_REQUEST_ID_CHARACTERS:
        raise invalid_field("request_id", f"must have at most {MAX_REQUEST_ID_CHARACTERS} characters")
    digest = request_hash(request)
    for _ in range(_CLAIM_ATTEMPTS):
        inserted = await unit.connection.fetchval(
            _QUERIES.get("insert_claim"), caller, method, request_id, digest, resource, unit.clock.now()
        )
        if inserted is not None:
            return Claim(resource, first=True)
        row = await unit.connection.fetchrow(_QUERIES.get("load_claim"), caller, method, request_id)
        if row is None:
            # The row went away between the two statements (it was old and was swept): the id is free again.
            continue
        if row["request_hash"] != digest:
            raise DomainError(
                REQUEST_ID_REUSED,
                "this request_id came with other input before",
                metadata={"resource": row["resource"]},
                violations=(FieldViolation("request_id", "was used with other input"),),
            )
        return Claim(row["resource"], first=False)
    raise AssertionError("a claim that is neither inserted nor there")


async def forget(unit: UnitOfWork, *, caller: str, method: str, resource: str) -> None:
    """Free the request id whose call made ``resource``, once that is undone: a repeat starts anew."""
    await unit.connection.execute(_QUERIES.get("delete_claim_of"), caller, method, resource)


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
