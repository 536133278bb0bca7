"""Open market data over gRPC, as somebody reads it who has no account."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from fallow.bidding.v1 import market_service_pb2, market_service_pb2_grpc
from fallow.type.v1 import resources_pb2
from fallow_bidding.domain.leases import EndReason
from fallow_bidding.rpc import market_data as rpc
from fallow_chassis.errors import DomainError
from fallow_chassis.grpc_client import channel
from fallow_chassis.wire import from_timestamp
from tests.component.bidding.conftest import House, gpu_order, node


@asynccontextmanager
async def public(house: House) -> AsyncIterator["market_service_pb2_grpc.MarketDataServiceAsyncStub"]:
    """The service as a stranger calls it."""
    async with house.served() as address, channel(address) as connection:
        yield market_service_pb2_grpc.MarketDataServiceStub(connection)


async def test_the_book_shows_what_could_be_leased(house: House) -> None:
    """Goal: every entry of the book can be leased now, at its price, and nothing else is in it. Method: a provider
    that is online with one leased and one failed device, one that is cheaper, and one each that drains, is away,
    has no price for its model, has no device; then an order takes what is best.
    """
    async with house.running(engine=False, courier=False), public(house) as stub:
        failed = node(devices=4)
        failed.devices[3].health = resources_pb2.DEVICE_HEALTH_FAILED
        dear = await house.add_agent(failed, gpu_micros=10_000_000)
        await house.open_order(gpu_order(limit=20_000_000))
        assert await house.matching.match_open_orders() == 1
        cheap = await house.add_agent(node(devices=2), gpu_micros=9_000_000)
        drained = await house.add_agent(gpu_micros=1)
        await house.registry.set_draining(
            drained.name, (await house.queries.provider(drained.name)).account, draining=True
        )
        await house.add_agent(gpu_micros=1, online=False)
        await house.add_agent(gpu_micros=1, model="l4")
        book = await stub.GetBook(market_service_pb2.GetBookRequest())
        assert [
            (entry.provider, entry.price.asset, entry.price.micros_per_hour, entry.free_devices, entry.region)
            for entry in book.entries
        ] == [(cheap.name, "usdc", 9_000_000, 2, "eu-west"), (dear.name, "usdc", 10_000_000, 2, "eu-west")]
        assert (await house.queries.offer(book.entries[0].offer)).provider_id == cheap.provider_id
        key = await house.open_order(gpu_order(limit=18_000_000, count=2))
        assert await house.matching.match_open_orders() == 1
        assert len(await house.events(key=key)) == 1
        house.clock.advance(milliseconds=1_000)
        (left,) = (await stub.GetBook(market_service_pb2.GetBookRequest(model="h100"))).entries
        assert left.provider == dear.name
        assert not (await stub.GetBook(market_service_pb2.GetBookRequest(model="a100"))).entries
        house.clock.advance(milliseconds=house.policy.unreachable_ms)
        assert not (await stub.GetBook(market_service_pb2.GetBookRequest())).entries


async def test_lists_come_by_pages(house: House) -> None:
    """Goal: the whole book, by pages. Method: five providers, two at a time; a token for another model is refused."""
    async with house.running(engine=False, courier=False), public(house) as stub:
        for micros in (5, 4, 3, 2, 1):
            await house.add_agent(gpu_micros=micros)
        seen, token = [], ""
        while True:
            page = await stub.GetBook(market_service_pb2.GetBookRequest(page_size=2, page_token=token))
            seen += [entry.price.micros_per_hour for entry in page.entries]
            token = page.next_page_token
            if not token:
                break
            last = token
        assert seen == [1, 2, 3, 4, 5]
        with pytest.raises(DomainError, match="made for other arguments"):
            await stub.GetBook(market_service_pb2.GetBookRequest(model="l4", page_token=last))


async def last_prices(house: House) -> dict[tuple[str, str], int]:
    """The last price of each model and asset, found the long way."""
    async with house.database.read() as connection:
        rows = await connection.fetch("SELECT model, asset, price_micros FROM trade ORDER BY sequence")
    return {(row["model"], row["asset"]): row["price_micros"] for row in rows}


async def test_the_last_trade_of_every_model_is_found(house: House) -> None:
    """Goal: none is passed over on the way along the index. Method: four models whose names share beginnings, traded
    twice each in turn, compared with the trades themselves.
    """
    models = ("a100", "a100-80", "h100", "l4")
    async with house.running(engine=False, courier=False):
        for number, model in enumerate(models):
            for micros in (2_000_000 + number, 1_000_000 + number):
                await house.add_agent(node(model=model), model=model, gpu_micros=micros)
        for _ in range(2):
            for model in models:
                order = gpu_order()
                order.groups[0].replica_sets[0].resources.gpu.models[:] = [model]
                await house.open_order(order)
                assert await house.matching.match_open_orders() == 1
        entries = await house.data.index("", "", 10)
        told = {(entry.model, entry.asset): entry.traded.last_micros for entry in entries if entry.traded}
        assert told == await last_prices(house)
        assert [entry.model for entry in entries] == list(models)


async def test_prices_are_weighted_by_device_hours(house: House) -> None:
    """Goal: the index is what was paid, by device and hour. Method: one device at 1 for an hour, two at 4 for half an
    hour, then a day, then a week passes.
    """
    async with house.running(engine=False, courier=False), public(house) as stub:
        await house.add_agent(gpu_micros=1_000_000)
        dear = await house.add_agent(node(devices=2), gpu_micros=4_000_000)
        first = await house.open_order(gpu_order())
        assert await house.matching.match_open_orders() == 1
        house.clock.advance(milliseconds=1_800_000)
        await dear.beat()
        second = await house.open_order(gpu_order(count=2, limit=8_000_000))
        assert await house.matching.match_open_orders() == 1
        traded_at = house.clock.now()
        house.clock.advance(milliseconds=1_800_000)
        for order_id in (first, second):
            await house.orders.end(order_id, EndReason.TENANT, "enough")

        async def index() -> market_service_pb2.PriceIndex.Entry:
            (entry,) = (await stub.GetPriceIndex(market_service_pb2.GetPriceIndexRequest())).entries
            return entry

        entry = await index()
        assert (entry.model, entry.last.micros_per_hour) == ("h100", 4_000_000)
        assert from_timestamp(entry.last_trade_time) == traded_at
        assert entry.mean_day.micros_per_hour == entry.mean_week.micros_per_hour == 2_500_000
        assert not entry.HasField("best")
        assert await last_prices(house) == {("h100", "usdc"): 4_000_000}
        house.clock.advance(milliseconds=(86_400 - 900) * 1_000)
        assert (await index()).mean_day.micros_per_hour == 3_000_000, "a quarter of an hour of each is left"
        house.clock.advance(milliseconds=1_000 * 1_000)
        entry = await index()
        assert not entry.HasField("mean_day")
        assert entry.mean_week.micros_per_hour == 2_500_000
        house.clock.advance(milliseconds=7 * 86_400 * 1_000)
        entry = await index()
        assert not entry.HasField("mean_week")
        assert entry.last.micros_per_hour == 4_000_000
        await house.data.sweep()
        assert await house.value("SELECT count(*) FROM trade") == 2
        house.clock.advance(milliseconds=30 * 86_400 * 1_000)
        await house.data.sweep()
        assert await house.value("SELECT count(*) FROM trade") == 0


async def test_utilisation_counts_shares(house: House) -> None:
    """Goal: what is leased, in thousandths of what is known. Method: one whole device of four, a provider away."""
    async with house.running(engine=False, courier=False), public(house) as stub:
        await house.add_agent(node(devices=3))
        house.clock.advance(milliseconds=house.policy.unreachable_ms + 1)
        await house.add_agent(gpu_micros=2_000_000)
        await house.open_order(gpu_order())
        assert await house.matching.match_open_orders() == 1
        (entry,) = (await stub.GetUtilisation(market_service_pb2.GetUtilisationRequest())).entries
        assert (entry.model, entry.devices, entry.leased_milli, entry.healthy_devices) == ("h100", 4, 1_000, 4)
        (entry,) = (await stub.GetUtilisation(market_service_pb2.GetUtilisationRequest(by_region=True))).entries
        assert entry.region == "eu-west"


async def test_trades_stream_and_resume(house: House) -> None:
    """Goal: who follows sees each trade once, also after a break, and nobody's name. Method: trades before, during and
    after a stream of one model; a second stream takes up where the first ended.
    """
    async with house.running(engine=False, courier=False), public(house) as stub:
        await house.add_agent(node(devices=8))
        await house.add_agent(node(devices=8, model="l4"), model="l4")

        async def trade() -> None:
            await house.open_order(gpu_order())
            assert await house.matching.match_open_orders() == 1

        await trade()
        async with asyncio.timeout(20):
            stream = stub.StreamTrades(market_service_pb2.StreamTradesRequest(model="h100"))
            reading = aiter(stream)
            await house.until(lambda: _true(house.data.tail._start is not None), "the stream has begun")
            await trade()
            first = await anext(reading)
            assert (first.model, first.devices, first.devices_milli) == ("h100", 1, 1_000)
            assert (first.price.asset, first.price.micros_per_hour) == ("usdc", 1_000_000)
            assert from_timestamp(first.trade_time) == house.clock.now()
            assert {field.name for field, _ in first.ListFields()} == {
                "model", "devices", "price", "trade_time", "sequence", "devices_milli",
            }  # fmt: skip
            stream.cancel()
            for _ in range(3):
                await trade()
            again = stub.StreamTrades(market_service_pb2.StreamTradesRequest(after_sequence=first.sequence))
            resumed = [(await anext(aiter(again))).sequence for _ in range(3)]
            again.cancel()
        assert resumed == sorted(resumed)
        assert resumed[0] > first.sequence
        assert await house.value("SELECT count(*) FROM trade WHERE sequence > $1", first.sequence) == 3


async def test_the_tail_is_read_by_one_for_all(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a resumed stream of any age is whole, and many that follow cost one read. Method: a tail of two trades,
    trades beyond it; forty that ask at once.
    """
    monkeypatch.setattr("fallow_bidding.market_data.TAIL_TRADES", 2)
    house.data.tail._kept = type(house.data.tail._kept)(maxlen=2)
    async with house.running(engine=False, courier=False):
        await house.add_agent(node(devices=8))
        assert await house.data.tail.newest() == 0
        for _ in range(5):
            await house.open_order(gpu_order())
            assert await house.matching.match_open_orders() == 1
            await house.data.tail.newest()
        numbers: list[int] = []
        while found := await house.data.tail.after(numbers[-1] if numbers else 0):
            numbers += [trade.sequence for trade in found]
        assert numbers == [1, 2, 3, 4, 5]
        before = house.data.tail._reads
        async with asyncio.TaskGroup() as group:
            for _ in range(40):
                group.create_task(house.data.tail.after(5))
        assert house.data.tail._reads - before <= 2


