"""What providers' agents report: heartbeats with proofs, and inventory.

The provider is the one whose subject the message came on; what the message itself says about that is not read. Proofs
leave as one event with the market's own receipt time, in the transaction that keeps their marks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from fallow.bidding.v1 import events_pb2
from fallow.provider.v1 import market_link_pb2
from fallow.type.v1 import resources_pb2
from fallow_bidding.channels import MARKET_CHANNEL
from fallow_bidding.commands import lifecycle
from fallow_bidding.convert import leases as convert_leases
from fallow_bidding.convert import link as convert
from fallow_bidding.convert.link import MAX_DEVICES, MAX_NODES, DeviceRow, NodeRow
from fallow_bidding.domain.heartbeat import Failure, HeartbeatVerdict, judge_runs
from fallow_bidding.domain.leases import Endpoint, EndReason, Evidence, Lease, accepted, ready, suspended
from fallow_bidding.domain.orders import MarketOrder
from fallow_bidding.domain.policy import Policy
from fallow_bidding.domain.proofs import ProofVerdict, judge_proofs
from fallow_bidding.domain.providers import Provider
from fallow_bidding.domain.reasons import HEARTBEAT_OLD, INVENTORY_INVALID, PROVIDER_NOT_FOUND
from fallow_bidding.domain.silence import Outage, outage_ms, outages_with_present
from fallow_bidding.signatures import verifies
from fallow_bidding.store import delivery, leases, orders, outages, providers, reputation
from fallow_bidding.topics import PROOFS_TOPIC
from fallow_chassis.errors import DomainError
from fallow_chassis.events import EventDraft
from fallow_chassis.postgres import Connection, Database, UnitOfWork, notify
from fallow_chassis.wire import to_duration, to_timestamp

INVENTORY_OLD: Final = "INVENTORY_OLD"
INVENTORY_GAP: Final = "INVENTORY_GAP"
FULL_REPORT: Final = 0
"""What a report follows that follows none."""


@dataclass(slots=True)
class _Held:
    """One provider's row, orders and leases, held by a transaction; ``leases`` follows what is changed."""

    provider: Provider
    orders: dict[str, MarketOrder]
    leases: dict[str, Lease]

    def live(self, lease_id: str) -> Lease | None:
        """A lease of this provider, if it is still live."""
        lease = self.leases.get(lease_id)
        return lease if lease is not None and lease.is_live else None


