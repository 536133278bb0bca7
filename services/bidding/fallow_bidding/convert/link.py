"""What providers' agents say and are told, on the wire."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from fallow.provider.v1 import market_link_pb2
from fallow.type.v1 import resources_pb2
from fallow_bidding.convert.leases import MAX_DETAIL_CHARACTERS, end_reason_number, endpoint_of, key_message, key_of
from fallow_bidding.domain.heartbeat import HeartbeatVerdict, RunReport, RunState
from fallow_bidding.domain.leases import EndReason, Lease
from fallow_bidding.domain.proofs import ProofClaim, Refusal
from fallow_bidding.domain.reasons import INVENTORY_INVALID, LINK_MESSAGE_INVALID
from fallow_bidding.domain.supply import Health
from fallow_chassis.errors import DomainError
from fallow_chassis.wire import to_duration

MAX_NODES: Final = 1_024
MAX_DEVICES: Final = 8_192
"""The most devices of a provider, on all its nodes."""
MAX_NODE_DEVICES: Final = 64
MAX_CLASSES: Final = 16
MAX_DRIVERS: Final = 8
MAX_NAME_CHARACTERS: Final = 32
MAX_TEXT_CHARACTERS: Final = 128
MAX_URI_CHARACTERS: Final = 2_048
MAX_ENDPOINTS: Final = 4_096
_NODE_ID: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
_VENDOR: Final = re.compile(r"[a-z0-9-]{1,32}")
MODEL: Final = re.compile(r"[a-z0-9-]{1,64}")
"""How the market writes the name of a device's model."""
_INTERFACE: Final = re.compile(r"[a-z0-9-]{0,16}")

NodeRow = tuple[str, int, int, dict[str, int], list[str]]
DeviceRow = tuple[str, str, str, str, int, str, str, str]


def run_reports(heartbeat: market_link_pb2.Heartbeat) -> tuple[RunReport, ...]:
    """The generations that an agent names."""
    return tuple(
        RunReport(
            lease_id=run.lease.removeprefix("leases/"),
            key=key_of(run.key),
            state=_run_state(run.state),
            reason=_plain(run.reason, MAX_TEXT_CHARACTERS),
            detail=_plain(run.detail, MAX_DETAIL_CHARACTERS),
            endpoints=tuple(
                sorted(endpoint_of(endpoint) for endpoint in run.endpoints[:MAX_ENDPOINTS] if is_plain(endpoint.uri))
            ),
        )
        for run in heartbeat.runs
    )


def boot_id(heartbeat: market_link_pb2.Heartbeat) -> str:
    """The id of the agent's life."""
    return _plain(heartbeat.boot_id, MAX_TEXT_CHARACTERS)


def is_plain(uri: str) -> bool:
    """Whether an address is one that a database can hold and a person can read."""
    return bool(uri) and len(uri) <= MAX_URI_CHARACTERS and uri.isprintable()


def proof_claims(heartbeat: market_link_pb2.Heartbeat) -> tuple[ProofClaim, ...]:
    """The proofs of a heartbeat, numbered by their place in it."""
    return tuple(
        ProofClaim(
            position=position,
            lease_id=proof.lease.removeprefix("leases/"),
            key=key_of(proof.key),
            sequence=proof.sequence,
            running_ms=proof.running_ms,
            device_health=proof.device_health,
            final=proof.final,
            signature=proof.signature,
        )
        for position, proof in enumerate(heartbeat.proofs)
    )


def heartbeat_reply(
    sequence: int, verdict: HeartbeatVerdict, refusals: Sequence[Refusal], *, inventory_wanted: bool
) -> market_link_pb2.LinkReply:
    """The answer to a heartbeat."""
    acknowledgement = market_link_pb2.HeartbeatAcknowledgement
    return market_link_pb2.LinkReply(
        heartbeat=acknowledgement(
            sequence=sequence,
            unwanted=[key_message(key) for key in verdict.unwanted],
            forgotten=[key_message(key) for key in verdict.forgotten],
            suspended=[key_message(key) for key in verdict.suspended],
            refusals=[
                acknowledgement.ProofRefusal(
                    lease=f"leases/{refusal.lease_id}", sequence=refusal.sequence, reason=refusal.reason
                )
                for refusal in refusals
            ],
            inventory_wanted=inventory_wanted,
        )
    )


