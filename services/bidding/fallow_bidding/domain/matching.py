"""The engine's decision: which provider takes which group, and why.

For each group all providers go through the hard constraints in one fixed order (``STEPS``); each constraint removes
devices, nodes or whole providers, and the funnel counts what it left. Those that remain are placed and priced. The
cheapest wins; then the better reputation, the older registration, the lesser id: the same inputs make the same
decision. Groups of one order are decided in the order of scarcity (fewest providers first), each after the room that
the earlier ones took; with ``together`` either every group has a provider or none is matched.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from fallow_bidding.domain.demand import GpuNeed, GroupDemand, OrderDemand, ReplicaSet
from fallow_bidding.domain.engine.inventory import Floats
from fallow_bidding.domain.engine.mix import Snapshot
from fallow_bidding.domain.explanation import (
    ADVICE,
    FunnelStep,
    GroupExplanation,
    WeighedOffer,
)
from fallow_bidding.domain.placement import Candidates, DeviceShare, NodeUse, Placement, Placer, Room
from fallow_bidding.domain.pricing import group_price_micros
from fallow_bidding.domain.supply import Device, Health, Node, StandingOffer, Supplier

EXEC_DRIVER: Final = "exec"
EXEC_IMAGE: Final = "exec:host"
MOCK_DRIVER: Final = "mock"
NO_MIX: Final = Snapshot()
_LEASED_HEALTH: Final = frozenset({Health.HEALTHY, Health.UNKNOWN})
"""Health of devices that are leased: unknown is not down."""
MAX_PRICE_MICROS: Final = 10**15
"""The highest price of a group that is told; no order may have a higher limit."""


@dataclass(frozen=True, slots=True)
class GroupMatch:
    """One group, one provider, chosen devices, one price."""

    group_index: int
    provider_id: str
    offer_id: str
    asset: str
    price_micros: int
    placements: tuple[Placement, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about an order: its matches (none, or as ``together`` says) and a story for each group."""

    matches: tuple[GroupMatch, ...]
    explanations: tuple[GroupExplanation, ...]


@dataclass(frozen=True, slots=True)
class _Facts:
    """What is the same of a provider before every group: its nodes and devices by their ids, and what they have in common."""

    nodes: Mapping[str, Node]
    devices: Mapping[tuple[str, str], Device]
    everything: Mapping[str, frozenset[str]]
    models: frozenset[str]
    are_healthy: bool
    have_devices: bool
    """Whether every node has any: one without goes at the first constraint on devices."""

    @classmethod
    def of(cls, supplier: Supplier) -> "_Facts":
        """The facts of a supplier."""
        devices = {(node.node_id, device.device_id): device for node in supplier.nodes for device in node.devices}
        return cls(
            nodes={node.node_id: node for node in supplier.nodes},
            devices=devices,
            everything={node.node_id: frozenset(d.device_id for d in node.devices) for node in supplier.nodes},
            models=frozenset(device.model for device in devices.values()),
            are_healthy=all(device.health in _LEASED_HEALTH for device in devices.values()),
            have_devices=all(node.devices for node in supplier.nodes),
        )


class Market:
    """The suppliers at one instant, with the room that decisions made so far have left."""

    def __init__(
        self,
        suppliers: Sequence[Supplier],
        rooms: Mapping[str, Room] | None = None,
        placer: Placer | None = None,
        mix: Snapshot = NO_MIX,
        slot_prices: Floats | None = None,
        facts: dict[str, _Facts] | None = None,
    ) -> None:
        """Take the suppliers, whose order does not matter, the mix of needs to expect, and what slots cost if it is known.

        ``rooms``, ``placer`` and ``facts`` are for ``fork``.
        """
        self.suppliers = tuple(sorted(suppliers, key=lambda supplier: supplier.provider_id))
        self.placer = placer or Placer(self.suppliers, mix, slot_prices)
        self._facts = {} if facts is None else facts
        self._rooms = (
            {supplier.provider_id: Room.of(supplier) for supplier in suppliers} if rooms is None else {**rooms}
        )

    def fork(self) -> "Market":
        """The same market, to try a decision on."""
        return Market(self.suppliers, self._rooms, self.placer, facts=self._facts)

    def facts(self, supplier: Supplier) -> _Facts:
        """What of a supplier is the same before every group."""
        found = self._facts.get(supplier.provider_id)
        if found is None:
            found = self._facts[supplier.provider_id] = _Facts.of(supplier)
        return found

    def adopt(self, other: "Market") -> None:
        """Take over the room of a fork whose decision stands."""
        self._rooms = {supplier.provider_id: other.room(supplier.provider_id) for supplier in self.suppliers}

    def present(self) -> tuple[Supplier, ...]:
        """The suppliers with what is free of them now."""
        return tuple(self._rooms[supplier.provider_id].stated(supplier) for supplier in self.suppliers)

    def limit_to(self, other: "Market") -> None:
        """Take away what is not free in another market of the same suppliers."""
        for provider_id in self._rooms:
            room = self._rooms[provider_id].copy()
            room.sink_to(other.room(provider_id))
            self._rooms[provider_id] = room

    def give_back(self, provider_id: str, shares: Sequence[DeviceShare], uses: Sequence[NodeUse]) -> None:
        """Count as free what a lease holds at a provider; one that is not on the market has no room."""
        if provider_id in self._rooms:
            room = self._rooms[provider_id].copy()
            room.give_back(shares, uses)
            self._rooms[provider_id] = room

    def room(self, provider_id: str) -> Room:
        """A provider's room; not to be taken from."""
        return self._rooms[provider_id]

    def set_room(self, provider_id: str, room: Room) -> None:
        """What is left at a provider after a group was placed there."""
        self._rooms[provider_id] = room


