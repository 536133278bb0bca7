"""The engine's decision: which provider takes which group, and why.

A provider can take a group where all hard constraints (``constraints.STEPS``) leave it places for every replica, at a price
within the limit. The cheapest wins; then the better reputation, the older registration, the lesser id: the same inputs make
the same decision. Groups of one order are decided in the order of scarcity (fewest providers first), each after the room that
the earlier ones took; with ``together`` either every group has a provider or none is matched.

There are two ways to one answer. ``decide`` takes providers from the engine's lists by price and stops as soon as nobody who
is left can be better; ``decide_in_full`` weighs all of them, and its funnel counts what each constraint left. Who is matched is told
the best offers; who is not, or takes bids, gets the full story.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import islice
from typing import Final

from fallow_bidding.domain.constraints import STEPS, Facts, View, all_candidates, count, serves, survivors
from fallow_bidding.domain.demand import GroupDemand, OrderDemand
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
from fallow_bidding.domain.supply import StandingOffer, Supplier

NO_MIX: Final = Snapshot()
OFFERS_TOLD: Final = 5
"""The offers, best first, that the story of a match tells."""
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


class Market:
    """The suppliers at one instant, with the room that decisions made so far have left."""

    def __init__(
        self,
        suppliers: Sequence[Supplier],
        rooms: Mapping[str, Room] | None = None,
        placer: Placer | None = None,
        mix: Snapshot = NO_MIX,
        slot_prices: Floats | None = None,
        facts: dict[str, Facts] | None = None,
    ) -> None:
        """Take the suppliers, whose order does not matter, the mix of needs to expect, and what slots cost if it is known.

        ``rooms``, ``placer`` and ``facts`` are for ``fork``.
        """
        self.suppliers = (
            tuple(sorted(suppliers, key=lambda supplier: supplier.provider_id)) if rooms is None else tuple(suppliers)
        )
        self._facts = {} if facts is None else facts
        self._rooms = (
            {supplier.provider_id: Room.of(supplier) for supplier in self.suppliers} if rooms is None else {**rooms}
        )
        self.placer = placer or Placer(self.suppliers, self._rooms, mix, slot_prices)

    def fork(self) -> "Market":
        """The same market, to try a decision on."""
        return Market(self.suppliers, self._rooms, self.placer, facts=self._facts)

    def facts(self, supplier: Supplier) -> Facts:
        """What of a supplier is the same before every group."""
        found = self._facts.get(supplier.provider_id)
        if found is None:
            found = self._facts[supplier.provider_id] = Facts.of(supplier)
        return found

    def adopt(self, other: "Market") -> None:
        """Take over the room of a fork whose decision stands."""
        self._rooms = {**other.rooms}

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

    @property
    def rooms(self) -> Mapping[str, Room]:
        """All rooms by provider, in the order of ids; not to be taken from."""
        return self._rooms

    def room(self, provider_id: str) -> Room:
        """A provider's room; not to be taken from."""
        return self._rooms[provider_id]

    def set_room(self, provider_id: str, room: Room) -> None:
        """What is left at a provider after a group was placed there."""
        self._rooms[provider_id] = room


@dataclass(frozen=True, slots=True)
class _Fit:
    """A provider that can take the group: price, placements."""

    view: View
    offer: StandingOffer
    price_micros: int
    placements: tuple[Placement, ...]

    @property
    def supplier(self) -> Supplier:
        """The provider."""
        return self.view.supplier

    @property
    def room(self) -> Room:
        """What is left of the provider's room afterwards."""
        room = self.view.room.copy()
        sets = {replica_set.service: replica_set for replica_set in self.view.group.replica_sets}
        for placement in self.placements:
            room.take(placement, sets[placement.service])
        return room

    @property
    def rank(self) -> tuple[int, int, int, str]:
        """Less is better."""
        return _rank(self.price_micros, self.supplier)


@dataclass(frozen=True, slots=True)
class _Weighing:
    """Providers weighed for one group: what fits, best first, and the story."""

    fits: tuple[_Fit, ...]
    explanation: GroupExplanation


_Weigh = Callable[[OrderDemand, GroupDemand, Market], _Weighing]


def decide(order: OrderDemand, market: Market) -> Decision:
    """Decide about the groups of one order and take the room of what was matched from ``market``.

    The matches are those of ``decide_in_full``. With a match for every group their stories tell no more than the best offers.
    """
    if not order.in_full:
        decision, draft = _decide(order, market, _look)
        if len(decision.matches) == len(order.groups):
            market.adopt(draft)
            return decision
    return decide_in_full(order, market)


def decide_in_full(order: OrderDemand, market: Market) -> Decision:
    """As ``decide``, with all providers weighed, and all of it told."""
    decision, draft = _decide(order, market, weigh)
    if decision.matches:
        market.adopt(draft)
    return decision