def error_reply(error: DomainError) -> market_link_pb2.LinkReply:
    """The answer to a message that could not be taken."""
    return market_link_pb2.LinkReply(error=market_link_pb2.LinkError(reason=error.reason.reason, message=error.message))


def run_command(
    command_id: str, lease: Lease, grant: str, order_address: str, start_timeout_ms: int
) -> market_link_pb2.Command:
    """The command to run a lease's generation."""
    command = market_link_pb2.Command
    replicas = [
        command.ReplicaPlacement(
            service=placement.service,
            replica=placement.replica,
            node_id=placement.node_id,
            devices=[command.DeviceShare(device_id=share.device_id, milli=share.milli) for share in placement.devices],
        )
        for placement in lease.placements
    ]
    return command(
        command_id=command_id,
        lease=f"leases/{lease.lease_id}",
        key=key_message(lease.key),
        run=command.RunLease(
            workload_grant=grant,
            replicas=replicas,
            self_stop=to_duration(lease.self_stop_ms),
            start_timeout=to_duration(start_timeout_ms),
            order_address=order_address,
        ),
    )


def stop_command(command_id: str, lease: Lease, reason: EndReason) -> market_link_pb2.Command:
    """The command to stop a lease's generation; the grace is the agent's default."""
    return market_link_pb2.Command(
        command_id=command_id,
        lease=f"leases/{lease.lease_id}",
        key=key_message(lease.key),
        stop=market_link_pb2.Command.StopLease(reason=end_reason_number(reason)),
    )


@dataclass(frozen=True, slots=True)
class CommandAnswer:
    """How an agent answered a command."""

    accepted: bool
    reason: str
    detail: str

    @property
    def why(self) -> str:
        """Reason and detail for people."""
        return ": ".join(part for part in (self.reason, self.detail) if part)


def command_answer(payload: bytes, command_id: str) -> CommandAnswer:
    """An agent's answer to a command; LINK_MESSAGE_INVALID for anything that is none, which counts as no answer."""
    try:
        answer = market_link_pb2.LinkReply.FromString(payload).command
    except DecodeError as error:
        raise DomainError(LINK_MESSAGE_INVALID, "the answer is no message of the link") from error
    outcomes = {
        market_link_pb2.COMMAND_OUTCOME_ACCEPTED: True,
        market_link_pb2.COMMAND_OUTCOME_REFUSED: False,
    }
    if answer.command_id != command_id or answer.outcome not in outcomes:
        raise DomainError(LINK_MESSAGE_INVALID, "the answer is not one to this command")
    return CommandAnswer(
        outcomes[answer.outcome],
        _plain(answer.reason, MAX_TEXT_CHARACTERS),
        _plain(answer.detail, MAX_DETAIL_CHARACTERS),
    )


