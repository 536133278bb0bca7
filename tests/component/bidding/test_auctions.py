"""Rounds of bids on a real database: sealed until the close, decided once whatever dies, and told to each who may know."""

import asyncio
from typing import Any

import pytest
from google.protobuf.message import Message

from fallow.bidding.v1 import events_pb2, market_service_pb2, market_service_pb2_grpc
from fallow.order.v1 import events_pb2 as order_events
from fallow.order.v1 import order_pb2
from fallow.type.v1 import money_pb2
from fallow_bidding.domain.leases import EndReason
from fallow_bidding.jobs import announcement_subject
from fallow_bidding.store import auctions
from fallow_bidding.topics import MARKET_TOPIC
from fallow_chassis.errors import DomainError
from fallow_chassis.grpc_client import channel
from fallow_chassis.nats_link import NatsMessage
from fallow_chassis.wire import to_duration
from tests.component.bidding.conftest import ON_BOTH_STREAMS, Agent, House, gpu_order, new_name, node

FIRST = order_pb2.AUCTION_RULE_FIRST_PRICE
SECOND = order_pb2.AUCTION_RULE_SECOND_PRICE
WON = market_service_pb2.BID_STATE_WON
LOST = market_service_pb2.BID_STATE_LOST
PLACED = market_service_pb2.BID_STATE_PLACED
SCOPES = ("orders.read", "orders.write", "providers.read", "providers.write")


def auction_order(
    *, rule: Any = FIRST, window_ms: int = 30_000, timeout_ms: int = 600_000, **fields: Any
) -> order_pb2.Order:
    """An order whose first leases are found by sealed bids."""
    order = gpu_order(match_mode=order_pb2.MATCH_MODE_AUCTION, auction_rule=rule, **fields)
    order.auction_window.CopyFrom(to_duration(window_ms))
    order.terms.match_timeout.CopyFrom(to_duration(timeout_ms))
    return order


async def auction_of(house: House, order: order_pb2.Order, group: int = 0) -> str:
    """The name of the newest auction of an order's group."""
    sql = "SELECT auction_id FROM auction WHERE order_id = $1 AND group_index = $2 ORDER BY round_number DESC LIMIT 1"
    return f"auctions/{await house.value(sql, order.name.removeprefix('orders/'), group)}"


async def bid(
    house: House,
    agent: Agent,
    auction: str,
    micros: int,
    *,
    request_id: str = "",
    caller: str = "",
    asset: str = "usdc",
) -> Any:
    """Place a bid as the provider's owner."""
    request = market_service_pb2.CreateBidRequest(
        parent=auction,
        bid=market_service_pb2.Bid(provider=agent.name, price=money_pb2.Price(asset=asset, micros_per_hour=micros)),
        request_id=request_id or f"{agent.provider_id}-{micros}",
    )
    return await house.auctions.create_bid(request, caller or agent.owner)


async def refusal(attempt: Any) -> DomainError:
    """The error of a call that must fail."""
    with pytest.raises(DomainError) as refused:
        await attempt
    return refused.value


async def kinds(house: House, key: str) -> list[str]:
    """The types of an order's events."""
    return [type(event).__name__ for event in await house.events(key=key)]


@ON_BOTH_STREAMS
async def test_the_best_bid_wins_at_the_close_and_not_before(house: House) -> None:
    """Goal: nothing is decided while the round takes bids; at the close the least price wins and is paid, and each bid
    ends with its reason. Method: three providers, of which one only has its standing offer; passes before and after.
    """
    async with house.running(engine=False, courier=False):
        one, two, three = [await house.add_agent(gpu_micros=2_000_000) for _ in range(3)]
        order = auction_order()
        key = await house.open_order(order)
        name = await auction_of(house, order)
        await bid(house, one, name, 1_500_000)
        await bid(house, two, name, 1_200_000)
        house.clock.advance(milliseconds=29_999)
        assert await house.matching.match_open_orders() == 0
        assert await kinds(house, key) == ["AuctionOpened"]
        house.clock.advance(milliseconds=1)
        for agent in house.agents:
            await agent.beat()
        assert await house.matching.match_open_orders() == 1
        opened, closed, created = await house.events(key=key)
        assert isinstance(opened, events_pb2.AuctionOpened)
        assert isinstance(closed, events_pb2.AuctionClosed)
        assert isinstance(created, events_pb2.LeaseCreated)
        assert (opened.round, closed.bids, closed.detail) == (1, 3, "")
        assert (created.lease.provider, created.lease.price.micros_per_hour) == (two.name, 1_200_000)
        bids = await house.auction_queries.bids(name, order.account)
        assert [(f"providers/{item.provider_id}", str(item.state), item.reason) for item in bids] == [
            (two.name, "WON", ""),
            (one.name, "LOST", "dearer"),
            (three.name, "LOST", "dearer"),
        ]
        assert closed.winning_bid == f"{name}/bids/{bids[0].bid_id}"
        assert [item.from_offer for item in bids] == [False, False, True]
        assert await house.matching.match_open_orders() == 0, "a round is decided once"