class LinkCommands:
    """Use-cases of the provider link."""

    def __init__(self, database: Database, policy: Policy) -> None:
        """Take the database and the market's rules."""
        self._database = database
        self._policy = policy

    async def take_heartbeat(self, provider_id: str, heartbeat: market_link_pb2.Heartbeat) -> market_link_pb2.LinkReply:
        """Take a sign of life with its run states and proofs; PROVIDER_NOT_FOUND for a stranger."""
        claims, runs = convert.proof_claims(heartbeat), convert.run_reports(heartbeat)
        async with self._database.transaction() as unit:
            now = unit.clock.now()
            life = convert.boot_id(heartbeat)
            if not await providers.take_heartbeat_number(unit.connection, provider_id, life, heartbeat.sequence):
                raise DomainError(HEARTBEAT_OLD, "a later heartbeat of this provider was taken before")
            named = {claim.lease_id for claim in claims} | {run.lease_id for run in runs}
            held = await _hold(unit.connection, provider_id, named)
            proofs = judge_proofs(provider_id, claims, held.leases, partial(verifies, held.provider.public_key))
            await self._keep_proofs(unit, held, heartbeat, proofs, now)
            stops = await delivery.load_stop_times(unit.connection, list(held.leases))
            paused = {order_id for order_id, order in held.orders.items() if order.suspended}
            verdict = judge_runs(provider_id, runs, held.leases, paused, stops, now)
            await self._apply(unit, held, verdict)
            await self._apply_proof_facts(unit, held, proofs)
            await self._note_silence(unit, held.provider, now)
            await providers.record_heartbeat(unit.connection, provider_id, now, life)
            if not held.provider.reachable:
                await notify(unit.connection, MARKET_CHANNEL)
            known = held.provider.inventory_sequence
            wanted = known == 0 or heartbeat.inventory_sequence > known
            return convert.heartbeat_reply(heartbeat.sequence, verdict, proofs.refusals, inventory_wanted=wanted)

    async def take_inventory(
        self, provider_id: str, report: market_link_pb2.InventoryReport
    ) -> market_link_pb2.LinkReply:
        """Take an inventory report; one that is not newer than the last, or does not follow it, is answered with the number
        that is known, and with the wish for a full one. Devices that a report leaves out stay held by their leases.

        Raises PROVIDER_NOT_FOUND, and INVENTORY_INVALID for a report that cannot be true.
        """
        nodes, devices = convert.inventory_rows(report)
        async with self._database.transaction() as unit:
            held = await _hold(unit.connection, provider_id, set())
            known = held.provider.inventory_sequence
            if report.sequence <= known:
                return _inventory_reply(known, INVENTORY_OLD if report.sequence < known else "")
            if report.base_sequence not in {FULL_REPORT, known}:
                return _inventory_reply(known, INVENTORY_GAP)
            if report.base_sequence == FULL_REPORT:
                await providers.replace_nodes(unit.connection, provider_id, nodes, devices)
            else:
                await _change_nodes(unit.connection, provider_id, nodes, devices, report.removed_node_ids)
            await _check_size(unit.connection, provider_id)
            await providers.record_inventory(unit.connection, provider_id, report.sequence, unit.clock.now())
            failed = convert.failed_devices(report)
            for lease in list(held.leases.values()):
                broken = {share.device_id for place in lease.placements for share in place.devices} & failed.keys()
                if lease.is_live and broken:
                    detail = f"failed: {', '.join(failed[device_id] for device_id in sorted(broken))}"
                    await self._fail_device(unit, held, lease, detail, excludes_provider=False)
            await notify(unit.connection, MARKET_CHANNEL)
            return _inventory_reply(report.sequence, "")

    async def _note_silence(self, unit: UnitOfWork, provider: Provider, now: datetime) -> None:
        """A provider is heard again: where it was silent for long, that is a fact for its reputation."""
        if now - provider.heard_time > timedelta(milliseconds=self._policy.unreachable_ms):
            silence = Outage(provider.heard_time, now)
            await reputation.insert_silence(unit.connection, provider.provider_id, silence)

    async def _keep_proofs(
        self,
        unit: UnitOfWork,
        held: _Held,
        heartbeat: market_link_pb2.Heartbeat,
        verdict: ProofVerdict,
        now: datetime,
    ) -> None:
        """Store the new marks and state the fact that proofs came."""
        for lease_id, mark in verdict.marks.items():
            await leases.save_proof_mark(unit.connection, lease_id, mark)
            held.leases[lease_id] = lease = replace(held.leases[lease_id], proof=mark)
            if lease.end_time is not None:
                await reputation.reopen_day(unit.connection, lease.provider_id, lease.end_time.date())
        if not verdict.taken:
            return
        provider = held.provider
        event = events_pb2.ProofsReceived(
            provider=f"providers/{provider.provider_id}",
            proofs=[heartbeat.proofs[claim.position] for claim in verdict.taken],
            receive_time=to_timestamp(now),
            market_outage=to_duration(await _own_outage_ms(unit.connection, provider.heartbeat_time or now, now)),
        )
        unit.emit(EventDraft(PROOFS_TOPIC, provider.provider_id, 0, event, subject=f"providers/{provider.provider_id}"))

    async def _apply(self, unit: UnitOfWork, held: _Held, verdict: HeartbeatVerdict) -> None:
        """Write the changes that the run states cause."""
        now = unit.clock.now()
        for lease_id in verdict.accepted:
            held.leases[lease_id] = accepted(held.leases[lease_id], now)
            await leases.save_lease(unit.connection, held.leases[lease_id])
            await delivery.acknowledge_run(unit.connection, lease_id, now)
        for lease_id, endpoints in verdict.ready:
            await self._make_ready(unit, held, lease_id, endpoints)
        for lease_id in verdict.paused:
            held.leases[lease_id] = lease = suspended(held.leases[lease_id])
            await leases.save_lease(unit.connection, lease)
            await lifecycle.emit_fact(unit, lease.key.order_id, convert_leases.lease_suspended(lease, now))
        for failure in verdict.failures:
            await self._fail(unit, held, failure)
        for lease_id in verdict.released:
            held.leases[lease_id] = await lifecycle.release_lease(unit, held.leases[lease_id])

    async def _make_ready(self, unit: UnitOfWork, held: _Held, lease_id: str, endpoints: tuple[Endpoint, ...]) -> None:
        """A generation is ready, or answers elsewhere; the order is ready once all its groups are."""
        now = unit.clock.now()
        lease = ready(held.leases[lease_id], endpoints, now)
        held.leases[lease_id] = lease
        await leases.save_lease(unit.connection, lease)
        await delivery.acknowledge_run(unit.connection, lease_id, now)
        await lifecycle.emit_fact(unit, lease.key.order_id, convert_leases.lease_running(lease, now))
        await lifecycle.note_ready(unit, lease.key.order_id)

    async def _fail(self, unit: UnitOfWork, held: _Held, failure: Failure) -> None:
        """End a lease that the heartbeat says has failed, unless an earlier failure ended its order meanwhile."""
        lease = await _still_live(unit.connection, held, failure.lease_id)
        if lease is None:
            return
        now = unit.clock.now()
        observer = f"providers/{held.provider.provider_id}"
        order = await _order(unit.connection, held, lease)
        held.leases[lease.lease_id] = await lifecycle.fail_lease(
            unit,
            self._policy,
            order,
            lease,
            Evidence(failure.reason, failure.detail, observer, now),
            heard_time=now,
            nothing_runs=failure.nothing_runs,
            excludes_provider=failure.excludes_provider,
        )

    async def _fail_device(
        self, unit: UnitOfWork, held: _Held, lease: Lease, detail: str, *, excludes_provider: bool
    ) -> None:
        """End a live lease of which a device failed; the provider stops what is left of it.

        Where it is known which device failed, that device takes no new lease and its provider's others may.
        """
        current = await _still_live(unit.connection, held, lease.lease_id)
        if current is None:
            return
        now = unit.clock.now()
        evidence = Evidence(EndReason.DEVICE, f"a device {detail}", f"providers/{held.provider.provider_id}", now)
        order = await _order(unit.connection, held, current)
        held.leases[lease.lease_id] = await lifecycle.fail_lease(
            unit,
            self._policy,
            order,
            current,
            evidence,
            heard_time=now,
            nothing_runs=False,
            excludes_provider=excludes_provider,
        )

    async def _apply_proof_facts(self, unit: UnitOfWork, held: _Held, verdict: ProofVerdict) -> None:
        """A proof may also say that a device failed, or, being final, that nothing of an ended lease runs."""
        for claim in verdict.taken:
            lease = held.leases[claim.lease_id]
            if lease.is_live and claim.device_health == resources_pb2.DEVICE_HEALTH_FAILED:
                await self._fail_device(unit, held, lease, "failed, says the proof", excludes_provider=True)
            elif not lease.is_live and lease.holds_devices and claim.final:
                held.leases[lease.lease_id] = await lifecycle.release_lease(unit, lease)


