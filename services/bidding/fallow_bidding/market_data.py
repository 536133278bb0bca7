"""Reads of open market data, which anybody may ask for: however many ask, the database is asked once.

The book, the index and utilisation are made of reads that are remembered for a second in this process, means of prices for a
minute; who comes while one is under way waits for it. Streams of trades share one tail, the newest trades, that is read on from where it
ended; only who resumes from further back is read for alone.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final, Generic, Protocol, TypeVar

from fallow_bidding.domain.market_data import (
    BookEntry,
    IndexEntry,
    Stock,
    Traded,
    UtilisationEntry,
    book_of,
    index_of,
    utilisation_of,
)
from fallow_bidding.domain.policy import Policy
from fallow_bidding.store import market_data
from fallow_bidding.store.market_data import Means, NumberedTrade
from fallow_chassis.clock import Clock
from fallow_chassis.postgres import Database

REMEMBERED_MS: Final = 1_000
"""How old an answer may be."""
MEANS_REMEMBERED_MS: Final = 60_000
"""How old mean prices may be: they are made of every trade of a week, and move slowly."""
TAIL_TRADES: Final = 1_000
"""The most trades in the tail, and in one read."""
TRADES_KEPT: Final = timedelta(days=30)
"""How long trades are kept after their lease has ended."""

T = TypeVar("T")


class _Placed(Protocol):
    """What stands in a list by its model and place."""

    @property
    def model(self) -> str: ...

    @property
    def place(self) -> str: ...


PlacedT = TypeVar("PlacedT", bound=_Placed)


class Remembered(Generic[T]):
    """A value that is read at most once in a while, by one caller for all."""

    def __init__(self, read: Callable[[], Awaitable[T]], clock: Clock, lasts_ms: int = REMEMBERED_MS) -> None:
        """``read`` makes the value, which is good for ``lasts_ms``."""
        self._read = read
        self._clock = clock
        self._lasts_ms = lasts_ms
        self._lock = asyncio.Lock()
        self._value: tuple[int, T] | None = None

    async def get(self) -> T:
        """The value, no older than it may be."""
        async with self._lock:
            if self._value is None or self._clock.monotonic_ms() - self._value[0] >= self._lasts_ms:
                begun = self._clock.monotonic_ms()
                self._value = (begun, await self._read())
            return self._value[1]


class Tail:
    """The newest trades, shared by all who follow them."""

    def __init__(self, database: Database, market: str) -> None:
        """Nothing is read before somebody asks."""
        self._database = database
        self._market = market
        self._lock = asyncio.Lock()
        self._reads = 0
        self._kept: deque[NumberedTrade] = deque(maxlen=TAIL_TRADES)
        # Every trade after this number, up to the newest that is known, is in the tail.
        self._start: int | None = None
        self._end = 0

    async def newest(self) -> int:
        """The number of the newest trade."""
        await self._read_on()
        return self._end

    async def after(self, sequence: int) -> list[NumberedTrade]:
        """Trades after a number, oldest first, at most ``TAIL_TRADES``; empty when there are none yet."""
        await self._read_on()
        assert self._start is not None, "it was read"
        if sequence < self._start:
            async with self._database.read() as connection:
                return await market_data.load_trades(connection, self._market, sequence, TAIL_TRADES)
        return [trade for trade in self._kept if trade.sequence > sequence]

    async def _read_on(self) -> None:
        """Read what is new, unless somebody else has begun to since this was called."""
        begun = self._reads
        async with self._lock:
            if self._reads != begun:
                return
            self._reads += 1
            async with self._database.read() as connection:
                if self._start is None:
                    self._start = self._end = await market_data.load_newest_trade(connection, self._market)
                    return
                for trade in await market_data.load_trades(connection, self._market, self._end, TAIL_TRADES):
                    if len(self._kept) == TAIL_TRADES:
                        self._start = self._kept[0].sequence
                    self._kept.append(trade)
                    self._end = trade.sequence


class MarketData:
    """What the open market shows."""

    def __init__(self, database: Database, policy: Policy) -> None:
        """Take the database and the market's rules."""
        self._database = database
        self._policy = policy
        self._stocks = Remembered(self._read_stocks, database.clock)
        self._traded = Remembered(self._read_traded, database.clock)
        self._means = Remembered(self._read_means, database.clock, MEANS_REMEMBERED_MS)
        self.tail = Tail(database, policy.market)

    async def book(self, model: str, after: str, limit: int) -> Sequence[BookEntry]:
        """Entries of the book, of one model or (``model`` empty) of all, after a place."""
        return _page(book_of(await self._stocks.get()), model, after, limit)

    async def index(self, model: str, after: str, limit: int) -> Sequence[IndexEntry]:
        """Entries of the price index."""
        entries = index_of(book_of(await self._stocks.get()), await self._traded.get())
        return _page(entries, model, after, limit)

    async def utilisation(self, model: str, after: str, limit: int, *, by_region: bool) -> Sequence[UtilisationEntry]:
        """Entries of utilisation."""
        return _page(utilisation_of(await self._stocks.get(), by_region=by_region), model, after, limit)

    async def sweep(self) -> None:
        """Forget trades that nothing is computed from any more."""
        async with self._database.transaction() as unit:
            await market_data.sweep_trades(unit.connection, unit.clock.now() - TRADES_KEPT)

    async def _read_stocks(self) -> list[Stock]:
        """What providers have and ask."""
        async with self._database.read() as connection:
            return await market_data.load_stocks(connection, self._policy, self._database.clock.now())

    async def _read_traded(self) -> dict[tuple[str, str], Traded]:
        """What trades came to."""
        day, week = await self._means.get()
        async with self._database.read() as connection:
            return await market_data.load_traded(connection, self._policy.market, day, week)

    async def _read_means(self) -> tuple[Means, Means]:
        """The mean prices of the last day and week."""
        now, market = self._database.clock.now(), self._policy.market
        async with self._database.read() as connection:
            day = await market_data.load_mean_prices(connection, market, now - timedelta(days=1), now)
            return day, await market_data.load_mean_prices(connection, market, now - timedelta(days=7), now)


def _page(entries: Sequence[PlacedT], model: str, after: str, limit: int) -> list[PlacedT]:
    """The entries of one page."""
    return [entry for entry in entries if entry.place > after and model in {"", entry.model}][:limit]