async def test_the_second_price_is_paid_and_alone_the_limit(house: House) -> None:
    """Goal: the winner is paid the next best price that fits, or the reserve. Method: two auctions, with and without a
    rival.
    """
    async with house.running(engine=False, courier=False):
        one = await house.add_agent(node(devices=3), gpu_micros=4_000_000)
        alone = auction_order(rule=SECOND)
        await house.open_order(alone)
        await bid(house, one, await auction_of(house, alone), 1_000_000)
        house.clock.advance(seconds=30)
        await one.beat()
        assert await house.matching.match_open_orders() == 1
        assert await house.value("SELECT price_micros FROM lease") == 5_000_000
        await house.add_agent(gpu_micros=3_000_000)
        rivalled = auction_order(rule=SECOND)
        await house.open_order(rivalled)
        await bid(house, one, await auction_of(house, rivalled), 1_000_000, request_id="again")
        house.clock.advance(seconds=30)
        for agent in house.agents:
            await agent.beat()
        assert await house.matching.match_open_orders() == 1
        assert await house.value("SELECT min(price_micros) FROM lease") == 3_000_000


async def test_bids_that_cannot_be_taken_are_refused_with_a_reason(house: House) -> None:
    """Goal: late, foreign, non-fitting and wrongly paid bids store nothing; a bid above the limit is taken like any other,
    so that the limit does not show. Method: each of them; then the rows.
    """
    async with house.running(engine=False, courier=False):
        agent = await house.add_agent()
        small = await house.add_agent(node(devices=1))
        order = auction_order(count=1)
        await house.open_order(order)
        name = await auction_of(house, order)
        assert (await refusal(bid(house, agent, name, 1, caller=small.owner))).reason.reason == "PROVIDER_NOT_FOUND"
        assert (await refusal(bid(house, agent, "auctions/none", 1))).reason.reason == "AUCTION_NOT_FOUND"
        wrong = await refusal(bid(house, agent, name, 1, asset="eurc"))
        assert [item.field for item in wrong.violations] == ["bid.price.asset"]
        big = auction_order(count=2)
        await house.open_order(big)
        unfit = await refusal(bid(house, small, await auction_of(house, big), 1))
        assert (unfit.reason.reason, unfit.metadata["constraint"]) == ("BID_DOES_NOT_FIT", "gpu_count")
        dear = await bid(house, agent, name, 5_000_001)
        assert str(dear.state) == "PLACED"
        assert await house.value("SELECT count(*) FROM bid") == 1
        house.clock.advance(seconds=30)
        assert (await refusal(bid(house, small, name, 1))).reason.reason == "AUCTION_CLOSED"
        assert await house.value("SELECT count(*) FROM bid") == 1
        await agent.beat()
        await small.beat()
        assert await house.matching.match_open_orders() == 1
        states = await house.auction_queries.bids(name, agent.owner)
        assert [(str(item.state), item.reason) for item in states] == [("LOST", "price_limit")]


async def test_a_bid_is_idempotent_and_the_last_one_counts(house: House) -> None:
    """Goal: a repeat places nothing, a new bid takes the place of the old one, also when both come at once. Method: the
    same request twice, then two others at once; the price of the lease.
    """
    async with house.running(engine=False, courier=False):
        agent = await house.add_agent(gpu_micros=4_000_000)
        order = auction_order()
        await house.open_order(order)
        name = await auction_of(house, order)
        first = await bid(house, agent, name, 1_000, request_id="r")
        assert await bid(house, agent, name, 1_000, request_id="r") == first
        assert (await refusal(bid(house, agent, name, 2_000, request_id="r"))).reason.reason == "REQUEST_ID_REUSED"
        async with asyncio.TaskGroup() as group:
            for micros in (3_000, 3_001):
                group.create_task(bid(house, agent, name, micros))
        assert await house.value("SELECT count(*) FROM bid WHERE state = 'PLACED'") == 1
        last = await bid(house, agent, name, 2_500_000)
        house.clock.advance(seconds=30)
        await agent.beat()
        assert await house.matching.match_open_orders() == 1
        assert await house.value("SELECT price_micros FROM lease") == 2_500_000
        assert await house.value("SELECT winning_bid_id FROM auction") == last.bid_id
        assert await house.value("SELECT count(*) FROM bid WHERE reason = 'replaced'") == 3


