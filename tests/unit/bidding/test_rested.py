"""When a market has more than another: anything but room that was taken."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from fallow_bidding.domain.matching import Market
from fallow_bidding.domain.orders import MarketGroup, MarketOrder
from fallow_bidding.domain.rested import Rested
from fallow_bidding.domain.supply import Health, Supplier
from tests.unit.bidding.market import device, node, prices, supplier

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ORDER = MarketOrder("order", "accounts/t", "world", b"body", NOW, open_time=NOW, match_timeout_ms=1)
GROUPS = {0: MarketGroup("order", 0, "group")}
BEFORE = supplier("one", node("n1", devices=(device("a", free_milli=500), device("b"))))


def changed_node(**fields: Any) -> Supplier:
    """The supplier with another node."""
    return replace(BEFORE, nodes=(replace(BEFORE.nodes[0], **fields),))


NODE = BEFORE.nodes[0]
LESS = [
    ("the same", BEFORE),
    ("less of a processor", changed_node(cpu_milli=NODE.cpu_milli - 1)),
    ("less memory", changed_node(memory_bytes=NODE.memory_bytes - 1)),
    ("less of a device", changed_node(devices=(device("a", free_milli=0), device("b")))),
]
MORE = [
    ("more of a processor", changed_node(cpu_milli=NODE.cpu_milli + 1)),
    ("more memory", changed_node(memory_bytes=NODE.memory_bytes + 1)),
    ("more of a device", changed_node(devices=(device("a", free_milli=501), device("b")))),
    ("another device", changed_node(devices=(*NODE.devices, device("c")))),
    ("a device less, which may have been another's obstacle", changed_node(devices=(device("a", free_milli=500),))),
    ("another health", changed_node(devices=(device("a", free_milli=500, health=Health.UNKNOWN), device("b")))),
    ("another storage class", changed_node(storage_bytes_by_class={"new": 1})),
    ("another driver", changed_node(drivers=("docker",))),
    ("another node", replace(BEFORE, nodes=(NODE, node("n2")))),
    ("another price", replace(BEFORE, offers={"usdc": replace(BEFORE.offers["usdc"], prices=prices(1))})),
    ("another reputation", replace(BEFORE, reputation_milli=BEFORE.reputation_milli + 1)),
    ("another state", replace(BEFORE, unavailable="unreachable")),
]


@pytest.mark.parametrize(("what", "after"), [*LESS, *MORE])
def test_a_market_has_more_where_anything_but_taken_room_is_different(what: str, after: Supplier) -> None:
    """Goal: nothing is left resting that might match. Method: a row for each way in which a supplier may differ."""
    rested = Rested()
    rested.keep(Market([BEFORE]), [(ORDER, GROUPS)])
    rested.look(Market([after]))
    assert rested.holds(ORDER, GROUPS) == (what in {name for name, _ in LESS}), what


def test_a_changed_order_and_another_supplier_are_looked_at() -> None:
    """Goal: what a decision depends on is all in the memory. Method: another body, another group, a supplier more, one less."""
    rested = Rested()
    rested.keep(Market([BEFORE]), [(ORDER, GROUPS)])
    assert rested.holds(ORDER, {0: replace(GROUPS[0], decision={"told": "to somebody"})})
    assert not rested.holds(replace(ORDER, body=b"changed"), GROUPS)
    assert not rested.holds(ORDER, {0: replace(GROUPS[0], revision=2)})
    assert not rested.holds(ORDER, {1: GROUPS[0]})
    for suppliers in ([BEFORE, supplier("two")], []):
        rested.keep(Market([BEFORE]), [(ORDER, GROUPS)])
        rested.look(Market(suppliers))
        assert not rested.holds(ORDER, GROUPS)
