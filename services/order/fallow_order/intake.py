"""From what a tenant sent to a draft: one order of checks, the same for orders that come as messages and as SDL.

The order of precedence: a source is there; SDL converts (SDL_INVALID, every problem with path and line); the contract's
field rules hold (UNKNOWN_FIELD, INVALID_FIELD); the parts fit together (INVALID_FIELD). Fields that the service sets itself are cleared, not refused (AIP-203). No reason
ever repeats a value of the workload.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

from fallow.order.v1 import order_pb2, order_service_pb2
from fallow.type.v1 import resources_pb2, workload_pb2
from fallow_chassis.errors import DomainError, FieldViolation, invalid_field
from fallow_chassis.validation import validate
from fallow_chassis.wire import from_duration, to_duration
from fallow_order.domain.draft import (
    DEFAULT_MATCH_TIMEOUT_MS,
    MAX_LABEL_KEY_CHARACTERS,
    MAX_LABEL_VALUE_CHARACTERS,
    MAX_MATCH_TIMEOUT_MS,
    MAX_TERM_MS,
    MAX_WINDOW_MS,
    MIN_DURATION_MS,
    MIN_WINDOW_MS,
    OrderDraft,
)
from fallow_order.domain.reasons import SDL_INVALID
from fallow_sdl import SdlError, SdlSettings
from fallow_sdl import convert as convert_sdl

MAX_LABELS: Final = 64
MAX_SPECIFICATION_BYTES: Final = 262_144
"""What the market may see of an order; with labels and states it must fit into one event."""
_BESIDE: Final = frozenset({"labels", "terms", "match_mode", "auction_rule", "auction_window"})
"""Fields of an order that a request may have beside its source; beside an SDL text they stand nowhere else."""
_OF_ORDER: Final = re.compile(rf"\border\.({'|'.join(sorted(_BESIDE))})\b")


def draft_of_create(request: order_service_pb2.CreateOrderRequest, sdl: SdlSettings) -> OrderDraft:
    """The draft of a CreateOrder request."""
    order, _ = _order_of(request, sdl)
    for key, value in request.labels.items():
        order.labels[key] = value
    return _draft_beside(order, request)


def _draft_beside(
    order: order_pb2.Order, request: order_service_pb2.CreateOrderRequest | order_service_pb2.EstimateOrderRequest
) -> OrderDraft:
    """The draft of an order with what the request has beside it; errors name each field where the caller set it."""
    if request.HasField("terms"):
        order.terms.CopyFrom(request.terms)
    if request.match_mode:
        order.match_mode = request.match_mode
    if request.auction_rule:
        order.auction_rule = request.auction_rule
    if request.HasField("auction_window"):
        order.auction_window.CopyFrom(request.auction_window)
    set_beside = {field.name for field, _ in request.ListFields()} if request.HasField("order") else _BESIDE
    try:
        return draft_of_order(order)
    except DomainError as error:
        raise renamed(
            error,
            lambda text: _OF_ORDER.sub(lambda found: found[1] if found[1] in set_beside else found[0], text),
        ) from None


def renamed(error: DomainError, rename: Callable[[str], str]) -> DomainError:
    """The same error, with the paths of fields as ``rename`` gives them."""
    return DomainError(
        error.reason,
        rename(error.message),
        metadata=error.metadata,
        violations=[FieldViolation(rename(item.field), item.description) for item in error.violations],
    )


def draft_of_estimate(
    request: order_service_pb2.EstimateOrderRequest, sdl: SdlSettings
) -> tuple[OrderDraft, tuple[str, ...]]:
    """The draft of an EstimateOrder request, and what of its SDL text has no effect."""
    order, warnings = _order_of(request, sdl)
    return _draft_beside(order, request), warnings


def check_labels(labels: Mapping[str, str], field: str) -> None:
    """Bounds of a tenant's labels."""
    if len(labels) > MAX_LABELS:
        raise invalid_field(field, f"must have at most {MAX_LABELS} entries")
    for key, value in labels.items():
        if not key or len(key) > MAX_LABEL_KEY_CHARACTERS:
            raise invalid_field(field, f"a key must have 1 to {MAX_LABEL_KEY_CHARACTERS} characters")
        if len(value) > MAX_LABEL_VALUE_CHARACTERS:
            raise invalid_field(field, f"a value must have at most {MAX_LABEL_VALUE_CHARACTERS} characters")
        if "\x00" in key or "\x00" in value:
            raise invalid_field(field, "a label must not hold NUL characters")


