"""Providers, their inventory and their offers as rows."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import asyncpg

from fallow_bidding.domain.audits import AuditorSignature
from fallow_bidding.domain.providers import Offer, Provider, ProviderFilter
from fallow_bidding.domain.reputation import Reputation
from fallow_bidding.domain.supply import PriceSchedule, ReservedTier
from fallow_bidding.store import QUERIES
from fallow_chassis.postgres import Connection


async def insert_provider(connection: Connection, provider: Provider) -> bool:
    """Store a new provider; False where its public key is taken."""
    inserted = await connection.fetchval(
        QUERIES.get("insert_provider"),
        provider.provider_id,
        provider.account,
        provider.display_name,
        provider.public_key,
        provider.region,
        dict(provider.attributes),
        _signatures_to_json(provider),
        provider.address,
        provider.market,
        provider.create_time,
    )
    return inserted is not None


async def load_provider(connection: Connection, provider_id: str) -> Provider | None:
    """A provider, or None."""
    return _provider(await connection.fetchrow(QUERIES.get("load_provider"), provider_id))


async def lock_provider(connection: Connection, provider_id: str) -> Provider | None:
    """A provider whose row is held until the transaction ends, or None."""
    return _provider(await connection.fetchrow(QUERIES.get("lock_provider"), provider_id))


async def load_provider_by_key(connection: Connection, public_key: bytes) -> Provider | None:
    """The provider that registered a public key, or None."""
    return _provider(await connection.fetchrow(QUERIES.get("load_provider_by_key"), public_key))


async def list_providers(connection: Connection, wanted: ProviderFilter, before: str, limit: int) -> list[Provider]:
    """The wanted providers, newest first, after the id ``before``."""
    rows = await connection.fetch(
        QUERIES.get("list_providers"),
        wanted.account,
        before,
        limit,
        [state.value for state in wanted.states],
        list(wanted.regions),
        list(wanted.gpu_models),
        wanted.reputation_milli_min,
        wanted.auditor,
    )
    return [_provider_of(row) for row in rows]


async def load_market_providers(connection: Connection, market: str) -> list[Provider]:
    """All providers of a market."""
    rows = await connection.fetch(QUERIES.get("load_market_providers"), market)
    return [_provider_of(row) for row in rows]


async def update_profile(connection: Connection, provider: Provider) -> None:
    """Store what an owner may change."""
    await connection.execute(
        QUERIES.get("update_provider_profile"),
        provider.provider_id,
        provider.display_name,
        dict(provider.attributes),
        _signatures_to_json(provider),
        provider.address,
    )


async def set_draining(connection: Connection, provider_id: str, *, draining: bool) -> None:
    """Store the owner's wish."""
    await connection.execute(QUERIES.get("set_provider_draining"), provider_id, draining)


async def next_market_version(connection: Connection, provider_id: str) -> int:
    """Take the number of the provider's next event on the market's topic."""
    version = await connection.fetchval(QUERIES.get("next_market_version"), provider_id)
    assert isinstance(version, int), "the provider of an event is there"
    return version


async def take_heartbeat_number(connection: Connection, provider_id: str, life: str, number: int) -> bool:
    """Take the number of a heartbeat of one life of an agent; False for one of an earlier life, or below the last.
    The last one again is a repeat, and taken as such.

    A provider that is not there takes none: whoever looks next says so.
    """
    taken: bool | None = await connection.fetchval(QUERIES.get("take_heartbeat_number"), provider_id, life, number)
    return taken is not False


async def record_heartbeat(connection: Connection, provider_id: str, now: datetime, boot_id: str) -> None:
    """Note that a provider was heard."""
    await connection.execute(QUERIES.get("record_heartbeat"), provider_id, now, boot_id)


async def set_unreachable(connection: Connection, provider_id: str) -> None:
    """Note that a provider has been silent for too long to get leases."""
    await connection.execute(QUERIES.get("set_provider_unreachable"), provider_id)


async def load_silent_providers(
    connection: Connection, heard_before: datetime, limit: int
) -> list[tuple[str, datetime, bool]]:
    """Providers last heard before an instant that count as reachable or have live leases: id, last heard, reachable."""
    rows = await connection.fetch(QUERIES.get("load_silent_providers"), heard_before, limit)
    return [(row["provider_id"], row["heartbeat_time"], row["reachable"]) for row in rows]


async def record_inventory(connection: Connection, provider_id: str, sequence: int, now: datetime) -> None:
    """Note the number of the inventory report that is in force."""
    await connection.execute(QUERIES.get("record_inventory"), provider_id, sequence, now)


async def replace_nodes(
    connection: Connection,
    provider_id: str,
    nodes: Sequence[tuple[str, int, int, dict[str, int], list[str]]],
    devices: Sequence[tuple[str, str, str, str, int, str, str, str]],
) -> None:
    """Put a report's nodes and devices in the place of the last one's."""
    await connection.execute(QUERIES.get("delete_nodes"), provider_id)
    await insert_nodes(connection, provider_id, nodes, devices)


async def delete_some_nodes(connection: Connection, provider_id: str, node_ids: Sequence[str]) -> None:
    """Drop nodes with their devices."""
    await connection.execute(QUERIES.get("delete_some_nodes"), provider_id, list(node_ids))


async def insert_nodes(
    connection: Connection,
    provider_id: str,
    nodes: Sequence[tuple[str, int, int, dict[str, int], list[str]]],
    devices: Sequence[tuple[str, str, str, str, int, str, str, str]],
) -> None:
    """Store nodes and devices that are not there yet.

    A node is (node id, cpu milli, memory bytes, storage by class, drivers), a device (device id, node id, vendor,
    model, VRAM bytes, interface, health, source).
    """
    await connection.executemany(QUERIES.get("insert_node"), [(provider_id, *node) for node in nodes])
    await connection.executemany(QUERIES.get("insert_device"), [(provider_id, *device) for device in devices])


