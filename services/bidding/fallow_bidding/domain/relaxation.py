"""What would let a group match that does not: one change of what it asks, or time.

Each constraint that the group has is lifted alone and the engine's own decision is made again on a copy of the market. If
the group then matches, what it got says how far the constraint must give way, and the group is decided once more with just
that: nothing is told that was not tried. Quantities (GPUs, processor time, memory, storage, replicas) give way as little
as a search by halves finds. Everything is bounded: a search makes at most ``TRIALS_MAX`` decisions, and its caller can
stop it sooner. The group is looked at by itself: what other groups of its order need is not counted.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from fallow_bidding.domain.demand import GpuAlternative, GpuNeed, GroupDemand, OrderDemand, ReplicaSet
from fallow_bidding.domain.matching import MAX_PRICE_MICROS, GroupMatch, Market, find
from fallow_bidding.domain.placement import DeviceShare, NodeUse
from fallow_bidding.domain.supply import Device, Supplier

TRIALS_MAX: Final = 96
"""The most decisions that one search makes."""
HALVINGS_MAX: Final = 8
"""The most steps of a search by halves: what it finds is within 1/256 of the best."""
ATTRIBUTES_MAX: Final = 16
"""The most attributes that are tried."""
_CPU_STEP_MILLI: Final = 100
_MEBIBYTE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Relaxation:
    """One change with which the group would match now, for ``price_micros`` an hour.

    ``constraint`` is named as in the funnel. ``value`` is what to accept as well (a model, a region), or what to ask no more
    (an attribute); ``limit`` is the bound that would do, in the constraint's unit (micros, bytes, thousandths of a core, ms).
    """

    constraint: str
    value: str = ""
    limit: int = 0
    price_micros: int = 0


@dataclass(frozen=True, slots=True)
class Freeing:
    """What a lease will give back, and when."""

    time: datetime
    provider_id: str
    shares: tuple[DeviceShare, ...]
    uses: tuple[NodeUse, ...]


class Trials:
    """Decisions about one group on one market, counted; ``may_go_on`` is asked before each."""

    def __init__(self, market: Market, may_go_on: Callable[[], bool] = lambda: True) -> None:
        """``market`` is left as it is."""
        self.market = market
        self._left = TRIALS_MAX
        self._may_go_on = may_go_on

    def match(self, order: OrderDemand, market: Market | None = None) -> GroupMatch | None:
        """The match of an order's only group; None where there is none, or no trial is left."""
        assert len(order.groups) == 1, "a group is tried by itself"
        if self._left == 0 or not self._may_go_on():
            return None
        self._left -= 1
        matches = find(order, (market or self.market).fork())
        return matches[0] if matches else None


def relaxed(order: OrderDemand, change: Relaxation) -> OrderDemand:
    """The order of one group with a change made."""
    (group,) = order.groups
    value, limit = change.value, change.limit
    match change.constraint:
        case "price_limit":
            group = replace(group, price_limit_micros=limit)
        case "region":
            group = replace(group, regions=(*group.regions, value))
        case "attributes":
            group = replace(group, attributes={key: v for key, v in group.attributes.items() if key != value})
        case "auditors":
            group = replace(group, auditors_any_of=(), auditors_all_of=())
        case "reputation":
            group = replace(group, reputation_milli_min=limit)
        case "term":
            order = replace(order, duration_ms=limit)
        case _:
            group = replace(group, replica_sets=tuple(_relaxed_set(item, change) for item in group.replica_sets))
    return replace(order, groups=(group,))


def _relaxed_set(item: ReplicaSet, change: Relaxation) -> ReplicaSet:
    """Replicas with a change made."""
    value, limit, gpu = change.value, change.limit, item.gpu
    match change.constraint:
        case "cpu":
            return replace(item, cpu_milli=min(item.cpu_milli, limit))
        case "memory":
            return replace(item, memory_bytes=min(item.memory_bytes, limit))
        case "storage":
            sizes = {
                name: min(size, limit) if name == value else size for name, size in item.storage_bytes_by_class.items()
            }
            return replace(item, storage_bytes_by_class=sizes)
        case "placement":
            return replace(item, replicas=min(item.replicas, limit))
    return item if gpu is None else replace(item, gpu=_relaxed_gpu(gpu, change))


