"""Why a group has its match, or none: the funnel of constraints and the offers that were weighed.

These values are stored with each decision and read back for ExplainMatch. The story of a match without bids is short: its
best offers, and no funnel.
"""

from dataclasses import dataclass, replace
from typing import Any, Final

MAX_OFFERS_EXPLAINED: Final = 100
"""The most offers that a stored explanation keeps, best first."""
FITTING: Final = frozenset({"", "dearer", "reputation", "younger", "other_group"})
"""Reasons of a loss with which an offer fits all the same; the winner has none."""
LATER: Final = "later"
"""The loss of an offer that fits as well now, and did not when the match was made."""


@dataclass(frozen=True, slots=True)
class FunnelStep:
    """What one constraint left: devices before and after it, providers after it."""

    constraint: str
    devices_before: int
    devices_after: int
    providers_after: int


@dataclass(frozen=True, slots=True)
class WeighedOffer:
    """One offer in the comparison. ``price_micros`` is None where the group could not even be placed."""

    offer_id: str
    provider_id: str
    price_micros: int | None
    won: bool
    loss_reason: str


@dataclass(frozen=True, slots=True)
class GroupExplanation:
    """The whole story of one group. ``matching_price_micros`` is the least price at which it would match now."""

    group_index: int
    group_id: str
    asset: str
    funnel: tuple[FunnelStep, ...] = ()
    offers: tuple[WeighedOffer, ...] = ()
    matching_price_micros: int | None = None
    advice: str = ""

    def at_present(self, present: "GroupExplanation") -> "GroupExplanation":
        """The story of a match, which tells its best offers, with the funnel and the other offers of the present market.

        In ``present`` what the match holds counts as free. An offer that fits now and is none of the best from then lost because
        it is dearer, or else came later.
        """
        paid = next((offer.price_micros for offer in self.offers if offer.won), None)
        told = {offer.provider_id for offer in self.offers}
        others = []
        for offer in present.offers:
            if offer.provider_id not in told:
                is_dearer = paid is not None and offer.price_micros is not None and offer.price_micros > paid
                reason = offer.loss_reason if offer.loss_reason not in FITTING else "dearer" if is_dearer else LATER
                others.append(replace(offer, won=False, loss_reason=reason))
        return replace(
            self,
            funnel=present.funnel,
            offers=(*self.offers, *others),
            matching_price_micros=present.matching_price_micros,
        )

    def to_json(self) -> dict[str, Any]:
        """The explanation as a JSON object."""
        return {
            "group_index": self.group_index,
            "group_id": self.group_id,
            "asset": self.asset,
            "funnel": [
                [step.constraint, step.devices_before, step.devices_after, step.providers_after] for step in self.funnel
            ],
            "offers": [
                [offer.offer_id, offer.provider_id, offer.price_micros, offer.won, offer.loss_reason]
                for offer in self.offers[:MAX_OFFERS_EXPLAINED]
            ],
            "matching_price_micros": self.matching_price_micros,
            "advice": self.advice,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "GroupExplanation":
        """The explanation that ``to_json`` wrote."""
        return cls(
            group_index=value["group_index"],
            group_id=value["group_id"],
            asset=value["asset"],
            funnel=tuple(FunnelStep(*step) for step in value["funnel"]),
            offers=tuple(WeighedOffer(*offer) for offer in value["offers"]),
            matching_price_micros=value["matching_price_micros"],
            advice=value["advice"],
        )


ADVICE: Final = {
    "provider_state": "No provider is online and takes leases now.",
    "excluded_providers": "Every provider that is left has been excluded, or has failed this group before.",
    "device_health": "All devices that are left are unhealthy; wait for them, or for other providers.",
    "gpu_vendor": "No device of this vendor is on the market: accept other vendors.",
    "gpu_model": "No device of these models is on the market: accept more models.",
    "vram": "No device has this much VRAM: ask for less.",
    "gpu_interface": "No device has this interface: accept any.",
    "gpu_alternatives": "No device is of a kind that is named with its own VRAM and interface: accept more kinds.",
    "device_free": "All devices that would do are leased: wait, or accept more models.",
    "gpu_count": "No node has this many free devices at once: ask for fewer per replica.",
    "runtime": "No node runs this kind of image.",
    "cpu": "No node with the right devices has this much processor time free: ask for less.",
    "memory": "No node with the right devices has this much memory free: ask for less.",
    "storage": "No node with the right devices has this storage free: ask for less or another class.",
    "region": "No provider that would do is in these regions: accept more regions.",
    "attributes": "No provider that would do has these attributes: ask for fewer.",
    "auditors": "No provider that would do is signed by these auditors.",
    "reputation": "No provider that would do has this reputation: ask for less.",
    "asset": "No provider that would do sells for this asset.",
    "term": "No provider that would do takes a term this long: ask for a shorter one.",
    "gpu_price": "No provider that would do sells these models.",
    "placement": "No provider has room for all replicas of the group at once: ask for fewer.",
    "price_limit": "Every provider that would do asks more than the price limit: raise it.",
}
"""What to change, by the constraint that left no provider."""
