"""What settlement does with the market's facts: it meters. Each handler runs in the transaction of its event.

The topic of leases brings, in order for each order: LeaseCreated, LeaseRunning, LeaseEnded, OrderEnded. The topic of
proofs is keyed by provider and may run ahead of it, so proofs of a lease that is not known yet are parked and counted
when LeaseCreated comes. Every proof's signature is checked again, with the key that LeaseCreated brought: settlement
takes nobody's word for what it charges.
"""

from dataclasses import replace
from typing import Final

from google.protobuf.message import Message

from fallow.bidding.v1 import events_pb2
from fallow.bidding.v1 import lease_pb2 as lease_message_pb2
from fallow.type.v1 import lease_pb2
from fallow_chassis.events import ReceivedEvent
from fallow_chassis.inbox import Handler
from fallow_chassis.logging import get_logger
from fallow_chassis.postgres import UnitOfWork
from fallow_chassis.telemetry import meter as telemetry_meter
from fallow_chassis.wire import from_duration, from_timestamp, resource_id
from fallow_settlement import escrow_store, metering_store, programme_store
from fallow_settlement.domain import escrow as escrows
from fallow_settlement.domain import metering as meters
from fallow_settlement.domain.charge import Metering
from fallow_settlement.domain.escrow import EscrowState
from fallow_settlement.domain.metering import Claim, Meter
from fallow_settlement.domain.proof import SignedProof, is_genuine
from fallow_settlement.domain.rules import Rules
from fallow_settlement.metering_store import ParkedProof
from fallow_settlement.programme_store import OnlineTime
from fallow_settlement.promotions import promoted

LEASES_TOPIC: Final = "fallow.bidding.leases.v1"
PROOFS_TOPIC: Final = "fallow.bidding.proofs.v1"
MARKET_TOPIC: Final = "fallow.bidding.market.v1"
DEFAULT_HEARTBEAT_MS: Final = 5_000
"""Taken where LeaseCreated names no interval."""

_log = get_logger(__name__)


