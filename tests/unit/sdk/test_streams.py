"""Streams of the client that go on by themselves after a break."""

from collections.abc import AsyncIterator
from contextlib import aclosing

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

from fallow.bidding.v1 import market_service_pb2
from fallow_sdk import client as client_module
from fallow_sdk.client import Client, Endpoints
from fallow_sdk.errors import FallowError


class Market:
    """Answers StreamTrades with one script a call: numbers of trades, then how the stream ends."""

    def __init__(self, *scripts: tuple[list[int], grpc.StatusCode | None]) -> None:
        self.scripts = list(scripts)
        self.asked_after: list[int] = []

    async def StreamTrades(
        self, request: market_service_pb2.StreamTradesRequest, *, metadata: tuple[tuple[str, str], ...]
    ) -> AsyncIterator[market_service_pb2.StreamTradesResponse]:
        """Play the next script."""
        self.asked_after.append(request.after_sequence)
        numbers, ending = self.scripts.pop(0)
        for number in numbers:
            yield market_service_pb2.StreamTradesResponse(sequence=number)
        if ending is not None:
            raise AioRpcError(ending, Metadata(), Metadata(), "cut")


async def numbers_of(market: Market, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The trades that a client sees, from the third on."""
    monkeypatch.setattr(client_module, "FIRST_PAUSE_SECONDS", 0.0)
    async with Client(Endpoints("127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:1")) as client:
        monkeypatch.setattr(client, "_market", market)
        async with aclosing(client.stream_trades(after=2)) as stream:
            return [trade.sequence async for trade in stream]


async def test_a_broken_stream_goes_on_after_what_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a break loses and repeats nothing. Method: cut a stream twice, once before it said anything."""
    away = grpc.StatusCode.UNAVAILABLE
    market = Market(([3, 4], away), ([], away), ([5], None))
    assert await numbers_of(market, monkeypatch) == [3, 4, 5]
    assert market.asked_after == [2, 4, 4]


async def test_a_refused_stream_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: only a service that is away is waited for. Method: a refusal after the first answer."""
    market = Market(([3], grpc.StatusCode.PERMISSION_DENIED))
    with pytest.raises(FallowError, match="PERMISSION_DENIED"):
        await numbers_of(market, monkeypatch)
    assert market.asked_after == [2]
