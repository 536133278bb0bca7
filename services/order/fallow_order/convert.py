"""Between domain values and the contract's messages; no decision is made here."""

from fallow.order.v1 import events_pb2, order_pb2, order_service_pb2, session_service_pb2
from fallow.type.v1 import lease_pb2, money_pb2, workload_pb2
from fallow_chassis.errors import invalid_field
from fallow_chassis.wire import from_timestamp, to_timestamp
from fallow_order.domain.draft import OrderDraft
from fallow_order.domain.order import Change, Endpoint, EndReason, Group, GroupState, Order, OrderState
from fallow_order.domain.session import Account, ApiKey
from fallow_order.store import OrderFilter


def order_to_proto(order: Order) -> order_pb2.Order:
    """An order as the contract shows it; never a workload."""
    shown = order_pb2.Order.FromString(order.specification)
    shown.name = f"orders/{order.id}"
    shown.account = f"accounts/{order.account}"
    shown.state = state_to_proto(order.state)
    shown.etag = order.etag
    shown.close_detail = order.close_detail
    for key, value in order.labels:
        shown.labels[key] = value
    if order.close_reason is not None:
        shown.close_reason = end_reason_to_proto(order.close_reason)
    for group, entry in zip(order.groups, shown.groups, strict=True):
        _show_group(group, entry)
    shown.totals.CopyFrom(totals_to_proto(order))
    shown.create_time.CopyFrom(to_timestamp(order.created_at))
    shown.update_time.CopyFrom(to_timestamp(order.updated_at))
    if order.ready_at is not None:
        shown.ready_time.CopyFrom(to_timestamp(order.ready_at))
    if order.closed_at is not None:
        shown.close_time.CopyFrom(to_timestamp(order.closed_at))
    return shown


def draft_to_proto(draft: OrderDraft) -> order_pb2.Order:
    """A draft as bidding prices it: replica sets, no workloads."""
    return order_pb2.Order.FromString(draft.specification)


def totals_to_proto(order: Order) -> order_pb2.OrderTotals:
    """What an order has cost."""
    return order_pb2.OrderTotals(
        charged=money_pb2.Amount(asset=order.asset, micros=order.charged_micros),
        refunded=money_pb2.Amount(asset=order.asset, micros=order.refunded_micros),
        held=money_pb2.Amount(asset=order.asset, micros=order.held_micros),
    )


def order_opened(order: Order) -> events_pb2.OrderOpened:
    """The fact that an order is open to the market."""
    return events_pb2.OrderOpened(
        order=order_to_proto(order), held=money_pb2.Amount(asset=order.asset, micros=order.held_micros)
    )


def order_updated(order: Order) -> events_pb2.OrderUpdated:
    """The fact that an order was changed."""
    return events_pb2.OrderUpdated(order=order_to_proto(order))


def order_close_requested(order: Order) -> events_pb2.OrderCloseRequested:
    """The fact that an order's end was asked for."""
    assert order.close_reason is not None, "an end has a reason"
    return events_pb2.OrderCloseRequested(order=f"orders/{order.id}", reason=end_reason_to_proto(order.close_reason))


def order_closed(order: Order) -> events_pb2.OrderClosed:
    """The fact that an order has ended and its money has returned."""
    assert order.close_reason is not None, "an end has a reason"
    return events_pb2.OrderClosed(
        order=f"orders/{order.id}",
        reason=end_reason_to_proto(order.close_reason),
        totals=totals_to_proto(order),
    )


def change_to_proto(change: Change) -> order_pb2.OrderTransition:
    """One change of an order or of one of its groups."""
    shown = order_pb2.OrderTransition(
        sequence=change.sequence,
        source_state=order_pb2.ORDER_STATE_UNSPECIFIED if change.source is None else state_to_proto(change.source),
        target_state=state_to_proto(change.target),
        reason=change.reason,
        transition_time=to_timestamp(change.at),
    )
    if change.step is not None:
        shown.group_id = change.step.group_id
        shown.source_group_state = group_state_to_proto(change.step.source)
        shown.target_group_state = group_state_to_proto(change.step.target)
        shown.lease = change.step.lease
        shown.provider = change.step.provider
        shown.generation = change.step.generation
    return shown