@dataclass(frozen=True, slots=True)
class _View:
    """One provider before one group."""

    order: OrderDemand
    group: GroupDemand
    supplier: Supplier
    room: Room
    placer: Placer
    facts: _Facts

    @property
    def offer(self) -> StandingOffer | None:
        """The provider's offer in the group's asset."""
        return self.supplier.offers.get(self.group.asset)


@dataclass(frozen=True, slots=True)
class _Fit:
    """A provider that took the group: price, placements, the room afterwards."""

    supplier: Supplier
    offer: StandingOffer
    price_micros: int
    placements: tuple[Placement, ...]
    room: Room

    @property
    def rank(self) -> tuple[int, int, int, str]:
        """Less is better: price, reputation, age, id."""
        supplier = self.supplier
        return self.price_micros, -supplier.reputation_milli, supplier.create_time_ms, supplier.provider_id


@dataclass(frozen=True, slots=True)
class _Weighing:
    """All providers weighed for one group: what fits, best first, and the story."""

    fits: tuple[_Fit, ...]
    explanation: GroupExplanation


_Keep = Callable[[_View, Candidates], Candidates]


def decide(order: OrderDemand, market: Market) -> Decision:
    """Decide about the groups of one order and take the room of what was matched from ``market``."""
    first = {group.index: weigh(order, group, market) for group in order.groups}
    scarce = sorted(order.groups, key=lambda group: (len(first[group.index].fits), group.index))
    draft = market.fork()
    stories = {index: weighing.explanation for index, weighing in first.items()}
    matches: list[GroupMatch] = []
    for position, group in enumerate(scarce):
        weighing = first[group.index] if position == 0 else weigh(order, group, draft)
        stories[group.index] = weighing.explanation
        if weighing.fits:
            best = weighing.fits[0]
            draft.set_room(best.supplier.provider_id, best.room)
            matches.append(_match(order, group, weighing.fits))
        elif order.together:
            return Decision((), tuple(_without_winner(stories, order, group)))
    market.adopt(draft)
    matches.sort(key=lambda match: match.group_index)
    return Decision(tuple(matches), tuple(stories[group.index] for group in order.groups))


def obstacle(order: OrderDemand, group: GroupDemand, market: Market) -> str:
    """The constraint that keeps every provider of a market from a group, whatever it may cost; empty where one fits."""
    funnel = weigh(order, replace(group, price_limit_micros=MAX_PRICE_MICROS), market).explanation.funnel
    return next((step.constraint for step in funnel if not step.providers_after), "")


def fitting(order: OrderDemand, group: GroupDemand, market: Market) -> list[tuple[Supplier, frozenset[str]]]:
    """The providers that could take a group, whatever it may cost, each with the GPU models that it would give."""
    fits = weigh(order, replace(group, price_limit_micros=MAX_PRICE_MICROS), market).fits
    return [(fit.supplier, frozenset(placement.model for placement in fit.placements)) for fit in fits]


