"""One order's money from the deposit to the refund, on a real database."""

from dataclasses import replace

import asyncpg
import pytest

from fallow.settlement.v1 import charge_pb2, events_pb2
from fallow_chassis.postgres import Database
from fallow_settlement import escrow_store
from fallow_settlement.domain.escrow import EscrowState
from fallow_settlement.queries import Reads
from tests.component.settlement.market import ASSET, OWNER, RULES, TENANT, Market, identifier

ORDER = identifier(1)
LEASE = identifier(2)
PRICE = 3_600_000
"""One micro for each millisecond: sums are easy to read."""


async def outbox(database: Database) -> list[tuple[str, int]]:
    """Types and versions of the order's events, in the order in which they were stated."""
    async with database.read() as connection:
        rows = await connection.fetch("SELECT type, version FROM outbox WHERE key = $1 ORDER BY sequence", ORDER)
    return [(row["type"].rpartition(".")[2], row["version"]) for row in rows]


async def closed_event(database: Database) -> charge_pb2.Escrow:
    """The escrow as EscrowClosed tells it."""
    async with database.read() as connection:
        payload = await connection.fetchval(
            "SELECT payload FROM outbox WHERE key = $1 ORDER BY sequence DESC LIMIT 1", ORDER
        )
    return events_pb2.EscrowClosed.FromString(payload).escrow


async def test_an_order_is_charged_for_proven_time_and_the_rest_returned(market: Market) -> None:
    """Goal: funds, lease, proofs, charges, end, refund add up. Method: walk an order of 10 s, with two charge ticks."""
    await market.fund(TENANT, 1_000_000)
    await market.open(ORDER, 100_000)
    await market.state(market.lease_created(ORDER, LEASE, price=PRICE), market.lease_running(ORDER, LEASE))
    await market.run_for(ORDER, LEASE, 4)
    await market.charging.charge_due()
    await market.run_for(ORDER, LEASE, 5, first=5, start_ms=4_000)
    await market.charging.charge_due()
    market.clock.advance(seconds=1)
    await market.state(
        market.lease_ended(ORDER, LEASE, market.clock.now()),
        market.order_ended(ORDER),
        market.received(market.proof(ORDER, LEASE, 10, 10_000, final=True)),
    )
    await market.charging.close_ended()

    reads = Reads(market.database, RULES)
    charges = await reads.charges(TENANT, ORDER, None, 10)
    assert [(charge.from_running_ms, charge.to_running_ms, charge.amount) for charge in reversed(charges)] == [
        (0, 4_000, 4_000),
        (4_000, 9_000, 5_000),
        (9_000, 10_000, 1_000),
    ]
    assert [(charge.fee, charge.pool) for charge in reversed(charges)] == [(720, 80), (900, 100), (180, 20)]
    tenant = await reads.money(TENANT, ASSET)
    owner = await reads.money(OWNER, ASSET)
    assert (tenant.free, tenant.held, owner.earned) == (990_000, 0, 8_000)
    escrow = await closed_event(market.database)
    assert (escrow.charged.micros, escrow.refunded.micros, escrow.held.micros) == (10_000, 90_000, 0)
    assert await outbox(market.database) == [
        ("ChargePosted", 1),
        ("ChargePosted", 2),
        ("ChargePosted", 3),
        ("EscrowClosed", 4),
    ]


async def test_an_order_that_never_matched_gets_everything_back(market: Market) -> None:
    """Goal: no lease, no charge, no wait. Method: end an order that has no lease."""
    await market.fund(TENANT, 50_000)
    await market.open(ORDER, 50_000)
    await market.state(market.order_ended(ORDER))
    await market.charging.close_ended()
    assert (await Reads(market.database, RULES).money(TENANT, ASSET)).free == 50_000
    assert (await closed_event(market.database)).refunded.micros == 50_000


async def test_a_missing_final_proof_is_waited_for_and_then_not(market: Market) -> None:
    """Goal: the close waits 60 s for a final proof and no longer. Method: end without one and move the clock."""
    await market.fund(TENANT, 50_000)
    await market.open(ORDER, 50_000)
    await market.state(market.lease_created(ORDER, LEASE, price=PRICE), market.lease_running(ORDER, LEASE))
    await market.run_for(ORDER, LEASE, 3)
    await market.state(market.lease_ended(ORDER, LEASE, market.clock.now()), market.order_ended(ORDER))
    market.clock.advance(milliseconds=59_999)
    await market.charging.close_ended()
    async with market.database.read() as connection:
        escrow = await escrow_store.load_escrow(connection, ORDER)
    assert escrow is not None
    assert escrow.state is EscrowState.CLOSING
    market.clock.advance(milliseconds=1)
    await market.charging.close_ended()
    assert (await closed_event(market.database)).charged.micros == 3_000

    await market.state(market.received(market.proof(ORDER, LEASE, 9, 5_000, final=True)))
    await market.charging.charge_due()
    await market.charging.close_ended()
    assert (await closed_event(market.database)).charged.micros == 3_000, "a proof after the close pays nothing"


