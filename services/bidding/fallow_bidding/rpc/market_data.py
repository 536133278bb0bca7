"""Open market data as gRPC: for anybody, without a name in it."""

from collections.abc import AsyncIterator
from typing import Any, Final

from fallow.bidding.v1 import market_service_pb2, market_service_pb2_grpc
from fallow_bidding.channels import TRADE_CHANNEL
from fallow_bidding.convert import market_data as convert
from fallow_bidding.market_data import MarketData
from fallow_chassis.errors import RATE_LIMITED, DomainError
from fallow_chassis.paging import Page
from fallow_chassis.signals import Signals

STREAMS_MAX: Final = 1_000
"""The most streams of trades at one time in this process."""
STREAM_POLL_SECONDS: Final = 2.0
"""How long a trade waits at most to be shown if its signal is lost."""
STREAM_RETRY_MS: Final = 5_000


class MarketDataServicer(market_service_pb2_grpc.MarketDataServiceServicer):
    """The book, prices, utilisation and trades."""

    def __init__(self, data: MarketData, signals: Signals) -> None:
        """Take the reads, and the signals of trades."""
        self._data = data
        self._signals = signals
        self._streams = 0

    async def GetBook(self, request: market_service_pb2.GetBookRequest, context: Any) -> market_service_pb2.Book:
        """Return what could be leased now."""
        page = Page(request)
        found = await self._data.book(request.model, page.after_text(), page.limit)
        shown, token = page.cut(found, lambda entry: entry.place)
        return market_service_pb2.Book(entries=map(convert.book_entry, shown), next_page_token=token)

    async def GetPriceIndex(
        self, request: market_service_pb2.GetPriceIndexRequest, context: Any
    ) -> market_service_pb2.PriceIndex:
        """Return prices by model and asset."""
        page = Page(request)
        found = await self._data.index(request.model, page.after_text(), page.limit)
        shown, token = page.cut(found, lambda entry: entry.place)
        return market_service_pb2.PriceIndex(entries=map(convert.index_entry, shown), next_page_token=token)

    async def GetUtilisation(
        self, request: market_service_pb2.GetUtilisationRequest, context: Any
    ) -> market_service_pb2.Utilisation:
        """Return utilisation by model."""
        page = Page(request)
        found = await self._data.utilisation(request.model, page.after_text(), page.limit, by_region=request.by_region)
        shown, token = page.cut(found, lambda entry: entry.place)
        return market_service_pb2.Utilisation(entries=map(convert.utilisation_entry, shown), next_page_token=token)

    async def StreamTrades(
        self, request: market_service_pb2.StreamTradesRequest, context: Any
    ) -> AsyncIterator[market_service_pb2.StreamTradesResponse]:
        """Stream trades until the caller goes."""
        if self._streams >= STREAMS_MAX:
            facts = {"quota": "trade_streams", "limit": str(STREAMS_MAX)}
            raise DomainError(
                RATE_LIMITED, "too many follow the trades", metadata=facts, retry_after_ms=STREAM_RETRY_MS
            )
        self._streams += 1
        try:
            with self._signals.bell(TRADE_CHANNEL) as bell:
                seen = request.after_sequence or await self._data.tail.newest()
                while True:
                    found = await self._data.tail.after(seen)
                    for numbered in found:
                        if request.model in {"", numbered.trade.model}:
                            yield convert.trade_message(numbered)
                        seen = numbered.sequence
                    if not found:
                        await bell.wait(STREAM_POLL_SECONDS)
        finally:
            self._streams -= 1
