"""Leases and what they hold of devices and nodes, as rows."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import asyncpg

from fallow_bidding.channels import LEASE_CHANNEL
from fallow_bidding.domain.leases import (
    Endpoint,
    EndReason,
    Evidence,
    GenerationKey,
    Lease,
    LeaseState,
    Preemption,
    ProofMark,
)
from fallow_bidding.domain.placement import DeviceShare, NodeUse, Placement
from fallow_bidding.domain.relaxation import Freeing
from fallow_bidding.store import QUERIES
from fallow_chassis.clock import truncate_to_millisecond
from fallow_chassis.events import format_time, parse_time
from fallow_chassis.postgres import Connection, notify


async def insert_lease(connection: Connection, lease: Lease, limit_micros: int) -> None:
    """Store a new lease, RESERVED, with the devices that it takes, under the tenant's limit of then.

    The database refuses to oversell a device, and a price above the limit.
    """
    await connection.execute(
        QUERIES.get("insert_lease"),
        lease.lease_id,
        lease.key.order_id,
        lease.key.group,
        lease.key.generation,
        lease.group_id,
        lease.tenant,
        lease.provider_id,
        lease.provider_account,
        lease.provider_address,
        lease.offer_id,
        lease.asset,
        lease.price_micros,
        [_placement_to_json(placement) for placement in lease.placements],
        lease.self_stop_ms,
        lease.create_time,
        lease.group_revision,
        lease.spot,
        limit_micros,
    )
    shares = sorted(
        (share.device_id, share.node_id, share.milli) for placement in lease.placements for share in placement.devices
    )
    rows = [(lease.lease_id, lease.provider_id, node_id, device_id, milli) for device_id, node_id, milli in shares]
    await connection.executemany(QUERIES.get("insert_device_use"), rows)


async def insert_node_uses(
    connection: Connection, lease: Lease, uses: Sequence[tuple[str, int, int, dict[str, int]]]
) -> None:
    """Store what a lease takes of nodes: (node id, cpu milli, memory bytes, storage bytes by class)."""
    rows = [(lease.lease_id, lease.provider_id, *use) for use in uses]
    await connection.executemany(QUERIES.get("insert_node_use"), rows)


async def save_lease(connection: Connection, lease: Lease) -> None:
    """Store a lease's state, and tell who watches it; one that is ENDED gives its devices back."""
    await connection.execute(
        QUERIES.get("save_lease"),
        lease.lease_id,
        lease.state,
        [[e.service, e.container_port, e.uri, e.replica] for e in lease.endpoints],
        lease.accept_time,
        lease.ready_time,
        lease.end_time,
        lease.charge_through_time,
        lease.release_time,
        _evidence_to_json(lease.evidence),
    )
    if not lease.holds_devices:
        await connection.execute(QUERIES.get("delete_device_uses"), lease.lease_id)
        await connection.execute(QUERIES.get("delete_node_uses"), lease.lease_id)
    await notify(connection, LEASE_CHANNEL, lease.lease_id)


async def save_proof_mark(connection: Connection, lease_id: str, mark: ProofMark) -> None:
    """Store the last proof that was taken."""
    await connection.execute(QUERIES.get("save_proof_mark"), lease_id, mark.sequence, mark.running_ms, mark.final)


async def load_lease(connection: Connection, lease_id: str) -> Lease | None:
    """A lease, or None."""
    row = await connection.fetchrow(QUERIES.get("load_lease"), lease_id)
    return None if row is None else _lease_of(row)


async def load_leases(connection: Connection, lease_ids: Sequence[str]) -> list[Lease]:
    """Those of the named leases that are there."""
    return [_lease_of(row) for row in await connection.fetch(QUERIES.get("load_leases"), list(lease_ids))]


async def load_holding_leases(connection: Connection, provider_id: str) -> list[Lease]:
    """The leases that hold devices at a provider."""
    return [_lease_of(row) for row in await connection.fetch(QUERIES.get("load_holding_leases"), provider_id)]


async def load_generation(connection: Connection, order_id: str, group: int, generation: int) -> Lease | None:
    """The lease of one generation."""
    row = await connection.fetchrow(QUERIES.get("load_generation_lease"), order_id, group, generation)
    return None if row is None else _lease_of(row)


async def load_node_uses_of_lease(connection: Connection, lease_id: str) -> list[NodeUse]:
    """What a lease holds of nodes, without devices."""
    rows = await connection.fetch(QUERIES.get("load_node_uses_of_lease"), lease_id)
    return [
        NodeUse(row["node_id"], row["cpu_milli"], row["memory_bytes"], row["storage_bytes_by_class"]) for row in rows
    ]


async def load_freeings(connection: Connection, market: str, limit: int) -> list[Freeing]:
    """What live leases with a fixed end will give back, the soonest first."""
    rows = await connection.fetch(QUERIES.get("load_fixed_ends"), market, limit)
    uses = await load_node_uses_of_leases(connection, [row["lease_id"] for row in rows])
    freeings = []
    for row in rows:
        lease = _lease_of(row)
        shares = tuple(share for placement in lease.placements for share in placement.devices)
        freeings.append(Freeing(row["fixed_end"], lease.provider_id, shares, tuple(uses[lease.lease_id])))
    return freeings


async def load_node_uses_of_leases(connection: Connection, lease_ids: Sequence[str]) -> dict[str, list[NodeUse]]:
    """What leases hold of nodes, without devices, by lease."""
    found: dict[str, list[NodeUse]] = {lease_id: [] for lease_id in lease_ids}
    for row in await connection.fetch(QUERIES.get("load_node_uses_of_leases"), list(lease_ids)):
        use = NodeUse(row["node_id"], row["cpu_milli"], row["memory_bytes"], row["storage_bytes_by_class"])
        found[row["lease_id"]].append(use)
    return found


