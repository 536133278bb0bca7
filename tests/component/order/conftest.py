"""The order service in this process, on a real database, with fakes of settlement and bidding behind real gRPC.

Time and ids are real: what must not depend on waiting is driven by calling the jobs and handing records to the consumer.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from fallow.bidding.v1 import (
    lease_service_pb2,
    lease_service_pb2_grpc,
    market_service_pb2,
    market_service_pb2_grpc,
)
from fallow.order.v1 import order_pb2, order_service_pb2, order_service_pb2_grpc, session_service_pb2_grpc
from fallow.settlement.v1 import charge_pb2, settlement_service_pb2, settlement_service_pb2_grpc
from fallow.type.v1 import money_pb2, resources_pb2, workload_pb2
from fallow_chassis.clock import SystemClock
from fallow_chassis.context import GrantClaims, current_identity
from fallow_chassis.errors import DomainError, ErrorReason
from fallow_chassis.events import EventDraft, Record, event_headers
from fallow_chassis.grpc_client import channel
from fallow_chassis.ids import RandomIds
from fallow_chassis.inbox import Consumer
from fallow_chassis.postgres import Database
from fallow_chassis.signals import Signals
from fallow_chassis.status_details import to_status
from fallow_chassis.testing import DatabaseFactory, ManualClock, ServedService, TestIdentity, in_background, serving
from fallow_chassis.wire import to_duration
from fallow_order import consumers
from fallow_order.clients import EscrowClient, MarketClient
from fallow_order.commands import OrderCommands
from fallow_order.creation import OrderCreation
from fallow_order.domain.oidc import Issuer
from fallow_order.domain.session import Trusted
from fallow_order.jobs import OrderJobs, SweepTimes
from fallow_order.oidc import OidcVerifier
from fallow_order.queries import OrderQueries, SessionQueries
from fallow_order.rpc import OrderServicer, WorkloadServicer
from fallow_order.rpc_sessions import SessionServicer
from fallow_order.session_commands import SessionCommands, SignInRules
from fallow_order.update_commands import UpdateCommands
from fallow_order.vault import Vault
from fallow_sdl import SdlSettings
from tests.component.order.issuer import AUDIENCE, LocalIssuer

KEYS = "k1:" + "A" * 43 + "="
MAX_LIVE_ORDERS = 20
RULES = SignInRules(
    "fallow.test", "https://fallow.test", 31_337, 300, 900, Trusted(), max_api_keys=5, max_challenges=20
)
SCOPES = ("orders.read", "orders.write", "keys.write")
_CLOCK = SystemClock()
_IDS = RandomIds(_CLOCK)


class FakeSettlement(settlement_service_pb2_grpc.EscrowServiceServicer):
    """A fake of settlement's EscrowService: balances in a dictionary, faults as fields."""

    def __init__(self) -> None:
        self.free: dict[str, int] = {}
        self.held: dict[str, int] = {}
        self.accounts: dict[str, str] = {}
        self.released: set[str] = set()
        self.opens = 0
        self.batches: list[int] = []
        self.resizes: list[settlement_service_pb2.ResizeEscrowRequest] = []
        self.resized: dict[str, int] = {}
        self.fail_after_resize: DomainError | None = None
        self.failure: DomainError | None = None
        self.fail_after_open: DomainError | None = None
        self.callers: set[str] = set()

    async def BatchOpenEscrows(
        self, request: settlement_service_pb2.BatchOpenEscrowsRequest, context: Any
    ) -> settlement_service_pb2.BatchOpenEscrowsResponse:
        """Hold for each order, or say why not."""
        self.batches.append(len(request.requests))
        response = settlement_service_pb2.BatchOpenEscrowsResponse()
        for one in request.requests:
            try:
                response.results.add(escrow=self._hold(one))
            except DomainError as error:
                if error.code == "UNAVAILABLE":
                    raise
                response.results.add(error=to_status(error))
        return response

    def _hold(self, request: settlement_service_pb2.OpenEscrowRequest) -> charge_pb2.Escrow:
        """Hold, once for each order."""
        self.opens += 1
        self.callers.add(current_identity().subject)
        if self.failure is not None:
            raise self.failure
        if request.name in self.released:
            raise DomainError(
                ErrorReason("ESCROW_RELEASED", "FAILED_PRECONDITION", "Released.", "Order anew."), "released"
            )
        if request.name not in self.held:
            free = self.free.get(request.account, 0)
            if free < request.amount.micros:
                raise DomainError(
                    ErrorReason("INSUFFICIENT_FUNDS", "FAILED_PRECONDITION", "Too little.", "Deposit."),
                    "the free balance is too small",
                    metadata={"short_micros": str(request.amount.micros - free), "asset": request.amount.asset},
                )
            self.free[request.account] = free - request.amount.micros
            self.held[request.name] = request.amount.micros
            self.accounts[request.name] = request.account
        if self.fail_after_open is not None:
            raise self.fail_after_open
        return charge_pb2.Escrow(
            name=request.name, held=money_pb2.Amount(asset=request.amount.asset, micros=self.held[request.name])
        )

    async def ResizeEscrow(
        self, request: settlement_service_pb2.ResizeEscrowRequest, context: Any
    ) -> charge_pb2.Escrow:
        """Hold another sum; an old number changes nothing."""
        self.resizes.append(request)
        if self.failure is not None:
            raise self.failure
        name, account = request.name, self.accounts[request.name]
        if request.number > self.resized.get(name, 0):
            missing = request.amount.micros - self.held[name]
            if missing > self.free[account]:
                raise DomainError(
                    ErrorReason("INSUFFICIENT_FUNDS", "FAILED_PRECONDITION", "Too little.", "Deposit."),
                    "the free balance is too small",
                    metadata={"short_micros": str(missing - self.free[account]), "asset": request.amount.asset},
                )
            self.free[account] -= missing
            self.held[name] = request.amount.micros
            self.resized[name] = request.number
        if self.fail_after_resize is not None:
            raise self.fail_after_resize
        return charge_pb2.Escrow(name=name)

    async def ReleaseEscrow(
        self, request: settlement_service_pb2.ReleaseEscrowRequest, context: Any
    ) -> charge_pb2.Escrow:
        """Give back, and refuse a later open."""
        self.released.add(request.name)
        self.held.pop(request.name, None)
        return charge_pb2.Escrow(name=request.name)


