"""Leases, evidence and their events on the wire."""

from datetime import datetime
from typing import Final

from fallow.bidding.v1 import events_pb2, lease_pb2
from fallow.order.v1 import order_pb2
from fallow.type.v1 import lease_pb2 as type_lease_pb2
from fallow.type.v1 import money_pb2, workload_pb2
from fallow_bidding.domain.leases import Endpoint, EndReason, Evidence, GenerationKey, Lease, LeaseState
from fallow_bidding.domain.orders import MarketGroup
from fallow_bidding.domain.placement import Placement
from fallow_chassis.wire import to_duration, to_timestamp

OBSERVER: Final = "services/bidding"
MAX_DETAIL_CHARACTERS: Final = 1_024

_END_DETAILS: Final = {
    EndReason.TENANT: "closed by its tenant",
    EndReason.FUNDS: "its funds were used up",
}
"""What people read where the reason says who asked and why."""


def end_reason_number(reason: EndReason | None) -> type_lease_pb2.EndReason.ValueType:
    """The number of a reason."""
    if reason is None:
        return type_lease_pb2.END_REASON_UNSPECIFIED
    return type_lease_pb2.EndReason.Value(f"END_REASON_{reason.value}")


def end_reason_of(number: type_lease_pb2.EndReason.ValueType, default: EndReason) -> EndReason:
    """The reason of a number; ``default`` where the number says nothing, or nothing that this release knows."""
    try:
        return EndReason(type_lease_pb2.EndReason.Name(number).removeprefix("END_REASON_"))
    except ValueError:
        return default


def end_detail(reason: EndReason, caller: str) -> str:
    """What people read about an end that ``caller`` asked for."""
    return _END_DETAILS.get(reason, f"asked by {caller}")


def key_message(key: GenerationKey) -> type_lease_pb2.GenerationKey:
    """Order, group, generation."""
    return type_lease_pb2.GenerationKey(order=f"orders/{key.order_id}", group=key.group, generation=key.generation)


def key_of(message: type_lease_pb2.GenerationKey) -> GenerationKey:
    """Order, group, generation; the name is taken as it stands, for a wrong one belongs to no lease of ours."""
    return GenerationKey(message.order.removeprefix("orders/"), message.group, message.generation)


def endpoint_message(endpoint: Endpoint) -> workload_pb2.Endpoint:
    """A place where a replica answers."""
    return workload_pb2.Endpoint(
        service=endpoint.service,
        container_port=endpoint.container_port,
        uri=endpoint.uri,
        replica=endpoint.replica,
    )


def endpoint_of(message: workload_pb2.Endpoint) -> Endpoint:
    """A place where a replica answers."""
    return Endpoint(message.service, message.container_port, message.uri, message.replica)


def evidence_message(evidence: Evidence) -> type_lease_pb2.Evidence:
    """What was seen at an end."""
    return type_lease_pb2.Evidence(
        reason=end_reason_number(evidence.reason),
        detail=evidence.detail[:MAX_DETAIL_CHARACTERS],
        observer=evidence.observer,
        observe_time=to_timestamp(evidence.observe_time),
    )


def state_number(state: LeaseState) -> lease_pb2.LeaseState.ValueType:
    """The number of a state."""
    return lease_pb2.LeaseState.Value(f"LEASE_STATE_{state.value}")


def state_of(number: lease_pb2.LeaseState.ValueType) -> LeaseState | None:
    """The state of a number; None for one that says nothing."""
    try:
        return LeaseState(lease_pb2.LeaseState.Name(number).removeprefix("LEASE_STATE_"))
    except ValueError:
        return None


def placement_message(placement: Placement) -> lease_pb2.Placement:
    """Where a replica runs."""
    shares = [
        lease_pb2.DeviceShare(node_id=share.node_id, device_id=share.device_id, milli=share.milli)
        for share in placement.devices
    ]
    return lease_pb2.Placement(
        service=placement.service,
        replica=placement.replica,
        node_id=placement.node_id,
        devices=shares,
        model=placement.model,
    )


