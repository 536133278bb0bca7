"""The mix of needs that has arrived at the market, kept in memory by whoever decides.

It begins with the newest orders of the database and then counts each order once, when a pass first finds it. An order
whose lease was lost counts again: it is asked for again. It is an expectation and no fact, so losing it with the process
costs nothing but the reading of those orders.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from fallow.order.v1 import order_pb2
from fallow_bidding.convert import market as convert
from fallow_bidding.domain.engine.mix import Mix, Snapshot
from fallow_bidding.domain.engine.needs import Need
from fallow_bidding.domain.orders import MarketOrder
from fallow_bidding.store import orders
from fallow_chassis.postgres import Connection

RECENT_ORDERS_MAX: Final = 2_000
"""The newest orders that a mix begins with."""


class ArrivalMix:
    """What was asked for lately, replica by replica."""

    def __init__(self, market: str) -> None:
        """Nothing is known before ``snapshot`` was asked for once."""
        self._market = market
        self._mix: Mix | None = None
        self._counted: frozenset[str] = frozenset()

    async def snapshot(self, connection: Connection) -> Snapshot:
        """The mix as it is; read from the newest orders at first."""
        if self._mix is None:
            recent = await orders.load_recent_bodies(connection, self._market, RECENT_ORDERS_MAX)
            self._mix = Mix()
            self._add(body for _, body in reversed(recent))
            self._counted = frozenset(order_id for order_id, _ in recent)
        return self._mix.snapshot

    def count(self, found: Sequence[MarketOrder]) -> None:
        """Count the orders of a pass that the last one did not find."""
        if self._mix is not None:
            self._add(order.body for order in found if order.order_id not in self._counted and order.body is not None)
            self._counted = frozenset(order.order_id for order in found)

    def _add(self, bodies: Iterable[bytes]) -> None:
        """Count the replicas of some orders."""
        assert self._mix is not None, "arrivals are counted once the newest orders were read"
        for body in bodies:
            for group in convert.order_demand(order_pb2.Order.FromString(body)).groups:
                for replica_set in group.replica_sets:
                    for _ in range(replica_set.replicas):
                        self._mix.add(Need.of(replica_set))