def weigh(order: OrderDemand, group: GroupDemand, market: Market) -> _Weighing:
    """Take all providers through the constraints for one group; ``market`` is left as it is."""
    views = [_view(order, group, supplier, market) for supplier in market.suppliers]
    candidates = {view.supplier.provider_id: _all_candidates(view) for view in views}
    counts = {provider_id: _count(by_set) for provider_id, by_set in candidates.items()}
    losses: dict[str, str] = {}
    funnel: list[FunnelStep] = []
    before = sum(counts.values())
    for name, keep in STEPS:
        for view in views:
            provider_id = view.supplier.provider_id
            if provider_id not in candidates:
                continue
            left = keep(view, candidates[provider_id])
            if left is candidates[provider_id] and view.facts.nodes:
                continue
            if _serves(group, left):
                candidates[provider_id] = left
                counts[provider_id] = _count(left)
            else:
                del candidates[provider_id], counts[provider_id]
                losses[provider_id] = name
        before = _add_step(funnel, name, before, counts)
    placed = [fit for view in views if (fit := _fit(view, candidates.get(view.supplier.provider_id))) is not None]
    _drop(counts, losses, "placement", {fit.supplier.provider_id for fit in placed})
    before = _add_step(funnel, "placement", before, counts)
    fits = sorted((fit for fit in placed if fit.price_micros <= group.price_limit_micros), key=lambda fit: fit.rank)
    _drop(counts, losses, "price_limit", {fit.supplier.provider_id for fit in fits})
    _add_step(funnel, "price_limit", before, counts)
    return _Weighing(tuple(fits), _explain(group, views, placed, fits, losses, funnel))


def _match(order: OrderDemand, group: GroupDemand, fits: Sequence[_Fit]) -> GroupMatch:
    """The match of a group with the provider that won it."""
    fit = fits[0]
    paid = fit.price_micros
    if order.second_price:
        paid = fits[1].price_micros if len(fits) > 1 else group.price_limit_micros
    assert fit.price_micros <= paid <= group.price_limit_micros, "a winner gets its price, within the tenant's limit"
    return GroupMatch(group.index, fit.supplier.provider_id, fit.offer.offer_id, group.asset, paid, fit.placements)


def _without_winner(
    stories: dict[int, GroupExplanation], order: OrderDemand, failed: GroupDemand
) -> list[GroupExplanation]:
    """The stories of an order of which one group found nobody: nobody has won any group."""
    told = []
    for group in order.groups:
        story = stories[group.index]
        offers = tuple(
            replace(offer, won=False, loss_reason="other_group") if offer.won else offer for offer in story.offers
        )
        advice = story.advice or f"Group {failed.group_id} found no provider, and the order is all groups or none."
        told.append(replace(story, offers=offers, advice=advice))
    return told


def _fit(view: _View, candidates: Candidates | None) -> _Fit | None:
    """Place and price the group at a provider that passed the constraints; None where it does not fit whole."""
    if candidates is None:
        return None
    assert view.offer is not None, "a provider without an offer does not pass the asset constraint"
    placements = view.placer.place(
        view.supplier.provider_id, view.room, view.group.replica_sets, candidates, view.offer.prices
    )
    if placements is None:
        return None
    room = view.room.copy()
    sets = {replica_set.service: replica_set for replica_set in view.group.replica_sets}
    for placement in placements:
        room.take(placement, sets[placement.service])
    price = view.group.bids.get(view.supplier.provider_id)
    if price is None:
        price = group_price_micros(
            view.offer.prices,
            ((sets[placement.service], placement.model) for placement in placements),
            term_kind=view.order.term_kind,
            duration_ms=view.order.duration_ms,
        )
    return _Fit(view.supplier, view.offer, price, placements, room)


def _explain(
    group: GroupDemand,
    views: Sequence[_View],
    placed: Sequence[_Fit],
    fits: Sequence[_Fit],
    losses: dict[str, str],
    funnel: Sequence[FunnelStep],
) -> GroupExplanation:
    """The story of one group; offers with a price come first, cheapest first."""
    prices = {fit.supplier.provider_id: fit for fit in placed}
    winner = fits[0] if fits else None
    weighed: list[tuple[tuple[int, int, int, str], WeighedOffer]] = []
    for view in views:
        supplier, offer = view.supplier, view.offer
        if offer is None:
            continue
        fit = prices.get(supplier.provider_id)
        reason = losses.get(supplier.provider_id, "")
        if fit is not None and winner is not None and not reason and fit is not winner:
            reason = _why_worse(fit, winner)
        price = None if fit is None or fit.price_micros > MAX_PRICE_MICROS else fit.price_micros
        rank = fit.rank if fit is not None else (1 << 62, 0, 0, supplier.provider_id)
        won = fit is not None and fit is winner
        weighed.append((rank, WeighedOffer(offer.offer_id, supplier.provider_id, price, won, reason)))
    weighed.sort(key=lambda pair: (not pair[1].won, pair[0]))
    emptied = next((step.constraint for step in funnel if step.providers_after == 0), "")
    return GroupExplanation(
        group_index=group.index,
        group_id=group.group_id,
        asset=group.asset,
        funnel=tuple(funnel),
        offers=tuple(offer for _, offer in weighed),
        matching_price_micros=min(
            (fit.price_micros for fit in placed if fit.price_micros <= MAX_PRICE_MICROS), default=None
        ),
        advice=ADVICE.get(emptied, ""),
    )