def _order_of(
    request: order_service_pb2.CreateOrderRequest | order_service_pb2.EstimateOrderRequest, sdl: SdlSettings
) -> tuple[order_pb2.Order, tuple[str, ...]]:
    """A copy of the order that a request holds or spells in SDL, with the warnings of the text."""
    source = request.WhichOneof("source")
    if source is None:
        raise invalid_field("order", "an order or its SDL text must be given")
    if source == "order":
        copy = order_pb2.Order()
        copy.CopyFrom(request.order)
        return copy, ()
    try:
        conversion = convert_sdl(request.sdl, sdl)
    except SdlError as error:
        raise _sdl_invalid(error) from None
    # The contract's rules again, for what a file may say and a message may not.
    validate(order_service_pb2.EstimateOrderRequest(order=conversion.order))
    return conversion.order, tuple(str(warning) for warning in conversion.warnings)


def _sdl_invalid(error: SdlError) -> DomainError:
    """All problems of a file as violations; the first one also as metadata."""
    first = error.problems[0]
    return DomainError(
        SDL_INVALID,
        f"line {first.line}: {first.path or 'the file'}: {first.reason}",
        metadata={"line": str(first.line), "path": first.path},
        violations=[
            FieldViolation(f"sdl.{problem.path}" if problem.path else "sdl", f"line {problem.line}: {problem.reason}")
            for problem in error.problems
        ],
    )


def draft_of_order(order: order_pb2.Order) -> OrderDraft:
    """The draft of an order whose fields are within the contract's bounds."""
    check_labels(order.labels, "order.labels")
    _check_groups(order)
    asset = order.groups[0].price_limit.asset
    match_timeout_ms, term_ms = _check_terms(order.terms, asset)
    bare = order_pb2.Order(group_binding=order.group_binding or order_pb2.GROUP_BINDING_ALL_OR_NONE)
    _take_mode(order, bare, match_timeout_ms)
    for group in order.groups:
        bare.groups.add(
            group_id=group.group_id,
            price_limit=group.price_limit,
            constraints=group.constraints if group.HasField("constraints") else None,
            replica_sets=[_replica_set(container) for container in group.workload.containers],
        )
    bare.terms.CopyFrom(order.terms)
    bare.terms.kind = order.terms.kind or order_pb2.TERM_KIND_ON_DEMAND
    bare.terms.overlap = order.terms.overlap or order_pb2.OVERLAP_ALLOWED
    bare.terms.match_timeout.CopyFrom(to_duration(match_timeout_ms))
    specification = bare.SerializeToString(deterministic=True)
    if len(specification) > MAX_SPECIFICATION_BYTES:
        raise invalid_field("order.groups", f"what the market sees of them exceeds {MAX_SPECIFICATION_BYTES} bytes")
    return OrderDraft(
        specification=specification,
        labels=tuple(sorted(order.labels.items())),
        group_ids=tuple(group.group_id for group in order.groups),
        workloads=tuple(group.workload.SerializeToString(deterministic=True) for group in order.groups),
        asset=asset,
        limits=tuple(group.price_limit.micros_per_hour for group in order.groups),
        budget_micros=order.terms.budget.micros if order.terms.HasField("budget") else None,
        auto_top_up=order.terms.auto_top_up,
        match_timeout_ms=match_timeout_ms,
        term_ms=term_ms,
    )


def _take_mode(order: order_pb2.Order, bare: order_pb2.Order, match_timeout_ms: int) -> None:
    """How the order meets offers; rule and window go with an auction only, and it needs a window."""
    bare.match_mode = order.match_mode or order_pb2.MATCH_MODE_INSTANT
    if bare.match_mode != order_pb2.MATCH_MODE_AUCTION:
        if order.auction_rule:
            raise invalid_field("order.auction_rule", "goes with match_mode AUCTION only")
        if order.HasField("auction_window"):
            raise invalid_field("order.auction_window", "goes with match_mode AUCTION only")
        return
    window_ms = from_duration(order.auction_window) if order.HasField("auction_window") else 0
    if not MIN_WINDOW_MS <= window_ms <= MAX_WINDOW_MS:
        raise invalid_field("order.auction_window", "must be from 250 ms to 10 min")
    if window_ms > match_timeout_ms:
        raise invalid_field("order.auction_window", "must be no longer than terms.match_timeout")
    bare.auction_rule = order.auction_rule or order_pb2.AUCTION_RULE_FIRST_PRICE
    bare.auction_window.CopyFrom(to_duration(window_ms))