def inventory_rows(report: market_link_pb2.InventoryReport) -> tuple[list[NodeRow], list[DeviceRow]]:
    """A report's nodes and devices; INVENTORY_INVALID where it cannot be true."""
    if not 0 <= report.base_sequence < max(report.sequence, 1):
        raise _invalid("a report of changes follows an earlier one")
    if len(report.nodes) > MAX_NODES:
        raise _invalid(f"a provider has at most {MAX_NODES} nodes")
    nodes: list[NodeRow] = []
    devices: dict[str, DeviceRow] = {}
    seen: set[str] = set()
    for node in report.nodes:
        if not _NODE_ID.fullmatch(node.node_id) or node.node_id in seen:
            raise _invalid(
                f"the node id {node.node_id[:MAX_TEXT_CHARACTERS]!r} is not 1 to 63 of a-z, 0-9, . and -, or stands twice"
            )
        if len(node.devices) > MAX_NODE_DEVICES or len(node.storage_bytes_by_class) > MAX_CLASSES:
            raise _invalid(
                f"node {node.node_id} has more than {MAX_NODE_DEVICES} devices or {MAX_CLASSES} storage classes"
            )
        if (
            len(node.drivers) > MAX_DRIVERS
            or max(map(len, (*node.drivers, *node.storage_bytes_by_class, ""))) > MAX_NAME_CHARACTERS
        ):
            raise _invalid(f"node {node.node_id} has more than {MAX_DRIVERS} drivers, or a name that is too long")
        seen.add(node.node_id)
        if min(node.cpu_milli, node.memory_bytes, *node.storage_bytes_by_class.values(), 0) < 0:
            raise _invalid(f"node {node.node_id} has less than nothing")
        nodes.append(
            (
                node.node_id,
                node.cpu_milli,
                node.memory_bytes,
                dict(node.storage_bytes_by_class),
                list(node.drivers),
            )
        )
        for device in node.devices:
            if device.device_id in devices:
                raise _invalid(f"the device id {device.device_id!r} stands twice: it is unique at its provider")
            devices[device.device_id] = _device_row(node.node_id, device)
    return nodes, list(devices.values())


def _device_row(node_id: str, device: resources_pb2.Device) -> DeviceRow:
    """One device of a report."""
    if (
        not 0 < len(device.device_id) <= MAX_TEXT_CHARACTERS
        or not device.device_id.isprintable()
        or device.vram_bytes < 0
    ):
        raise _invalid(
            f"device {device.device_id[:MAX_TEXT_CHARACTERS]!r} of node {node_id} lacks an id, or has less than no memory"
        )
    for what, text, shape in (
        ("vendor", device.vendor, _VENDOR),
        ("model", device.model, MODEL),
        ("interface", device.interface, _INTERFACE),
    ):
        if not shape.fullmatch(text):
            told = f"the {what} of device {device.device_id!r}, {text[:MAX_TEXT_CHARACTERS]!r}, is not {shape.pattern}"
            raise _invalid(told)
    try:
        source = resources_pb2.DeviceSource.Name(device.source).removeprefix("DEVICE_SOURCE_")
    except ValueError:
        source = "UNSPECIFIED"
    return (
        device.device_id,
        node_id,
        device.vendor,
        device.model,
        device.vram_bytes,
        device.interface,
        _health(device.health),
        source,
    )


def failed_devices(report: market_link_pb2.InventoryReport) -> dict[str, str]:
    """The devices that a report calls failed, with what it says of each, for people."""
    return {
        device.device_id: f"{device.device_id} ({device.health_detail})" if device.health_detail else device.device_id
        for node in report.nodes
        for device in node.devices
        if device.health == resources_pb2.DEVICE_HEALTH_FAILED
    }


def _health(number: resources_pb2.DeviceHealth.ValueType) -> Health:
    """The health of a number; one that says nothing is unknown, which is no failure."""
    try:
        return Health(resources_pb2.DeviceHealth.Name(number).removeprefix("DEVICE_HEALTH_"))
    except ValueError:
        return Health.UNKNOWN


def _run_state(number: market_link_pb2.RunState.ValueType) -> RunState:
    """The state of a number; one that says nothing is unknown, and changes nothing."""
    try:
        return RunState(market_link_pb2.RunState.Name(number).removeprefix("RUN_STATE_"))
    except ValueError:
        return RunState.UNKNOWN


def _plain(text: str, limit: int) -> str:
    """Text of an agent's without the characters that a database refuses, at most ``limit`` of them."""
    return text.replace("\x00", "")[:limit]


def _invalid(why: str) -> DomainError:
    """The error for a report that cannot be true."""
    return DomainError(INVENTORY_INVALID, why)
