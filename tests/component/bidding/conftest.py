"""The bidding service in this process on a real Postgres and NATS, with scripted agents that speak real NATS.

The clock stands still until a test moves it, so that silence and timeouts need no waiting; the engine, the courier and
the provider link run as they do in the process.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.message import Message

from fallow.bidding.v1 import (
    events_pb2,
    lease_service_pb2_grpc,
    market_service_pb2_grpc,
    provider_pb2,
    provider_service_pb2,
    provider_service_pb2_grpc,
)
from fallow.order.v1 import events_pb2 as order_events
from fallow.order.v1 import order_pb2
from fallow.provider.v1 import market_link_pb2
from fallow.type.v1 import lease_pb2, money_pb2, resources_pb2
from fallow_bidding.app import lock_key, matching_of
from fallow_bidding.auction_queries import AuctionQueries
from fallow_bidding.commands.auctions import AuctionCommands
from fallow_bidding.commands.delivery import DeliveryCommands
from fallow_bidding.commands.link import LinkCommands
from fallow_bidding.commands.matching import MatchingCommands
from fallow_bidding.commands.orders import OrderCommands
from fallow_bidding.commands.registry import RegistryCommands
from fallow_bidding.commands.relinquish import RelinquishCommands
from fallow_bidding.commands.reputation import ReputationCommands
from fallow_bidding.commands.watching import WatchCommands
from fallow_bidding.consumers import OrderHandlers
from fallow_bidding.domain.policy import Policy
from fallow_bidding.jobs import Announcer, Courier, Engine, Watch
from fallow_bidding.link import LinkServer
from fallow_bidding.market_data import MarketData
from fallow_bidding.queries import Queries
from fallow_bidding.rpc.auctions import AuctionServicer
from fallow_bidding.rpc.leases import LeaseServicer
from fallow_bidding.rpc.market import MatchServicer
from fallow_bidding.rpc.market_data import MarketDataServicer
from fallow_bidding.rpc.registry import ProviderRegistryServicer
from fallow_bidding.topics import LEASES_TOPIC, MARKET_TOPIC, ORDERS_TOPIC, PROOFS_TOPIC
from fallow_chassis.clock import SystemClock
from fallow_chassis.events import HEADER_ID, HEADER_TYPE, EventDraft, Record, event_headers
from fallow_chassis.ids import RandomIds
from fallow_chassis.inbox import Consumer
from fallow_chassis.nats_link import NatsLink, NatsMessage
from fallow_chassis.outbox import OutboxRelay
from fallow_chassis.postgres import Database
from fallow_chassis.signals import Signals
from fallow_chassis.stream import EventStream, Handle, OnPoison, open_stream
from fallow_chassis.testing import DatabaseFactory, ManualClock, ServedService, TestIdentity, serving
from fallow_stack.engines import Nats
from tests.conftest import ADAPTERS, StreamAddress

GIB = 1 << 30
STREAM_SECONDS = 60.0
"""How long a stream's records may take: a broker that has just started takes its time to let a new group in."""
ORDER_ADDRESS = "127.0.0.1:7001"
OWNER_SCOPES = ("providers.read", "providers.write")
TENANT_SCOPES = ("orders.read", "orders.write", "leases.grant")
_IDS = RandomIds(SystemClock())
_TOPICS = (LEASES_TOPIC, MARKET_TOPIC, PROOFS_TOPIC)


def new_name(collection: str) -> str:
    """A resource name with a fresh id."""
    return f"{collection}/{_IDS.new()}"


