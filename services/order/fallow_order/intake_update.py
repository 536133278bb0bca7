"""From an UpdateOrder request to what the order is to be as a whole, which then goes through the checks of a new one.

The mask says which fields are meant; every other field of the message is passed over (AIP-134). Groups are found by
``group_id``. Violations name the fields as the request has them.
"""

import re
from collections.abc import Sequence
from typing import Final

from fallow.order.v1 import order_pb2, order_service_pb2
from fallow.type.v1 import workload_pb2
from fallow_chassis.errors import DomainError, invalid_field
from fallow_chassis.validation import validate
from fallow_order.domain.draft import OrderDraft
from fallow_order.domain.order import Order
from fallow_order.intake import check_labels, draft_of_order, renamed

REPLICAS: Final = "groups.workload.containers.replicas"
_GROUP_PATHS: Final = frozenset({"groups.price_limit", "groups.workload", REPLICAS})
_TERM_FIELDS: Final = {"terms.duration": "duration", "terms.budget": "budget", "terms.auto_top_up": "auto_top_up"}
PATHS: Final = frozenset({"labels"} | _GROUP_PATHS | _TERM_FIELDS.keys())
"""The fields that may be changed."""
MAX_TOLD_CHARACTERS: Final = 64
"""How much of a wrong path an error repeats."""


def check_request(request: order_service_pb2.UpdateOrderRequest) -> None:
    """What can be told without the order: INVALID_FIELD with the path."""
    paths = set(request.update_mask.paths)
    for path in request.update_mask.paths:
        if path not in PATHS:
            told = path if len(path) <= MAX_TOLD_CHARACTERS else path[:MAX_TOLD_CHARACTERS] + "…"
            raise invalid_field("update_mask", f"{told} cannot be changed; {', '.join(sorted(PATHS))} can")
    if {"groups.workload", REPLICAS} <= paths:
        raise invalid_field("update_mask", f"{REPLICAS} is a part of groups.workload: name one of them")
    if "labels" in paths:
        check_labels(request.order.labels, "order.labels")
    if paths & _GROUP_PATHS and not request.order.groups:
        raise invalid_field("order.groups", "must hold the groups to change")


def draft_of_update(
    request: order_service_pb2.UpdateOrderRequest, order: Order, workloads: Sequence[bytes]
) -> OrderDraft:
    """The order as a request wants it; ``workloads`` are the present ones. INVALID_FIELD with the request's own paths."""
    paths = set(request.update_mask.paths)
    wanted = order_pb2.Order.FromString(order.specification)
    for group, workload in zip(wanted.groups, workloads, strict=True):
        group.workload.ParseFromString(workload)
    if wanted.terms.kind == order_pb2.TERM_KIND_RESERVED and "terms.duration" in paths:
        raise invalid_field("order.terms.duration", "is fixed: the order's discount was given for it")
    source = request.order.labels if "labels" in paths else dict(order.labels)
    for key, value in source.items():
        wanted.labels[key] = value
    for path in paths & _TERM_FIELDS.keys():
        _copy_field(request.order.terms, wanted.terms, _TERM_FIELDS[path])
    places = _places(request.order, wanted) if paths & _GROUP_PATHS else {}
    for index, place in places.items():
        _change_group(paths, request.order.groups[place], wanted.groups[index], f"order.groups[{place}]", order.asset)
    try:
        validate(order_service_pb2.EstimateOrderRequest(order=wanted))
        return draft_of_order(wanted)
    except DomainError as error:
        raise in_request(error, places) from None


def in_request(error: DomainError, places: dict[int, int]) -> DomainError:
    """The same error, with groups numbered as the request has them instead of as the order does."""

    def renumber(text: str) -> str:
        return re.sub(
            r"order\.groups\[(\d+)\]", lambda found: f"order.groups[{places.get(int(found[1]), found[1])}]", text
        )

    return renamed(error, renumber)


def places_of(request: order_service_pb2.UpdateOrderRequest, order: Order) -> dict[int, int]:
    """Where the request has the order's groups."""
    indexes = {group.group_id: group.index for group in order.groups}
    named = [(group.group_id, place) for place, group in enumerate(request.order.groups)]
    return {indexes[group_id]: place for group_id, place in named if group_id in indexes}


def limits_of(order: Order) -> list[int]:
    """The price limits of an order's groups in micros an hour."""
    return [group.price_limit.micros_per_hour for group in order_pb2.Order.FromString(order.specification).groups]


def _places(asked: order_pb2.Order, wanted: order_pb2.Order) -> dict[int, int]:
    """By the group's index in the order, its place in the request."""
    indexes = {group.group_id: index for index, group in enumerate(wanted.groups)}
    places: dict[int, int] = {}
    for place, group in enumerate(asked.groups):
        index = indexes.get(group.group_id)
        if index is None:
            raise invalid_field(
                f"order.groups[{place}].group_id", "names no group of the order; groups cannot be added"
            )
        if index in places:
            raise invalid_field(f"order.groups[{place}].group_id", "stands twice in the request")
        places[index] = place
    return places


def _change_group(paths: set[str], asked: order_pb2.Group, wanted: order_pb2.Group, place: str, asset: str) -> None:
    """Take over what the mask names of one group."""
    if "groups.price_limit" in paths:
        if not asked.HasField("price_limit"):
            raise invalid_field(f"{place}.price_limit", "must be set")
        if asked.price_limit.asset != asset:
            raise invalid_field(f"{place}.price_limit.asset", f"must be {asset}, which the order is paid in")
        wanted.price_limit.CopyFrom(asked.price_limit)
    if "groups.workload" in paths:
        if not asked.HasField("workload"):
            raise invalid_field(f"{place}.workload", "must be set")
        wanted.workload.CopyFrom(asked.workload)
    if REPLICAS in paths:
        _scale(asked.workload, wanted.workload, f"{place}.workload")


def _scale(asked: workload_pb2.Workload, wanted: workload_pb2.Workload, place: str) -> None:
    """Take over numbers of replicas by service."""
    if not asked.containers:
        raise invalid_field(f"{place}.containers", "must name services with their replicas")
    by_service = {container.service: container for container in wanted.containers}
    for number, container in enumerate(asked.containers):
        known = by_service.pop(container.service, None)
        if known is None:
            where = f"{place}.containers[{number}].service"
            raise invalid_field(where, "names no service of the group, or one that stands before it")
        known.replicas = container.replicas


def _copy_field(source: order_pb2.Terms, target: order_pb2.Terms, name: str) -> None:
    """Take over one field of the terms, or its absence."""
    target.ClearField(name)  # type: ignore[arg-type]  # one of the three names above
    field = source.DESCRIPTOR.fields_by_name[name]
    if field.message_type is None:
        setattr(target, name, getattr(source, name))
    elif source.HasField(name):  # type: ignore[arg-type]  # as above
        getattr(target, name).CopyFrom(getattr(source, name))