async def test_leases_of_one_escrow_share_a_shortfall(market: Market) -> None:
    """Goal: pro rata by what is due. Method: two groups at prices 1:3 on funds for half of it."""
    await market.fund(TENANT, 100_000)
    await market.open(ORDER, 2_000)
    other = identifier(3)
    await market.state(
        market.lease_created(ORDER, LEASE, price=PRICE),
        market.lease_created(ORDER, other, price=3 * PRICE, group=1),
        market.lease_running(ORDER, LEASE),
        market.lease_running(ORDER, other, group=1),
    )
    market.clock.advance(seconds=1)
    await market.state(
        market.received(market.proof(ORDER, LEASE, 1, 1_000), market.proof(ORDER, other, 1, 1_000, group=1))
    )
    await market.charging.charge_due()
    charges = await Reads(market.database, RULES).charges(TENANT, ORDER, None, 10)
    assert sorted((charge.group, charge.amount, charge.short) for charge in charges) == [
        (0, 500, 500),
        (1, 1_500, 1_500),
    ]


async def test_an_escrow_tops_itself_up_within_its_budget(market: Market) -> None:
    """Goal: a short runway adds the opening sum until the budget is reached. Method: six ticks on a budget of two."""
    market = Market(market.database, market.clock, rules=replace(RULES, pool_basis_points=0, low_runway_ms=5_000))
    await market.fund(TENANT, 100_000)
    await market.open(ORDER, 4_000, auto_top_up=True, budget=8_000)
    await market.state(market.lease_created(ORDER, LEASE, price=PRICE), market.lease_running(ORDER, LEASE))
    for second in range(6):
        await market.run_for(ORDER, LEASE, 1, first=second + 1, start_ms=second * 1_000)
        await market.charging.charge_due()
    events = [name for name, _ in await outbox(market.database)]
    assert events.count("EscrowToppedUp") == 1
    assert (await Reads(market.database, market.rules).money(TENANT, ASSET)).free == 92_000


@pytest.mark.parametrize("step", ["charges", "transfers", "escrow"])
async def test_a_tick_killed_between_its_steps_repeats_nothing(
    market: Market, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Goal: charges stand or fall together. Method: fail after each step of a tick, then run it again."""
    await market.fund(TENANT, 100_000)
    await market.open(ORDER, 50_000)
    await market.state(market.lease_created(ORDER, LEASE, price=PRICE), market.lease_running(ORDER, LEASE))
    await market.run_for(ORDER, LEASE, 2)
    target = {
        "charges": "fallow_settlement.metering_store.save_charged",
        "transfers": "fallow_settlement.charging.state_charged",
        "escrow": "fallow_settlement.escrow_store.save_escrows",
    }[step]

    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(target, kill)
        with pytest.raises(BaseExceptionGroup) as died:
            await market.charging.charge_due()
        assert died.value.subgroup(Killed) is not None
    reads = Reads(market.database, RULES)
    assert await reads.charges(TENANT, ORDER, None, 10) == []
    await market.charging.charge_due()
    await market.charging.charge_due()
    assert [charge.amount for charge in await reads.charges(TENANT, ORDER, None, 10)] == [2_000]
    assert (await reads.money(OWNER, ASSET)).earned == 1_600


async def test_many_orders_are_charged_as_one_would_be(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: who is charged together and at once changes nothing. Method: 30 orders in transactions of four
    charges: some rich, some short, some that top themselves up; each sum by hand.
    """
    monkeypatch.setattr("fallow_settlement.charging.CHARGES_TOGETHER", 4)
    market = Market(market.database, market.clock, replace(RULES, low_runway_ms=5_000))
    await market.fund(TENANT, 1_000_000)
    facts = []
    for number in range(30):
        order, lease = identifier(1_000 + number), identifier(2_000 + number)
        await market.open(order, (50_000, 1_500, 3_500)[number % 3], auto_top_up=number % 3 == 2)
        facts.append((order, lease))
        await market.state(market.lease_created(order, lease, price=PRICE), market.lease_running(order, lease))
    free = (await Reads(market.database, RULES).money(TENANT, ASSET)).free
    for second in range(1, 4):
        market.clock.advance(seconds=1)
        await market.state(
            market.received(*(market.proof(order, lease, second, second * 1_000) for order, lease in facts))
        )
    await market.charging.charge_due()
    async with market.database.read() as connection:
        found = [await escrow_store.load_escrow(connection, order) for order, _ in facts]
    charged = [(escrow.state.value, escrow.charged) for escrow in found if escrow is not None]
    assert charged == [("OPEN", 3_000), ("SUSPENDED", 1_500), ("OPEN", 3_000)] * 10
    reads = Reads(market.database, RULES)
    assert (await reads.money(TENANT, ASSET)).free == free - 10 * 3_500
    assert (await reads.money(OWNER, ASSET)).earned == 75_000 * 8 // 10


@pytest.mark.parametrize(
    "statement",
    [
        (
            "INSERT INTO charge SELECT 'forged', order_id, group_index, generation, lease_id, sequence + 1, tenant_id,"
            " provider_account_id, asset, to_running_ms, to_running_ms + 3600000, price_micros_per_hour + 1,"
            " price_micros_per_hour + 1, 0, 0, 0, proof_level, create_time FROM charge"
        ),
        "UPDATE metering SET price_micros_per_hour = price_micros_per_hour + 1",
    ],
    ids=["a charge above the quoted price", "another price for what was charged"],
)
async def test_no_charge_is_above_what_was_quoted(market: Market, statement: str) -> None:
    """Goal: the price of a lease is fixed, in the database too. Method: charge more by SQL, and raise the price."""
    await market.fund(TENANT, 100_000)
    await market.open(ORDER, 50_000)
    await market.state(market.lease_created(ORDER, LEASE, price=PRICE), market.lease_running(ORDER, LEASE))
    await market.run_for(ORDER, LEASE, 1)
    await market.charging.charge_due()
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        async with market.database.transaction() as unit:
            await unit.connection.execute(statement)