@dataclass(eq=False)
class Agent:
    """A scripted provider: it answers commands as ``outcomes`` says, and speaks when the test makes it speak."""

    provider_id: str
    owner: str
    key: Ed25519PrivateKey
    link: NatsLink
    commands: list[market_link_pb2.Command] = field(default_factory=list)
    runs: list[market_link_pb2.RunStatus] = field(default_factory=list)
    refuses: str = ""
    is_deaf: bool = False
    sequence: int = 0
    proofs_sent: dict[str, int] = field(default_factory=dict)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def name(self) -> str:
        """The provider's resource name."""
        return f"providers/{self.provider_id}"

    async def start(self) -> None:
        """Listen for commands."""
        await self.link.serve(f"fallow.provider.{self.provider_id}.command", "agent", self._command)

    async def _command(self, message: NatsMessage) -> bytes:
        """Remember a command and answer it."""
        command = market_link_pb2.Command.FromString(message.payload)
        if self.is_deaf:
            await self.closing.wait()
        self.commands.append(command)
        self.arrived.set()
        refused = bool(self.refuses) and command.HasField("run")
        answer = market_link_pb2.CommandAcknowledgement(
            command_id=command.command_id,
            outcome=market_link_pb2.COMMAND_OUTCOME_REFUSED if refused else market_link_pb2.COMMAND_OUTCOME_ACCEPTED,
            reason=self.refuses if refused else "",
        )
        return market_link_pb2.LinkReply(command=answer).SerializeToString()

    async def command(self, action: str, number: int = 1) -> market_link_pb2.Command:
        """The ``number``-th command of a kind (``run``, ``stop``), waited for."""
        async with asyncio.timeout(10):
            while True:
                found = [command for command in self.commands if command.HasField(action)]  # type: ignore[arg-type]
                if len(found) >= number:
                    return found[number - 1]
                self.arrived.clear()
                await self.arrived.wait()

    async def report_inventory(
        self, *nodes: resources_pb2.Node, sequence: int = 1, base: int = 0, removed: tuple[str, ...] = ()
    ) -> market_link_pb2.LinkReply:
        """Send an inventory report, in full or, with ``base``, of changes."""
        report = market_link_pb2.InventoryReport(
            provider=self.name, sequence=sequence, nodes=nodes, base_sequence=base, removed_node_ids=removed
        )
        return await self._say("inventory", report)

    async def beat(
        self, *runs: market_link_pb2.RunStatus, proofs: tuple[lease_pb2.Proof, ...] = ()
    ) -> market_link_pb2.HeartbeatAcknowledgement:
        """Send a heartbeat; the answer must be no error."""
        self.sequence += 1
        heartbeat = market_link_pb2.Heartbeat(
            provider=self.name,
            sequence=self.sequence,
            boot_id="boot",
            runs=runs,
            proofs=proofs,
            inventory_sequence=1,
        )
        reply = await self._say("heartbeat", heartbeat)
        assert reply.HasField("heartbeat"), reply
        return reply.heartbeat

    def proof(
        self, command: market_link_pb2.Command, running_ms: int, *, sequence: int = 0, final: bool = False
    ) -> lease_pb2.Proof:
        """A signed proof of the command's generation; the sequence counts by itself."""
        number = sequence or self.proofs_sent.get(command.lease, 0) + 1
        self.proofs_sent[command.lease] = number
        proof = lease_pb2.Proof(
            lease=command.lease,
            key=command.key,
            sequence=number,
            running_ms=running_ms,
            device_health=resources_pb2.DEVICE_HEALTH_HEALTHY,
            final=final,
        )
        text = (
            f"fallow-proof-v1|{command.lease}|{command.key.order}|{command.key.group}|{command.key.generation}"
            f"|{number}|{running_ms}|{resources_pb2.DEVICE_HEALTH_HEALTHY}|{int(final)}"
        )
        proof.signature = self.key.sign(text.encode())
        return proof

    async def _say(self, word: str, message: Message) -> market_link_pb2.LinkReply:
        """One request on the provider's own subject."""
        subject = f"fallow.provider.{self.provider_id}.{word}"
        return market_link_pb2.LinkReply.FromString(await self.link.request(subject, message.SerializeToString(), 10.0))


def run_status(
    command: market_link_pb2.Command, state: "market_link_pb2.RunState.ValueType", **fields: Any
) -> market_link_pb2.RunStatus:
    """A generation's status as its agent reports it."""
    return market_link_pb2.RunStatus(lease=command.lease, key=command.key, state=state, **fields)


