"""What one replica costs an hour at every row of an inventory, in whole micros, from the providers' price schedules.

The same sum as ``pricing.group_price_micros`` makes of a group of that one replica, over all rows at once and in
integers throughout: each part is split into whole micros and a rest before anything can overflow, and the rests are
rounded up once. A volume in memory is part of a need's memory and priced as such.
"""

from typing import Final

import numpy as np

from fallow_bidding.domain.demand import TermKind
from fallow_bidding.domain.engine.engine import NOT_FOR_SALE
from fallow_bidding.domain.engine.inventory import Integers, Inventory
from fallow_bidding.domain.engine.needs import Need
from fallow_bidding.domain.pricing import discount_milli
from fallow_bidding.domain.supply import StandingOffer

_MILLI: Final = 1_000
_GIB_BITS: Final = 30
_GIB: Final = 1 << _GIB_BITS
RATE_MICROS_MAX: Final = 10**12
"""The highest rate of a schedule that the columns hold; dearer ones are not for sale."""


class Asks:
    """The price schedules of one asset and term, in columns over an inventory's rows."""

    def __init__(
        self,
        inventory: Inventory,
        asset: str,
        *,
        term_kind: TermKind = TermKind.ON_DEMAND,
        duration_ms: int | None = None,
    ) -> None:
        """A provider without an offer for the asset, or none for so long a term, sells nothing."""
        offers = [one.offers.get(asset) for one in inventory.suppliers]
        self._sold = np.array([_takes(offer, duration_ms) for offer in offers], np.bool_)[inventory.provider]
        self._classes = inventory.classes
        schedules = [None if offer is None else offer.prices for offer in offers]
        core = [0 if one is None else one.cpu_core_micros for one in schedules]
        gib = [0 if one is None else one.memory_gib_micros for one in schedules]
        least = [0 if one is None else one.group_micros_min for one in schedules]
        discount = [0 if one is None else discount_milli(one, term_kind, duration_ms) for one in schedules]
        self._core_micros = self._rates(core, inventory)
        self._gib_micros = self._rates(gib, inventory)
        self._least_micros = self._rates(least, inventory)
        self._paid_milli = _MILLI - np.array(discount, np.int64)[inventory.provider]
        self._storage_micros = [
            self._rates(
                [0 if one is None else one.storage_gib_micros_by_class.get(name, 0) for one in schedules], inventory
            )
            for name in inventory.classes
        ]
        by_kind = [
            [
                NOT_FOR_SALE if one is None else one.gpu_micros_by_model.get(kind.model, NOT_FOR_SALE)
                for kind in inventory.kinds
            ]
            for one in schedules
        ]
        rows = [by_kind[provider][kind] for provider, kind in zip(inventory.provider, inventory.kind, strict=True)]
        self._gpu_micros = np.array([rate if rate <= RATE_MICROS_MAX else NOT_FOR_SALE for rate in rows], np.int64)

    def of(self, need: Need) -> Integers:
        """The price of one replica by row, or ``NOT_FOR_SALE``."""
        by_milli = self._core_micros * need.cpu_milli + self._gpu_micros * need.total_milli
        whole, rest = self._by_byte(self._gib_micros, need.memory_bytes)
        for name, size_bytes in need.storage:
            if name in self._classes:
                more, part = self._by_byte(self._storage_micros[self._classes.index(name)], size_bytes)
                whole, rest = whole + more, rest + part
        whole, rest = whole + (rest >> _GIB_BITS) + by_milli // _MILLI, rest % _GIB
        parts = (by_milli % _MILLI) * _GIB + rest * _MILLI
        price = np.maximum(whole - (-parts // (_MILLI * _GIB)), self._least_micros)
        price = -(-price * self._paid_milli // _MILLI)
        sold = self._sold & (self._gpu_micros != NOT_FOR_SALE) if need.gpu_count else self._sold
        asks: Integers = np.where(sold, price, NOT_FOR_SALE)
        assert bool((asks >= NOT_FOR_SALE).all()), "a price is never negative"
        return asks

    def _rates(self, rates: list[int], inventory: Inventory) -> Integers:
        """A rate by row; a provider with one too high sells nothing."""
        high = np.array([rate > RATE_MICROS_MAX for rate in rates], np.bool_)[inventory.provider]
        self._sold = self._sold & ~high
        return np.array([min(rate, RATE_MICROS_MAX) for rate in rates], np.int64)[inventory.provider]

    @staticmethod
    def _by_byte(rate_micros: Integers, size_bytes: int) -> tuple[Integers, Integers]:
        """Whole micros, and the rest in parts of 2^30."""
        gib, rest = divmod(size_bytes, _GIB)
        # The rate itself is split, since rate times rest may pass 2^63.
        high, low = rate_micros >> _GIB_BITS, rate_micros % _GIB
        parts = low * rest
        return rate_micros * gib + high * rest + (parts >> _GIB_BITS), parts % _GIB


def _takes(offer: StandingOffer | None, duration_ms: int | None) -> bool:
    """Whether an offer is there and takes a term so long."""
    return offer is not None and (offer.term_ms_max is None or duration_ms is None or duration_ms <= offer.term_ms_max)
