"""A market in miniature for settlement's tests: it funds tenants, makes leases, signs proofs and states facts."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.message import Message

from fallow.bidding.v1 import events_pb2
from fallow.bidding.v1 import lease_pb2 as bidding_lease_pb2
from fallow.type.v1 import lease_pb2, money_pb2, resources_pb2
from fallow_chassis.events import ReceivedEvent
from fallow_chassis.postgres import Database
from fallow_chassis.testing import ManualClock
from fallow_chassis.wire import to_duration, to_timestamp
from fallow_settlement.charging import Charging
from fallow_settlement.commands import EscrowCommands
from fallow_settlement.domain import moves
from fallow_settlement.domain.escrow import Escrow
from fallow_settlement.domain.proof import SignedProof, proof_text
from fallow_settlement.domain.rules import Rules
from fallow_settlement.facts import Facts
from fallow_settlement.ledger_store import must_post
from fallow_settlement.opening import EscrowOpening, Opening
from fallow_settlement.suspension import Suspension

ASSET = "usdc"
GRACE_MS = 30_000
RULES = Rules(
    take_basis_points={ASSET: 2_000}, pool_basis_points=1_000, final_wait_ms=60_000, low_runway_ms=0, grace_ms=GRACE_MS
)


def identifier(number: int) -> str:
    """A valid id from a small number."""
    return f"{number:026d}"


TENANT = identifier(101)
OWNER = identifier(102)
PROVIDER = identifier(103)


class RecordingBidding:
    """Stands in for bidding's EndOrder and SetOrderSuspended and remembers what was asked, as bidding would."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.told: list[tuple[str, bool, int]] = []
        self.failure: Exception | None = None

    async def end_order(self, order_id: str) -> None:
        if self.failure is not None:
            raise self.failure
        self.ended.append(order_id)

    async def set_order_suspended(self, order_id: str, *, suspended: bool, number: int) -> None:
        if self.failure is not None:
            raise self.failure
        self.told.append((order_id, suspended, number))


@dataclass
class FactMaker:
    """Bidding and one provider: shapes facts and signs proofs, by a clock that is moved by hand."""

    clock: ManualClock
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    def lease_created(
        self, order: str, lease: str, *, price: int, group: int = 0, generation: int = 1, interval_ms: int = 1_000
    ) -> events_pb2.LeaseCreated:
        """A match."""
        return events_pb2.LeaseCreated(
            lease=bidding_lease_pb2.Lease(
                name=f"leases/{lease}",
                key=lease_pb2.GenerationKey(order=f"orders/{order}", group=group, generation=generation),
                tenant=f"accounts/{TENANT}",
                provider=f"providers/{PROVIDER}",
                provider_account=f"accounts/{OWNER}",
                price=money_pb2.Price(asset=ASSET, micros_per_hour=price),
                create_time=to_timestamp(self.clock.now()),
            ),
            provider_public_key=self.key.public_key().public_bytes_raw(),
            heartbeat_interval=to_duration(interval_ms),
        )

    def lease_running(self, order: str, lease: str, *, group: int = 0) -> events_pb2.LeaseRunning:
        """A generation that is ready."""
        return events_pb2.LeaseRunning(
            lease=f"leases/{lease}",
            key=lease_pb2.GenerationKey(order=f"orders/{order}", group=group, generation=1),
            ready_time=to_timestamp(self.clock.now()),
        )

    def lease_ended(self, order: str, lease: str, through: datetime, *, group: int = 0) -> events_pb2.LeaseEnded:
        """The end of a lease."""
        return events_pb2.LeaseEnded(
            lease=f"leases/{lease}",
            key=lease_pb2.GenerationKey(order=f"orders/{order}", group=group, generation=1),
            charge_through_time=to_timestamp(through),
        )

    def order_ended(self, order: str) -> events_pb2.OrderEnded:
        """The end of an order."""
        return events_pb2.OrderEnded(
            order=f"orders/{order}", reason=lease_pb2.END_REASON_TENANT, end_time=to_timestamp(self.clock.now())
        )

    def proof(
        self,
        order: str,
        lease: str,
        sequence: int,
        running_ms: int,
        *,
        final: bool = False,
        group: int = 0,
        generation: int = 1,
    ) -> lease_pb2.Proof:
        """A proof that the provider signed."""
        proof = lease_pb2.Proof(
            lease=f"leases/{lease}",
            key=lease_pb2.GenerationKey(order=f"orders/{order}", group=group, generation=generation),
            sequence=sequence,
            running_ms=running_ms,
            device_health=resources_pb2.DEVICE_HEALTH_HEALTHY,
            final=final,
        )
        text = proof_text(
            SignedProof(
                proof.lease,
                proof.key.order,
                group,
                generation,
                sequence,
                running_ms,
                proof.device_health,
                final,
                signature=b"",
            )
        )
        proof.signature = self.key.sign(text)
        return proof

    def received(self, *proofs: lease_pb2.Proof, outage_ms: int = 0) -> events_pb2.ProofsReceived:
        """One heartbeat as bidding states it."""
        return events_pb2.ProofsReceived(
            provider=f"providers/{PROVIDER}",
            proofs=proofs,
            receive_time=to_timestamp(self.clock.now()),
            market_outage=to_duration(outage_ms),
        )


class Market(FactMaker):
    """Settlement's parts on one database, driven by hand."""

    def __init__(self, database: Database, clock: ManualClock, rules: Rules = RULES) -> None:
        super().__init__(clock)
        self.database = database
        self.rules = rules
        self.bidding = RecordingBidding()
        self.commands = EscrowCommands(self.database, self.rules)
        self.opening = EscrowOpening(self.database, self.rules)
        self.facts = Facts(self.rules)
        self.charging = Charging(self.database, self.rules)
        self.suspension = Suspension(self.database, self.bidding)
        self._handlers = {
            **self.facts.lease_handlers(),
            **self.facts.proof_handlers(),
            **self.facts.market_handlers(),
        }

    async def fund(self, account: str, micros: int, deposit: str = "first") -> None:
        """Give a tenant a confirmed deposit."""
        async with self.database.transaction() as unit:
            for move in (
                moves.deposit_seen(f"{account}-{deposit}", account, ASSET, micros),
                moves.deposit_confirmed(f"{account}-{deposit}", account, ASSET, micros),
            ):
                await must_post(unit.connection, move.accounts, move.transfers, self.clock.now())

    async def open_escrow(self, opening: Opening) -> Escrow:
        """Open an escrow, as a group of one."""
        (outcome,) = await self.opening.open_escrows([opening])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def open(self, order: str, micros: int, *, auto_top_up: bool = False, budget: int = 0) -> None:
        """Open an escrow."""
        await self.open_escrow(Opening(order, TENANT, ASSET, micros, budget, auto_top_up))

    async def state(self, *messages: Message, at: datetime | None = None) -> None:
        """Hand facts to their handlers, each in its transaction."""
        for message in messages:
            event = ReceivedEvent("event", message.DESCRIPTOR.full_name, "key", 0, at or self.clock.now(), "topic")
            async with self.database.transaction() as unit:
                await self._handlers[type(message)](unit, event, message)

    async def run_for(self, order: str, lease: str, seconds: int, *, first: int = 1, start_ms: int = 0) -> None:
        """A provider that proves every second for some seconds."""
        for number in range(seconds):
            self.clock.advance(seconds=1)
            running_ms = start_ms + (number + 1) * 1_000
            await self.state(self.received(self.proof(order, lease, first + number, running_ms)))

    def ago(self, seconds: int) -> datetime:
        """An instant before now."""
        return self.clock.now() - timedelta(seconds=seconds)
