"""Open market data: the book, the price index, utilisation, trades. Nothing here says who leases what.

A stock is one provider's devices of one model. What of it is on offer follows the engine's own rules: the provider takes
leases now, the device is healthy and wholly free, the offer has a price for its model. A trade is a lease that was made,
once for each model of its devices.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from fallow_bidding.domain.leases import Lease
from fallow_bidding.domain.supply import WHOLE_DEVICE_MILLI


@dataclass(frozen=True, slots=True)
class Ask:
    """What a provider asks for one device of a model for an hour."""

    offer_id: str
    asset: str
    price_micros: int


@dataclass(frozen=True, slots=True)
class Stock:
    """One provider's devices of one model; ``asks`` is empty where the provider takes no lease now.

    ``healthy_devices`` are those that the agent calls healthy, ``free_devices`` those that a lease could take whole.
    """

    provider_id: str
    region: str
    model: str
    devices: int
    healthy_devices: int
    free_devices: int
    leased_milli: int
    asks: tuple[Ask, ...] = ()

    def __post_init__(self) -> None:
        """Nobody has more than there is."""
        assert 0 <= self.free_devices <= self.devices, "free devices are devices"
        assert 0 <= self.healthy_devices <= self.devices, "healthy devices are devices"
        assert 0 <= self.leased_milli <= self.devices * WHOLE_DEVICE_MILLI, "a device is never oversold"


@dataclass(frozen=True, slots=True)
class BookEntry:
    """One provider's free devices of a model at a price."""

    model: str
    provider_id: str
    region: str
    ask: Ask
    free_devices: int

    @property
    def place(self) -> str:
        """Where it stands in the book: by model, asset, price, provider. Models and assets hold no space."""
        return f"{self.model} {self.ask.asset} {self.ask.price_micros:019d} {self.provider_id}"


@dataclass(frozen=True, slots=True)
class Traded:
    """What trades of one model in one asset came to; means are None where nothing was leased in their time."""

    last_micros: int
    last_time: datetime
    day_micros: int | None = None
    week_micros: int | None = None


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """Prices of one model in one asset."""

    model: str
    asset: str
    best_micros: int | None
    median_micros: int | None
    traded: Traded | None

    @property
    def place(self) -> str:
        """Where it stands in the index."""
        return f"{self.model} {self.asset}"


@dataclass(frozen=True, slots=True)
class UtilisationEntry:
    """Devices of one model, in one region or (``region`` empty) in all."""

    model: str
    region: str
    devices: int
    healthy_devices: int
    leased_milli: int

    @property
    def place(self) -> str:
        """Where it stands in its list."""
        return f"{self.model} {self.region}"


@dataclass(frozen=True, slots=True)
class Trade:
    """Devices of one model that a lease took; the price is that of one device for an hour."""

    model: str
    asset: str
    devices_milli: int
    price_micros: int


def book_of(stocks: Sequence[Stock]) -> list[BookEntry]:
    """What could be leased now, in the order of places."""
    entries = [
        BookEntry(stock.model, stock.provider_id, stock.region, ask, stock.free_devices)
        for stock in stocks
        if stock.free_devices > 0
        for ask in stock.asks
    ]
    return sorted(entries, key=lambda entry: entry.place)


def index_of(book: Sequence[BookEntry], traded: Mapping[tuple[str, str], Traded]) -> list[IndexEntry]:
    """Prices of every model and asset that is on offer or was traded, in the order of places."""
    on_offer: dict[tuple[str, str], list[BookEntry]] = {}
    for entry in book:
        on_offer.setdefault((entry.model, entry.ask.asset), []).append(entry)
    entries = []
    for model, asset in {*on_offer, *traded}:
        asks = on_offer.get((model, asset), [])
        best = min((entry.ask.price_micros for entry in asks), default=None)
        entries.append(IndexEntry(model, asset, best, _median_micros(asks), traded.get((model, asset))))
    return sorted(entries, key=lambda entry: entry.place)


def _median_micros(entries: Sequence[BookEntry]) -> int | None:
    """The price of the device in the middle of all free ones, the lower of two; None where there is none."""
    left = (sum(entry.free_devices for entry in entries) + 1) // 2
    for entry in sorted(entries, key=lambda entry: entry.ask.price_micros):
        left -= entry.free_devices
        if left <= 0:
            return entry.ask.price_micros
    return None


def utilisation_of(stocks: Sequence[Stock], *, by_region: bool) -> list[UtilisationEntry]:
    """Devices of every model that is known, in the order of places."""
    sums: dict[tuple[str, str], tuple[int, int, int]] = {}
    for stock in stocks:
        key = (stock.model, stock.region if by_region else "")
        devices, healthy, leased = sums.get(key, (0, 0, 0))
        sums[key] = (devices + stock.devices, healthy + stock.healthy_devices, leased + stock.leased_milli)
    return sorted((UtilisationEntry(*key, *counted) for key, counted in sums.items()), key=lambda entry: entry.place)


def trades_of(lease: Lease, gpu_micros_by_model: Mapping[str, int]) -> list[Trade]:
    """The trades that a lease is, by model; ``gpu_micros_by_model`` are its offer's prices.

    All that the group pays for an hour is shared among its models as their offered prices would, or by their devices
    where those say nothing, and then among the devices of a model, rounded down.
    """
    milli: dict[str, int] = {}
    for placement in lease.placements:
        for share in placement.devices:
            milli[placement.model] = milli.get(placement.model, 0) + share.milli
    weights = {model: gpu_micros_by_model.get(model, 0) * taken for model, taken in milli.items()}
    if not any(weights.values()):
        weights = milli
    total = sum(weights.values())
    return [
        Trade(
            model,
            lease.asset,
            taken,
            lease.price_micros * weights[model] * WHOLE_DEVICE_MILLI // (total * taken),
        )
        for model, taken in sorted(milli.items())
    ]
