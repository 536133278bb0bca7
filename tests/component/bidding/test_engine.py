"""The engine on a real database: one writer, nothing sold twice, orders that wait, orders that end unheard."""

import asyncio
import shutil
from pathlib import Path

import asyncpg
import pytest

from fallow.bidding.v1 import events_pb2
from fallow.order.v1 import events_pb2 as order_events
from fallow.order.v1 import order_pb2
from fallow.type.v1 import lease_pb2
from fallow_bidding.app import lock_key
from fallow_bidding.commands.matching import MatchingCommands
from fallow_bidding.domain.leases import EndReason
from fallow_bidding.jobs import Engine
from fallow_bidding.records import RECORD, DecisionFolder, plain, replay
from fallow_bidding.store import QUERIES
from fallow_chassis.errors import DomainError
from tests.component.bidding.conftest import ON_BOTH_STREAMS, House, gpu_order, node


async def test_one_engine_leads_and_another_takes_over(house: House) -> None:
    """Goal: of two engines one leads; one that loses its session leads no more until it has the lock again; when it dies
    the other goes on. Method: end the leader's session in the database, then the leader itself; orders before, between
    and after are each leased once.
    """
    other = Engine(house.database, house.signals, house.matching, lock_key("leader", house.policy.market))
    async with house.running(engine=False, courier=False), asyncio.TaskGroup() as group:
        tasks = {engine: group.create_task(engine.run()) for engine in (house.engine, other)}

        async def one_leads() -> bool:
            return sum(engine.is_leading for engine in tasks) == 1

        async def lease_one() -> None:
            key = await house.open_order(gpu_order())
            await house.until_event(key, events_pb2.LeaseCreated)
            await house.until(one_leads, "one engine leads")

        await house.until(one_leads, "one engine leads")
        await house.add_agent(node(devices=3))
        await lease_one()
        async with house.database.session() as connection:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
            )
        await lease_one()
        leader = next(engine for engine in tasks if engine.is_leading)
        tasks.pop(leader).cancel()
        await lease_one()
        assert not leader.is_leading
        assert await house.value("SELECT count(*) FROM lease") == 3
        assert await house.value("SELECT max(milli_used) FROM device_capacity") == 1_000
        for task in tasks.values():
            task.cancel()


async def test_passes_at_once_never_sell_a_device_twice(house: House) -> None:
    """Goal: even two writers that both believe to lead make no double lease. Method: eight passes at once over six
    orders for four devices.
    """
    async with house.running(engine=False, courier=False):
        await house.add_agent(node(devices=4))
        for _ in range(6):
            await house.open_order(gpu_order())
        async with asyncio.TaskGroup() as group:
            passes = [group.create_task(house.matching.match_open_orders()) for _ in range(8)]
        assert sum(task.result() for task in passes) == 4
        assert await house.value("SELECT count(DISTINCT device_id) FROM device_use") == 4
        assert await house.value("SELECT count(*) FROM order_group WHERE state = 'OPEN'") == 2


async def test_the_database_refuses_to_oversell(house: House) -> None:
    """Goal: no writer can sell a device twice. Method: write a second whole use of a leased device by hand."""
    async with house.running(engine=False, courier=False):
        await house.add_agent()
        await house.open_order(gpu_order())
        assert await house.matching.match_open_orders() == 1
    with pytest.raises(asyncpg.CheckViolationError, match="device_not_oversold"):
        async with house.database.transaction() as unit:
            await unit.connection.execute(
                "INSERT INTO device_use (lease_id, provider_id, node_id, device_id, milli)"
                " SELECT lease_id, provider_id, node_id, device_id, 1 FROM device_use"
            )


async def test_the_database_refuses_a_price_above_the_limit(house: House) -> None:
    """Goal: no lease costs more than its tenant allowed. Method: raise the price of a real lease by SQL, beyond the limit."""
    async with house.running():
        await house.add_agent(gpu_micros=1_000_000)
        key = await house.open_order(gpu_order(limit=2_000_000))
        await house.until_event(key, events_pb2.LeaseCreated)
    assert await house.value("SELECT limit_micros FROM lease") == 2_000_000
    with pytest.raises(asyncpg.CheckViolationError):
        async with house.database.transaction() as unit:
            await unit.connection.execute("UPDATE lease SET price_micros = limit_micros + 1")