async def test_a_crowd_asks_the_database_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a method that anybody may call cannot load the database. Method: fifty calls at once, then one a second
    later; streams beyond the most are refused.
    """
    reads = 0
    read = house.data._stocks._read

    async def counted() -> object:
        nonlocal reads
        reads += 1
        return await read()

    monkeypatch.setattr(house.data._stocks, "_read", counted)
    async with house.running(engine=False, courier=False), public(house) as stub:
        async with asyncio.TaskGroup() as group:
            for _ in range(50):
                group.create_task(house.data.book("", "", 10))
        assert reads == 1
        house.clock.advance(milliseconds=999)
        await stub.GetUtilisation(market_service_pb2.GetUtilisationRequest())
        assert reads == 1
        house.clock.advance(milliseconds=1)
        await stub.GetBook(market_service_pb2.GetBookRequest())
        assert reads == 2
        monkeypatch.setattr(rpc, "STREAMS_MAX", 0)
        with pytest.raises(DomainError, match="too many follow"):
            await anext(aiter(stub.StreamTrades(market_service_pb2.StreamTradesRequest())))


async def test_trades_are_numbered_as_they_commit(house: House) -> None:
    """Goal: who has seen a trade has seen all before it. Method: eight passes at once, and the numbers by their
    transactions.
    """
    async with house.running(engine=False, courier=False):
        await house.add_agent(node(devices=8))
        for _ in range(8):
            await house.open_order(gpu_order())
        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(house.matching.match_open_orders())
        assert await house.value("SELECT count(*) FROM trade") == 8
        assert await house.value("SELECT array_agg(lease_id ORDER BY sequence) FROM trade") == await house.value(
            "SELECT array_agg(lease_id ORDER BY lease_id) FROM lease"
        )


async def _true(condition: bool) -> bool:  # noqa: FBT001 - it is what is waited for
    return condition
