"""Metered generations, parked proofs and charges in Postgres."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg

from fallow_chassis.paging import TimePlace
from fallow_chassis.postgres import Connection
from fallow_settlement.domain.charge import Charge, Metering
from fallow_settlement.domain.charging import Rates
from fallow_settlement.domain.metering import Claim, Counted, Meter
from fallow_settlement.ledger_store import QUERIES

MAX_PARKED_PROOFS: Final = 1_000
"""The most proofs of unknown leases that are kept for one provider; more are dropped."""

_CHARGE_COLUMNS: Final = (
    "id",
    "order_id",
    "group_index",
    "generation",
    "lease_id",
    "sequence",
    "tenant_id",
    "provider_account_id",
    "asset",
    "from_running_ms",
    "to_running_ms",
    "price_micros_per_hour",
    "amount",
    "fee",
    "pool",
    "short",
    "proof_level",
    "create_time",
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class ParkedProof:
    """A proof that came before its lease; ``proof`` is the serialized message."""

    lease_id: str
    sequence: int
    provider_id: str
    receive_time: datetime
    outage_ms: int
    proof: bytes


async def insert_metering(connection: Connection, metering: Metering) -> None:
    """Write a generation that was just leased."""
    await connection.execute(
        QUERIES.get("insert_metering"),
        metering.order_id,
        metering.group,
        metering.generation,
        metering.lease_id,
        metering.tenant_id,
        metering.provider_id,
        metering.provider_account_id,
        metering.provider_public_key,
        metering.asset,
        metering.price_micros_per_hour,
        metering.rates.take,
        metering.rates.pool,
        metering.meter.heartbeat_interval_ms,
        metering.meter.start_time,
    )


async def has_metering(connection: Connection, order_id: str) -> bool:
    """Whether any lease was ever made for an order."""
    found: bool = await connection.fetchval(QUERIES.get("has_metering"), order_id)
    return found


async def load_order_meterings(connection: Connection, order_id: str, *, lock: bool) -> tuple[Metering, ...]:
    """All generations of an order, by lease id; ``lock`` holds their rows until the transaction ends."""
    query = QUERIES.get("lock_meterings_of_order") if lock else QUERIES.get("load_meterings_of_order")
    return tuple(_metering(row) for row in await connection.fetch(query, order_id))


async def lock_meterings(connection: Connection, lease_ids: Iterable[str]) -> dict[str, Metering]:
    """Generations by lease id, their rows held until the transaction ends; unknown leases are left out."""
    rows = await connection.fetch(QUERIES.get("lock_meterings"), sorted(set(lease_ids)))
    return {row["lease_id"]: _metering(row) for row in rows}


async def save_meterings(connection: Connection, meterings: Sequence[Metering]) -> None:
    """Write changed generations whose rows are locked."""
    await connection.executemany(
        QUERIES.get("update_metering"),
        [
            (
                metering.lease_id,
                metering.ready,
                metering.ended,
                metering.meter.proven_ms,
                metering.meter.slack_ms,
                metering.meter.charge_through_time,
                metering.meter.final,
                [_counted_json(counted) for counted in metering.meter.recent],
                metering.charge_sequence,
                metering.charged_ms,
                metering.charged_micros,
                metering.early_close_ms,
            )
            for metering in meterings
        ],
    )


async def park_proof(connection: Connection, parked: ParkedProof) -> bool:
    """Keep a proof until its lease is known; False where it was kept before or its provider has too many."""
    status = await connection.execute(
        QUERIES.get("park_proof"),
        parked.lease_id,
        parked.sequence,
        parked.provider_id,
        parked.receive_time,
        parked.outage_ms,
        parked.proof,
        MAX_PARKED_PROOFS,
    )
    return status == "INSERT 0 1"


async def take_parked(connection: Connection, lease_id: str) -> list[ParkedProof]:
    """The parked proofs of a lease in the order in which they came; they are parked no longer."""
    rows = await connection.fetch(QUERIES.get("take_parked_proofs"), lease_id)
    return [
        ParkedProof(
            row["lease_id"],
            row["sequence"],
            row["provider_id"],
            row["receive_time"],
            row["outage_ms"],
            row["proof"],
        )
        for row in rows
    ]


async def drop_parked_before(connection: Connection, time: datetime) -> None:
    """Forget parked proofs that came before an instant."""
    await connection.execute(QUERIES.get("drop_old_parked_proofs"), time)


async def lock_to_charge(connection: Connection, order_ids: Collection[str]) -> dict[str, tuple[Metering, ...]]:
    """All generations of orders, by order, held until the transaction ends; their meters know no receipts here."""
    found: dict[str, list[Metering]] = {order_id: [] for order_id in order_ids}
    for row in await connection.fetch(QUERIES.get("lock_meterings_to_charge"), list(order_ids)):
        found[row["order_id"]].append(_metering(row))
    return {order_id: tuple(meterings) for order_id, meterings in found.items()}


async def save_charged(connection: Connection, meterings: Sequence[Metering]) -> None:
    """Write how far generations, whose rows are locked, are charged."""
    if meterings:
        await connection.execute(
            QUERIES.get("update_charged"),
            [metering.lease_id for metering in meterings],
            [metering.charge_sequence for metering in meterings],
            [metering.charged_ms for metering in meterings],
            [metering.charged_micros for metering in meterings],
        )


async def insert_charges(connection: Connection, charges: Sequence[Charge]) -> None:
    """Write new charges, and queue them for the next batch."""
    if not charges:
        return
    await connection.copy_records_to_table(
        "charge",
        columns=_CHARGE_COLUMNS,
        records=[
            (
                charge.id,
                charge.order_id,
                charge.group,
                charge.generation,
                charge.lease_id,
                charge.sequence,
                charge.tenant_id,
                charge.provider_account_id,
                charge.asset,
                charge.from_running_ms,
                charge.to_running_ms,
                charge.price_micros_per_hour,
                charge.amount,
                charge.fee,
                charge.pool,
                charge.short,
                charge.proof_level,
                charge.create_time,
            )
            for charge in charges
        ],
    )
    await connection.copy_records_to_table(
        "unbatched_charge",
        columns=("charge_id", "create_time"),
        records=[(charge.id, charge.create_time) for charge in charges],
    )


async def load_charge(connection: Connection, charge_id: str) -> Charge | None:
    """A charge with its place in a batch, or None."""
    row = await connection.fetchrow(QUERIES.get("load_charge"), charge_id)
    return None if row is None else charge_of(row)


async def list_charges(
    connection: Connection, account_id: str, order_id: str, before: TimePlace | None, limit: int
) -> list[Charge]:
    """Charges that an account paid or earned, newest first; ``order_id`` filters, empty lists all."""
    time, identifier = (None, "") if before is None else before
    rows = await connection.fetch(QUERIES.get("list_charges"), account_id, order_id, time, identifier, limit)
    return [charge_of(row) for row in rows]


def charge_of(row: asyncpg.Record) -> Charge:
    """A charge from a row that joins its place in a batch."""
    return Charge(
        id=row["id"],
        order_id=row["order_id"],
        group=row["group_index"],
        generation=row["generation"],
        lease_id=row["lease_id"],
        sequence=row["sequence"],
        tenant_id=row["tenant_id"],
        provider_account_id=row["provider_account_id"],
        asset=row["asset"],
        from_running_ms=row["from_running_ms"],
        to_running_ms=row["to_running_ms"],
        price_micros_per_hour=row["price_micros_per_hour"],
        amount=row["amount"],
        fee=row["fee"],
        pool=row["pool"],
        short=row["short"],
        proof_level=row["proof_level"],
        create_time=row["create_time"],
        batch_number=row["batch_number"] or 0,
        leaf_index=row["leaf_index"] or 0,
    )


def _metering(row: asyncpg.Record) -> Metering:
    """A generation from its row."""
    return Metering(
        order_id=row["order_id"],
        group=row["group_index"],
        generation=row["generation"],
        lease_id=row["lease_id"],
        tenant_id=row["tenant_id"],
        provider_id=row["provider_id"],
        provider_account_id=row["provider_account_id"],
        provider_public_key=row["provider_public_key"],
        asset=row["asset"],
        price_micros_per_hour=row["price_micros_per_hour"],
        rates=Rates(row["take_basis_points"], row["pool_basis_points"]),
        meter=Meter(
            start_time=row["start_time"],
            heartbeat_interval_ms=row["heartbeat_interval_ms"],
            proven_ms=row["proven_ms"],
            slack_ms=row["slack_ms"],
            charge_through_time=row["charge_through_time"],
            final=row["final"],
            recent=tuple(_counted(item) for item in row["recent"] or ()),
        ),
        ready=row["ready"],
        ended=row["ended"],
        charge_sequence=row["charge_sequence"],
        charged_ms=row["charged_ms"],
        charged_micros=row["charged_micros"],
        early_close_ms=row["early_close_ms"],
    )


def _counted_json(counted: Counted) -> dict[str, Any]:
    """A receipt as the row keeps it."""
    return {
        "sequence": counted.claim.sequence,
        "running_ms": counted.claim.running_ms,
        "final": counted.claim.final,
        "receive_ms": (counted.claim.receive_time - _EPOCH) // _MILLISECOND,
        "outage_ms": counted.claim.outage_ms,
        "is_paid": counted.claim.is_paid,
        "proven_ms": counted.proven_ms,
        "slack_ms": counted.slack_ms,
    }


def _counted(item: dict[str, Any]) -> Counted:
    """A receipt from what the row keeps."""
    claim = Claim(
        sequence=item["sequence"],
        running_ms=item["running_ms"],
        final=item["final"],
        receive_time=_EPOCH + item["receive_ms"] * _MILLISECOND,
        outage_ms=item["outage_ms"],
        is_paid=item.get("is_paid", True),
    )
    return Counted(claim, item["proven_ms"], item["slack_ms"])