class FakeBidding(lease_service_pb2_grpc.LeaseServiceServicer, market_service_pb2_grpc.MatchServiceServicer):
    """A fake of bidding's LeaseService and MatchService that remembers what it was asked."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, int]] = []
        self.failure: DomainError | None = None
        self.estimated: list[order_pb2.Order] = []

    async def EndOrder(
        self, request: lease_service_pb2.EndOrderRequest, context: Any
    ) -> lease_service_pb2.EndOrderResponse:
        """Remember."""
        if self.failure is not None:
            raise self.failure
        self.ended.append((request.order, request.reason))
        return lease_service_pb2.EndOrderResponse()

    async def EstimateMatch(
        self, request: market_service_pb2.EstimateMatchRequest, context: Any
    ) -> market_service_pb2.EstimateMatchResponse:
        """A price."""
        self.estimated.append(request.order)
        price = money_pb2.Price(asset="usdc", micros_per_hour=1_250_000)
        estimate = order_service_pb2.EstimateOrderResponse
        return market_service_pb2.EstimateMatchResponse(
            best_price=price,
            worst_price=price,
            fitting_providers=3,
            matching_price=money_pb2.Price(asset="usdc", micros_per_hour=1_500_000),
            candidate_providers=4,
            terms=[estimate.TermEstimate(kind=order_pb2.TERM_KIND_SPOT, fitting_providers=2)],
            early_close=to_duration(3_600_000),
            spot=estimate.SpotTerms(notice=to_duration(30_000)),
        )

    async def ExplainMatch(
        self, request: market_service_pb2.ExplainMatchRequest, context: Any
    ) -> market_service_pb2.ExplainMatchResponse:
        """One group's explanation."""
        return market_service_pb2.ExplainMatchResponse(
            groups=[order_service_pb2.ExplainOrderResponse.GroupExplanation(group_id="main", advice="wait")]
        )


