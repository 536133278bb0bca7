"""What agents send is taken for what it is: bounded, and never believed beyond its shape."""

from typing import Any

import pytest

from fallow.provider.v1 import market_link_pb2
from fallow.type.v1 import lease_pb2, resources_pb2, workload_pb2
from fallow_bidding.convert.leases import end_reason_number, end_reason_of
from fallow_bidding.convert.link import MAX_NODES, CommandAnswer, boot_id, command_answer, inventory_rows, run_reports
from fallow_bidding.domain.heartbeat import RunState
from fallow_bidding.domain.leases import EndReason
from fallow_bidding.domain.supply import Health
from fallow_chassis.errors import DomainError

GPU = resources_pb2.Device(device_id="g", vendor="nvidia", model="h100")


def test_hostile_texts_are_cut() -> None:
    """Goal: no text of an agent's can stop its heartbeat from being stored. Method: null characters, overlong texts, and
    addresses that are none.
    """
    run = market_link_pb2.RunStatus(
        lease="leases/x",
        state=market_link_pb2.RUN_STATE_RUNNING,
        reason="A\x00B" * 100,
        detail="\x00" + "d" * 5_000,
        endpoints=[
            workload_pb2.Endpoint(service="b", uri="http://b"),
            workload_pb2.Endpoint(service="a", uri="http://a"),
            workload_pb2.Endpoint(service="c", uri="http://\x00"),
            workload_pb2.Endpoint(service="d", uri=""),
            workload_pb2.Endpoint(service="e", uri="http://" + "e" * 3_000),
        ],
    )
    heartbeat = market_link_pb2.Heartbeat(boot_id="b\x00" * 200, runs=[run])
    (report,) = run_reports(heartbeat)
    assert (len(report.reason), len(report.detail)) == (128, 1_024)
    assert "\x00" not in report.reason + report.detail + boot_id(heartbeat)
    assert [endpoint.service for endpoint in report.endpoints] == ["a", "b"]


@pytest.mark.parametrize(("number", "expected"), [(0, RunState.UNKNOWN), (2, RunState.RUNNING), (99, RunState.UNKNOWN)])
def test_a_state_that_says_nothing_is_unknown(number: int, expected: RunState) -> None:
    """Goal: a state of a later release changes nothing. Method: numbers without a name."""
    run = market_link_pb2.RunStatus()
    run.state = number  # type: ignore[assignment]
    assert run_reports(market_link_pb2.Heartbeat(runs=[run]))[0].state is expected


@pytest.mark.parametrize(
    "nodes",
    [
        [resources_pb2.Node(node_id="")],
        [resources_pb2.Node(node_id="n"), resources_pb2.Node(node_id="n")],
        [resources_pb2.Node(node_id="n", cpu_milli=-1)],
        [resources_pb2.Node(node_id="n", storage_bytes_by_class={"beta3": -1})],
        [resources_pb2.Node(node_id="n", devices=[GPU, GPU])],
        [resources_pb2.Node(node_id="n", devices=[resources_pb2.Device(device_id="g", vendor="nvidia")])],
        [resources_pb2.Node(node_id=str(number)) for number in range(MAX_NODES + 1)],
    ],
)
def test_an_inventory_that_cannot_be_true_is_refused(nodes: list[resources_pb2.Node]) -> None:
    """Goal: nonsense never replaces a good report. Method: a table of it."""
    with pytest.raises(DomainError) as refused:
        inventory_rows(market_link_pb2.InventoryReport(nodes=nodes))
    assert refused.value.reason.reason == "INVENTORY_INVALID"


def test_an_unknown_health_is_no_failure() -> None:
    """Goal: unknown is not down. Method: a device that says nothing about its health."""
    report = market_link_pb2.InventoryReport(nodes=[resources_pb2.Node(node_id="n", devices=[GPU])])
    _, (device,) = inventory_rows(report)
    assert device[6] is Health.UNKNOWN


def test_every_reason_has_its_number() -> None:
    """Goal: no end is lost on the wire. Method: each reason there and back, and a number without a name."""
    for reason in EndReason:
        assert end_reason_of(end_reason_number(reason), EndReason.EXPIRED if reason != "EXPIRED" else reason) is reason
    assert end_reason_of(lease_pb2.END_REASON_UNSPECIFIED, EndReason.TENANT) is EndReason.TENANT


def _answer(**fields: Any) -> bytes:
    """The bytes of an answer to the command `c`."""
    answer = market_link_pb2.CommandAcknowledgement(**{"command_id": "c", **fields})
    return market_link_pb2.LinkReply(command=answer).SerializeToString()


@pytest.mark.parametrize(
    "payload",
    [
        b"\xff\xff",
        b"",
        _answer(),
        _answer(command_id="other", outcome=market_link_pb2.COMMAND_OUTCOME_ACCEPTED),
        market_link_pb2.LinkReply(error=market_link_pb2.LinkError(reason="X")).SerializeToString(),
    ],
)
def test_an_answer_that_is_none_counts_as_none(payload: bytes) -> None:
    """Goal: no answer of an agent's can stop the courier. Method: bytes that are no message, and messages that are no
    answer to this command.
    """
    with pytest.raises(DomainError) as refused:
        command_answer(payload, "c")
    assert refused.value.reason.reason == "LINK_MESSAGE_INVALID"


def test_an_answer_is_cut_to_what_can_be_kept() -> None:
    """Goal: a refusal's texts are bounded and storable. Method: null characters and too much of it."""
    payload = _answer(outcome=market_link_pb2.COMMAND_OUTCOME_REFUSED, reason="A\x00B", detail="d" * 5_000)
    assert command_answer(payload, "c") == CommandAnswer(accepted=False, reason="AB", detail="d" * 1_024)
    accepted = command_answer(_answer(outcome=market_link_pb2.COMMAND_OUTCOME_ACCEPTED), "c")
    assert (accepted.accepted, accepted.why) == (True, "")
