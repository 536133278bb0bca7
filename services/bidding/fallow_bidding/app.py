"""Wires the bidding service: the registry and lease doors, the provider link, the engine, the courier, the watch."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Final

from fallow.bidding.v1 import (
    lease_service_pb2_grpc,
    market_service_pb2_grpc,
    provider_service_pb2_grpc,
)
from fallow_bidding.auction_queries import AuctionQueries
from fallow_bidding.commands.auctions import AuctionCommands
from fallow_bidding.commands.delivery import DeliveryCommands
from fallow_bidding.commands.link import LinkCommands
from fallow_bidding.commands.matching import MatchingCommands
from fallow_bidding.commands.online import OnlineCommands
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
from fallow_bidding.records import DecisionFolder
from fallow_bidding.rpc.auctions import AuctionServicer
from fallow_bidding.rpc.leases import LeaseServicer
from fallow_bidding.rpc.market import MatchServicer
from fallow_bidding.rpc.market_data import MarketDataServicer
from fallow_bidding.rpc.registry import ProviderRegistryServicer
from fallow_bidding.settings import BiddingSettings
from fallow_bidding.topics import LEASES_TOPIC, MARKET_TOPIC, ORDERS_TOPIC, PROOFS_TOPIC
from fallow_chassis.application import Application
from fallow_chassis.inbox import Consumer
from fallow_chassis.postgres import Database

WATCH_SECONDS: Final = 1.0
SWEEP_SECONDS: Final = 3_600.0
REPUTATION_SECONDS: Final = 10.0
ONLINE_SECONDS: Final = 5.0


async def build(application: Application[BiddingSettings]) -> None:
    """Put the service together."""
    settings = application.settings
    policy = settings.policy()
    database = await application.database()
    stream = await application.stream()
    await stream.ensure_topics([LEASES_TOPIC, MARKET_TOPIC, PROOFS_TOPIC, ORDERS_TOPIC])
    link = await application.nats()
    orders = OrderCommands(database, policy)
    watching = WatchCommands(database, policy)
    # Our own absence is written down before anybody is heard, so that it counts against no provider.
    await watching.beat()
    await LinkServer(link, LinkCommands(database, policy)).start()
    data = MarketData(database, policy)
    _add_servicers(application, orders, database, policy, data)
    folder = settings.decisions_folder
    decisions = DecisionFolder(Path(folder)) if folder else None
    matching = matching_of(database, policy, policy.market, decisions)
    delivery = DeliveryCommands(database, policy, application.signer, settings.required("order_address"))
    signals = application.signals()
    application.background(Engine(database, signals, matching, lock_key("leader", policy.market)).run, name="engine")
    auctions = AuctionCommands(
        database, policy, lambda market: matching if market == policy.market else matching_of(database, policy, market)
    )
    application.server.add(
        market_service_pb2_grpc.add_AuctionServiceServicer_to_server,
        AuctionServicer(auctions, AuctionQueries(database, policy)),
        "fallow.bidding.v1.AuctionService",
    )
    application.background(Announcer(signals, link, auctions).run, name="announcer")
    application.background(Courier(signals, link, delivery).run, name="courier")
    application.every(WATCH_SECONDS, Watch(link, watching, orders).run_once, name="watch")
    application.every(SWEEP_SECONDS, data.sweep, name="trades")
    application.every(REPUTATION_SECONDS, ReputationCommands(database, policy).compute_due, name="reputation")
    application.every(ONLINE_SECONDS, OnlineCommands(database, policy).run_once, name="online")
    application.relay()
    application.consume(Consumer("bidding", [ORDERS_TOPIC], database, stream, OrderHandlers(policy).by_type()))


def _add_servicers(
    application: Application[BiddingSettings],
    orders: OrderCommands,
    database: Database,
    policy: Policy,
    data: MarketData,
) -> None:
    """Open the gRPC doors."""
    settings, server = application.settings, application.server
    queries = Queries(database, policy)
    seed_file = settings.nats_account_seed_file
    server.add(
        provider_service_pb2_grpc.add_ProviderRegistryServiceServicer_to_server,
        ProviderRegistryServicer(
            RegistryCommands(database, policy),
            queries,
            application.clock,
            account_seed=Path(seed_file).read_text("ascii").strip() if seed_file else "",
            nats_url=settings.provider_nats_url or settings.nats_url,
        ),
        "fallow.bidding.v1.ProviderRegistryService",
    )
    server.add(
        lease_service_pb2_grpc.add_LeaseServiceServicer_to_server,
        LeaseServicer(
            orders,
            RelinquishCommands(database, policy),
            queries,
            application.signals(),
            application.signer,
            application.clock,
        ),
        "fallow.bidding.v1.LeaseService",
    )
    server.add(
        market_service_pb2_grpc.add_MatchServiceServicer_to_server,
        MatchServicer(queries),
        "fallow.bidding.v1.MatchService",
    )
    server.add(
        market_service_pb2_grpc.add_MarketDataServiceServicer_to_server,
        MarketDataServicer(data, application.signals()),
        "fallow.bidding.v1.MarketDataService",
    )


def matching_of(
    database: Database, policy: Policy, market: str, decisions: DecisionFolder | None = None
) -> MatchingCommands:
    """What decides about the orders of a market, and keeps decisions as files where a folder is given."""
    return MatchingCommands(database, replace(policy, market=market), lock_key("decisions", market), decisions)


def lock_key(purpose: str, market: str) -> int:
    """The advisory lock of a market for one purpose: 63 bits that other purposes and markets do not share."""
    digest = hashlib.sha256(f"fallow-bidding/{purpose}/{market}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