class Facts:
    """The handlers of the market's facts."""

    def __init__(self, rules: Rules) -> None:
        """Take what this installation decides about money."""
        self._rules = rules
        self._proofs = telemetry_meter().create_counter("fallow.settlement.proofs", unit="{proof}")

    def lease_handlers(self) -> dict[type[Message], Handler]:
        """Handlers of the topic of leases."""
        return {
            events_pb2.LeaseCreated: self.lease_created,
            events_pb2.LeaseRunning: self.lease_running,
            events_pb2.LeaseEnded: self.lease_ended,
            events_pb2.OrderEnded: self.order_ended,
        }

    def proof_handlers(self) -> dict[type[Message], Handler]:
        """Handlers of the topic of proofs."""
        return {events_pb2.ProofsReceived: self.proofs_received}

    def market_handlers(self) -> dict[type[Message], Handler]:
        """Handlers of the topic of providers."""
        return {events_pb2.OnlineTimeCounted: self.online_time_counted}

    async def online_time_counted(
        self, unit: UnitOfWork, event: ReceivedEvent, message: events_pb2.OnlineTimeCounted
    ) -> None:
        """Keep for the programmes how long devices were online that somebody vouches for."""
        if not message.audited:
            return
        online = OnlineTime(
            provider_id=resource_id(message.provider, "providers"),
            account_id=resource_id(message.account, "accounts"),
            model=message.model,
            asset=message.asset,
            start_time=from_timestamp(message.start_time),
            ask_micros_per_hour=message.ask_micros_per_hour,
            by_auditor={audited.auditor: from_duration(audited.online_duration) for audited in message.audited},
        )
        await programme_store.insert_online_time(unit.connection, online)

    async def lease_created(self, unit: UnitOfWork, event: ReceivedEvent, message: events_pb2.LeaseCreated) -> None:
        """Start to meter a generation, and count the proofs that came before it."""
        lease = message.lease
        order_id = resource_id(lease.key.order, "orders")
        escrow = await escrow_store.load_escrow(unit.connection, order_id)
        assert escrow is not None, f"the order {order_id} has a lease and no escrow"
        assert lease.price.asset == escrow.asset, "a lease is priced in its escrow's asset"
        assert lease.tenant == f"accounts/{escrow.account_id}", "an escrow pays for its own tenant's leases"
        owner = resource_id(lease.provider_account, "accounts")
        made = from_timestamp(lease.create_time) if lease.HasField("create_time") else event.time
        rates = self._rules.rates(escrow.asset)
        metering = Metering(
            order_id=order_id,
            group=lease.key.group,
            generation=lease.key.generation,
            lease_id=resource_id(lease.name, "leases"),
            tenant_id=escrow.account_id,
            provider_id=resource_id(lease.provider, "providers"),
            provider_account_id=owner,
            provider_public_key=message.provider_public_key,
            asset=escrow.asset,
            price_micros_per_hour=lease.price.micros_per_hour,
            rates=await promoted(unit.connection, rates, {escrow.account_id, owner}, escrow.asset, made),
            meter=Meter(
                start_time=made,
                heartbeat_interval_ms=from_duration(message.heartbeat_interval) or DEFAULT_HEARTBEAT_MS,
            ),
        )
        await metering_store.insert_metering(unit.connection, metering)
        await programme_store.insert_lease_models(unit.connection, metering.lease_id, _milli_by_model(lease))
        if escrow.state is not EscrowState.OPEN:
            _log.warning("lease_on_escrow_not_open", order=order_id, state=escrow.state.value)
        for parked in await metering_store.take_parked(unit.connection, metering.lease_id):
            proof = lease_pb2.Proof.FromString(parked.proof)
            metering = self._counted(metering, proof, parked, is_paid=escrow.state is not EscrowState.SUSPENDED)
        await metering_store.save_meterings(unit.connection, [metering])

    async def lease_running(self, unit: UnitOfWork, event: ReceivedEvent, message: events_pb2.LeaseRunning) -> None:
        """Note that a generation is ready: from now on it may owe."""
        metering = await _lock(unit, message.lease)
        await metering_store.save_meterings(unit.connection, [replace(metering, ready=True)])

    async def lease_ended(self, unit: UnitOfWork, event: ReceivedEvent, message: events_pb2.LeaseEnded) -> None:
        """Cut what a generation may owe at the instant that bidding fixed."""
        metering = await _lock(unit, message.lease)
        through = from_timestamp(message.charge_through_time) if message.HasField("charge_through_time") else event.time
        meter = meters.end(metering.meter, through, min(metering.charged_ms, metering.meter.proven_ms))
        owed_ms = from_duration(message.early_close)
        ended = replace(metering, ended=True, meter=meter, early_close_ms=owed_ms)
        await metering_store.save_meterings(unit.connection, [ended])

    async def order_ended(self, unit: UnitOfWork, event: ReceivedEvent, message: events_pb2.OrderEnded) -> None:
        """Start to close an order's escrow; the job of closings makes the final charges."""
        order_id = resource_id(message.order, "orders")
        escrow = await escrow_store.load_escrow(unit.connection, order_id, lock=True)
        assert escrow is not None, f"the order {order_id} ended and has no escrow"
        after = escrows.ended(escrow, unit.clock.now())
        if after is not escrow:
            await escrow_store.save_escrow(unit.connection, after)

    async def proofs_received(self, unit: UnitOfWork, event: ReceivedEvent, message: events_pb2.ProofsReceived) -> None:
        """Count the proofs of one heartbeat; park those whose lease is not known yet."""
        provider_id = resource_id(message.provider, "providers")
        arrived = [
            ParkedProof(
                lease_id=resource_id(proof.lease, "leases"),
                sequence=proof.sequence,
                provider_id=provider_id,
                receive_time=from_timestamp(message.receive_time),
                outage_ms=max(0, from_duration(message.market_outage)),
                proof=proof.SerializeToString(deterministic=True),
            )
            for proof in message.proofs
        ]
        known = await metering_store.lock_meterings(unit.connection, (item.lease_id for item in arrived))
        paused = await escrow_store.load_suspended(unit.connection, {found.order_id for found in known.values()})
        changed: dict[str, Metering] = {}
        for item, proof in zip(arrived, message.proofs, strict=True):
            metering = changed.get(item.lease_id) or known.get(item.lease_id)
            if metering is None:
                kept = await metering_store.park_proof(unit.connection, item)
                self._proofs.add(1, {"outcome": "parked" if kept else "dropped"})
                continue
            after = self._counted(metering, proof, item, is_paid=metering.order_id not in paused)
            if after is not metering:
                changed[item.lease_id] = after
        await metering_store.save_meterings(unit.connection, list(changed.values()))

    def _counted(self, metering: Metering, proof: lease_pb2.Proof, receipt: ParkedProof, *, is_paid: bool) -> Metering:
        """The generation after a proof; one that is forged or of somebody else changes nothing."""
        refusal = _refusal(metering, proof, receipt)
        if refusal:
            self._proofs.add(1, {"outcome": "refused"})
            _log.warning("proof_refused", lease=proof.lease, provider=receipt.provider_id, why=refusal)
            return metering
        claim = Claim(
            sequence=proof.sequence,
            running_ms=proof.running_ms,
            final=proof.final,
            receive_time=receipt.receive_time,
            outage_ms=receipt.outage_ms,
            is_paid=is_paid,
        )
        self._proofs.add(1, {"outcome": "counted"})
        after = meters.count(metering.meter, claim)
        return metering if after is metering.meter else replace(metering, meter=after)


def _milli_by_model(lease: lease_message_pb2.Lease) -> dict[str, int]:
    """The thousandths of devices of each model that a lease holds."""
    milli: dict[str, int] = {}
    for placement in lease.placements:
        if placement.devices:
            held = sum(share.milli for share in placement.devices)
            milli[placement.model] = milli.get(placement.model, 0) + held
    return milli


def _refusal(metering: Metering, proof: lease_pb2.Proof, receipt: ParkedProof) -> str:
    """Why a proof does not count for a generation; empty where it does."""
    if receipt.provider_id != metering.provider_id:
        return "another provider's lease"
    if (proof.key.order, proof.key.group, proof.key.generation) != (
        f"orders/{metering.order_id}",
        metering.group,
        metering.generation,
    ):
        return "another generation"
    if proof.sequence < 1 or proof.running_ms < 0:
        return "out of bounds"
    signed = SignedProof(
        lease=proof.lease,
        order=proof.key.order,
        group=proof.key.group,
        generation=proof.key.generation,
        sequence=proof.sequence,
        running_ms=proof.running_ms,
        device_health=proof.device_health,
        final=proof.final,
        signature=proof.signature,
    )
    return "" if is_genuine(signed, metering.provider_public_key) else "the signature does not verify"


async def _lock(unit: UnitOfWork, lease: str) -> Metering:
    """The generation of a lease, which LeaseCreated of the same key has brought before."""
    lease_id = resource_id(lease, "leases")
    found = await metering_store.lock_meterings(unit.connection, [lease_id])
    assert lease_id in found, f"{lease} was never created"
    return found[lease_id]
