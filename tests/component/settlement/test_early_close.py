"""What a reserved term owes that its tenant closed early: charged once, last, as such, within what is held."""

from typing import Any

from fallow_chassis.wire import to_duration
from fallow_settlement.audit import audit
from tests.component.settlement.market import TENANT, Market, identifier

ORDER, LEASE, OTHER = identifier(1), identifier(2), identifier(3)
PRICE = 3_600_000
"""A micro for each millisecond."""


async def charges(market: Market, lease: str = LEASE) -> list[tuple[Any, ...]]:
    """From, to, amount, shortfall and level of a lease's charges."""
    sql = """SELECT from_running_ms, to_running_ms, amount, short, proof_level FROM charge
             WHERE lease_id = $1 ORDER BY sequence"""
    async with market.database.read() as connection:
        return [tuple(row) for row in await connection.fetch(sql, lease)]


async def run(market: Market, held: int, *leases: str) -> None:
    """An order whose leases prove five seconds each, the first three of which are charged."""
    await market.fund(TENANT, 1_000_000)
    await market.open(ORDER, held)
    for group, lease in enumerate(leases):
        created = market.lease_created(ORDER, lease, price=PRICE, group=group)
        await market.state(created, market.lease_running(ORDER, lease, group=group))
    for second in range(1, 6):
        market.clock.advance(seconds=1)
        proofs = [market.proof(ORDER, lease, second, second * 1_000, group=at) for at, lease in enumerate(leases)]
        await market.state(market.received(*proofs))
        if second == 3:
            await market.charging.charge_due()


async def close(market: Market, owed_ms: int, *leases: str) -> None:
    """The tenant closes; the final proofs never come, and closing is tried more than once."""
    for group, lease in enumerate(leases):
        ended = market.lease_ended(ORDER, lease, market.clock.now(), group=group)
        ended.early_close.CopyFrom(to_duration(owed_ms))
        await market.state(ended)
    await market.state(market.order_ended(ORDER))
    await market.charging.close_ended()
    market.clock.advance(seconds=60)
    for _ in range(2):
        await market.charging.close_ended()
        await market.charging.charge_due()
    async with market.database.read() as connection:
        row = await connection.fetchrow("SELECT state, deposited, charged, refunded FROM escrow")
    assert row is not None
    assert row["state"] == "CLOSED"
    assert row["deposited"] == row["charged"] + row["refunded"]
    found = [finding async for finding in audit(market.database, None, "0x" + "00" * 20, lambda _: None)]
    assert [finding.difference for finding in found if finding.difference] == [], "the books agree"


async def test_what_is_owed_is_a_charge_of_its_own_after_all_that_was_proven(market: Market) -> None:
    """Goal: exact, once, and never called proven. Method: three seconds charged, five proven, a minute owed."""
    await run(market, 500_000, LEASE)
    await close(market, 60_000, LEASE)
    assert await charges(market) == [
        (0, 3_000, 3_000, 0, "ATTESTED"),
        (3_000, 5_000, 2_000, 0, "ATTESTED"),
        (5_000, 65_000, 60_000, 0, "TERM"),
    ]


async def test_nobody_owes_more_than_is_held(market: Market) -> None:
    """Goal: an escrow pays what it has, pro rata, and says what is short. Method: two leases, and too little."""
    await run(market, 40_000, LEASE, OTHER)
    await close(market, 60_000, LEASE, OTHER)
    for lease in (LEASE, OTHER):
        assert (await charges(market, lease))[-1] == (5_000, 65_000, 15_000, 45_000, "TERM")


async def test_an_empty_escrow_pays_nothing_and_says_what_it_owes(market: Market) -> None:
    """Goal: a debt that nothing is left for is on record, once. Method: funds that end exactly with what is charged; then two
    more proven seconds and a minute owed.
    """
    await run(market, 3_000, LEASE)
    await close(market, 60_000, LEASE)
    assert await charges(market) == [
        (0, 3_000, 3_000, 0, "ATTESTED"),
        (3_000, 5_000, 0, 2_000, "ATTESTED"),
        (5_000, 65_000, 0, 60_000, "TERM"),
    ]


async def test_a_proof_that_comes_before_the_close_is_charged_as_proven(market: Market) -> None:
    """Goal: what ran is never charged as a term. Method: a proof after the lease's end, for time before it."""
    await run(market, 500_000, LEASE)
    market.clock.advance(seconds=1)
    ended = market.lease_ended(ORDER, LEASE, market.clock.now())
    ended.early_close.CopyFrom(to_duration(10_000))
    await market.state(ended, market.received(market.proof(ORDER, LEASE, 6, 6_000, final=True)))
    await market.state(market.order_ended(ORDER))
    await market.charging.close_ended()
    assert (await charges(market))[-2:] == [(3_000, 6_000, 3_000, 0, "ATTESTED"), (6_000, 16_000, 10_000, 0, "TERM")]


async def test_an_end_in_good_time_owes_nothing_more(market: Market) -> None:
    """Goal: no fee where none was stated. Method: the same close without one."""
    await run(market, 500_000, LEASE)
    await close(market, 0, LEASE)
    assert (await charges(market))[-1] == (3_000, 5_000, 2_000, 0, "ATTESTED")
