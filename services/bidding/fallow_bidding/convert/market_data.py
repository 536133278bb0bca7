"""Open market data on the wire."""

from fallow.bidding.v1 import market_service_pb2
from fallow.type.v1 import money_pb2
from fallow_bidding.domain.market_data import BookEntry, IndexEntry, UtilisationEntry
from fallow_bidding.domain.supply import WHOLE_DEVICE_MILLI
from fallow_bidding.store.market_data import NumberedTrade
from fallow_chassis.wire import to_timestamp


def book_entry(entry: BookEntry) -> market_service_pb2.Book.Entry:
    """An entry of the book."""
    return market_service_pb2.Book.Entry(
        model=entry.model,
        provider=f"providers/{entry.provider_id}",
        price=money_pb2.Price(asset=entry.ask.asset, micros_per_hour=entry.ask.price_micros),
        free_devices=entry.free_devices,
        region=entry.region,
        offer=f"offers/{entry.ask.offer_id}",
    )


def index_entry(entry: IndexEntry) -> market_service_pb2.PriceIndex.Entry:
    """Prices of one model in one asset; what nothing is known of is unset."""
    message = market_service_pb2.PriceIndex.Entry(model=entry.model)
    prices = {"best": entry.best_micros, "median": entry.median_micros}
    if entry.traded is not None:
        message.last_trade_time.CopyFrom(to_timestamp(entry.traded.last_time))
        prices |= {
            "last": entry.traded.last_micros,
            "mean_day": entry.traded.day_micros,
            "mean_week": entry.traded.week_micros,
        }
    for field, micros in prices.items():
        if micros is not None:
            getattr(message, field).CopyFrom(money_pb2.Price(asset=entry.asset, micros_per_hour=micros))
    return message


def utilisation_entry(entry: UtilisationEntry) -> market_service_pb2.Utilisation.Entry:
    """Utilisation of one model."""
    return market_service_pb2.Utilisation.Entry(
        model=entry.model,
        devices=entry.devices,
        leased_milli=entry.leased_milli,
        healthy_devices=entry.healthy_devices,
        region=entry.region,
    )


def trade_message(numbered: NumberedTrade) -> market_service_pb2.StreamTradesResponse:
    """One trade."""
    trade = numbered.trade
    return market_service_pb2.StreamTradesResponse(
        model=trade.model,
        devices=trade.devices_milli // WHOLE_DEVICE_MILLI,
        price=money_pb2.Price(asset=trade.asset, micros_per_hour=trade.price_micros),
        trade_time=to_timestamp(numbered.create_time),
        sequence=numbered.sequence,
        devices_milli=trade.devices_milli,
    )