def find(order: OrderDemand, market: Market) -> tuple[GroupMatch, ...]:
    """The matches of ``decide`` alone; takes their room from ``market``."""
    decision, draft = _decide(order, market, _look)
    if decision.matches:
        market.adopt(draft)
    return decision.matches


def _decide(order: OrderDemand, market: Market, look: _Weigh) -> tuple[Decision, Market]:
    """What is decided, and the market afterwards; ``market`` is left as it is."""
    first = {group.index: look(order, group, market) for group in order.groups}
    scarce = sorted(order.groups, key=lambda group: (len(first[group.index].fits), group.index))
    draft = market.fork()
    stories = {index: weighing.explanation for index, weighing in first.items()}
    matches: list[GroupMatch] = []
    for position, group in enumerate(scarce):
        weighing = first[group.index] if position == 0 else look(order, group, draft)
        stories[group.index] = weighing.explanation
        if weighing.fits:
            best = weighing.fits[0]
            draft.set_room(best.supplier.provider_id, best.room)
            matches.append(_match(order, group, weighing.fits))
        elif order.together:
            return Decision((), tuple(_without_winner(stories, order, group))), market
    matches.sort(key=lambda match: match.group_index)
    return Decision(tuple(matches), tuple(stories[group.index] for group in order.groups)), draft


def _look(order: OrderDemand, group: GroupDemand, market: Market) -> _Weighing:
    """The providers that can take a group, through the lists: the best, or all where groups are to be put in order."""
    market.placer.expect(group.replica_sets)
    found = _best(order, group, market)
    fits = tuple(found if len(order.groups) > 1 else islice(found, OFFERS_TOLD))
    told = fits[:OFFERS_TOLD]
    return _Weighing(fits, _explain(group, [fit.view for fit in told], told, told, {}, ()))


def _best(order: OrderDemand, group: GroupDemand, market: Market) -> Iterator[_Fit]:
    """The providers that can take a group within its limit, best first.

    Who is next in the lists asks at least what the lists say, so that whoever was found to ask no more comes before all that follow.
    """
    pending: list[tuple[tuple[int, int, int, str], _Fit]] = []
    seen: set[str] = set()

    def see(supplier: Supplier) -> None:
        if supplier.provider_id not in seen:
            seen.add(supplier.provider_id)
            view = _view(order, group, supplier, market)
            fit = _fit(view, survivors(view))
            if fit is not None and fit.price_micros <= group.price_limit_micros:
                heappush(pending, (fit.rank, fit))

    for supplier in market.suppliers if group.bids else ():
        if supplier.provider_id in group.bids:
            see(supplier)
    listed = market.placer.sellers(
        market.rooms, group.replica_sets, group.asset, term_kind=order.term_kind, duration_ms=order.duration_ms
    )
    for least_micros, supplier in listed:
        while pending and pending[0][0] < _rank(least_micros, supplier):
            yield heappop(pending)[1]
        if least_micros > group.price_limit_micros:
            break
        see(supplier)
    while pending:
        yield heappop(pending)[1]


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
    market.placer.expect(group.replica_sets)
    views = [_view(order, group, supplier, market) for supplier in market.suppliers]
    candidates = {view.supplier.provider_id: all_candidates(view) for view in views}
    counts = {provider_id: count(by_set) for provider_id, by_set in candidates.items()}
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
            if serves(group, left):
                candidates[provider_id] = left
                counts[provider_id] = count(left)
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


def _rank(price_micros: int, supplier: Supplier) -> tuple[int, int, int, str]:
    """Less is better: price, reputation, age, id."""
    return price_micros, -supplier.reputation_milli, supplier.create_time_ms, supplier.provider_id


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


def _fit(view: View, candidates: Candidates | None) -> _Fit | None:
    """Place and price the group at a provider that passed the constraints; None where it does not fit whole."""
    if candidates is None:
        return None
    assert view.offer is not None, "a provider without an offer does not pass the asset constraint"
    placements = view.placer.place(
        view.supplier.provider_id, view.room, view.group.replica_sets, candidates, view.offer.prices
    )
    if placements is None:
        return None
    price = view.group.bids.get(view.supplier.provider_id)
    if price is None:
        sets = {replica_set.service: replica_set for replica_set in view.group.replica_sets}
        price = group_price_micros(
            view.offer.prices,
            ((sets[placement.service], placement.model) for placement in placements),
            term_kind=view.order.term_kind,
            duration_ms=view.order.duration_ms,
        )
    return _Fit(view, view.offer, price, placements)


def _explain(
    group: GroupDemand,
    views: Sequence[View],
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


def _view(order: OrderDemand, group: GroupDemand, supplier: Supplier, market: Market) -> View:
    """A provider before a group."""
    return View(order, group, supplier, market.room(supplier.provider_id), market.placer, market.facts(supplier))


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