async def load_nodes(connection: Connection, provider_ids: Sequence[str]) -> list[asyncpg.Record]:
    """The nodes of providers as their last reports gave them."""
    return await connection.fetch(QUERIES.get("load_nodes"), list(provider_ids))


async def load_devices(connection: Connection, provider_ids: Sequence[str]) -> list[asyncpg.Record]:
    """The devices of providers as their last reports gave them."""
    return await connection.fetch(QUERIES.get("load_devices"), list(provider_ids))


async def insert_offer(connection: Connection, offer: Offer) -> None:
    """Store a new active offer; the one in the same asset must have been withdrawn before."""
    await connection.execute(
        QUERIES.get("insert_offer"),
        offer.offer_id,
        offer.provider_id,
        offer.prices.asset,
        _prices_to_json(offer.prices),
        offer.term_ms_max,
        offer.expire_time,
        offer.create_time,
    )


async def load_offer(connection: Connection, offer_id: str) -> Offer | None:
    """An offer, or None."""
    row = await connection.fetchrow(QUERIES.get("load_offer"), offer_id)
    return None if row is None else _offer_of(row)


async def list_offers(connection: Connection, provider_id: str, before: str, limit: int) -> list[Offer]:
    """Offers, newest first, of one provider or of all, after the id ``before``."""
    rows = await connection.fetch(QUERIES.get("list_offers"), provider_id, before, limit)
    return [_offer_of(row) for row in rows]


async def load_active_offers(connection: Connection, provider_ids: Sequence[str]) -> list[Offer]:
    """Offers of these providers that were neither withdrawn nor replaced; some may have expired."""
    rows = await connection.fetch(QUERIES.get("load_active_offers"), list(provider_ids))
    return [_offer_of(row) for row in rows]


async def withdraw_offer(connection: Connection, offer_id: str) -> bool:
    """Withdraw an offer; False where it was withdrawn before."""
    return await connection.fetchval(QUERIES.get("withdraw_offer"), offer_id) is not None


async def withdraw_active_offer(connection: Connection, provider_id: str, asset: str) -> str | None:
    """Withdraw the provider's active offer in an asset; its id, or None where there is none."""
    offer_id: str | None = await connection.fetchval(QUERIES.get("withdraw_active_offer"), provider_id, asset)
    return offer_id


def _provider(row: asyncpg.Record | None) -> Provider | None:
    """A row that may be missing."""
    return None if row is None else _provider_of(row)


def _provider_of(row: asyncpg.Record) -> Provider:
    """The provider of a row."""
    return Provider(
        provider_id=row["provider_id"],
        account=row["account"],
        public_key=row["public_key"],
        region=row["region"],
        market=row["market"],
        create_time=row["create_time"],
        display_name=row["display_name"],
        attributes=row["attributes"],
        auditor_signatures=signatures_of(row),
        address=row["address"],
        draining=row["draining"],
        reachable=row["reachable"],
        reputation=Reputation(
            score_milli=row["reputation_milli"],
            reliability_milli=row["reliability_milli"],
            uptime_week_milli=row["uptime_week_milli"],
            uptime_month_milli=row["uptime_month_milli"],
            start_success_milli=row["start_success_milli"],
            time_to_start_ms=row["time_to_start_ms"],
            early_closes=row["early_closes"],
            leases=row["lease_count"],
        ),
        heartbeat_time=row["heartbeat_time"],
        boot_id=row["boot_id"],
        inventory_sequence=row["inventory_sequence"],
        inventory_time=row["inventory_time"],
    )


def signatures_of(row: asyncpg.Record) -> tuple[AuditorSignature, ...]:
    """The auditors' signatures of a provider's row."""
    return tuple(AuditorSignature(*item) for item in row["auditor_signatures"])


def _signatures_to_json(provider: Provider) -> list[list[Any]]:
    """Auditors' signatures as JSON."""
    return [[item.auditor, dict(item.attributes), item.signature] for item in provider.auditor_signatures]


def _offer_of(row: asyncpg.Record) -> Offer:
    """The offer of a row."""
    return Offer(
        offer_id=row["offer_id"],
        provider_id=row["provider_id"],
        prices=_prices_of(row["asset"], row["prices"]),
        create_time=row["create_time"],
        term_ms_max=row["term_ms_max"],
        expire_time=row["expire_time"],
        withdrawn=row["state"] == "WITHDRAWN",
    )


def _prices_to_json(prices: PriceSchedule) -> dict[str, Any]:
    """A price schedule as JSON, without its asset, which has a column."""
    return {
        "gpu_micros_by_model": dict(prices.gpu_micros_by_model),
        "cpu_core_micros": prices.cpu_core_micros,
        "memory_gib_micros": prices.memory_gib_micros,
        "storage_gib_micros_by_class": dict(prices.storage_gib_micros_by_class),
        "group_micros_min": prices.group_micros_min,
        "reserved_tiers": [[tier.duration_ms_min, tier.discount_milli] for tier in prices.reserved_tiers],
        "spot_discount_milli": prices.spot_discount_milli,
    }


def _prices_of(asset: str, value: dict[str, Any]) -> PriceSchedule:
    """The price schedule that ``_prices_to_json`` wrote."""
    tiers = tuple(ReservedTier(*tier) for tier in value["reserved_tiers"])
    return PriceSchedule(asset=asset, **{**value, "reserved_tiers": tiers})
