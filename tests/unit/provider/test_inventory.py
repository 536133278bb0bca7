"""Inventory reports of the agent: all at first, then changes, all again where the market asks or a report was lost."""

from dataclasses import replace

from fallow.provider.v1.market_link_pb2 import HeartbeatAcknowledgement, InventoryAcknowledgement, InventoryReport
from fallow_chassis.errors import UNAVAILABLE, DomainError
from fallow_provider.devices import DeclaredSite
from fallow_provider.domain.inventory import DeviceHealth, Node, Site, changed_nodes
from tests.unit.provider.conftest import SITE, Agent

(NODE,) = SITE.nodes
SECOND = Node("n2", 2_000, 1 << 30)
ILL = replace(NODE, devices=(replace(NODE.devices[0], health=DeviceHealth.FAILED),))


def _see(agent: Agent, *nodes: Node) -> None:
    """Let the agent find these nodes from now on."""
    agent.heartbeats._sites = DeclaredSite(Site("Fjord", "eu", {}, nodes, SITE.prices))


def _shape(report: InventoryReport) -> tuple[int, int, list[str], list[str]]:
    """Number, base, nodes told, nodes gone."""
    return (
        report.sequence,
        report.base_sequence,
        [node.node_id for node in report.nodes],
        list(report.removed_node_ids),
    )


async def test_after_the_first_report_only_changes_are_told(agent: Agent) -> None:
    """Goal: the market hears of each change once, and of nothing where nothing changed. Method: a node comes, falls ill, goes."""
    assert await agent.heartbeats.report_inventory()
    assert await agent.heartbeats.report_inventory()
    _see(agent, NODE, SECOND)
    assert await agent.heartbeats.report_inventory()
    _see(agent, ILL, SECOND)
    assert await agent.heartbeats.report_inventory()
    _see(agent, SECOND)
    assert await agent.heartbeats.report_inventory()
    assert [_shape(report) for report in agent.market.inventories] == [
        (1, 0, ["n1"], []),
        (2, 1, ["n2"], []),
        (3, 2, ["n1"], []),
        (4, 3, [], ["n1"]),
    ]


async def test_a_lost_report_is_followed_by_one_that_says_its_base(agent: Agent) -> None:
    """Goal: what the market did not acknowledge is told again, on the base of what it did. Method: a failure between two changes."""
    assert await agent.heartbeats.report_inventory()
    agent.market.failure = DomainError(UNAVAILABLE, "away")
    _see(agent, NODE, SECOND)
    assert not await agent.heartbeats.report_inventory()
    agent.market.failure = None
    _see(agent, ILL, SECOND)
    assert await agent.heartbeats.report_inventory()
    assert _shape(agent.market.inventories[-1]) == (3, 1, ["n1", "n2"], [])


async def test_the_market_gets_all_where_it_asks(agent: Agent) -> None:
    """Goal: a gap, an old number and a wish in a heartbeat's answer each bring a full report, numbered above what is known.
    Method: each in turn.
    """
    assert await agent.heartbeats.report_inventory()
    _see(agent, NODE, SECOND)
    agent.market.inventory_answer = InventoryAcknowledgement(sequence=1, reason="INVENTORY_GAP", inventory_wanted=True)
    assert not await agent.heartbeats.report_inventory()
    agent.market.inventory_answer = InventoryAcknowledgement(sequence=40, reason="INVENTORY_OLD", inventory_wanted=True)
    assert not await agent.heartbeats.report_inventory()
    agent.market.inventory_answer = None
    assert await agent.heartbeats.report_inventory()
    agent.market.answer = HeartbeatAcknowledgement(inventory_wanted=True)
    await agent.heartbeats.beat()
    assert await agent.heartbeats.report_inventory()
    assert [_shape(report) for report in agent.market.inventories[2:]] == [
        (3, 0, ["n1", "n2"], []),
        (41, 0, ["n1", "n2"], []),
        (42, 0, ["n1", "n2"], []),
    ]


def test_what_changed_is_found_by_node() -> None:
    """Goal: a node is told whole if anything of it differs. Method: none, all, and one of each kind of change."""
    assert changed_nodes((NODE, SECOND), (NODE, SECOND)) == ([], [])
    assert changed_nodes((), (NODE,)) == ([NODE], [])
    assert changed_nodes((NODE, SECOND), (ILL,)) == ([ILL], ["n2"])