async def test_an_order_that_does_not_fit_waits_and_says_why(house: House) -> None:
    """Goal: an order without a match stays open, explains itself, and is matched when the market changes. Method: no
    provider, then one that is too dear, then one that fits.
    """
    async with house.running(courier=False):
        order = gpu_order(limit=1_000_000)
        key = await house.open_order(order)

        async def advised(text: str) -> bool:
            groups = (await house.queries.explain(order.name)).groups
            return groups[0].advice.startswith(text)

        await house.until(lambda: advised("No provider is online"), "it says that there is nobody")
        dear = await house.add_agent(gpu_micros=1_000_001)
        await house.until(lambda: advised("Every provider that would do asks more"), "it says that all is too dear")
        (group,) = (await house.queries.explain(order.name)).groups
        assert group.matching_price.micros_per_hour == 1_000_001
        assert [(offer.provider, offer.loss_reason) for offer in group.offers] == [(dear.name, "price_limit")]
        assert await house.events(key=key) == []
        cheap = await house.add_agent(gpu_micros=1_000_000)
        created = await house.until_event(key, events_pb2.LeaseCreated)
        assert created.lease.provider == cheap.name
        (group,) = (await house.queries.explain(order.name)).groups
        assert [(offer.provider, offer.won, offer.loss_reason) for offer in group.offers] == [
            (cheap.name, True, ""),
            (dear.name, False, "price_limit"),
        ]
        assert [step.constraint for step in group.funnel][-1] == "price_limit"
        assert (group.funnel[0].devices_before, group.funnel[-1].devices_after) == (2, 1)


@ON_BOTH_STREAMS
async def test_all_groups_or_none(house: House) -> None:
    """Goal: an order of two groups takes no half. Method: room for one only, then for both; an order that says EACH
    takes what there is.
    """
    async with house.running(engine=False, courier=False):
        await house.add_agent()
        both = await house.open_order(gpu_order(groups=2))
        assert await house.matching.match_open_orders() == 0
        each = await house.open_order(gpu_order(groups=2, group_binding=order_pb2.GROUP_BINDING_EACH))
        assert await house.matching.match_open_orders() == 1
        assert len(await house.events(key=each)) == 1
        assert await house.events(key=both) == []
        await house.add_agent(node(devices=3))
        assert await house.matching.match_open_orders() == 3
        assert len(await house.events(key=both)) == 2


@ON_BOTH_STREAMS
async def test_an_order_that_ended_unheard_makes_no_lease(house: House) -> None:
    """Goal: EndOrder for an order that has not arrived yet is remembered. Method: end first, open afterwards."""
    async with house.running(engine=False, courier=False):
        await house.add_agent()
        order = gpu_order()
        key = order.name.removeprefix("orders/")
        assert await house.orders.end(key, EndReason.TENANT, "first") == []
        assert await house.orders.end(key, EndReason.FUNDS, "again") == []
        await house.open_order(order)
        assert await house.matching.match_open_orders() == 0
        (end,) = await house.events(key=key)
        assert isinstance(end, events_pb2.OrderEnded)
        assert end.reason == lease_pb2.END_REASON_TENANT


@ON_BOTH_STREAMS
async def test_a_close_request_ends_the_order_too(house: House) -> None:
    """Goal: the event alone suffices. Method: OrderOpened, then OrderCloseRequested, before any match."""
    async with house.running(engine=False, courier=False):
        await house.add_agent()
        order = gpu_order()
        key = await house.open_order(order)
        await house.hand(order_events.OrderCloseRequested(order=order.name, reason=lease_pb2.END_REASON_EXPIRED), key)
        assert await house.matching.match_open_orders() == 0
        (end,) = await house.events(key=key)
        assert isinstance(end, events_pb2.OrderEnded)
        assert end.reason == lease_pb2.END_REASON_EXPIRED


@ON_BOTH_STREAMS
async def test_an_update_changes_what_is_matched_from_now_on(house: House) -> None:
    """Goal: a raised price limit lets a waiting order match. Method: OrderUpdated with a higher limit."""
    async with house.running(engine=False, courier=False):
        await house.add_agent(gpu_micros=2_000_000)
        order = gpu_order(limit=1_000_000)
        key = await house.open_order(order)
        assert await house.matching.match_open_orders() == 0
        order.groups[0].price_limit.micros_per_hour = 2_000_000
        await house.hand(order_events.OrderUpdated(order=order), key)
        assert await house.matching.match_open_orders() == 1


@ON_BOTH_STREAMS
async def test_an_update_that_comes_after_the_end_changes_nothing(house: House) -> None:
    """Goal: what an order was stays on record. Method: end it, then OrderUpdated with another limit and revision."""
    async with house.running(engine=False, courier=False):
        order = gpu_order(limit=1_000_000)
        key = await house.open_order(order)
        await house.hand(order_events.OrderCloseRequested(order=order.name, reason=lease_pb2.END_REASON_TENANT), key)

        async def stored() -> list[tuple[object, ...]]:
            async with house.database.read() as connection:
                rows = await connection.fetch(
                    "SELECT body, revision FROM market_order JOIN order_group USING (order_id) WHERE order_id = $1", key
                )
            return [tuple(row) for row in rows]

        before = await stored()
        assert before
        order.groups[0].price_limit.micros_per_hour = 2_000_000
        order.groups[0].revision = 2
        await house.hand(order_events.OrderUpdated(order=order), key)
        assert await stored() == before