async def save_preemption(connection: Connection, lease_id: str, preemption: Preemption | None) -> None:
    """Store a lease's notice, or that there is none, and tell who watches it."""
    values = (None, None, None)
    if preemption is not None:
        values = (preemption.time, preemption.order_id, preemption.group_index)  # type: ignore[assignment]
    await connection.execute(QUERIES.get("save_preemption"), lease_id, *values)
    await notify(connection, LEASE_CHANNEL, lease_id)


async def load_noticed(connection: Connection, market: str) -> list[Lease]:
    """The leases whose room is kept for another order, live ones and ended ones."""
    return [_lease_of(row) for row in await connection.fetch(QUERIES.get("load_noticed"), market)]


async def load_preemptible(connection: Connection, market: str, ready_before: datetime, limit: int) -> list[Lease]:
    """Spot leases that have run since before an instant and have no notice, the cheapest first."""
    rows = await connection.fetch(QUERIES.get("load_preemptible"), market, ready_before, limit)
    return [_lease_of(row) for row in rows]


async def load_preemptions_due(connection: Connection, now: datetime, limit: int) -> list[Lease]:
    """Live leases whose notice is over."""
    return [_lease_of(row) for row in await connection.fetch(QUERIES.get("load_preemptions_due"), now, limit)]


async def load_order_leases(connection: Connection, order_id: str) -> list[Lease]:
    """All leases that an order ever had, oldest first."""
    return [_lease_of(row) for row in await connection.fetch(QUERIES.get("load_order_leases"), order_id)]


async def list_leases(
    connection: Connection,
    *,
    account: str,
    order_id: str,
    provider_id: str,
    states: Sequence[LeaseState],
    before: str,
    limit: int,
) -> list[Lease]:
    """Leases, newest first, that an account may see ("" sees all), narrowed by what is not empty."""
    rows = await connection.fetch(
        QUERIES.get("list_leases"), account, order_id, provider_id, [state.value for state in states], before, limit
    )
    return [_lease_of(row) for row in rows]


async def load_overdue(
    connection: Connection, reserved_before: datetime, accepted_before: datetime, limit: int
) -> list[tuple[str, str]]:
    """Leases not accepted, or not ready, since these instants: (lease id, order id)."""
    rows = await connection.fetch(QUERIES.get("load_overdue_leases"), reserved_before, accepted_before, limit)
    return [(row["lease_id"], row["order_id"]) for row in rows]


async def load_device_uses(connection: Connection, provider_ids: Sequence[str]) -> list[asyncpg.Record]:
    """What leases hold of providers' devices."""
    return await connection.fetch(QUERIES.get("load_device_uses"), list(provider_ids))


async def load_node_uses(connection: Connection, provider_ids: Sequence[str]) -> list[asyncpg.Record]:
    """What leases hold of providers' nodes."""
    return await connection.fetch(QUERIES.get("load_node_uses"), list(provider_ids))


def _lease_of(row: asyncpg.Record) -> Lease:
    """The lease of a row."""
    return Lease(
        lease_id=row["lease_id"],
        key=GenerationKey(row["order_id"], row["group_index"], row["generation"]),
        group_id=row["group_id"],
        tenant=row["tenant"],
        provider_id=row["provider_id"],
        provider_account=row["provider_account"],
        provider_address=row["provider_address"],
        offer_id=row["offer_id"],
        asset=row["asset"],
        price_micros=row["price_micros"],
        placements=tuple(_placement_of(value) for value in row["placements"]),
        self_stop_ms=row["self_stop_ms"],
        create_time=row["create_time"],
        state=LeaseState(row["state"]),
        endpoints=tuple(Endpoint(*value) for value in row["endpoints"]),
        accept_time=row["accept_time"],
        ready_time=row["ready_time"],
        end_time=row["end_time"],
        charge_through_time=row["charge_through_time"],
        release_time=row["release_time"],
        evidence=_evidence_of(row["evidence"]),
        proof=ProofMark(row["proof_sequence"], row["proof_running_ms"], row["proof_final"]),
        group_revision=row["group_revision"],
        spot=row["spot"],
        preemption=_preemption_of(row),
    )


def _preemption_of(row: asyncpg.Record) -> Preemption | None:
    """The notice of a row."""
    if row["preempt_time"] is None:
        return None
    return Preemption(row["preempt_time"], row["preempt_order_id"], row["preempt_group_index"])


def _placement_to_json(placement: Placement) -> dict[str, Any]:
    """A placement as JSON."""
    return {
        "service": placement.service,
        "replica": placement.replica,
        "node_id": placement.node_id,
        "model": placement.model,
        "devices": [[share.device_id, share.milli] for share in placement.devices],
    }


def _placement_of(value: dict[str, Any]) -> Placement:
    """The placement that ``_placement_to_json`` wrote."""
    shares = tuple(DeviceShare(value["node_id"], device_id, milli) for device_id, milli in value["devices"])
    return Placement(value["service"], value["replica"], value["node_id"], shares, value["model"])


def _evidence_to_json(evidence: Evidence | None) -> dict[str, str] | None:
    """Evidence as JSON."""
    if evidence is None:
        return None
    return {
        "reason": evidence.reason,
        "detail": evidence.detail,
        "observer": evidence.observer,
        "observe_time": format_time(evidence.observe_time),
    }


def _evidence_of(value: dict[str, str] | None) -> Evidence | None:
    """The evidence that ``_evidence_to_json`` wrote."""
    if value is None:
        return None
    observe_time = truncate_to_millisecond(parse_time(value["observe_time"]))
    return Evidence(EndReason(value["reason"]), value["detail"], value["observer"], observe_time)
