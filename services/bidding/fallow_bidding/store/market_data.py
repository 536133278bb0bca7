"""Open market data as rows: stocks of devices, trades."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from fallow_bidding.channels import TRADE_CHANNEL
from fallow_bidding.domain.leases import Lease
from fallow_bidding.domain.market_data import Ask, Stock, Trade, Traded
from fallow_bidding.domain.policy import Policy
from fallow_bidding.domain.providers import OfferState
from fallow_bidding.store import QUERIES, providers
from fallow_bidding.store.suppliers import unavailability
from fallow_chassis.postgres import Connection, notify

Means: TypeAlias = dict[tuple[str, str], int]
"""Mean prices in micros, by model and asset."""


@dataclass(frozen=True, slots=True)
class NumberedTrade:
    """A trade with its number on the market and its time."""

    sequence: int
    trade: Trade
    create_time: datetime


async def load_stocks(connection: Connection, policy: Policy, now: datetime) -> list[Stock]:
    """What every provider of the market has, by model, with what it asks where it takes leases now."""
    registered = {item.provider_id: item for item in await providers.load_market_providers(connection, policy.market)}
    offers = [
        offer
        for offer in await providers.load_active_offers(connection, list(registered))
        if offer.state(now) is OfferState.ACTIVE and not unavailability(registered[offer.provider_id], policy, now)
    ]
    asks: dict[tuple[str, str], list[Ask]] = {}
    for offer in offers:
        for model, micros in offer.prices.gpu_micros_by_model.items():
            ask = Ask(offer.offer_id, offer.prices.asset, micros)
            asks.setdefault((offer.provider_id, model), []).append(ask)
    return [
        Stock(
            provider_id=row["provider_id"],
            region=registered[row["provider_id"]].region,
            model=row["model"],
            devices=row["devices"],
            healthy_devices=row["healthy_devices"],
            free_devices=row["free_devices"],
            leased_milli=row["leased_milli"],
            asks=tuple(asks.get((row["provider_id"], row["model"]), ())),
        )
        for row in await connection.fetch(QUERIES.get("load_stocks"), policy.market)
    ]


async def insert_trades(connection: Connection, market: str, lease: Lease, trades: Sequence[Trade]) -> None:
    """Store the trades that a new lease is, and tell who watches; the market's decisions lock must be held."""
    if not trades:
        return
    rows = [
        (market, lease.lease_id, item.model, item.asset, item.devices_milli, item.price_micros, lease.create_time)
        for item in trades
    ]
    await connection.executemany(QUERIES.get("insert_trade"), rows)
    await notify(connection, TRADE_CHANNEL)


async def load_newest_trade(connection: Connection, market: str) -> int:
    """The number of the newest trade; 0 before the first."""
    return int(await connection.fetchval(QUERIES.get("load_newest_trade"), market))


async def load_trades(connection: Connection, market: str, after: int, limit: int) -> list[NumberedTrade]:
    """Trades after a number, oldest first."""
    return [
        NumberedTrade(
            row["sequence"],
            Trade(row["model"], row["asset"], row["devices_milli"], row["price_micros"]),
            row["create_time"],
        )
        for row in await connection.fetch(QUERIES.get("load_trades"), market, after, limit)
    ]


async def load_mean_prices(connection: Connection, market: str, since: datetime, now: datetime) -> Means:
    """By model and asset, the mean price of what was leased since an instant."""
    rows = await connection.fetch(QUERIES.get("load_mean_prices"), market, since, now)
    return {(row["model"], row["asset"]): row["mean_micros"] for row in rows}


async def load_traded(connection: Connection, market: str, day: Means, week: Means) -> dict[tuple[str, str], Traded]:
    """By model and asset, the last trade, with the mean prices of a day and a week."""
    found = {}
    for row in await connection.fetch(QUERIES.get("load_last_trades"), market):
        key = (row["model"], row["asset"])
        found[key] = Traded(row["price_micros"], row["create_time"], day.get(key), week.get(key))
    return found


async def sweep_trades(connection: Connection, before: datetime) -> None:
    """Forget trades whose lease ended before an instant."""
    await connection.execute(QUERIES.get("sweep_trades"), before)
