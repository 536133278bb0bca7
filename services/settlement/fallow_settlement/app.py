"""Puts settlement together: one place builds and wires."""

from datetime import timedelta
from functools import partial
from pathlib import Path

from fallow.settlement.v1 import programme_service_pb2_grpc as programme_doors
from fallow.settlement.v1 import settlement_service_pb2_grpc as doors
from fallow_chassis.application import Application
from fallow_chassis.group_commit import GroupCommit
from fallow_chassis.inbox import Consumer, Poison
from fallow_chassis.postgres import Database
from fallow_settlement.adjusting import Adjusting
from fallow_settlement.anchoring import Anchoring, AnchoringRule
from fallow_settlement.balances import Balances
from fallow_settlement.chain import JsonRpcNode
from fallow_settlement.charging import Charging
from fallow_settlement.clients import BiddingClient
from fallow_settlement.commands import EscrowCommands
from fallow_settlement.domain.escrow import Escrow
from fallow_settlement.events import BATCHES_TOPIC, ESCROWS_TOPIC
from fallow_settlement.facts import LEASES_TOPIC, MARKET_TOPIC, PROOFS_TOPIC, Facts
from fallow_settlement.grants import Grants
from fallow_settlement.ledger_store import expire_overdue
from fallow_settlement.opening import EscrowOpening, Opening
from fallow_settlement.programmes import Programmes
from fallow_settlement.promotions import Promotions
from fallow_settlement.queries import Reads
from fallow_settlement.rpc import EscrowServicer, FundsServicer, LedgerServicer, ReceiptServicer
from fallow_settlement.rpc_programmes import ProgrammeServicer
from fallow_settlement.sealing import Sealing, SealingRule
from fallow_settlement.settings import Contracts, SettlementSettings
from fallow_settlement.signer import Signer
from fallow_settlement.statements import Statements
from fallow_settlement.suspension import Suspension
from fallow_settlement.vault_watcher import VaultWatcher
from fallow_settlement.withdrawals import Withdrawals

FORGET_SECONDS = 3_600.0
PROGRAMME_SECONDS = 600.0


GWEI = 1_000_000_000


async def build(application: Application[SettlementSettings]) -> None:
    """Wire the service on an application."""
    settings = application.settings
    rules = settings.rules()
    database = await application.database()
    stream = await application.stream()
    await stream.ensure_topics([ESCROWS_TOPIC, BATCHES_TOPIC])
    contracts = Contracts.load(Path(settings.required("contracts_file"))) if settings.chain_rpc_url else None

    reads = Reads(database, rules)
    node = None
    withdrawals, balances = None, None
    if contracts is not None:
        node = JsonRpcNode(settings.chain_rpc_url, contracts.chain_id)
        application.on_close(node.close)
        withdrawals = Withdrawals(database, node, contracts, settings.chain_asset)
        balances = Balances(database, node, contracts)
    opening = GroupCommit[Opening, Escrow]("open_escrows", EscrowOpening(database, rules).open_escrows)
    application.background(opening.run, name="escrow_opening")
    escrows = EscrowServicer(opening, EscrowCommands(database, rules), reads)
    _add_doors(application, database, escrows, reads, withdrawals, balances, contracts)
    application.relay()

    facts = Facts(rules)
    # Three consumers, because a parked key of leases must not hold back a provider's proofs, and the reverse.
    for name, topic, handlers in (
        ("settlement", LEASES_TOPIC, facts.lease_handlers()),
        ("settlement-proofs", PROOFS_TOPIC, facts.proof_handlers()),
        ("settlement-market", MARKET_TOPIC, facts.market_handlers()),
    ):
        application.consume(Consumer(name, [topic], database, stream, handlers, poison=Poison.PARK_KEY))

    market = BiddingClient(application.channel(settings.bidding_address)) if settings.bidding_address else None
    charging = Charging(database, rules)
    application.every(settings.charge_interval_seconds, charging.charge_due, name="charge_due")
    application.every(settings.close_interval_seconds, charging.close_ended, name="close_ended")
    if market is not None:
        suspension = Suspension(database, market)
        application.every(settings.close_interval_seconds, suspension.resume_or_end, name="resume_or_end")
        application.every(settings.close_interval_seconds, suspension.tell_market, name="tell_market")
    application.every(settings.close_interval_seconds, partial(expire_overdue, database), name="expire_transfers")
    application.every(FORGET_SECONDS, charging.forget, name="forget")
    if contracts is not None and node is not None:
        _add_chain(application, database, node, contracts)


def _add_chain(
    application: Application[SettlementSettings], database: Database, node: JsonRpcNode, contracts: Contracts
) -> None:
    """Add what reads from and writes to the chain."""
    settings = application.settings
    signer = Signer.load(Path(settings.required("chain_key_file")), contracts.chain_id)
    watcher = VaultWatcher(database, node, contracts, settings.chain_asset, settings.chain_confirmations)
    sealing = Sealing(
        database,
        contracts,
        settings.chain_asset,
        SealingRule(
            settings.batch_size,
            timedelta(seconds=settings.batch_interval_seconds),
            timedelta(seconds=settings.longest_silence_seconds),
        ),
    )
    rule = AnchoringRule(
        confirmations=settings.chain_confirmations,
        bump_after_ms=round(settings.chain_bump_seconds * 1_000),
        fee_cap=settings.chain_fee_cap_gwei * GWEI,
    )
    anchoring = Anchoring(database, node, signer, contracts, rule)
    application.every(settings.chain_interval_seconds, watcher.scan, name="scan_deposits")
    application.every(settings.chain_interval_seconds, sealing.seal_due, name="seal_batches")
    application.every(settings.chain_interval_seconds, anchoring.advance, name="anchor_batches")


def _add_doors(
    application: Application[SettlementSettings],
    database: Database,
    escrows: EscrowServicer,
    reads: Reads,
    withdrawals: Withdrawals | None,
    balances: Balances | None,
    contracts: Contracts | None,
) -> None:
    """Add the gRPC services."""
    settings = application.settings
    rules = settings.rules()
    server = application.server
    package = "fallow.settlement.v1"
    server.add(doors.add_EscrowServiceServicer_to_server, escrows, f"{package}.EscrowService")
    funds = FundsServicer(
        reads,
        withdrawals,
        balances,
        contracts,
        settings.chain_asset,
        settings.chain_confirmations,
        settings.chain_public_rpc_url,
    )
    server.add(doors.add_FundsServiceServicer_to_server, funds, f"{package}.FundsService")
    receipts = ReceiptServicer(reads, Statements(database))
    server.add(doors.add_ReceiptServiceServicer_to_server, receipts, f"{package}.ReceiptService")
    server.add(
        doors.add_LedgerServiceServicer_to_server,
        LedgerServicer(reads, Adjusting(database, rules)),
        f"{package}.LedgerService",
    )
    programmes = Programmes(database, rules)
    server.add(
        programme_doors.add_ProgrammeServiceServicer_to_server,
        ProgrammeServicer(programmes, Promotions(database, rules), Grants(database, rules)),
        f"{package}.ProgrammeService",
    )
    application.every(PROGRAMME_SECONDS, programmes.pay_due, name="pay_programmes")