def _relaxed_gpu(gpu: GpuNeed, change: Relaxation) -> GpuNeed:
    """GPUs with a change made."""
    match change.constraint:
        case "gpu_vendor":
            return replace(gpu, vendor=change.value if gpu.vendor else "")
        case "gpu_model":
            return replace(_also(gpu, change.value), models=(*gpu.models, change.value) if gpu.models else ())
        case "gpu_alternatives":
            return _also(gpu, change.value)
        case "gpu_interface":
            return replace(gpu, interface=change.value if gpu.interface else "")
        case "vram":
            return _with_vram(gpu, change.limit)
        case "gpu_count":
            return replace(gpu, count=min(gpu.count, change.limit))
    raise AssertionError(f"{change.constraint} is no constraint that gives way")


def _also(gpu: GpuNeed, model: str) -> GpuNeed:
    """GPUs whose alternatives, if any are named, take a model whatever its VRAM and its interface."""
    return gpu if not gpu.alternatives else replace(gpu, alternatives=(*gpu.alternatives, GpuAlternative(model=model)))


def _vram_bytes_asked(gpu: GpuNeed) -> int:
    """The most VRAM that GPUs are asked for, of any kind."""
    return max(gpu.vram_bytes_min, *(each.vram_bytes_min for each in gpu.alternatives), 0)


def _with_vram(gpu: GpuNeed, most: int) -> GpuNeed:
    """GPUs of which none is asked for more VRAM than this."""
    alternatives = tuple(replace(each, vram_bytes_min=min(each.vram_bytes_min, most)) for each in gpu.alternatives)
    return replace(gpu, vram_bytes_min=min(gpu.vram_bytes_min, most), alternatives=alternatives)


def find_relaxations(order: OrderDemand, trials: Trials) -> tuple[Relaxation, ...]:
    """The single changes with which the order's only group would match now, cheapest first."""
    found = [*_choices(order, trials), *_quantities(order, trials)]
    return tuple(sorted(found, key=lambda change: (change.price_micros, change.constraint, change.value)))


def find_free_time(order: OrderDemand, trials: Trials, freeings: Sequence[Freeing]) -> datetime | None:
    """The soonest moment at which the order's only group would match, as leases give back what they hold by themselves.

    None where that is not enough. ``freeings`` are in the order of their times.
    """

    def matches(number: int) -> bool:
        market = trials.market.fork()
        for freeing in freeings[:number]:
            market.give_back(freeing.provider_id, freeing.shares, freeing.uses)
        return trials.match(order, market) is not None

    if not freeings or not matches(len(freeings)):
        return None
    least, most = 0, len(freeings)
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (least, middle) if matches(middle) else (middle, most)
    return freeings[most - 1].time


def _choices(order: OrderDemand, trials: Trials) -> Iterator[Relaxation]:
    """Changes that are read off what the group gets once a constraint is lifted."""
    for lifted, tell in _lifts(order):
        match = trials.match(lifted)
        if match is None:
            continue
        supplier = next(item for item in trials.market.suppliers if item.provider_id == match.provider_id)
        change = tell(match, supplier)
        again = None if change is None else trials.match(relaxed(order, change))
        if change is not None and again is not None:
            yield replace(change, price_micros=again.price_micros)


_Tell = Callable[[GroupMatch, Supplier], Relaxation | None]


def _lifts(order: OrderDemand) -> Iterator[tuple[OrderDemand, _Tell]]:
    """The order with each of its constraints lifted, and how to tell from the match what would do."""
    (group,) = order.groups
    needs = [item.gpu for item in group.replica_sets if item.gpu is not None]

    def with_group(**changes: object) -> OrderDemand:
        return replace(order, groups=(replace(group, **changes),))  # type: ignore[arg-type]

    def with_gpus(**changes: object) -> OrderDemand:
        sets = tuple(
            item if item.gpu is None else replace(item, gpu=replace(item.gpu, **changes))  # type: ignore[arg-type]
            for item in group.replica_sets
        )
        return with_group(replica_sets=sets)

    yield (
        with_group(price_limit_micros=MAX_PRICE_MICROS),
        lambda match, _: Relaxation("price_limit", limit=match.price_micros),
    )
    if any(need.models for need in needs):
        known = {model for need in needs for model in need.models}
        lifted = with_gpus(models=(), alternatives=())
        yield lifted, lambda match, supplier: _new("gpu_model", known, _models(match, supplier))
    if any(need.alternatives for need in needs):
        yield (
            with_gpus(alternatives=()),
            lambda match, supplier: _new("gpu_alternatives", set(), _models(match, supplier)),
        )
    if vendors := {need.vendor for need in needs if need.vendor}:
        yield with_gpus(vendor=""), lambda match, supplier: _new("gpu_vendor", vendors, _vendors(match, supplier))
    if interfaces := {need.interface for need in needs if need.interface}:
        yield (
            with_gpus(interface=""),
            lambda match, supplier: _new("gpu_interface", interfaces, _interfaces(match, supplier)),
        )
    if any(_vram_bytes_asked(need) for need in needs):
        yield relaxed(order, Relaxation("vram")), _vram
    if group.regions:
        yield with_group(regions=()), lambda _, supplier: Relaxation("region", supplier.region)
    for key in sorted(group.attributes)[:ATTRIBUTES_MAX]:
        change = Relaxation("attributes", key)
        yield relaxed(order, change), lambda _match, _supplier, change=change: change  # type: ignore[misc]
    if group.auditors_any_of or group.auditors_all_of:
        yield with_group(auditors_any_of=(), auditors_all_of=()), lambda _match, _supplier: Relaxation("auditors")
    if group.reputation_milli_min:
        yield (
            with_group(reputation_milli_min=0),
            lambda _, supplier: Relaxation("reputation", limit=supplier.reputation_milli),
        )
    if order.duration_ms is not None:
        yield replace(order, duration_ms=None), lambda _, supplier: _term(supplier, group)


