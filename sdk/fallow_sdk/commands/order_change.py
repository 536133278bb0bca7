"""From the options of `fallow order update` to an UpdateOrder request: which fields, and their new values.

The present order is read first, so that services and groups may be named as people know them; its etag goes with the
change, so that nothing that happened meanwhile is overwritten.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import typer

import fallow_sdl
from fallow.order.v1 import order_pb2
from fallow.type.v1 import money_pb2
from fallow_sdk.commands.options import parse_pairs, parse_span
from fallow_sdk.money import parse_amount

REPLICAS_PATH = "groups.workload.containers.replicas"
NONE = "none"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the options ask for, as they were typed; None and empty mean that nothing was."""

    sdl: str | None = None
    replicas: Sequence[str] = ()
    price_limits: Sequence[str] = ()
    duration: str | None = None
    budget: str | None = None
    auto_top_up: bool | None = None
    labels: Sequence[str] = ()


def change_of(present: order_pb2.Order, wishes: Wishes) -> tuple[order_pb2.Order, list[str]]:
    """The order with its new values, and the paths of the mask. typer.BadParameter for what cannot be meant."""
    changed = order_pb2.Order(name=present.name, etag=present.etag)
    paths: list[str] = []
    if wishes.sdl is not None:
        if wishes.replicas:
            raise typer.BadParameter("the file says how many replicas: leave --replicas out, or the file")
        try:
            _take_workloads(changed, fallow_sdl.parse(wishes.sdl))
        except fallow_sdl.SdlError as error:
            raise typer.BadParameter(str(error)) from None
        paths.append("groups.workload")
    for service, number in parse_pairs(wishes.replicas, "--replicas").items():
        _take_replicas(changed, present, service, number)
        paths.append(REPLICAS_PATH)
    for entry in wishes.price_limits:
        _take_limit(changed, present, entry)
        paths.append("groups.price_limit")
    paths += _take_terms(changed.terms, wishes, _asset(present))
    if wishes.labels:
        for key, value in {**present.labels, **parse_pairs(wishes.labels, "--label")}.items():
            if value:
                changed.labels[key] = value
        paths.append("labels")
    if not paths:
        raise typer.BadParameter("say what to change, for example --replicas web=2; --help lists the options")
    return changed, list(dict.fromkeys(paths))


def _take_terms(terms: order_pb2.Terms, wishes: Wishes, asset: str) -> list[str]:
    """Duration, budget and automatic top-up; the paths of those that were asked for."""
    paths: list[str] = []
    if wishes.duration is not None:
        if wishes.duration != NONE:
            terms.duration.FromTimedelta(parse_span(wishes.duration, "--duration"))
        paths.append("terms.duration")
    if wishes.budget is not None:
        if wishes.budget != NONE:
            terms.budget.CopyFrom(_amount(wishes.budget, asset))
        paths.append("terms.budget")
    if wishes.auto_top_up is not None:
        terms.auto_top_up = wishes.auto_top_up
        paths.append("terms.auto_top_up")
    return paths


def _take_workloads(changed: order_pb2.Order, wanted: order_pb2.Order) -> None:
    """The workloads of a file; its prices and placements are not read."""
    for group in wanted.groups:
        _group(changed, group.group_id).workload.CopyFrom(group.workload)


def _take_replicas(changed: order_pb2.Order, present: order_pb2.Order, service: str, number: str) -> None:
    """So many replicas of a service; the group is the one that has the service."""
    if not number.isdecimal():
        raise typer.BadParameter(f"--replicas {service}={number}: write for example web=2")
    having = [group for group in present.groups if any(item.service == service for item in group.replica_sets)]
    if not having:
        known = sorted({item.service for group in present.groups for item in group.replica_sets})
        raise typer.BadParameter(f"the order has no service {service}; it has {', '.join(known)}")
    if len(having) > 1:
        raise typer.BadParameter(f"several groups have a service {service}: change them by an SDL file")
    container = _group(changed, having[0].group_id).workload.containers.add()
    container.service, container.replicas = service, int(number)


def _take_limit(changed: order_pb2.Order, present: order_pb2.Order, entry: str) -> None:
    """`amount`, or `group=amount` where the order has several groups; an hour's price of the whole group."""
    group_id, equals, number = entry.rpartition("=")
    if not equals:
        if len(present.groups) > 1:
            raise typer.BadParameter(f"the order has several groups: write {present.groups[0].group_id}={entry}")
        group_id = present.groups[0].group_id
    limit = _amount(number, _asset(present))
    price = money_pb2.Price(asset=limit.asset, micros_per_hour=limit.micros)
    _group(changed, group_id).price_limit.CopyFrom(price)


def _group(changed: order_pb2.Order, group_id: str) -> order_pb2.Group:
    """The group of a change, made where it is not there yet."""
    for group in changed.groups:
        if group.group_id == group_id:
            return group
    return changed.groups.add(group_id=group_id)


def _amount(text: str, asset: str) -> money_pb2.Amount:
    """A sum of the order's asset."""
    try:
        return parse_amount(text, asset)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _asset(order: order_pb2.Order) -> str:
    """What the order is paid in."""
    return order.groups[0].price_limit.asset