def _check_groups(order: order_pb2.Order) -> None:
    """Names are unique, one asset pays for all, mounts name volumes."""
    if not order.groups:
        raise invalid_field("order.groups", "must not be empty")
    seen: set[str] = set()
    for index, group in enumerate(order.groups):
        path = f"order.groups[{index}]"
        if group.group_id in seen:
            raise invalid_field(f"{path}.group_id", "stands twice in the order")
        seen.add(group.group_id)
        if group.price_limit.asset != order.groups[0].price_limit.asset:
            raise invalid_field(f"{path}.price_limit.asset", "must be the same in all groups")
        if not group.workload.containers:
            raise invalid_field(f"{path}.workload.containers", "must not be empty")
        services: set[str] = set()
        for number, container in enumerate(group.workload.containers):
            place = f"{path}.workload.containers[{number}]"
            if container.service in services:
                raise invalid_field(f"{place}.service", "stands twice in the group")
            services.add(container.service)
            _check_container(container, place)


def _check_container(container: workload_pb2.Container, path: str) -> None:
    """Volumes are unique, mounts name them; a share of a device is of one device."""
    if container.replicas < 1:
        raise invalid_field(f"{path}.replicas", "must be at least 1")
    volumes: set[str] = set()
    for index, storage in enumerate(container.resources.storage):
        if storage.volume in volumes:
            raise invalid_field(f"{path}.resources.storage[{index}].volume", "stands twice in the container")
        volumes.add(storage.volume)
    for index, mount in enumerate(container.mounts):
        if mount.volume not in volumes:
            raise invalid_field(f"{path}.mounts[{index}].volume", "names no volume of the container")
    gpu = container.resources.gpu
    if gpu.milli_per_device and gpu.count != 1:
        raise invalid_field(f"{path}.resources.gpu.milli_per_device", "goes with a count of 1 only")


def _check_terms(terms: order_pb2.Terms, asset: str) -> tuple[int, int | None]:
    """The match timeout and the term in milliseconds, within their bounds; the budget is of the order's asset."""
    match_timeout_ms = DEFAULT_MATCH_TIMEOUT_MS
    if terms.HasField("match_timeout"):
        match_timeout_ms = from_duration(terms.match_timeout)
        if not MIN_DURATION_MS <= match_timeout_ms <= MAX_MATCH_TIMEOUT_MS:
            raise invalid_field("order.terms.match_timeout", "must be from 1 s to 7 days")
    term_ms: int | None = None
    if terms.HasField("duration"):
        term_ms = from_duration(terms.duration)
        if not MIN_DURATION_MS <= term_ms <= MAX_TERM_MS:
            raise invalid_field("order.terms.duration", "must be from 1 s to 5 years")
    if terms.kind == order_pb2.TERM_KIND_RESERVED and term_ms is None:
        raise invalid_field("order.terms.duration", "must be set with kind RESERVED: the term is what is reserved")
    if terms.HasField("budget"):
        if terms.budget.asset != asset:
            raise invalid_field("order.terms.budget.asset", "must be the price limits'")
        if terms.budget.micros < 1:
            raise invalid_field("order.terms.budget.micros", "must be more than 0")
    return match_timeout_ms, term_ms


def _replica_set(container: workload_pb2.Container) -> order_pb2.ReplicaSet:
    """What the market may know of a container: resources, never contents."""
    resources = resources_pb2.ResourceRequirement()
    resources.CopyFrom(container.resources)
    return order_pb2.ReplicaSet(
        service=container.service,
        replicas=container.replicas,
        resources=resources,
        public_ports=sum(1 for port in container.ports if port.public),
        image=container.image,
    )