@dataclass
class House:
    """The service and its surroundings, for one test."""

    database: Database
    identity: TestIdentity
    settlement: FakeSettlement
    bidding: FakeBidding
    creation: OrderCreation
    commands: OrderCommands
    updates: UpdateCommands
    sessions: SessionCommands
    jobs: OrderJobs
    consumer: Consumer
    signals: Signals
    address: str
    closing: AsyncExitStack
    versions: dict[tuple[str, str], int] = field(default_factory=dict)

    def tenant(self) -> "Tenant":
        """A new account that may order."""
        return Tenant(self, f"accounts/{_IDS.new()}")

    async def connect(self, token: str) -> grpc.aio.Channel:
        """A channel with a token; closed after the test."""
        opened = channel(self.address, (lambda: token) if token else None)
        self.closing.push_async_callback(opened.close)
        return opened

    async def deliver(self, topic: str, key: str, message: Message, *, version: int | None = None) -> None:
        """Hand an event to the consumer as the stream would; versions count by key unless given."""
        if version is None:
            version = self.versions[topic, key] = self.versions.get((topic, key), 0) + 1
        draft = EventDraft(topic, key, version, message)
        headers = event_headers(draft, event_id=_IDS.new(), source="services/test", time=_CLOCK.now(), trace="")
        await self.consumer.handle(Record(topic, key, message.SerializeToString(), headers))

    async def count(self, table: str) -> int:
        """Rows of a table."""
        async with self.database.read() as connection:
            return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))

    async def outbox(self) -> list[tuple[str, bytes]]:
        """Types and payloads of all events stated so far, in order."""
        async with self.database.read() as connection:
            rows = await connection.fetch("SELECT type, payload FROM outbox ORDER BY sequence")
        return [(row["type"], row["payload"]) for row in rows]

    async def make_due(self, order: str) -> None:
        """Let the order's next due time have come."""
        async with self.database.transaction() as unit:
            await unit.connection.execute(
                "UPDATE orders SET due_at = now() - interval '1 hour', created_at = created_at - interval '1 minute' "
                "WHERE id = $1",
                order.removeprefix("orders/"),
            )


@dataclass
class Tenant:
    """An account with tokens."""

    house: House
    name: str

    async def orders(self) -> "order_service_pb2_grpc.OrderServiceAsyncStub":
        """A stub with the usual scopes."""
        return order_service_pb2_grpc.OrderServiceStub(
            await self.house.connect(self.house.identity.account_token(self.name, SCOPES))
        )

    async def create(
        self, request_id: str = "r1", order: order_pb2.Order | None = None, **values: Any
    ) -> order_pb2.Order:
        """CreateOrder with one small order, unless another is given."""
        stub = await self.orders()
        request = order_service_pb2.CreateOrderRequest(request_id=request_id, order=order or small_order(), **values)
        return await stub.CreateOrder(request)

    async def get(self, name: str) -> order_pb2.Order:
        """GetOrder."""
        stub = await self.orders()
        return await stub.GetOrder(order_service_pb2.GetOrderRequest(name=name))


def small_order(*, secret: str = "s3cret", groups: int = 1, micros: int = 3_600_000) -> order_pb2.Order:
    """An order of one container a group, with a secret in its environment."""
    order = order_pb2.Order(labels={"team": "blue"})
    for index in range(groups):
        group = order.groups.add(
            group_id="main" if index == 0 else f"main-{index}",
            price_limit=money_pb2.Price(asset="usdc", micros_per_hour=micros),
        )
        group.workload.containers.add(
            service="web",
            image="exec:host",
            environment=[workload_pb2.EnvironmentVariable(key="PASSWORD", value=secret)],
            ports=[workload_pb2.Port(container_port=8080, public=True)],
            resources=resources_pb2.ResourceRequirement(
                cpu_milli=500, memory_bytes=1 << 28, gpu=resources_pb2.GpuRequirement(count=1, vendor="nvidia")
            ),
            replicas=1,
        )
    return order


def grant_on(order: str, *, group: int = 0, generation: int = 1, lease: str, revision: int = 1) -> GrantClaims:
    """What bidding gives to the agent of a lease."""
    provider = f"providers/{_IDS.new()}"
    return GrantClaims(provider, order, group, generation, lease, provider, frozenset({"workload.read"}), revision)


def new_name(collection: str) -> str:
    """A name that nobody has."""
    return f"{collection}/{_IDS.new()}"


