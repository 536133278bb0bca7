"""Request ids under repetition and races."""

import asyncio

import pytest

from fallow_chassis.errors import INVALID_FIELD, REQUEST_ID_REUSED, DomainError
from fallow_chassis.idempotency import KEEP_CLAIMS, Claim, claim, forget, sweep_claims
from fallow_chassis.postgres import Database, UnitOfWork
from tests.unit.chassis.sample import Request

METHOD = "fallow.sample.v1.SampleService/Account"


async def take(
    unit: UnitOfWork, *, text: str = "a", request_id: str = "r1", caller: str = "accounts/a", resource: str
) -> Claim:
    return await claim(
        unit, caller=caller, method=METHOD, request_id=request_id, request=Request(text=text), resource=resource
    )


async def test_a_repeat_finds_what_the_first_made(database: Database) -> None:
    """Goal: the same call again gets what the first one made. Method: claim twice."""
    async with database.transaction() as unit:
        assert await take(unit, resource="things/1") == Claim("things/1", first=True)
    async with database.transaction() as unit:
        assert await take(unit, resource="things/2") == Claim("things/1", first=False)


async def test_other_input_is_refused(database: Database) -> None:
    """Goal: one id, one input. Method: the same id with another text; another caller may use the id."""
    async with database.transaction() as unit:
        await take(unit, resource="things/1")
    with pytest.raises(DomainError) as caught:
        async with database.transaction() as unit:
            await take(unit, text="b", resource="things/2")
    assert caught.value.has_reason(REQUEST_ID_REUSED)
    assert caught.value.violations[0].field == "request_id"
    async with database.transaction() as unit:
        assert (await take(unit, text="b", caller="accounts/b", resource="things/3")).first


@pytest.mark.parametrize("request_id", ["", "x" * 129])
async def test_an_id_has_bounds(database: Database, request_id: str) -> None:
    """Goal: an empty or endless id is refused. Method: both."""
    with pytest.raises(DomainError) as caught:
        async with database.transaction() as unit:
            await take(unit, request_id=request_id, resource="things/1")
    assert caught.value.has_reason(INVALID_FIELD)


async def test_a_failed_command_frees_its_id(database: Database) -> None:
    """Goal: what rolled back never happened. Method: fail after the claim, then claim again."""
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as unit:
            await take(unit, resource="things/1")
            raise ZeroDivisionError
    async with database.transaction() as unit:
        assert await take(unit, resource="things/2") == Claim("things/2", first=True)


async def test_what_was_undone_frees_its_id(database: Database) -> None:
    """Goal: a repeat of an undone call starts anew, and nothing else is forgotten. Method: forget one of two, claim both."""
    async with database.transaction() as unit:
        await take(unit, resource="things/1")
        await take(unit, request_id="r2", resource="things/2")
        await forget(unit, caller="accounts/a", method=METHOD, resource="things/1")
    async with database.transaction() as unit:
        assert (await take(unit, text="b", resource="things/3")).first
        assert not (await take(unit, request_id="r2", resource="things/4")).first


async def test_rivals_wait_for_the_first(database: Database) -> None:
    """Goal: of calls with one id at once, one works and the others see its outcome. Method: six at once."""

    async def call(number: int) -> Claim:
        async with database.transaction() as unit:
            taken = await take(unit, resource=f"things/{number}")
            await asyncio.sleep(0.05)
            return taken

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(call(number)) for number in range(6)]
    claims = [task.result() for task in tasks]
    assert sum(taken.first for taken in claims) == 1
    assert len({taken.resource for taken in claims}) == 1


async def test_a_rival_of_a_failed_call_becomes_the_first(database: Database) -> None:
    """Goal: a call that waited for one that rolled back does the work. Method: roll back while a rival waits."""
    claimed = asyncio.Event()

    async def fail() -> None:
        with pytest.raises(ZeroDivisionError):
            async with database.transaction() as unit:
                await take(unit, resource="things/1")
                claimed.set()
                await asyncio.sleep(0.1)
                raise ZeroDivisionError

    async def follow() -> Claim:
        await claimed.wait()
        async with database.transaction() as unit:
            return await take(unit, resource="things/2")

    async with asyncio.TaskGroup() as group:
        group.create_task(fail())
        following = group.create_task(follow())
    assert following.result() == Claim("things/2", first=True)


async def test_old_claims_are_forgotten(database: Database) -> None:
    """Goal: the table does not grow for ever. Method: age one of two rows."""
    async with database.transaction() as unit:
        await take(unit, request_id="old", resource="things/1")
        await take(unit, request_id="new", resource="things/2")
        await unit.connection.execute(
            "UPDATE idempotency SET created_at = created_at - $1::interval - interval '1 minute' WHERE request_id = 'old'",
            KEEP_CLAIMS,
        )
    assert await sweep_claims(database) == 1
    async with database.read() as connection:
        assert await connection.fetchval("SELECT request_id FROM idempotency") == "new"