def _new(constraint: str, known: set[str], given: set[str]) -> Relaxation | None:
    """What to accept as well; None where more than one thing would be needed."""
    missing = given - known
    return Relaxation(constraint, missing.pop()) if len(missing) == 1 else None


def _given(match: GroupMatch, supplier: Supplier) -> list[Device]:
    """The devices that a match gives."""
    devices = {(node.node_id, device.device_id): device for node in supplier.nodes for device in node.devices}
    return [devices[share.node_id, share.device_id] for placement in match.placements for share in placement.devices]


def _models(match: GroupMatch, supplier: Supplier) -> set[str]:
    return {device.model for device in _given(match, supplier)}


def _vendors(match: GroupMatch, supplier: Supplier) -> set[str]:
    return {device.vendor for device in _given(match, supplier)}


def _interfaces(match: GroupMatch, supplier: Supplier) -> set[str]:
    return {device.interface for device in _given(match, supplier)}


def _vram(match: GroupMatch, supplier: Supplier) -> Relaxation:
    """The least VRAM among the devices that a match gives."""
    return Relaxation("vram", limit=min(device.vram_bytes for device in _given(match, supplier)))


def _term(supplier: Supplier, group: GroupDemand) -> Relaxation | None:
    """The longest term that a provider takes; None where it takes any."""
    term_ms_max = supplier.offers[group.asset].term_ms_max
    return None if term_ms_max is None else Relaxation("term", limit=term_ms_max)


def _quantities(order: OrderDemand, trials: Trials) -> Iterator[Relaxation]:
    """Changes that ask for less, as little less as is found."""
    (group,) = order.groups
    sets = group.replica_sets
    counts = [item.gpu.count for item in sets if item.gpu is not None]
    storages = sorted({name for item in sets for name in item.storage_bytes_by_class})
    asked = [
        (Relaxation("gpu_count"), max(counts, default=0), 1),
        (Relaxation("placement"), max(item.replicas for item in sets), 1),
        (Relaxation("cpu"), max(item.cpu_milli for item in sets), _CPU_STEP_MILLI),
        (Relaxation("memory"), max(item.memory_bytes for item in sets), _MEBIBYTE),
        *(
            (Relaxation("storage", name), max(item.storage_bytes_by_class.get(name, 0) for item in sets), _MEBIBYTE)
            for name in storages
        ),
    ]
    for change, most, step in asked:
        told = _most_that_fits(order, trials, change, most, step)
        if told is not None:
            yield told


def _most_that_fits(order: OrderDemand, trials: Trials, change: Relaxation, asked: int, step: int) -> Relaxation | None:
    """The change to the largest multiple of ``step`` below what is asked with which the group matches; None without one."""

    def fitting(steps: int) -> Relaxation | None:
        tried = replace(change, limit=steps * step)
        match = trials.match(relaxed(order, tried))
        return None if match is None else replace(tried, price_micros=match.price_micros)

    least, beyond = 1, -(-asked // step)
    best = fitting(least) if least < beyond else None
    if best is None:
        return None
    for _ in range(HALVINGS_MAX):
        if beyond - least <= 1:
            break
        middle = (least + beyond) // 2
        found = fitting(middle)
        if found is None:
            beyond = middle
        else:
            least, best = middle, found
    return best
