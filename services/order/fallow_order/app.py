"""Where the order service is put together."""

from datetime import timedelta

from fallow.order.v1 import order_service_pb2_grpc, session_service_pb2_grpc
from fallow_chassis.application import Application
from fallow_chassis.inbox import Consumer
from fallow_order import consumers
from fallow_order.clients import EscrowClient, MarketClient
from fallow_order.commands import ORDERS_TOPIC, OrderCommands
from fallow_order.creation import OrderCreation
from fallow_order.domain.session import Trusted
from fallow_order.jobs import OrderJobs, SweepTimes
from fallow_order.oidc import OidcVerifier, parse_issuers
from fallow_order.queries import OrderQueries, SessionQueries
from fallow_order.rpc import OrderServicer, WorkloadServicer
from fallow_order.rpc_sessions import SessionServicer
from fallow_order.session_commands import SessionCommands, SignInRules
from fallow_order.settings import OrderSettings
from fallow_order.update_commands import UpdateCommands
from fallow_order.vault import Vault
from fallow_order.workload_keys import WorkloadKeys
from fallow_sdl import SdlSettings, parse_rates

JOB_SECONDS = 0.5
SWEEP_SECONDS = 1.0
FORGET_SECONDS = 60.0
RESEAL_SECONDS = 30.0


async def build(application: Application[OrderSettings]) -> None:
    """Wire servicers, consumers and jobs."""
    settings = application.settings
    vault = Vault.parse(settings.workload_keys)
    database = await application.database()
    stream = await application.stream()
    await stream.ensure_topics([ORDERS_TOPIC])
    escrows = EscrowClient(application.channel(settings.required("settlement_address")))
    market = MarketClient(application.channel(settings.required("bidding_address")))
    creation = OrderCreation(database, escrows, vault, max_live_orders=settings.max_live_orders)
    application.background(creation.run, name="order_creation")
    commands = OrderCommands(database, vault)
    updates = UpdateCommands(database, escrows, vault, sweep_times(settings).finish_after)
    sessions = SessionCommands(
        database,
        application.signer,
        sign_in_rules(settings),
        OidcVerifier(parse_issuers(settings.oidc_issuers), application.clock),
    )
    server = application.server
    server.add(
        order_service_pb2_grpc.add_OrderServiceServicer_to_server,
        OrderServicer(
            creation, commands, updates, OrderQueries(database), market, application.signals(), sdl_settings(settings)
        ),
        "fallow.order.v1.OrderService",
    )
    server.add(
        order_service_pb2_grpc.add_WorkloadServiceServicer_to_server,
        WorkloadServicer(commands),
        "fallow.order.v1.WorkloadService",
    )
    server.add(
        session_service_pb2_grpc.add_SessionServiceServicer_to_server,
        SessionServicer(sessions, SessionQueries(database)),
        "fallow.order.v1.SessionService",
    )
    application.relay()
    application.consume(
        Consumer(
            "order",
            [consumers.LEASES_TOPIC, consumers.ESCROWS_TOPIC],
            database,
            stream,
            consumers.handlers(),
        )
    )
    jobs = OrderJobs(database, commands, creation, escrows, market, sweep_times(settings))
    application.every(SWEEP_SECONDS, jobs.sweep_pending, name="sweep_pending")
    application.every(SWEEP_SECONDS, updates.sweep, name="sweep_updates")
    application.every(JOB_SECONDS, jobs.carry_ends, name="carry_ends")
    application.every(SWEEP_SECONDS, jobs.release_escrows, name="release_escrows")
    keys = WorkloadKeys(database, vault)
    application.every(RESEAL_SECONDS, keys.reseal, name="reseal_workloads")
    application.every(FORGET_SECONDS, sessions.forget, name="forget")


def _names(listed: str) -> frozenset[str]:
    """Accounts and addresses of a setting."""
    return frozenset(entry.strip().lower() for entry in listed.split(",") if entry.strip())


def sign_in_rules(settings: OrderSettings) -> SignInRules:
    """What sign-in messages must say."""
    return SignInRules(
        domain=settings.sign_in_domain,
        uri=settings.sign_in_uri or f"https://{settings.sign_in_domain}",
        chain_id=settings.chain_id,
        challenge_seconds=settings.sign_in_seconds,
        token_seconds=settings.access_token_seconds,
        trusted=Trusted(_names(settings.audit_accounts), _names(settings.treasury_accounts)),
        max_api_keys=settings.max_api_keys,
        max_challenges=settings.max_sign_in_challenges,
    )


def sdl_settings(settings: OrderSettings) -> SdlSettings:
    """How prices of SDL files are read."""
    return SdlSettings(
        settings.sdl_asset,
        settings.sdl_block_milliseconds,
        parse_rates(settings.sdl_rates),
        settings.sdl_persistent_class,
    )


def sweep_times(settings: OrderSettings) -> SweepTimes:
    """When orders left PENDING are finished and withdrawn."""
    return SweepTimes(
        finish_after=timedelta(seconds=settings.pending_finish_seconds),
        release_after=timedelta(seconds=settings.pending_release_seconds),
    )