async def test_an_estimate_prices_without_storing(house: House) -> None:
    """Goal: an estimate tells best and worst price of what fits, and leaves no trace. Method: two offers that fit, one
    that is too dear.
    """
    async with house.running(engine=False, courier=False):
        for micros in (1_000_000, 3_000_000, 9_000_000):
            await house.add_agent(gpu_micros=micros)
        order = gpu_order()
        order.ClearField("name")
        answer = await house.queries.estimate(order)
        assert answer.best_price.micros_per_hour == 1_000_000
        assert answer.worst_price.micros_per_hour == 3_000_000
        assert answer.fitting_providers == 2
        assert answer.candidate_providers == 3
        assert not answer.HasField("spot")
        nothing = await house.queries.estimate(gpu_order(limit=1))
        assert not nothing.HasField("best_price")
        assert (nothing.fitting_providers, nothing.matching_price.micros_per_hour) == (0, 1_000_000)
        assert await house.value("SELECT count(*) FROM market_order") == 0


async def test_the_mix_begins_with_recent_orders_and_counts_each_new_one_once(house: House) -> None:
    """Goal: what is expected next is what came lately, also after a restart. Method: three orders, a second engine that
    starts afterwards, two more orders, and passes that find the same orders again.
    """

    async def expected(matching: MatchingCommands) -> int:
        async with house.database.transaction() as unit:
            market, _ = await matching.load_market(unit)
        return sum(count for _, count in market.placer.mix.counts)

    for _ in range(30):
        await house.open_order(gpu_order())
    assert await expected(house.matching) == 30, "the newest orders, although none was matched yet"
    for _ in range(3):
        await house.matching.match_open_orders()
    for _ in range(15):
        await house.open_order(gpu_order())
        await house.matching.match_open_orders()
    assert await expected(house.matching) == 45, "each order once, however often it was looked at"
    again = MatchingCommands(house.database, house.policy, lock_key("decisions", house.policy.market))
    assert await expected(again) == 45, "a restart knows the same"


async def test_decisions_are_kept_for_replay(house: House, tmp_path: Path) -> None:
    """Goal: what the engine decided can be decided again. Method: two orders, one that fits, through files."""
    matching = MatchingCommands(
        house.database, house.policy, lock_key("decisions", house.policy.market), DecisionFolder(tmp_path)
    )
    async with house.running(engine=False, courier=False):
        await house.add_agent()
        keys = [await house.open_order(gpu_order()) for _ in range(2)]
        assert await matching.match_open_orders() == 1
    records = {key: RECORD.validate_json((tmp_path / f"{key}.json").read_bytes()) for key in keys}
    assert sorted(len(record.decision.matches) for record in records.values()) == [0, 1]
    for record in records.values():
        assert plain(replay(record)) == plain(record.decision)


async def test_every_match_of_an_order_is_kept(house: House, tmp_path: Path) -> None:
    """Goal: no decision that made a lease is lost to a later one, nor stops the market. Method: a match, its loss and the next match; a
    process that starts anew; the folder gone.
    """

    def anew() -> MatchingCommands:
        key = lock_key("decisions", house.policy.market)
        return MatchingCommands(house.database, house.policy, key, DecisionFolder(tmp_path / "kept"))

    async with house.running(engine=False, courier=False):
        first, second = await house.add_agent(), await house.add_agent(gpu_micros=2_000_000)
        key = await house.open_order(gpu_order())
        assert await anew().match_open_orders() == 1
        await house.pass_time(200)
        await house.watching.find_overdue()
        assert await anew().match_open_orders() == 1
        names = [f"{key}.json", f"{key}.2.json"]
        assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == sorted(names)
        winners = []
        for name in names:
            record = RECORD.validate_json((tmp_path / "kept" / name).read_bytes())
            assert plain(replay(record)) == plain(record.decision)
            winners += [match.provider_id for match in record.decision.matches]
        assert winners == [first.provider_id, second.provider_id]
        matching = anew()
        shutil.rmtree(tmp_path / "kept")
        await first.beat()
        await house.open_order(gpu_order())
        await matching.match_open_orders()


async def test_a_pass_of_an_older_term_writes_nothing(house: House) -> None:
    """Goal: a deposed leader is fenced off. Method: two terms are taken; a pass of the first, then of the second."""
    async with house.running(engine=False, courier=False):
        await house.add_agent()
        await house.open_order(gpu_order())
        async with house.database.transaction() as unit:
            first, second = [
                await unit.connection.fetchval(QUERIES.get("next_term"), house.policy.market) for _ in range(2)
            ]
        with pytest.raises(DomainError, match="another process leads"):
            await house.matching.match_open_orders(first)
        assert await house.value("SELECT count(*) FROM lease") == 0
        assert await house.matching.match_open_orders(second) == 1