def lease_message(lease: Lease) -> lease_pb2.Lease:
    """A lease as clients and events see it."""
    message = lease_pb2.Lease(
        name=f"leases/{lease.lease_id}",
        key=key_message(lease.key),
        group_id=lease.group_id,
        tenant=lease.tenant,
        provider=f"providers/{lease.provider_id}",
        provider_account=lease.provider_account,
        offer=f"offers/{lease.offer_id}",
        price=money_pb2.Price(asset=lease.asset, micros_per_hour=lease.price_micros),
        placements=[placement_message(placement) for placement in lease.placements],
        state=state_number(lease.state),
        endpoints=[endpoint_message(endpoint) for endpoint in lease.endpoints],
        self_stop=to_duration(lease.self_stop_ms),
        create_time=to_timestamp(lease.create_time),
        provider_address=lease.provider_address,
        group_revision=lease.group_revision,
        spot=lease.spot,
    )
    if lease.preemption is not None:
        message.preempt_time.CopyFrom(to_timestamp(lease.preemption.time))
    for field, instant in (
        ("ready_time", lease.ready_time),
        ("end_time", lease.end_time),
        ("charge_through_time", lease.charge_through_time),
    ):
        if instant is not None:
            getattr(message, field).CopyFrom(to_timestamp(instant))
    if lease.evidence is not None:
        message.evidence.CopyFrom(evidence_message(lease.evidence))
    return message


def lease_created(lease: Lease, public_key: bytes, heartbeat_interval_ms: int) -> events_pb2.LeaseCreated:
    """The fact that a match was made."""
    return events_pb2.LeaseCreated(
        lease=lease_message(lease),
        provider_public_key=public_key,
        heartbeat_interval=to_duration(heartbeat_interval_ms),
    )


def lease_running(lease: Lease, now: datetime) -> events_pb2.LeaseRunning:
    """The fact that a generation is ready, answers elsewhere, or goes on after a pause."""
    return events_pb2.LeaseRunning(
        lease=f"leases/{lease.lease_id}",
        key=key_message(lease.key),
        endpoints=[endpoint_message(endpoint) for endpoint in lease.endpoints],
        ready_time=to_timestamp(now),
    )


def lease_suspended(lease: Lease, now: datetime) -> events_pb2.LeaseSuspended:
    """The fact that a generation is paused for want of funds."""
    return events_pb2.LeaseSuspended(
        lease=f"leases/{lease.lease_id}", key=key_message(lease.key), suspend_time=to_timestamp(now)
    )


def lease_preemption_announced(lease: Lease, now: datetime) -> events_pb2.LeasePreemptionAnnounced:
    """The fact that a spot lease will end in favour of another order."""
    assert lease.preemption is not None, "a notice says when"
    return events_pb2.LeasePreemptionAnnounced(
        lease=f"leases/{lease.lease_id}",
        key=key_message(lease.key),
        preempt_time=to_timestamp(lease.preemption.time),
        notice_time=to_timestamp(now),
    )


def lease_preemption_withdrawn(lease: Lease, now: datetime) -> events_pb2.LeasePreemptionWithdrawn:
    """The fact that a spot lease goes on after all."""
    return events_pb2.LeasePreemptionWithdrawn(
        lease=f"leases/{lease.lease_id}", key=key_message(lease.key), withdraw_time=to_timestamp(now)
    )


def is_reserved(body: bytes | None) -> bool:
    """Whether an order, as its event had it, has a fixed term."""
    return body is not None and order_pb2.Order.FromString(body).terms.kind == order_pb2.TERM_KIND_RESERVED


def lease_ended(lease: Lease, *, releasing: bool, early_close_ms: int = 0) -> events_pb2.LeaseEnded:
    """The fact that a lease has ended for its tenant, which owes ``early_close_ms`` beyond what ran."""
    assert lease.charge_through_time is not None, "an end says up to when charges run"
    assert lease.evidence is not None, "an end says why"
    return events_pb2.LeaseEnded(
        lease=f"leases/{lease.lease_id}",
        key=key_message(lease.key),
        charge_through_time=to_timestamp(lease.charge_through_time),
        evidence=evidence_message(lease.evidence),
        releasing=releasing,
        early_close=to_duration(early_close_ms) if early_close_ms else None,
    )


def group_ended(group: MarketGroup, reason: EndReason, detail: str, now: datetime) -> events_pb2.GroupEnded:
    """The fact that a group has ended alone."""
    return events_pb2.GroupEnded(
        order=f"orders/{group.order_id}",
        group=group.group_index,
        group_id=group.group_id,
        reason=end_reason_number(reason),
        detail=detail,
        end_time=to_timestamp(now),
    )


def order_ended(order_id: str, reason: EndReason, detail: str, now: datetime) -> events_pb2.OrderEnded:
    """The fact that an order has ended."""
    return events_pb2.OrderEnded(
        order=f"orders/{order_id}",
        reason=end_reason_number(reason),
        end_time=to_timestamp(now),
        detail=detail,
    )