async def test_a_bid_at_the_last_moment_counts_or_is_told_that_it_is_late(house: House) -> None:
    """Goal: no bid is both taken and passed over. Method: bids and the decision of the round at the same time, many
    times; every bid that was answered took part.
    """
    async with house.running(engine=False, courier=False):
        agents = [await house.add_agent(node(devices=8), gpu_micros=4_000_000) for _ in range(4)]
        refused: set[str] = set()
        for _ in range(5):
            order = auction_order(window_ms=250)
            await house.open_order(order)
            name = await auction_of(house, order)
            house.clock.advance(milliseconds=249)
            taken: list[str] = []

            async def place(agent: Agent, number: int, name: str = name, taken: list[str] = taken) -> None:
                await asyncio.sleep(0.002 * number)
                try:
                    placed = await bid(house, agent, name, 1_000 + number, request_id=name + str(number))
                except DomainError as error:
                    refused.add(error.reason.reason)
                else:
                    taken.append(placed.bid_id)

            async with asyncio.TaskGroup() as group:
                for number, agent in enumerate(agents):
                    group.create_task(place(agent, number))
                house.clock.advance(milliseconds=1)
                group.create_task(house.matching.match_open_orders())
            await house.matching.match_open_orders()
            rows = await house.value(
                "SELECT array_agg(bid_id) FROM bid WHERE auction_id = $1 AND NOT from_offer AND state <> 'PLACED'",
                name.removeprefix("auctions/"),
            )
            assert sorted(rows or []) == sorted(taken)
        assert refused <= {"AUCTION_CLOSED"}


async def test_a_bid_that_waits_while_its_round_is_decided_is_late(house: House) -> None:
    """Goal: a bid that was in time when it was looked at, and not when it is written, is refused. Method: the round's row is
    held while the bid comes, and decided before it is let go.
    """

    async def blocked() -> bool:
        return bool(await house.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))

    async with house.running(engine=False, courier=False):
        agent = await house.add_agent()
        order = auction_order()
        key = await house.open_order(order)
        name = await auction_of(house, order)
        async with asyncio.TaskGroup() as group, house.database.transaction() as unit:
            await auctions.lock_open_auctions(unit.connection, [key])
            attempt = group.create_task(refusal(bid(house, agent, name, 1)))
            await house.until(blocked, "the bid waits for the round")
            await auctions.close_auction(unit.connection, name.removeprefix("auctions/"), "", unit.clock.now())
        assert attempt.result().reason.reason == "AUCTION_CLOSED"
        assert await house.value("SELECT count(*) FROM bid") == 0


async def test_a_kill_between_close_and_decision_loses_nothing(house: House) -> None:
    """Goal: a round whose decision was cut off is decided whole by the next engine, once. Method: the transaction dies
    after its last write; then two engines' passes at once.
    """
    async with house.running(engine=False, courier=False):
        agent = await house.add_agent(node(devices=2))
        order = auction_order()
        key = await house.open_order(order)
        name = await auction_of(house, order)
        await bid(house, agent, name, 700_000)
        house.clock.advance(seconds=30)
        await agent.beat()
        async with house.database.session() as session:
            await session.execute(
                "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'killed'; END$$"
            )
            await session.execute(
                "CREATE CONSTRAINT TRIGGER dies AFTER INSERT ON lease DEFERRABLE INITIALLY DEFERRED"
                " FOR EACH ROW EXECUTE FUNCTION die()"
            )
            with pytest.raises(Exception, match="killed"):
                await house.matching.match_open_orders()
            await session.execute("DROP TRIGGER dies ON lease")
        assert await house.value("SELECT state FROM auction") == "OPEN"
        assert await house.value("SELECT state FROM bid") == "PLACED"
        assert await kinds(house, key) == ["AuctionOpened"]
        async with asyncio.TaskGroup() as group:
            passes = [group.create_task(house.matching.match_open_orders()) for _ in range(2)]
        assert sum(task.result() for task in passes) == 1
        assert await kinds(house, key) == ["AuctionOpened", "AuctionClosed", "LeaseCreated"]


