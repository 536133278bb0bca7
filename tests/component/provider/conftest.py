"""A scripted market around a real agent: fakes of order and bidding behind real gRPC, their side of the link on real NATS.

The agent is a process of its own (`python -m fallow_provider serve`) with the exec driver. The market's side does what
the test tells it and keeps what it hears.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fallow.bidding.v1 import provider_pb2, provider_service_pb2
from fallow.bidding.v1 import provider_service_pb2_grpc as bidding_grpc
from fallow.order.v1 import order_service_pb2, order_service_pb2_grpc, session_service_pb2, session_service_pb2_grpc
from fallow.provider.v1 import market_link_pb2
from fallow.type.v1 import lease_pb2, resources_pb2, workload_pb2
from fallow_chassis.clock import SystemClock
from fallow_chassis.context import GrantClaims, current_identity
from fallow_chassis.errors import DomainError, ErrorReason
from fallow_chassis.grpc_client import channel
from fallow_chassis.ids import RandomIds
from fallow_chassis.nats_credentials import provider_credentials
from fallow_chassis.nats_link import NatsLink, NatsMessage
from fallow_chassis.testing import ServedService, TestIdentity, serving
from fallow_chassis.wire import to_duration, to_timestamp
from tests.conftest import NatsServer

CLOCK = SystemClock()
IDS = RandomIds(CLOCK)
WAIT_SECONDS = 30.0
SITE = """
display_name = "Fjord"
region = "eu-north"

[attributes]
tier = "community"

[[nodes]]
node_id = "node-1"
cpu_milli = 16000
memory_bytes = 68719476736
storage_bytes_by_class = { ephemeral = 1099511627776 }

[[nodes.devices]]
device_id = "declared-0"
vendor = "nvidia"
model = "h100"
vram_bytes = 85899345920
interface = "sxm"

[prices]
asset = "usdc"
gpu_micros_per_hour_by_model = { h100 = 2100000 }
"""
SERVER = (
    "import http.server, os, sys\n"
    "print('hello from', os.getpid(), flush=True)\n"
    "print('a word on the side', file=sys.stderr, flush=True)\n"
    "http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), http.server.SimpleHTTPRequestHandler)"
    ".serve_forever()\n"
)


class FakeOrder(session_service_pb2_grpc.SessionServiceServicer, order_service_pb2_grpc.WorkloadServiceServicer):
    """A fake of the order service: one API key, workloads by lease."""

    def __init__(self, identity: TestIdentity) -> None:
        self.identity = identity
        self.account = f"accounts/{IDS.new()}"
        self.secret = "the-api-key"
        self.exchanges = 0
        self.workloads: dict[str, workload_pb2.Workload] = {}
        self.fetches = 0
        self.failure: DomainError | None = None

    async def ExchangeApiKey(
        self, request: session_service_pb2.ExchangeApiKeyRequest, context: Any
    ) -> session_service_pb2.Session:
        """A token for the owner."""
        self.exchanges += 1
        if request.secret != self.secret:
            raise DomainError(ErrorReason("API_KEY_INVALID", "UNAUTHENTICATED", "Bad.", "Make one."), "no such key")
        token = self.identity.account_token(self.account, ["providers.read", "providers.write"])
        expiry = to_timestamp(CLOCK.now() + timedelta(minutes=15))
        return session_service_pb2.Session(account=self.account, access_token=token, expire_time=expiry)

    async def GetWorkload(
        self, request: order_service_pb2.GetWorkloadRequest, context: Any
    ) -> order_service_pb2.GetWorkloadResponse:
        """The workload, to the holder of a grant on it."""
        self.fetches += 1
        if self.failure is not None:
            raise self.failure
        grant = current_identity().grant
        assert grant is not None
        assert (grant.lease, grant.generation) == (request.lease, request.generation)
        return order_service_pb2.GetWorkloadResponse(workload=self.workloads[request.lease])


class FakeBidding(bidding_grpc.ProviderRegistryServiceServicer):
    """A fake of bidding's registry: one provider a key, real credentials for the tests' NATS."""

    def __init__(self, nats: NatsServer) -> None:
        self.nats = nats
        self.provider_id = IDS.new()
        self.providers: dict[bytes, provider_pb2.Provider] = {}
        self.requests: list[str] = []
        self.offers: list[provider_pb2.Offer] = []
        self.failure: DomainError | None = None

    async def CreateProvider(
        self, request: provider_service_pb2.CreateProviderRequest, context: Any
    ) -> provider_pb2.Provider:
        """The same key, the same provider."""
        if self.failure is not None:
            raise self.failure
        self.requests.append(request.request_id)
        known = self.providers.get(request.provider.public_key)
        if known is None:
            known = provider_pb2.Provider()
            known.CopyFrom(request.provider)
            known.name = f"providers/{self.provider_id}"
            known.account = current_identity().subject
            self.providers[request.provider.public_key] = known
        return known

    async def UpdateProvider(
        self, request: provider_service_pb2.UpdateProviderRequest, context: Any
    ) -> provider_pb2.Provider:
        """Take the fields of the mask."""
        known = next(provider for provider in self.providers.values() if provider.name == request.provider.name)
        request.update_mask.MergeMessage(request.provider, known)
        return known

    async def IssueProviderCredentials(
        self, request: provider_service_pb2.IssueProviderCredentialsRequest, context: Any
    ) -> provider_service_pb2.IssueProviderCredentialsResponse:
        """Credentials that allow the provider's own subjects alone."""
        provider = request.name.partition("/")[2]
        return provider_service_pb2.IssueProviderCredentialsResponse(
            nats_credentials=provider_credentials(self.nats.account_seed, provider), nats_url=self.nats.url
        )

    async def CreateOffer(self, request: provider_service_pb2.CreateOfferRequest, context: Any) -> provider_pb2.Offer:
        """Keep it."""
        request.offer.name = f"offers/{IDS.new()}"
        self.offers.append(request.offer)
        return request.offer