def watch_step(order: Order, change: Change | None = None) -> order_service_pb2.WatchOrderResponse:
    """One step of a watch: the order as it was read, and what changed."""
    return order_service_pb2.WatchOrderResponse(
        order=order_to_proto(order),
        transition=None if change is None else change_to_proto(change),
        latest_sequence=order.sequence,
    )


def group_state_to_proto(state: GroupState) -> "order_pb2.GroupState.ValueType":
    """A group's state of the contract."""
    return order_pb2.GroupState.Value(f"GROUP_STATE_{state.value}")


def filter_from_proto(request: order_service_pb2.ListOrdersRequest) -> OrderFilter:
    """Which orders a list is to show; INVALID_FIELD for states that are none, and a time that ends before it begins."""
    if any(state == order_pb2.ORDER_STATE_UNSPECIFIED for state in request.states):
        raise invalid_field("states", "must name states")
    created_min = from_timestamp(request.min_create_time) if request.HasField("min_create_time") else None
    created_max = from_timestamp(request.max_create_time) if request.HasField("max_create_time") else None
    if created_min is not None and created_max is not None and created_min >= created_max:
        raise invalid_field("max_create_time", "must be later than min_create_time")
    return OrderFilter(
        tuple(state_from_proto(state) for state in request.states), dict(request.labels), created_min, created_max
    )


def state_to_proto(state: OrderState) -> "order_pb2.OrderState.ValueType":
    """A state of the contract."""
    return order_pb2.OrderState.Value(f"ORDER_STATE_{state.value}")


def state_from_proto(state: "order_pb2.OrderState.ValueType") -> OrderState:
    """A state of the domain; the zero value has none and raises ValueError."""
    return OrderState(order_pb2.OrderState.Name(state).removeprefix("ORDER_STATE_"))


def end_reason_to_proto(reason: EndReason) -> "lease_pb2.EndReason.ValueType":
    """A reason of the contract."""
    return lease_pb2.EndReason.Value(f"END_REASON_{reason.value}")


def end_reason_from_proto(reason: "lease_pb2.EndReason.ValueType") -> EndReason:
    """A reason of the domain; an unset or unknown one reads as the provider's, which excuses nobody else."""
    try:
        return EndReason(lease_pb2.EndReason.Name(reason).removeprefix("END_REASON_"))
    except ValueError:
        return EndReason.PROVIDER


def endpoint_from_proto(endpoint: workload_pb2.Endpoint) -> Endpoint:
    """A place where a group answers."""
    return Endpoint(endpoint.service, endpoint.container_port, endpoint.uri, endpoint.replica)


def account_to_proto(account: Account) -> session_service_pb2.Account:
    """An account."""
    return session_service_pb2.Account(
        name=f"accounts/{account.id}", address=account.address, create_time=to_timestamp(account.created_at)
    )


def api_key_to_proto(key: ApiKey, secret: str = "") -> session_service_pb2.ApiKey:
    """A key; its secret only where it was just made."""
    shown = session_service_pb2.ApiKey(
        name=f"accounts/{key.account}/apiKeys/{key.id}",
        display_name=key.display_name,
        scopes=key.scopes,
        secret=secret,
        create_time=to_timestamp(key.created_at),
    )
    if key.last_used_at is not None:
        shown.last_use_time.CopyFrom(to_timestamp(key.last_used_at))
    if key.expires_at is not None:
        shown.expire_time.CopyFrom(to_timestamp(key.expires_at))
    return shown


def _show_group(group: Group, shown: order_pb2.Group) -> None:
    """Put a group's present state into the message of what was asked for."""
    shown.state = group_state_to_proto(group.state)
    shown.generation = group.generation
    shown.lease = group.lease
    shown.provider = group.provider
    shown.revision = group.revision
    if group.price_asset:
        shown.price.CopyFrom(money_pb2.Price(asset=group.price_asset, micros_per_hour=group.price_micros_per_hour))
    for endpoint in group.endpoints:
        shown.endpoints.add(
            service=endpoint.service,
            container_port=endpoint.container_port,
            uri=endpoint.uri,
            replica=endpoint.replica,
        )