async def test_rounds_follow_each_other_until_the_wait_is_over(house: House) -> None:
    """Goal: without a winner another round opens, the last one ends with the wait, and then the order ends as EXPIRED;
    every round is told. Method: nobody within the limit; 30 s rounds in a wait of 75 s.
    """
    async with house.running(engine=False, courier=False):
        await house.add_agent(gpu_micros=6_000_000)
        order = auction_order(timeout_ms=75_000)
        key = await house.open_order(order)
        for seconds in (30, 30, 15):
            await house.pass_time(seconds)
            await house.watching.find_unmatched()
            assert await house.matching.match_open_orders() == 0
        assert await kinds(house, key) == ["AuctionOpened", "AuctionClosed"] * 3
        details = [event.detail for event in await house.events(key=key) if isinstance(event, events_pb2.AuctionClosed)]
        assert details == ["all that fit asked more than the price limit"] * 3
        await house.pass_time(1)
        assert await house.watching.find_unmatched() == 1
        assert (await kinds(house, key))[-1] == "OrderEnded"


async def test_an_end_and_a_change_end_the_round(house: House) -> None:
    """Goal: bids for what nobody wants any more never win. Method: a new workload in the middle of a round, then the end
    of the order.
    """
    async with house.running(engine=False, courier=False):
        agent = await house.add_agent(node(devices=2))
        order = auction_order()
        key = await house.open_order(order)
        old = await auction_of(house, order)
        await bid(house, agent, old, 1)
        order.groups[0].replica_sets[0].replicas = 2
        order.groups[0].revision = 2
        await house.hand(order_events.OrderUpdated(order=order), key)
        new = await auction_of(house, order)
        assert new != old
        assert await house.value("SELECT reason FROM bid") == "order_changed"
        await bid(house, agent, new, 2, request_id="new")
        await house.orders.end(key, EndReason.TENANT, "asked")
        assert await house.value("SELECT count(*) FROM auction WHERE state = 'OPEN'") == 0
        assert await house.value("SELECT reason FROM bid WHERE price_micros = 2") == "order_ended"
        assert (await refusal(bid(house, agent, new, 3))).reason.reason == "AUCTION_CLOSED"
        house.clock.advance(seconds=30)
        await agent.beat()
        assert await house.matching.match_open_orders() == 0


async def test_a_gang_is_auctioned_whole(house: House) -> None:
    """Goal: two groups that fit only at two providers are won by both; with a third that fits nowhere nobody wins.
    Method: two sites of one device, orders of two and of three groups.
    """
    async with house.running(engine=False, courier=False):
        agents = [await house.add_agent() for _ in range(2)]
        three = auction_order(groups=3)
        await house.open_order(three)
        two = auction_order(groups=2)
        await house.open_order(two)
        for index, agent in enumerate(agents):
            await bid(house, agent, await auction_of(house, two, index), 100 + index)
            await bid(house, agent, await auction_of(house, three, index), 50 + index, request_id=f"three-{index}")
        house.clock.advance(seconds=30)
        for agent in agents:
            await agent.beat()
        assert await house.matching.match_open_orders() == 2
        owners = await house.value("SELECT count(DISTINCT provider_id) FROM lease WHERE order_id = $1", two.name[7:])
        assert owners == 2
        assert await house.value("SELECT count(*) FROM lease WHERE order_id = $1", three.name[7:]) == 0
        sql = "SELECT count(*) FROM bid JOIN auction USING (auction_id) WHERE order_id = $1 AND bid.state = 'WON'"
        assert await house.value(sql, three.name[7:]) == 0


async def test_the_engine_closes_a_short_round_on_time(house: House) -> None:
    """Goal: a window of 250 ms is not made a second long by the engine's poll. Method: how long it would sleep."""
    assert await house.matching.seconds_to_close() > 1_000_000
    await house.open_order(auction_order(window_ms=250))
    assert await house.matching.seconds_to_close() == pytest.approx(0.25)
    house.clock.advance(milliseconds=1_249)
    assert 0 < await house.matching.seconds_to_close() < 0.1
    house.clock.advance(milliseconds=1)
    assert await house.matching.seconds_to_close() > 1_000_000, "what is overdue does not keep the engine awake"


