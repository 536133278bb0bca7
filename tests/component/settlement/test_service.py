"""The settlement service as a process: gRPC door, events in and out, chain, and a kill in the middle."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc
import pytest
from google.protobuf.message import Message

from fallow.settlement.v1 import charge_pb2, events_pb2, settlement_service_pb2, settlement_service_pb2_grpc
from fallow.type.v1 import money_pb2
from fallow_chassis.clock import SystemClock
from fallow_chassis.events import EventDraft, Record, event_headers
from fallow_chassis.grpc_client import RemoteError, channel
from fallow_chassis.ids import RandomIds
from fallow_chassis.stream import EventStream, open_stream
from fallow_chassis.testing import DatabaseFactory, ManualClock, TestIdentity
from fallow_receipts import Receipt, id_to_word, verify_receipt
from fallow_sdk.chain import ChainClient
from fallow_sdk.wallet import Wallet
from fallow_settlement.events import ESCROWS_TOPIC
from fallow_settlement.facts import LEASES_TOPIC, PROOFS_TOPIC
from fallow_settlement.settings import Contracts
from fallow_stack.engines import Nats
from fallow_stack.faucet import Faucet
from tests.component.settlement.chain import LocalChain
from tests.component.settlement.market import ASSET, TENANT, FactMaker, identifier

WAIT_SECONDS = 40
ORDER = identifier(1)
LEASE = identifier(2)
STRANGER = identifier(3)
SCOPES = ("funds.read", "funds.write")
T = TypeVar("T")


async def until(ask: Callable[[], Awaitable[T]], good: Callable[[T], bool]) -> T:
    """The first good answer; a refusal of the service is asked again."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            try:
                if good(answer := await ask()):
                    return answer
            except RemoteError as error:
                if error.code not in {"UNAVAILABLE", "FAILED_PRECONDITION"}:
                    raise
            await asyncio.sleep(0.1)


@dataclass(frozen=True)
class Settings:
    """What `open_stream` reads."""

    stream_url: str
    nats_url: str
    nats_credentials_file: str


class Process:
    """`python -m fallow_settlement serve`, which a test may kill and start again."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self._environment = {**os.environ, **environment}
        self._port_file = folder / "settlement.port"
        self._log = folder / "settlement.log"
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> str:
        """Start it; its address once it serves."""
        self._port_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "fallow_settlement", "serve"]
        with self._log.open("ab") as log:
            self._process = await asyncio.to_thread(
                subprocess.Popen, command, env=self._environment, stdout=log, stderr=log
            )
        async with asyncio.timeout(WAIT_SECONDS):
            while not self._port_file.exists():
                assert self._process.poll() is None, self._log.read_text()
                await asyncio.sleep(0.05)
        return self._port_file.read_text().strip()

    def kill(self) -> None:
        """End it without a word."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    async def stop(self) -> int:
        """End it politely; its exit status."""
        assert self._process is not None
        self._process.terminate()
        return await asyncio.to_thread(self._process.wait, 30)


@dataclass
class Publisher:
    """Bidding's side of the stream."""

    stream: EventStream
    clock: SystemClock
    version: int = 0

    async def lease_facts(self, *messages: Message) -> None:
        """Facts about the order's leases, in order."""
        for message in messages:
            self.version += 1
            await self._publish(EventDraft(LEASES_TOPIC, ORDER, self.version, message))

    async def proofs(self, message: Message) -> None:
        """Proofs of one heartbeat."""
        await self._publish(EventDraft(PROOFS_TOPIC, "provider", 0, message))

    async def _publish(self, draft: EventDraft) -> None:
        headers = event_headers(
            draft,
            event_id=RandomIds(self.clock).new(),
            source="services/bidding",
            time=self.clock.now(),
            trace="",
        )
        await self.stream.publish([Record(draft.topic, draft.key, draft.message.SerializeToString(), headers)])


@asynccontextmanager
async def heard(stream: EventStream) -> AsyncIterator[list[str]]:
    """Types of the events about escrows, as another service hears them."""
    types: list[str] = []

    async def handle(record: Record) -> None:
        types.append(record.headers["ce_type"].rpartition(".")[2])

    async with asyncio.TaskGroup() as group:
        task = group.create_task(stream.consume("listener", [ESCROWS_TOPIC], handle))
        yield types
        task.cancel()