@dataclass(eq=False)
class House:
    """The service and its surroundings, for one test."""

    database: Database
    clock: ManualClock
    identity: TestIdentity
    policy: Policy
    nats: Nats
    link: NatsLink
    folder: Path
    stream: EventStream | None = None
    agents: list[Agent] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)
    received: list[Record] = field(default_factory=list)
    handled: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Build the use-cases, as app.py does."""
        self.orders = OrderCommands(self.database, self.policy)
        self.registry = RegistryCommands(self.database, self.policy)
        self.queries = Queries(self.database, self.policy)
        self.watching = WatchCommands(self.database, self.policy)
        self.watch = Watch(self.link, self.watching, self.orders)
        self.matching = MatchingCommands(self.database, self.policy, lock_key("decisions", self.policy.market))
        self.delivery = DeliveryCommands(self.database, self.policy, self.identity.signer("bidding"), ORDER_ADDRESS)
        self.reputation = ReputationCommands(self.database, self.policy)
        self.signals = Signals(self.database)
        self.data = MarketData(self.database, self.policy)
        self.engine = Engine(self.database, self.signals, self.matching, lock_key("leader", self.policy.market))
        self.auctions = AuctionCommands(
            self.database, self.policy, lambda market: matching_of(self.database, self.policy, market)
        )
        self.auction_queries = AuctionQueries(self.database, self.policy)
        self.announcer = Announcer(self.signals, self.link, self.auctions)
        self.courier = Courier(self.signals, self.link, self.delivery)
        self.links = LinkServer(self.link, LinkCommands(self.database, self.policy))
        # A group of the test's own: it shares its broker with other tests.
        self.group = f"bidding-{_IDS.new()}"
        self.consumer = Consumer(
            self.group, [ORDERS_TOPIC], self.database, _OwnRecords(self), OrderHandlers(self.policy).by_type()
        )

    @asynccontextmanager
    async def running(
        self, *, engine: bool = True, courier: bool = True, announcer: bool = False
    ) -> AsyncIterator[None]:
        """Listen to agents, match and send while the block runs."""
        await self.links.start()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.signals.run())]
            tasks += [group.create_task(self.engine.run())] if engine else []
            tasks += [group.create_task(self.courier.run())] if courier else []
            tasks += [group.create_task(self.announcer.run())] if announcer else []
            if self.stream is not None:
                await self.stream.ensure_topics([*_TOPICS, ORDERS_TOPIC])
                relay = OutboxRelay(self.database, self.signals, self.stream, self.clock)
                reading = self.stream.consume(f"{self.group}-reader", _TOPICS, self._receive)
                tasks += [group.create_task(work) for work in (relay.run(), self.consumer.run(), reading)]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()

    @asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        """The gRPC doors on a free port."""
        seed = self.nats.account_seed_file.read_text("ascii").strip()
        registry = ProviderRegistryServicer(
            self.registry, self.queries, self.clock, account_seed=seed, nats_url=self.nats.url
        )
        leases = LeaseServicer(
            self.orders,
            RelinquishCommands(self.database, self.policy),
            self.queries,
            self.signals,
            self.identity.signer("bidding"),
            self.clock,
        )
        data = MarketDataServicer(self.data, self.signals)
        auctions = AuctionServicer(self.auctions, self.auction_queries)
        services: list[tuple[Callable[[Any, Any], None], Any, str]] = [
            (provider_service_pb2_grpc.add_ProviderRegistryServiceServicer_to_server, registry, "ProviderRegistry"),
            (lease_service_pb2_grpc.add_LeaseServiceServicer_to_server, leases, "Lease"),
            (market_service_pb2_grpc.add_MatchServiceServicer_to_server, MatchServicer(self.queries), "Match"),
            (market_service_pb2_grpc.add_AuctionServiceServicer_to_server, auctions, "Auction"),
            (market_service_pb2_grpc.add_MarketDataServiceServicer_to_server, data, "MarketData"),
        ]
        wired = [
            ServedService(adder, servicer, f"fallow.bidding.v1.{name}Service") for adder, servicer, name in services
        ]
        async with serving(*wired, verifier=self.identity.verifier, clock=self.clock) as address:
            yield address

    async def add_agent(
        self, *nodes: resources_pb2.Node, gpu_micros: int = 1_000_000, model: str = "h100", online: bool = True
    ) -> Agent:
        """Register a provider with an offer, and start its agent with this inventory."""
        key = Ed25519PrivateKey.generate()
        owner = new_name("accounts")
        wanted = provider_pb2.Provider(public_key=key.public_key().public_bytes_raw(), region="eu-west")
        provider = await self.registry.create_provider(
            provider_service_pb2.CreateProviderRequest(provider=wanted, request_id="create"), owner
        )
        prices = provider_pb2.PriceSchedule(asset="usdc", gpu_micros_per_hour_by_model={model: gpu_micros})
        offer = provider_pb2.Offer(provider=f"providers/{provider.provider_id}", prices=prices)
        await self.registry.create_offer(
            provider_service_pb2.CreateOfferRequest(offer=offer, request_id="offer"), owner
        )
        credentials = self.folder / f"{provider.provider_id}.creds"
        credentials.write_text(self.nats.provider_credentials(provider.provider_id), "ascii")
        link = await NatsLink.connect(self.nats.url, str(credentials), name=provider.provider_id)
        agent = Agent(provider.provider_id, owner, key, link)
        self.agents.append(agent)
        await agent.start()
        if online:
            await agent.report_inventory(*(nodes or (node(),)))
            await agent.beat()
        return agent

    async def hand(self, message: Message, key: str, *, stated: datetime | None = None) -> None:
        """Hand an event of the order service, stated now or earlier, to the consumer, by the stream or as it would."""
        version = self.versions.get(key, 0) + 1
        self.versions[key] = version
        draft = EventDraft(ORDERS_TOPIC, key, version, message)
        time = stated or self.clock.now()
        headers = event_headers(draft, event_id=_IDS.new(), source="services/order", time=time, trace="")
        record = Record(ORDERS_TOPIC, key, message.SerializeToString(), headers)
        if self.stream is None:
            await self.consumer.handle(record)
            return
        await self.stream.publish([record])

        async def is_handled() -> bool:
            return headers[HEADER_ID] in self.handled

        await self.until(is_handled, "the consumer takes the event", seconds=STREAM_SECONDS)

    async def _receive(self, record: Record) -> None:
        """Keep what the stream brings once, whoever stated it."""
        if record not in self.received:
            self.received.append(record)

    async def open_order(self, order: order_pb2.Order, *, stated: datetime | None = None) -> str:
        """Take an order to the market by its event; its id."""
        order_id = order.name.removeprefix("orders/")
        await self.hand(order_events.OrderOpened(order=order), order_id, stated=stated)
        return order_id

    async def pass_time(self, seconds: float) -> None:
        """Let time pass for a market that is there all the while, and whose agents are heard."""
        end = self.clock.now() + timedelta(seconds=seconds)
        while self.clock.now() < end:
            step = min(end - self.clock.now(), timedelta(seconds=4))
            self.clock.advance(milliseconds=step // timedelta(milliseconds=1))
            await self.watching.beat()
            for agent in self.agents:
                await agent.beat(*agent.runs)

    async def events(self, topic: str = LEASES_TOPIC, key: str = "") -> list[Message]:
        """What the outbox holds of a topic, in order; versions must be without gaps, and the stream, if any, brings the same."""
        async with self.database.read() as connection:
            rows = await connection.fetch(
                "SELECT type, key, version, payload FROM outbox WHERE topic = $1 AND ($2 = '' OR key = $2)"
                " ORDER BY sequence",
                topic,
                key,
            )
        if key and topic != PROOFS_TOPIC:
            assert [row["version"] for row in rows] == list(range(1, len(rows) + 1))
        if self.stream is not None:
            await self.until(
                lambda: self._is_brought(topic, rows),
                "the stream brings what was stated, in order",
                seconds=STREAM_SECONDS,
            )
        return [getattr(events_pb2, row["type"].rpartition(".")[2]).FromString(row["payload"]) for row in rows]

    async def _is_brought(self, topic: str, rows: Sequence[asyncpg.Record]) -> bool:
        """Whether the stream has brought rows of the outbox, those of each key in their order and none before its turn."""
        for key in {row["key"] for row in rows}:
            stated = [(row["type"], row["payload"]) for row in rows if row["key"] == key]
            found = [
                (record.headers[HEADER_TYPE], record.value)
                for record in self.received
                if record.topic == topic and record.key == key
            ]
            assert found == stated[: len(found)] or found[: len(stated)] == stated, "events of a key keep their order"
            if len(found) < len(stated):
                return False
        return True

    async def value(self, sql: str, *arguments: object) -> Any:
        """One value of the database."""
        async with self.database.read() as connection:
            return await connection.fetchval(sql, *arguments)

    async def until(self, condition: Callable[[], Awaitable[bool]], what: str, *, seconds: float = 10) -> None:
        """Wait, on real time and bounded, for what a background loop is about to do."""
        try:
            async with asyncio.timeout(seconds):
                while not await condition():
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"not within {seconds:.0f} s: {what}") from None

    async def until_event(self, key: str, kind: type[Message], number: int = 1) -> Any:
        """The ``number``-th event of a kind about an order, waited for."""
        found: list[Message] = []

        async def came() -> bool:
            found[:] = [event for event in await self.events(key=key) if isinstance(event, kind)]
            return len(found) >= number

        await self.until(came, f"{kind.__name__} number {number}")
        return found[number - 1]

    async def close(self) -> None:
        """Close what was opened."""
        for agent in self.agents:
            agent.closing.set()
            await agent.link.close()
        await self.link.close()
        await self.database.close()


@dataclass(frozen=True)
class _OwnRecords:
    """The test's stream for its consumer: other tests' orders are passed over. Without a stream the test hands records over itself."""

    house: House

    @property
    def stream(self) -> EventStream:
        """The real one."""
        assert self.house.stream is not None, "only a house with a stream consumes"
        return self.house.stream

    async def ensure_topics(self, names: Sequence[str]) -> None:
        await self.stream.ensure_topics(names)

    async def publish(self, records: Sequence[Record]) -> None:
        await self.stream.publish(records)

    async def consume(
        self, group: str, topics: Sequence[str], handle: Handle, *, on_poison: OnPoison | None = None
    ) -> None:
        async def own(record: Record) -> None:
            if record.key in self.house.versions:
                await handle(record)
                self.house.handled.add(record.headers[HEADER_ID])

        await self.stream.consume(group, topics, own, on_poison=on_poison)

    async def close(self) -> None:
        raise NotImplementedError


def node(
    node_id: str = "node-1", devices: int = 1, model: str = "h100", *, prefix: str = "", drivers: tuple[str, ...] = ()
) -> resources_pb2.Node:
    """A node with GPUs of one model."""
    return resources_pb2.Node(
        node_id=node_id,
        cpu_milli=64_000,
        memory_bytes=256 * GIB,
        storage_bytes_by_class={"ephemeral": 1_000 * GIB},
        devices=[
            resources_pb2.Device(
                device_id=f"{prefix or node_id}-gpu-{index}",
                vendor="nvidia",
                model=model,
                vram_bytes=80 * GIB,
                interface="sxm",
                health=resources_pb2.DEVICE_HEALTH_HEALTHY,
                source=resources_pb2.DEVICE_SOURCE_DECLARED,
            )
            for index in range(devices)
        ],
        drivers=drivers,
    )


def gpu_order(
    *, count: int = 1, limit: int = 5_000_000, groups: int = 1, tenant: str = "", **order: Any
) -> order_pb2.Order:
    """An order of GPU groups as its event carries it."""
    resources = resources_pb2.ResourceRequirement(
        cpu_milli=1_000, memory_bytes=GIB, gpu=resources_pb2.GpuRequirement(count=count, models=["h100"])
    )
    return order_pb2.Order(
        name=new_name("orders"),
        account=tenant or new_name("accounts"),
        groups=[
            order_pb2.Group(
                group_id=f"group-{index}",
                price_limit=money_pb2.Price(asset="usdc", micros_per_hour=limit),
                replica_sets=[order_pb2.ReplicaSet(service="web", replicas=1, resources=resources, public_ports=1)],
            )
            for index in range(groups)
        ],
        state=order_pb2.ORDER_STATE_OPEN,
        **order,
    )


@pytest.fixture
def policy() -> Policy:
    """The market's rules; a test module may have others."""
    return Policy()