async def _hold(connection: Connection, provider_id: str, named: set[str]) -> _Held:
    """Lock a provider, then the orders of its leases, then read those leases as they now are."""
    provider = await providers.lock_provider(connection, provider_id)
    if provider is None:
        raise DomainError(PROVIDER_NOT_FOUND, "no such provider is registered", metadata={"provider": provider_id})
    own = {lease.lease_id: lease for lease in await leases.load_holding_leases(connection, provider_id)}
    others = await leases.load_leases(connection, sorted(named - own.keys()))
    own |= {lease.lease_id: lease for lease in others if lease.provider_id == provider_id}
    held_orders = await orders.lock_orders(connection, [lease.key.order_id for lease in own.values()])
    current = await leases.load_leases(connection, sorted(own))
    return _Held(provider, held_orders, {lease.lease_id: lease for lease in current})


async def _still_live(connection: Connection, held: _Held, lease_id: str) -> Lease | None:
    """A lease as it is after what this transaction did so far, if it is live."""
    if held.live(lease_id) is None:
        return None
    lease = await leases.load_lease(connection, lease_id)
    return lease if lease is not None and lease.is_live else None


async def _order(connection: Connection, held: _Held, lease: Lease) -> MarketOrder:
    """A lease's order, which is held, as it is after what this transaction did so far."""
    assert lease.key.order_id in held.orders, "a lease is changed only with its order held"
    order = await orders.load_order(connection, lease.key.order_id)
    assert order is not None, "orders are never deleted"
    return order


async def _own_outage_ms(connection: Connection, since: datetime, now: datetime) -> int:
    """How long the market itself was away since an instant."""
    recorded = await outages.load_outages(connection, since)
    present = outages_with_present(recorded, await outages.load_pulse(connection), now)
    return outage_ms(present, since, now)


async def _change_nodes(
    connection: Connection,
    provider_id: str,
    nodes: Sequence[NodeRow],
    devices: Sequence[DeviceRow],
    removed: Sequence[str],
) -> None:
    """Put changed nodes in the place of their last state; the whole must be true afterwards."""
    await providers.delete_some_nodes(connection, provider_id, [*removed, *(node[0] for node in nodes)])
    held = {row["device_id"] for row in await providers.load_devices(connection, [provider_id])}
    twice = sorted(held & {device[0] for device in devices})
    if twice:
        raise DomainError(INVENTORY_INVALID, f"the device id {twice[0]!r} stands at another node too")
    await providers.insert_nodes(connection, provider_id, nodes, devices)


async def _check_size(connection: Connection, provider_id: str) -> None:
    """Refuse an inventory that is too large to be one provider's; every decision of the market looks through it."""
    for what, most, rows in (
        ("nodes", MAX_NODES, await providers.load_nodes(connection, [provider_id])),
        ("devices", MAX_DEVICES, await providers.load_devices(connection, [provider_id])),
    ):
        if len(rows) > most:
            raise DomainError(INVENTORY_INVALID, f"a provider has at most {most} {what}, and this makes {len(rows)}")


def _inventory_reply(sequence: int, reason: str) -> market_link_pb2.LinkReply:
    """The answer to an inventory report."""
    return market_link_pb2.LinkReply(
        inventory=market_link_pb2.InventoryAcknowledgement(
            sequence=sequence, reason=reason, inventory_wanted=bool(reason)
        )
    )
