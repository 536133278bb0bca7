"""The market as the engine sees it: providers with offers, and what is free of their nodes and devices."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import asyncpg

from fallow_bidding.domain.policy import Policy
from fallow_bidding.domain.providers import Offer, OfferState, Provider
from fallow_bidding.domain.supply import WHOLE_DEVICE_MILLI, Device, Health, Node, StandingOffer, Supplier
from fallow_bidding.store import leases, providers
from fallow_chassis.postgres import Connection

FORGOTTEN_AFTER: Final = timedelta(minutes=10)
"""How long after its last heartbeat nobody looks through a provider's devices any more."""


async def load_suppliers(connection: Connection, policy: Policy, now: datetime) -> list[tuple[Provider, Supplier]]:
    """All providers of the market with their free capacity at this instant; of those that are long gone, without what they had."""
    registered = await providers.load_market_providers(connection, policy.market)
    ids = [provider.provider_id for provider in registered]
    heard = [
        one.provider_id for one in registered if one.heartbeat_time and now - one.heartbeat_time <= FORGOTTEN_AFTER
    ]
    nodes = _free_nodes(
        await providers.load_nodes(connection, heard),
        await providers.load_devices(connection, heard),
        await leases.load_node_uses(connection, heard),
        await leases.load_device_uses(connection, heard),
    )
    offers: dict[str, dict[str, StandingOffer]] = {provider_id: {} for provider_id in ids}
    for offer in await providers.load_active_offers(connection, ids):
        if offer.state(now) is OfferState.ACTIVE:
            offers[offer.provider_id][offer.prices.asset] = _standing(offer)
    return [
        (provider, _supplier(provider, offers[provider.provider_id], nodes.get(provider.provider_id, []), policy, now))
        for provider in registered
    ]


def unavailability(provider: Provider, policy: Policy, now: datetime) -> str:
    """Why a provider takes no new lease at this instant, or nothing."""
    silence = timedelta(milliseconds=policy.unreachable_ms)
    is_silent = provider.heartbeat_time is not None and now - provider.heartbeat_time > silence
    return provider.unavailable or ("unreachable" if is_silent else "")


def _standing(offer: Offer) -> StandingOffer:
    """An offer as the engine needs it."""
    return StandingOffer(offer.offer_id, offer.prices, offer.term_ms_max)


def _supplier(
    provider: Provider, offers: dict[str, StandingOffer], nodes: list[Node], policy: Policy, now: datetime
) -> Supplier:
    """A provider as the engine sees it."""
    return Supplier(
        provider_id=provider.provider_id,
        account=provider.account,
        region=provider.region,
        create_time_ms=int(provider.create_time.timestamp() * 1_000),
        attributes=provider.attributes,
        audited=provider.audited,
        reputation_milli=provider.reputation.score_milli,
        unavailable=unavailability(provider, policy, now),
        offers=offers,
        nodes=tuple(nodes),
    )


def _free_nodes(
    nodes: Sequence[asyncpg.Record],
    devices: Sequence[asyncpg.Record],
    node_uses: Sequence[asyncpg.Record],
    device_uses: Sequence[asyncpg.Record],
) -> dict[str, list[Node]]:
    """By provider, its nodes less what leases hold; what was reported away below a use counts as nothing free."""
    used: dict[tuple[str, str], int] = {}
    for row in device_uses:
        key = (row["provider_id"], row["device_id"])
        used[key] = used.get(key, 0) + row["milli"]
    by_node: dict[tuple[str, str], list[Device]] = {}
    for row in devices:
        free = WHOLE_DEVICE_MILLI - used.get((row["provider_id"], row["device_id"]), 0)
        by_node.setdefault((row["provider_id"], row["node_id"]), []).append(
            Device(
                row["device_id"],
                row["vendor"],
                row["model"],
                row["vram_bytes"],
                row["interface"],
                Health(row["health"]),
                free,
            )
        )
    cpu: dict[tuple[str, str], int] = {}
    memory: dict[tuple[str, str], int] = {}
    storage: dict[tuple[str, str, str], int] = {}
    for row in node_uses:
        key = (row["provider_id"], row["node_id"])
        cpu[key] = cpu.get(key, 0) + row["cpu_milli"]
        memory[key] = memory.get(key, 0) + row["memory_bytes"]
        for name, size in row["storage_bytes_by_class"].items():
            storage[*key, name] = storage.get((*key, name), 0) + size
    found: dict[str, list[Node]] = {}
    for row in nodes:
        key = (row["provider_id"], row["node_id"])
        found.setdefault(row["provider_id"], []).append(
            Node(
                node_id=row["node_id"],
                cpu_milli=max(0, row["cpu_milli"] - cpu.get(key, 0)),
                memory_bytes=max(0, row["memory_bytes"] - memory.get(key, 0)),
                storage_bytes_by_class={
                    name: max(0, size - storage.get((*key, name), 0))
                    for name, size in row["storage_bytes_by_class"].items()
                },
                devices=tuple(by_node.get(key, ())),
                drivers=tuple(row["drivers"]),
            )
        )
    return found
