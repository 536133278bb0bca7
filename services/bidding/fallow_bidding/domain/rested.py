"""What found no provider is not decided again on a market that has no more than the one on which it found none.

Each pass of the engine looks at all open orders. Those that rest (limit orders, orders of a full market) would cost as much each time as
a new one. A market has more where anything of a supplier is different but for room that was taken: then all is decided again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from fallow_bidding.domain.matching import Market
from fallow_bidding.domain.orders import MarketGroup, MarketOrder
from fallow_bidding.domain.supply import Node, Supplier


class Rested:
    """The groups that rest, as they were when they were decided, and the market that was left then."""

    def __init__(self) -> None:
        """Nothing rests."""
        self._market: dict[str, Supplier] = {}
        self._groups: dict[tuple[str, tuple[int, ...]], tuple[MarketOrder, tuple[MarketGroup, ...]]] = {}

    def look(self, market: Market) -> None:
        """Forget all where a market has more than the last one."""
        if not self._groups:
            return
        if len(market.suppliers) != len(self._market) or any(
            supplier.provider_id not in self._market or _has_more(supplier, self._market[supplier.provider_id])
            for supplier in market.suppliers
        ):
            self._groups.clear()

    def holds(self, order: MarketOrder, groups: Mapping[int, MarketGroup]) -> bool:
        """Whether groups of an order, as they are, found nobody on a market that had no less."""
        return self._groups.get((order.order_id, tuple(groups))) == _facts(order, groups)

    def keep(self, market: Market, parts: Iterable[tuple[MarketOrder, Mapping[int, MarketGroup]]]) -> None:
        """Note what found nobody on a market, of which ``market`` is what is left now."""
        self._groups |= {(order.order_id, tuple(groups)): _facts(order, groups) for order, groups in parts}
        if self._groups:
            self._market = {supplier.provider_id: supplier for supplier in market.present()}


def _facts(order: MarketOrder, groups: Mapping[int, MarketGroup]) -> tuple[MarketOrder, tuple[MarketGroup, ...]]:
    """What a decision about groups depends on, besides the market."""
    return order, tuple(replace(group, decision=None) for group in groups.values())


def _has_more(now: Supplier, then: Supplier) -> bool:
    """Whether anything of a supplier is different but for room that was taken."""
    if now == then:
        return False
    if replace(now, nodes=()) != replace(then, nodes=()) or len(now.nodes) != len(then.nodes):
        return True
    return any(_node_has_more(node, before) for node, before in zip(now.nodes, then.nodes, strict=True))


def _node_has_more(now: Node, then: Node) -> bool:
    """Whether anything of a node is different but for room that was taken."""
    if now == then:
        return False
    taken = replace(
        now,
        cpu_milli=then.cpu_milli,
        memory_bytes=then.memory_bytes,
        storage_bytes_by_class=then.storage_bytes_by_class,
        devices=then.devices,
    )
    if taken != then or now.cpu_milli > then.cpu_milli or now.memory_bytes > then.memory_bytes:
        return True
    if now.storage_bytes_by_class.keys() != then.storage_bytes_by_class.keys() or any(
        size > then.storage_bytes_by_class[name] for name, size in now.storage_bytes_by_class.items()
    ):
        return True
    return len(now.devices) != len(then.devices) or any(
        replace(device, free_milli=before.free_milli) != before or device.free_milli > before.free_milli
        for device, before in zip(now.devices, then.devices, strict=True)
    )