def _why_worse(fit: _Fit, winner: _Fit) -> str:
    """In which respect an offer that fits lost."""
    if fit.price_micros > winner.price_micros:
        return "dearer"
    if fit.supplier.reputation_milli < winner.supplier.reputation_milli:
        return "reputation"
    return "younger"


def _view(order: OrderDemand, group: GroupDemand, supplier: Supplier, market: Market) -> _View:
    """A provider before a group."""
    return _View(order, group, supplier, market.room(supplier.provider_id), market.placer, market.facts(supplier))


def _all_candidates(view: _View) -> Candidates:
    """Everything that a provider has, for every replica set."""
    return {index: dict(view.facts.everything) for index in range(len(view.group.replica_sets))}


def _serves(group: GroupDemand, candidates: Candidates) -> bool:
    """Whether every replica set still has a node."""
    return all(candidates.get(index) for index in range(len(group.replica_sets)))


def _count(candidates: Candidates) -> int:
    """A provider's devices that could serve some replica set."""
    if len(candidates) == 1:
        return sum(map(len, candidates[0].values()))
    left = {(node, device) for nodes in candidates.values() for node, devices in nodes.items() for device in devices}
    return len(left)


def _add_step(funnel: list[FunnelStep], name: str, before: int, counts: Mapping[str, int]) -> int:
    """Note what a constraint left; returns the devices that are left."""
    after = sum(counts.values())
    assert after <= before, "a constraint never adds a device"
    funnel.append(FunnelStep(name, before, after, len(counts)))
    return after


def _drop(counts: dict[str, int], losses: dict[str, str], name: str, kept: set[str]) -> None:
    """Remove the providers that a last step did not keep."""
    for provider_id in [provider_id for provider_id in counts if provider_id not in kept]:
        del counts[provider_id]
        losses[provider_id] = name


def _by_provider(holds: Callable[[_View], bool]) -> _Keep:
    """A constraint on whole providers."""
    return lambda view, candidates: candidates if holds(view) else {}


def _by_node(holds: Callable[[_View, ReplicaSet, str, frozenset[str]], bool]) -> _Keep:
    """A constraint on nodes, for each replica set; what loses nothing is returned itself."""

    def keep(view: _View, candidates: Candidates) -> Candidates:
        kept = {
            index: {
                node_id: devices
                for node_id, devices in nodes.items()
                if holds(view, view.group.replica_sets[index], node_id, devices)
            }
            for index, nodes in candidates.items()
        }
        return candidates if all(len(kept[index]) == len(nodes) for index, nodes in candidates.items()) else kept

    return keep


def _by_device(
    holds: Callable[[_View, GpuNeed, str, Device], bool],
    *,
    for_all: Callable[[_View, GpuNeed], bool] = lambda view, need: False,
    for_none: Callable[[_View, GpuNeed], bool] = lambda view, need: False,
) -> _Keep:
    """A constraint on devices, for each replica set that asks for GPUs; a node that loses all of them goes too.

    ``for_all`` and ``for_none`` say where it is known without a look that it holds for every device, or for none. What
    loses nothing is returned itself.
    """

    def keep(view: _View, candidates: Candidates) -> Candidates:
        kept: Candidates = {}
        for index, nodes in candidates.items():
            need = view.group.replica_sets[index].gpu
            if need is None or for_all(view, need):
                kept[index] = nodes
                continue
            if for_none(view, need):
                kept[index] = {}
                continue
            devices_of = view.facts.devices
            left = {
                node_id: frozenset(d for d in devices if holds(view, need, node_id, devices_of[node_id, d]))
                for node_id, devices in nodes.items()
            }
            is_whole = all(len(left[node_id]) == len(devices) > 0 for node_id, devices in nodes.items())
            kept[index] = nodes if is_whole else {node_id: devices for node_id, devices in left.items() if devices}
        return candidates if all(kept[index] is nodes for index, nodes in candidates.items()) else kept

    return keep


def _has_count(view: _View, replica_set: ReplicaSet, node_id: str, devices: frozenset[str]) -> bool:
    """Whether a node has enough devices of one kind for one replica."""
    return replica_set.gpu is None or view.room.has_devices(node_id, replica_set, devices)