ON_BOTH_STREAMS = pytest.mark.parametrize("house_stream", ADAPTERS, indirect=True)
"""Runs a test by JetStream and by Kafka: events come and go by the real stream, and ``events`` holds what it brings."""


@pytest.fixture
async def house_stream(request: pytest.FixtureRequest, private_nats: Nats) -> AsyncIterator[EventStream | None]:
    """No stream, unless the test runs on both: then the house's own NATS, or the run's Kafka."""
    adapter = getattr(request, "param", "")
    if not adapter:
        yield None
        return
    address = StreamAddress(private_nats.url, private_nats.url, str(private_nats.service_credentials_file("bidding")))
    if adapter == "kafka":
        address = request.getfixturevalue("kafka_address")
    stream = await open_stream(address, client="bidding")
    yield stream
    await stream.close()


@pytest.fixture
async def house(
    database_factory: DatabaseFactory,
    private_nats: Nats,
    tmp_path: Path,
    policy: Policy,
    house_stream: EventStream | None,
) -> AsyncIterator[House]:
    """The service on a database and a NATS of its own."""
    clock = ManualClock()
    database = await Database.connect(
        await database_factory("fallow_bidding"), ids=RandomIds(SystemClock()), clock=clock, source="services/bidding"
    )
    link = await NatsLink.connect(
        private_nats.url, str(private_nats.service_credentials_file("bidding")), name="bidding"
    )
    made = House(
        database,
        clock,
        TestIdentity(tmp_path / "identity", clock=clock),
        policy,
        private_nats,
        link,
        tmp_path,
        house_stream,
    )
    await made.watching.beat()
    yield made
    await made.close()