@dataclass
class Market:
    """The market's side, for one agent."""

    identity: TestIdentity
    nats: NatsServer
    order: FakeOrder
    bidding: FakeBidding
    order_address: str
    bidding_address: str
    folder: Path
    link: NatsLink
    closing: AsyncExitStack
    heartbeats: list[market_link_pb2.Heartbeat] = field(default_factory=list)
    inventories: list[market_link_pb2.InventoryReport] = field(default_factory=list)
    unwanted: list[lease_pb2.GenerationKey] = field(default_factory=list)
    forgotten: list[lease_pb2.GenerationKey] = field(default_factory=list)
    is_deaf: bool = False
    process: asyncio.subprocess.Process | None = None
    port_file: Path = Path()

    async def listen(self) -> None:
        """Answer heartbeats and inventories of this market's one provider: tests of other workers share the NATS."""
        prefix = f"fallow.provider.{self.bidding.provider_id}"
        self.closing.push_async_callback(self.link.close)
        await self.link.serve(f"{prefix}.heartbeat", "tests", self._heartbeat, concurrency=1)
        await self.link.serve(f"{prefix}.inventory", "tests", self._inventory, concurrency=1)

    async def _heartbeat(self, message: NatsMessage) -> bytes:
        if self.is_deaf:
            raise DomainError(ErrorReason("UNAVAILABLE", "UNAVAILABLE", "Deaf.", "Wait."), "the market is deaf")
        heartbeat = market_link_pb2.Heartbeat.FromString(message.payload)
        assert message.subject == f"fallow.provider.{heartbeat.provider.partition('/')[2]}.heartbeat"
        self.heartbeats.append(heartbeat)
        answer = market_link_pb2.HeartbeatAcknowledgement(
            sequence=heartbeat.sequence, unwanted=self.unwanted, forgotten=self.forgotten
        )
        return market_link_pb2.LinkReply(heartbeat=answer).SerializeToString()

    async def _inventory(self, message: NatsMessage) -> bytes:
        report = market_link_pb2.InventoryReport.FromString(message.payload)
        self.inventories.append(report)
        answer = market_link_pb2.InventoryAcknowledgement(sequence=report.sequence)
        return market_link_pb2.LinkReply(inventory=answer).SerializeToString()

    def environment(self, **changes: str) -> dict[str, str]:
        """The agent's settings."""
        return {
            "PATH": os.environ["PATH"],
            "FALLOW_STATE_DIRECTORY": str(self.folder / "state"),
            "FALLOW_SITE_FILE": str(self.folder / "site.toml"),
            "FALLOW_API_KEY_FILE": str(self.folder / "api.key"),
            "FALLOW_ORDER_ADDRESS": self.order_address,
            "FALLOW_BIDDING_ADDRESS": self.bidding_address,
            "FALLOW_JWKS": str(self.identity.jwks),
            "FALLOW_HEARTBEAT_INTERVAL_SECONDS": "0.2",
            "FALLOW_RUNTIME": "exec",
            "FALLOW_PORT_FILE": str(self.port_file),
            "FALLOW_DRAIN_WAIT_SECONDS": "0",
            **changes,
        }

    async def start_agent(self, **changes: str) -> None:
        """Start the agent's process and wait for its first heartbeat of this life."""
        await self.launch_agent(**changes)
        boots = {heartbeat.boot_id for heartbeat in self.heartbeats}
        await self.until(lambda: any(beat.boot_id not in boots for beat in self.heartbeats), "a heartbeat")

    async def launch_agent(self, **changes: str) -> None:
        """Start the agent's process."""
        self.port_file.unlink(missing_ok=True)
        log = (self.folder / "agent.log").open("ab")
        try:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "fallow_provider", "serve",
                env=self.environment(**changes), stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        finally:
            log.close()

    async def end_agent(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the agent a signal and wait for its end."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(WAIT_SECONDS):
            return await self.process.wait()

    def log(self) -> str:
        """What the agent has logged."""
        return (self.folder / "agent.log").read_text("utf-8")

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for a condition; fails with the agent's log."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while not condition():
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pytest.fail(f"no {what} within {WAIT_SECONDS} s; the agent says:\n{self.log()[-8000:]}")

    @property
    def provider(self) -> provider_pb2.Provider:
        """The one provider."""
        (provider,) = self.bidding.providers.values()
        return provider

    async def command(self, command: market_link_pb2.Command) -> market_link_pb2.CommandAcknowledgement:
        """Send a command until it is acknowledged, as the market does."""
        subject = f"fallow.provider.{self.provider.name.partition('/')[2]}.command"
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                try:
                    answer = await self.link.request(subject, command.SerializeToString(), 2.0)
                except DomainError:
                    await asyncio.sleep(0.1)
                    continue
                return market_link_pb2.LinkReply.FromString(answer).command

    def status(self, lease: str) -> market_link_pb2.RunStatus | None:
        """What the last heartbeat said of a lease."""
        runs = self.heartbeats[-1].runs if self.heartbeats else ()
        return next((run for run in runs if run.lease == lease), None)

    async def until_state(self, lease: str, state: int) -> market_link_pb2.RunStatus:
        """Wait until a heartbeat tells of a state of a lease."""

        def is_there() -> bool:
            status = self.status(lease)
            return status is not None and status.state == state

        name = market_link_pb2.RunState.Name(market_link_pb2.RunState.ValueType(state))
        await self.until(is_there, f"{name} of {lease} (last: {self.status(lease)})")
        status = self.status(lease)
        assert status is not None
        return status

    def proofs(self, lease: str) -> list[lease_pb2.Proof]:
        """All proofs of a lease, in the order in which they came; each is checked."""
        found = [proof for beat in self.heartbeats for proof in beat.proofs if proof.lease == lease]
        key = Ed25519PublicKey.from_public_bytes(self.provider.public_key)
        for proof in found:
            text = "|".join(
                (
                    "fallow-proof-v1", proof.lease, proof.key.order, str(proof.key.group), str(proof.key.generation),
                    str(proof.sequence), str(proof.running_ms), str(proof.device_health), str(int(proof.final)),
                )
            )  # fmt: skip
            key.verify(proof.signature, text.encode())
        return found

    def claims(self, lease: str, key: lease_pb2.GenerationKey, *rights: str, subject: str = "") -> GrantClaims:
        """What a grant on a generation says."""
        return GrantClaims(
            subject or self.provider.name, key.order, key.group, key.generation, lease, self.provider.name,
            frozenset(rights),
        )  # fmt: skip

    def run_command(
        self,
        lease: str,
        key: lease_pb2.GenerationKey,
        *,
        self_stop_ms: int = 60_000,
        start_timeout_ms: int = 20_000,
        device: str = "declared-0",
    ) -> market_link_pb2.Command:
        """A RunLease for the lease's workload, one replica a service."""
        placements = [
            market_link_pb2.Command.ReplicaPlacement(
                service=container.service,
                replica=0,
                node_id="node-1",
                devices=[market_link_pb2.Command.DeviceShare(device_id=device, milli=1000)] if number == 0 else [],
            )
            for number, container in enumerate(self.order.workloads[lease].containers)
        ]
        action = market_link_pb2.Command.RunLease(
            workload_grant=self.identity.grant(self.claims(lease, key, "workload.read")),
            replicas=placements,
            self_stop=to_duration(self_stop_ms),
            start_timeout=to_duration(start_timeout_ms),
            order_address=self.order_address,
        )
        return market_link_pb2.Command(command_id=IDS.new(), lease=lease, key=key, run=action)

    def new_lease(
        self, program: str = SERVER, *, order: str = "", generation: int = 1, **changes: Any
    ) -> tuple[str, lease_pb2.GenerationKey]:
        """A lease whose workload is a Python program of the host."""
        lease = f"leases/{IDS.new()}"
        key = lease_pb2.GenerationKey(order=order or f"orders/{IDS.new()}", group=0, generation=generation)
        self.order.workloads[lease] = workload_pb2.Workload(containers=[container(program, **changes)])
        return lease, key

    def stop_command(self, lease: str, key: lease_pb2.GenerationKey, grace_ms: int = 2_000) -> market_link_pb2.Command:
        """A StopLease."""
        action = market_link_pb2.Command.StopLease(reason=lease_pb2.END_REASON_TENANT, grace=to_duration(grace_ms))
        return market_link_pb2.Command(command_id=IDS.new(), lease=lease, key=key, stop=action)


def container(program: str = SERVER, **changes: Any) -> workload_pb2.Container:
    """A container of the host's Python with one public HTTP port."""
    fields: Mapping[str, Any] = {
        "service": "web",
        "image": "exec:host",
        "command": ["python3", "-u", "-c", program],
        "ports": [
            workload_pb2.Port(
                container_port=8080, external_port=80, protocol=workload_pb2.PORT_PROTOCOL_HTTP, public=True
            )
        ],
        "resources": resources_pb2.ResourceRequirement(cpu_milli=1000, memory_bytes=1 << 30),
        "replicas": 1,
        "readiness": workload_pb2.ReadinessCheck(http=workload_pb2.ReadinessCheck.HttpCheck(port=8080, path="/")),
    }
    return workload_pb2.Container(**{**fields, **changes})


def processes_of(lease: str) -> list[int]:
    """Live processes of this machine that bear a lease's mark."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            environment = (entry / "environ").read_bytes() if entry.name.isdigit() else b""
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0] if environment else "Z"
        except OSError:
            continue
        if f"FALLOW_CONTAINER={lease}|".encode() in environment and state != "Z":
            found.append(int(entry.name))
    return found


@pytest.fixture
async def market(tmp_path: Path, nats_server: NatsServer, identity: TestIdentity) -> AsyncIterator[Market]:
    """The market's side; the agent is started by the test, and whatever is left is ended after it."""
    async with AsyncExitStack() as closing:
        order = FakeOrder(identity)  # type: ignore[abstract]  # what it does not fake answers UNIMPLEMENTED
        bidding = FakeBidding(nats_server)  # type: ignore[abstract]  # as above
        order_address = await closing.enter_async_context(
            serving(
                ServedService(
                    session_service_pb2_grpc.add_SessionServiceServicer_to_server,
                    order,
                    "fallow.order.v1.SessionService",
                ),
                ServedService(
                    order_service_pb2_grpc.add_WorkloadServiceServicer_to_server,
                    order,
                    "fallow.order.v1.WorkloadService",
                ),
                verifier=identity.verifier,
            )
        )
        bidding_address = await closing.enter_async_context(
            serving(
                ServedService(
                    bidding_grpc.add_ProviderRegistryServiceServicer_to_server,
                    bidding,
                    "fallow.bidding.v1.ProviderRegistryService",
                ),
                verifier=identity.verifier,
            )
        )
        link = await NatsLink.connect(nats_server.url, nats_server.credentials_file, name="tests")
        market = Market(
            identity, nats_server, order, bidding, order_address, bidding_address, tmp_path, link, closing,
            port_file=tmp_path / "agent.port",
        )  # fmt: skip
        (tmp_path / "site.toml").write_text(SITE, "utf-8")
        (tmp_path / "api.key").write_text(order.secret + "\n", "utf-8")
        await market.listen()
        try:
            yield market
        finally:
            if market.process is not None:
                await market.end_agent(signal.SIGKILL)
            for lease in order.workloads:
                for pid in processes_of(lease):
                    os.kill(pid, signal.SIGKILL)


async def door(market: Market, token: Callable[[], str]) -> Any:
    """A channel to the agent's own door."""
    await market.until(market.port_file.exists, "port file")
    return channel(market.port_file.read_text("utf-8").strip(), token)