def _runs_image(view: _View, replica_set: ReplicaSet, node_id: str, _: frozenset[str]) -> bool:
    """Whether a node has a driver for the image; a node that names none may have any."""
    drivers = view.facts.nodes[node_id].drivers
    if not drivers or not replica_set.image or MOCK_DRIVER in drivers:
        return True
    if replica_set.image == EXEC_IMAGE:
        return EXEC_DRIVER in drivers
    return any(driver != EXEC_DRIVER for driver in drivers)


def _has_attributes(view: _View) -> bool:
    """Whether a provider has every attribute; a wanted value that ends in ``*`` is a prefix."""
    for key, wanted in view.group.attributes.items():
        value = view.supplier.attributes.get(key)
        if value is None:
            return False
        if not (value.startswith(wanted[:-1]) if wanted.endswith("*") else value == wanted):
            return False
    return True


def _is_audited(view: _View) -> bool:
    """Whether one of the first auditors and all of the second vouch for every attribute that the group asks for."""
    asked, any_of = view.group.attributes.keys(), view.group.auditors_any_of
    signed = {auditor for auditor, names in view.supplier.audited.items() if names.issuperset(asked)}
    return (not any_of or not signed.isdisjoint(any_of)) and signed.issuperset(view.group.auditors_all_of)


def _takes_term(view: _View) -> bool:
    """Whether the offer takes the order's duration; an order without one fits any offer."""
    offer, duration_ms = view.offer, view.order.duration_ms
    return offer is None or offer.term_ms_max is None or duration_ms is None or duration_ms <= offer.term_ms_max


def _is_free(view: _View, need: GpuNeed, node_id: str, device: Device) -> bool:
    """Whether enough is left of a device, after the decisions made so far."""
    return view.room.free_milli(node_id, device.device_id) >= need.milli


def _is_sold(view: _View, device: Device) -> bool:
    """Whether the offer has a price for the device's model."""
    return view.offer is not None and device.model in view.offer.prices.gpu_micros_by_model


STEPS: Final[tuple[tuple[str, _Keep], ...]] = (
    ("provider_state", _by_provider(lambda view: not view.supplier.unavailable and bool(view.supplier.nodes))),
    ("excluded_providers", _by_provider(lambda view: view.supplier.provider_id not in view.group.excluded)),
    (
        "device_health",
        _by_device(
            lambda view, need, node, device: device.health in _LEASED_HEALTH,
            for_all=lambda view, need: view.facts.are_healthy and view.facts.have_devices,
        ),
    ),
    (
        "gpu_vendor",
        _by_device(
            lambda view, need, node, device: not need.vendor or device.vendor == need.vendor,
            for_all=lambda view, need: not need.vendor and view.facts.have_devices,
        ),
    ),
    (
        "gpu_model",
        _by_device(
            lambda view, need, node, device: not need.models or device.model in need.models,
            for_all=lambda view, need: not need.models and view.facts.have_devices,
            for_none=lambda view, need: bool(need.models) and view.facts.models.isdisjoint(need.models),
        ),
    ),
    (
        "vram",
        _by_device(
            lambda view, need, node, device: device.vram_bytes >= need.vram_bytes_min,
            for_all=lambda view, need: not need.vram_bytes_min and view.facts.have_devices,
        ),
    ),
    (
        "gpu_interface",
        _by_device(
            lambda view, need, node, device: not need.interface or device.interface == need.interface,
            for_all=lambda view, need: not need.interface and view.facts.have_devices,
        ),
    ),
    (
        "gpu_alternatives",
        _by_device(
            lambda view, need, node, device: need.names(
                device.vendor, device.model, device.vram_bytes, device.interface
            ),
            for_all=lambda view, need: not need.alternatives and view.facts.have_devices,
        ),
    ),
    ("device_free", _by_device(_is_free)),
    ("gpu_count", _by_node(_has_count)),
    ("runtime", _by_node(_runs_image)),
    ("cpu", _by_node(lambda view, replica_set, node, _: view.room.has_cpu(node, replica_set))),
    ("memory", _by_node(lambda view, replica_set, node, _: view.room.has_memory(node, replica_set))),
    ("storage", _by_node(lambda view, replica_set, node, _: view.room.has_storage(node, replica_set))),
    ("region", _by_provider(lambda view: not view.group.regions or view.supplier.region in view.group.regions)),
    ("attributes", _by_provider(_has_attributes)),
    ("auditors", _by_provider(_is_audited)),
    ("reputation", _by_provider(lambda view: view.supplier.reputation_milli >= view.group.reputation_milli_min)),
    ("asset", _by_provider(lambda view: view.offer is not None)),
    ("term", _by_provider(_takes_term)),
    ("gpu_price", _by_device(lambda view, need, node, device: _is_sold(view, device))),
)
"""The hard constraints in the order in which they are applied; placement and price limit follow."""
