"""Which spot leases give way to an order that fits nowhere else.

Only where the order pays a provider at least what the leases that it displaces there pay together: nobody's income falls.
As few leases as possible give way, the cheapest before the dearer ones, and none whose room is not needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fallow_bidding.domain.demand import OrderDemand
from fallow_bidding.domain.matching import GroupMatch, Market, find
from fallow_bidding.domain.placement import DeviceShare, NodeUse


@dataclass(frozen=True, slots=True)
class SpotLease:
    """A lease that may give way, with what it holds."""

    lease_id: str
    provider_id: str
    price_micros: int
    shares: tuple[DeviceShare, ...]
    uses: tuple[NodeUse, ...]


@dataclass(frozen=True, slots=True)
class Displacement:
    """The leases that give way, the matches once they have, and the market after that."""

    leases: tuple[SpotLease, ...]
    matches: tuple[GroupMatch, ...]
    market: Market


def without(demand: OrderDemand, market: Market, leases: Sequence[SpotLease]) -> Displacement | None:
    """What would be decided if these leases' room were free; None where a group of the demand finds no provider."""
    freed = market.fork()
    for lease in leases:
        freed.give_back(lease.provider_id, lease.shares, lease.uses)
    matches = find(demand, freed)
    if len(matches) < len(demand.groups):
        return None
    return Displacement(tuple(leases), matches, freed)


def displace(demand: OrderDemand, market: Market, candidates: Sequence[SpotLease]) -> Displacement | None:
    """The leases that give way to a demand that does not fit without that; None where none help, or all would pay more."""
    left = sorted(candidates, key=lambda lease: (lease.price_micros, lease.lease_id))
    while left:
        found = without(demand, market, left)
        if found is None:
            return None
        sellers = {match.provider_id for match in found.matches}
        needed = _needed(demand, market, [lease for lease in left if lease.provider_id in sellers])
        found = without(demand, market, needed)
        assert found is not None, "what was needed is enough"
        losers = _poorer(found)
        if not losers:
            return found if needed else None
        left = [lease for lease in left if lease.provider_id not in losers]
    return None


def _needed(demand: OrderDemand, market: Market, leases: Sequence[SpotLease]) -> list[SpotLease]:
    """Those of some leases without whose room the demand does not fit; the dearest are spared first."""
    needed = list(leases)
    for lease in reversed(leases):
        fewer = [other for other in needed if other is not lease]
        if without(demand, market, fewer) is not None:
            needed = fewer
    return needed


def _poorer(found: Displacement) -> set[str]:
    """The providers that the displacement would pay less than the leases that give way do."""
    gain: dict[str, int] = {}
    for lease in found.leases:
        gain[lease.provider_id] = gain.get(lease.provider_id, 0) - lease.price_micros
    for match in found.matches:
        gain[match.provider_id] = gain.get(match.provider_id, 0) + match.price_micros
    return {provider_id for provider_id, micros in gain.items() if micros < 0}