@pytest.fixture
async def nats_stream(private_nats: Nats) -> AsyncIterator[EventStream]:
    """The event stream on a NATS of the test's own."""
    credentials = str(private_nats.service_credentials_file("tests"))
    opened = await open_stream(Settings(private_nats.url, private_nats.url, credentials), client="tests")
    yield opened
    await opened.close()


@pytest.fixture
async def process(
    database_factory: DatabaseFactory,
    private_nats: Nats,
    identity: TestIdentity,
    local_chain: LocalChain,
    contracts: Contracts,
    tmp_path: Path,
) -> AsyncIterator[Process]:
    """The service's process with a database, a NATS and contracts of its own."""
    environment = {
        "FALLOW_DATABASE_URL": await database_factory("fallow_settlement"),
        "FALLOW_NATS_URL": private_nats.url,
        "FALLOW_NATS_CREDENTIALS_FILE": str(private_nats.service_credentials_file("settlement")),
        "FALLOW_IDENTITY_KEY_FILE": str(identity.key_file("settlement")),
        "FALLOW_JWKS": str(identity.jwks),
        "FALLOW_PORT_FILE": str(tmp_path / "settlement.port"),
        "FALLOW_CHAIN_RPC_URL": local_chain.url,
        "FALLOW_CHAIN_KEY_FILE": str(local_chain.development_account),
        "FALLOW_CONTRACTS_FILE": str(tmp_path / "contracts.json"),
        "FALLOW_CHARGE_INTERVAL_SECONDS": "0.5",
        "FALLOW_BATCH_INTERVAL_SECONDS": "0.5",
        "FALLOW_CHAIN_INTERVAL_SECONDS": "0.2",
        "FALLOW_CLOSE_INTERVAL_SECONDS": "0.2",
    }
    running = Process(environment, tmp_path)
    yield running
    running.kill()


def opening(micros: int) -> settlement_service_pb2.OpenEscrowRequest:
    """The order service's request."""
    return settlement_service_pb2.OpenEscrowRequest(
        name=f"escrows/{ORDER}",
        account=f"accounts/{TENANT}",
        amount=money_pb2.Amount(asset=ASSET, micros=micros),
        request_id="open",
    )


async def deposit(url: str, contracts: Contracts, development_account: Path, folder: Path, micros: int) -> None:
    """Pay test tokens into the vault as a tenant does."""
    wallet = Wallet.load_or_create(folder / "tenant.key")
    async with ChainClient(url) as chain:
        faucet = Faucet(chain, development_account)
        await faucet.give_fee_money(wallet.address)
        await faucet.fill_tokens(contracts.token, wallet.address, micros)
        reference = "0x" + id_to_word(TENANT).hex()
        await chain.deposit(
            wallet, token=contracts.token, vault=contracts.vault, account_reference=reference, micros=micros
        )


async def refuse_poor_tenant(escrows: "settlement_service_pb2_grpc.EscrowServiceAsyncStub") -> None:
    """A tenant without funds gets no escrow, and is told what is short."""
    with pytest.raises(RemoteError) as refusal:
        await escrows.OpenEscrow(opening(100_000))
    assert refusal.value.reason.reason == "INSUFFICIENT_FUNDS"
    assert refusal.value.metadata["short_micros"] == "100000"


async def refuse_stranger(stranger: grpc.aio.Channel, receipt: settlement_service_pb2.GetReceiptRequest) -> None:
    """Another account sees neither the receipt nor the balance."""
    with pytest.raises(RemoteError) as hidden:
        await settlement_service_pb2_grpc.ReceiptServiceStub(stranger).GetReceipt(receipt)
    assert hidden.value.reason.reason == "CHARGE_NOT_FOUND"
    balance = settlement_service_pb2.GetBalanceRequest(name=f"accounts/{TENANT}/balances/{ASSET}")
    with pytest.raises(RemoteError) as foreign:
        await settlement_service_pb2_grpc.FundsServiceStub(stranger).GetBalance(balance)
    assert foreign.value.reason.reason == "ACCOUNT_NOT_FOUND"


