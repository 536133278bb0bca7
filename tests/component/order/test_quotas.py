"""Quotas of accounts on a real database."""

import asyncio

from fallow_chassis.postgres import Database
from fallow_order import store
from tests.component.order.conftest import House, new_name


async def _insert(database: Database, account: str, limit: int) -> bool:
    """Store a row as a new order if it fits, the way CreateOrder does: lock, count, decide, write."""
    async with database.transaction() as unit:
        used = (await store.lock_and_count_live(unit.connection, [account]))[account]
        if used >= limit:
            return False
        await unit.connection.execute(
            "INSERT INTO orders SELECT (jsonb_populate_record(o, jsonb_build_object('id', $1::text, 'account', $2::text)))"
            ".* FROM orders o LIMIT 1",
            new_name("x").removeprefix("x/"),
            account,
        )
        return True


async def test_live_orders_are_counted_exactly_under_concurrency(house: House) -> None:
    """Goal: at the limit one of many wins. Method: eight transactions at once for two places, thrice."""
    tenant = house.tenant()
    house.settlement.free[tenant.name] = 100_000_000
    await tenant.create()
    for number in range(3):
        account = f"account-{number}"
        tries = [_insert(house.database, account, 2) for _ in range(8)]
        assert sum(await asyncio.gather(*tries)) == 2


async def test_accounts_do_not_wait_for_each_other(house: House) -> None:
    """Goal: no lock serialises different accounts. Method: count a second account while a first one's lock is held."""
    async with house.database.transaction() as first, asyncio.timeout(5):
        assert await store.lock_and_count_live(first.connection, ["a"]) == {"a": 0}
        async with house.database.transaction() as second:
            assert await store.lock_and_count_live(second.connection, ["b", "c"]) == {"b": 0, "c": 0}