def serve_neighbours(
    settlement: FakeSettlement, bidding: FakeBidding, identity: TestIdentity
) -> AbstractAsyncContextManager[str]:
    """Serve the fakes; yields their address."""
    return serving(
        ServedService(
            settlement_service_pb2_grpc.add_EscrowServiceServicer_to_server,
            settlement,
            "fallow.settlement.v1.EscrowService",
        ),
        ServedService(
            lease_service_pb2_grpc.add_LeaseServiceServicer_to_server, bidding, "fallow.bidding.v1.LeaseService"
        ),
        ServedService(
            market_service_pb2_grpc.add_MatchServiceServicer_to_server, bidding, "fallow.bidding.v1.MatchService"
        ),
        verifier=identity.verifier,
    )


@pytest.fixture
async def issuer() -> AsyncIterator[LocalIssuer]:
    """An OpenID Connect issuer on this machine, served over real HTTP."""
    async with LocalIssuer().served() as served:
        yield served


@pytest.fixture
def oidc_clock() -> ManualClock:
    """By what the verifier of identity tokens lives: the present time, standing still."""
    return ManualClock(_CLOCK.now())


@pytest.fixture
async def house(
    database_factory: DatabaseFactory, identity: TestIdentity, issuer: LocalIssuer, oidc_clock: ManualClock
) -> AsyncIterator[House]:
    """The service, served."""
    async with AsyncExitStack() as closing:
        database = await Database.connect(
            await database_factory("fallow_order"), ids=_IDS, clock=_CLOCK, source="services/order", pool_size=4
        )
        closing.push_async_callback(database.close)
        settlement = FakeSettlement()  # type: ignore[abstract]
        bidding = FakeBidding()  # type: ignore[abstract]
        neighbours = await closing.enter_async_context(serve_neighbours(settlement, bidding, identity))
        own = channel(neighbours, identity.as_service("order"))
        closing.push_async_callback(own.close)
        escrows, market = EscrowClient(own), MarketClient(own)
        vault = Vault.parse(KEYS)
        creation = OrderCreation(database, escrows, vault, max_live_orders=MAX_LIVE_ORDERS)
        await closing.enter_async_context(in_background(creation.run))
        commands = OrderCommands(database, vault)
        updates = UpdateCommands(database, escrows, vault, timedelta(seconds=30))
        oidc = OidcVerifier([Issuer(issuer.address, AUDIENCE)], oidc_clock)
        sessions = SessionCommands(database, identity.signer("order"), RULES, oidc)
        signals = Signals(database)
        address = await closing.enter_async_context(
            serving(
                ServedService(
                    order_service_pb2_grpc.add_OrderServiceServicer_to_server,
                    OrderServicer(creation, commands, updates, OrderQueries(database), market, signals, SdlSettings()),
                    "fallow.order.v1.OrderService",
                ),
                ServedService(
                    order_service_pb2_grpc.add_WorkloadServiceServicer_to_server,
                    WorkloadServicer(commands),
                    "fallow.order.v1.WorkloadService",
                ),
                ServedService(
                    session_service_pb2_grpc.add_SessionServiceServicer_to_server,
                    SessionServicer(sessions, SessionQueries(database)),
                    "fallow.order.v1.SessionService",
                ),
                verifier=identity.verifier,
            )
        )
        jobs = OrderJobs(
            database, commands, creation, escrows, market, SweepTimes(timedelta(seconds=30), timedelta(minutes=10))
        )
        consumer = Consumer(
            "order",
            [consumers.LEASES_TOPIC, consumers.ESCROWS_TOPIC],
            database,
            _NoStream(),
            consumers.handlers(),
        )
        yield House(
            database,
            identity,
            settlement,
            bidding,
            creation,
            commands,
            updates,
            sessions,
            jobs,
            consumer,
            signals,
            address,
            closing,
        )


class _NoStream:
    """The consumer is handed its records by the test; nothing may reach for the stream."""

    async def ensure_topics(self, names: Any) -> None:
        raise AssertionError(f"not here: {names}")

    async def publish(self, records: Any) -> None:
        raise AssertionError(f"not here: {records}")

    async def consume(self, group: str, topics: Any, handle: Any, *, on_poison: Any = None) -> None:
        raise AssertionError(f"not here: {group} {topics} {handle} {on_poison}")

    async def close(self) -> None:
        raise AssertionError("not here")