async def test_providers_whose_inventory_fits_hear_of_a_round_and_learn_no_secret(house: House) -> None:
    """Goal: the announcement reaches who could bid, on the subject of region and model, and holds neither limit, tenant,
    order nor image. Method: listen with a provider's own credentials; a model that nobody has is told to nobody.
    """
    heard: list[NatsMessage] = []
    came = asyncio.Event()

    async def listen(message: NatsMessage) -> None:
        heard.append(message)
        came.set()

    async with house.running(engine=False, courier=False, announcer=True):
        agent = await house.add_agent()
        await agent.link.subscribe("fallow.market.auction.>", listen)
        await agent.beat()
        none = auction_order(count=8)
        await house.open_order(none)
        order = auction_order(limit=4_987_654)
        order.groups[0].replica_sets[0].image = "registry.example/secret-image"
        await house.open_order(order)
        async with asyncio.timeout(10):
            await came.wait()
        (message,) = heard
        assert message.subject == "fallow.market.auction.eu-west.h100"
        told = market_service_pb2.Auction.FromString(message.payload)
        assert told.name == await auction_of(house, order)
        assert told.replica_sets[0].resources.gpu.count == 1
        text = str(told)
        for secret in ("4987654", "secret-image", order.name, order.account, order.account.removeprefix("accounts/")):
            assert secret not in text
            assert secret.encode() not in message.payload
        assert await house.value("SELECT bool_and(announced) FROM auction")


async def test_nobody_but_the_bidder_reads_a_sealed_bid(house: House) -> None:
    """Goal: until the close a bid shows to its bidder alone: not to the tenant, not to a rival, in no event; afterwards the
    tenant sees all, and each bidder its own. Method: every call over gRPC as each of them; the outbox.
    """
    async with house.running(engine=False, courier=False), house.served() as address:
        one, two = [await house.add_agent(node(devices=2)) for _ in range(2)]
        order = auction_order()
        key = await house.open_order(order)
        name = await auction_of(house, order)
        tenant, stranger = order.account, new_name("accounts")

        async def ask(account: str, method: str, request: Message) -> Any:
            async with channel(address, house.identity.as_account(account, SCOPES)) as connection:
                stub = market_service_pb2_grpc.AuctionServiceStub(connection)
                return await getattr(stub, method)(request)

        async def prices(account: str) -> list[int]:
            answer = await ask(account, "ListBids", market_service_pb2.ListBidsRequest(parent=name))
            return [item.price.micros_per_hour for item in answer.bids]

        for agent, micros in ((one, 765_432), (two, 654_321)):
            request = market_service_pb2.CreateBidRequest(
                parent=name,
                bid=market_service_pb2.Bid(
                    provider=agent.name, price=money_pb2.Price(asset="usdc", micros_per_hour=micros)
                ),
                request_id="r",
            )
            placed = await ask(agent.owner, "CreateBid", request)
            assert (placed.state, placed.price.micros_per_hour) == (PLACED, micros)
        assert await prices(tenant) == []
        assert await prices(one.owner) == [765_432]
        get = market_service_pb2.GetAuctionRequest(name=name)
        shown = [await ask(account, "GetAuction", get) for account in (tenant, one.owner)]
        assert [item.order for item in shown] == [order.name, ""]
        for call, asked in (("GetAuction", get), ("ListBids", market_service_pb2.ListBidsRequest(parent=name))):
            hidden = await refusal(ask(stranger, call, asked))
            assert hidden.reason.reason == "AUCTION_NOT_FOUND"
        everything = market_service_pb2.ListAuctionsRequest()
        seen = [(await ask(account, "ListAuctions", everything)).auctions for account in (tenant, two.owner, stranger)]
        assert [len(found) for found in seen] == [1, 1, 0]
        own = market_service_pb2.ListAuctionsRequest(order=order.name)
        assert [len((await ask(who, "ListAuctions", own)).auctions) for who in (tenant, two.owner)] == [1, 0]
        told = [*await house.events(key=key), *await house.events(topic=MARKET_TOPIC), *shown]
        assert not any(text in str(item) for item in told for text in ("765432", "654321"))
        explained = await house.queries.explain(order.name)
        assert "765432" not in str(explained)
        picked = market_service_pb2.AcceptBidRequest(name=placed.name, request_id="pick")
        assert (await refusal(ask(tenant, "AcceptBid", picked))).reason.reason == "AUCTION_NOT_MANUAL"

        house.clock.advance(seconds=30)
        for agent in house.agents:
            await agent.beat()
        assert await house.matching.match_open_orders() == 1
        assert await prices(tenant) == [654_321, 765_432]
        assert await prices(one.owner) == [765_432]
        assert await prices(two.owner) == [654_321]


@pytest.mark.parametrize(
    ("region", "model", "subject"),
    [
        ("eu-west", "h100", "eu-west.h100"),
        ("eu.west *", "Evil Model", "eu_west__.Evil_Model"),
        ("", "", "none.none"),
        (">", "\r\n", "_.__"),
    ],
)
def test_a_subject_is_one_whatever_names_are_in_it(region: str, model: str, subject: str) -> None:
    """Goal: no name breaks the announcer. Method: names that a subject cannot hold."""
    assert announcement_subject(region, model) == f"fallow.market.auction.{subject}"