async def test_the_process_takes_an_order_from_deposit_to_receipt_over_a_kill(
    process: Process,
    nats_stream: EventStream,
    identity: TestIdentity,
    local_chain: LocalChain,
    contracts: Contracts,
    tmp_path: Path,
) -> None:
    """Goal: the real process does what its parts do. Method: drive it by gRPC, chain and stream; kill it halfway."""
    clock = SystemClock()
    # The clock of the facts starts at the real one, because the process has no other.
    market = FactMaker(ManualClock(clock.now()))
    publisher = Publisher(nats_stream, clock)
    await nats_stream.ensure_topics([LEASES_TOPIC, PROOFS_TOPIC, ESCROWS_TOPIC])
    async with AsyncExitStack() as stack:
        types = await stack.enter_async_context(heard(nats_stream))
        address = await process.start()
        service = await stack.enter_async_context(channel(address, identity.as_service("order")))
        tenant = await stack.enter_async_context(channel(address, identity.as_account(f"accounts/{TENANT}", SCOPES)))
        escrows = settlement_service_pb2_grpc.EscrowServiceStub(service)
        funds = settlement_service_pb2_grpc.FundsServiceStub(tenant)

        await refuse_poor_tenant(escrows)
        # The faucet uses the service's own key here; deposits come first, so their nonces do not meet.
        await deposit(local_chain.url, contracts, local_chain.development_account, tmp_path, 1_000_000)
        balance = settlement_service_pb2.GetBalanceRequest(name=f"accounts/me/balances/{ASSET}")
        await until(lambda: funds.GetBalance(balance), lambda answer: answer.free.micros == 1_000_000)
        await escrows.OpenEscrow(opening(100_000))

        proof = market.received(market.proof(ORDER, LEASE, 1, 1_000))
        await publisher.proofs(proof)
        created = market.lease_created(ORDER, LEASE, price=3_600_000)
        market.clock.advance(seconds=1)
        await publisher.lease_facts(created, market.lease_running(ORDER, LEASE))
        await publisher.proofs(market.received(market.proof(ORDER, LEASE, 2, 2_000)))
        receipts = settlement_service_pb2_grpc.ReceiptServiceStub(tenant)
        charges = settlement_service_pb2.ListChargesRequest(order=f"orders/{ORDER}")
        await until(lambda: receipts.ListCharges(charges), lambda answer: len(answer.charges) > 0)

        process.kill()
        market.clock.advance(seconds=1)
        await publisher.proofs(market.received(market.proof(ORDER, LEASE, 3, 3_000, final=True)))
        await publisher.lease_facts(market.lease_ended(ORDER, LEASE, market.clock.now()), market.order_ended(ORDER))
        address = await process.start()
        tenant = await stack.enter_async_context(channel(address, identity.as_account(f"accounts/{TENANT}", SCOPES)))
        escrow_reads = settlement_service_pb2_grpc.EscrowServiceStub(tenant)
        receipts = settlement_service_pb2_grpc.ReceiptServiceStub(tenant)
        wanted = settlement_service_pb2.GetEscrowRequest(name=f"escrows/{ORDER}")
        escrow = await until(
            lambda: escrow_reads.GetEscrow(wanted), lambda answer: answer.state == charge_pb2.ESCROW_STATE_CLOSED
        )
        assert 2_000 <= escrow.charged.micros <= 3_000
        assert escrow.charged.micros + escrow.refunded.micros == 100_000
        listed = (await receipts.ListCharges(charges)).charges
        assert sum(charge.amount.micros for charge in listed) == escrow.charged.micros
        asked = settlement_service_pb2.GetReceiptRequest(charge=listed[0].name)
        receipt = await until(lambda: receipts.GetReceipt(asked), lambda answer: bool(answer.json))
        async with ChainClient(local_chain.url) as chain:
            commitment = await chain.anchored_commitment(contracts.anchor, receipt.batch.header.batch_id)
        verified = verify_receipt(Receipt.from_json(receipt.json), commitment=bytes.fromhex(commitment[2:]))
        assert verified.charge.amount_micros == listed[0].amount.micros

        stranger = await stack.enter_async_context(
            channel(address, identity.as_account(f"accounts/{STRANGER}", SCOPES))
        )
        await refuse_stranger(stranger, asked)
        assert await process.stop() == 0
    assert types[0] == events_pb2.ChargePosted.DESCRIPTOR.name
    assert types[-1] == events_pb2.EscrowClosed.DESCRIPTOR.name
