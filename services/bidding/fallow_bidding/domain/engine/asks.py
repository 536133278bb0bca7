"""What replicas cost an hour at every row of an inventory, in whole micros, from the providers' price schedules.

The same sum as ``pricing.group_price_micros`` makes, over all rows at once and in integers throughout: each part is split
into whole micros and a rest before anything can overflow, and the rests are rounded up once.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from fallow_bidding.domain.demand import TermKind
from fallow_bidding.domain.engine.engine import NOT_FOR_SALE
from fallow_bidding.domain.engine.inventory import Integers, Inventory
from fallow_bidding.domain.engine.needs import Lot, Need
from fallow_bidding.domain.pricing import discount_milli
from fallow_bidding.domain.supply import StandingOffer

_MILLI: Final = 1_000
_GIB_BITS: Final = 30
_GIB: Final = 1 << _GIB_BITS
RATE_MICROS_MAX: Final = 10**12
"""The highest rate of a schedule, as the contract has it, too; dearer ones are not for sale."""
PRICE_MICROS_MAX: Final = 9 * 10**15
"""Prices above this, which no order may pay, count as this: a thousand times as much is still held."""


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
        schedules = [None if offer is None else offer.prices for offer in offers]
        core = [0 if one is None else one.cpu_core_micros for one in schedules]
        gib = [0 if one is None else one.memory_gib_micros for one in schedules]
        least = [0 if one is None else one.group_micros_min for one in schedules]
        discount = [0 if one is None else discount_milli(one, term_kind, duration_ms) for one in schedules]
        self._core_micros = self._rates(core, inventory)
        self._gib_micros = self._rates(gib, inventory)
        self._least_micros = self._rates(least, inventory)
        self._paid_milli = _MILLI - np.array(discount, np.int64)[inventory.provider]
        priced = {name for one in schedules if one is not None for name in one.storage_gib_micros_by_class}
        self._storage_micros = {
            name: self._rates(
                [0 if one is None else one.storage_gib_micros_by_class.get(name, 0) for one in schedules], inventory
            )
            for name in sorted(priced)
        }
        models = [kind.model for kind in inventory.kinds]
        by_kind = [
            [NOT_FOR_SALE if one is None else _rate(one.gpu_micros_by_model, model) for model in models]
            for one in schedules
        ]
        table = np.array(by_kind, np.int64).reshape(len(schedules), len(models))
        self._gpu_micros = table[inventory.provider, inventory.kind]
        self._inventory = inventory

    def of(self, need: Need) -> Integers:
        """The price of one replica by row, or ``NOT_FOR_SALE``. A volume in memory is priced as memory."""
        return self.least_of((Lot.one(need),))

    def least_of(self, lots: Sequence[Lot]) -> Integers:
        """By row, the least that a group can cost of which the first lot has its GPUs there, or ``NOT_FOR_SALE``.

        Other lots count with the cheapest GPUs that the provider has for them. Of one lot it is the price itself, if all
        replicas are on rows that ask as much.
        """
        whole = rest = np.zeros(self._inventory.rows, np.int64)
        sold = self._sold
        for index, lot in enumerate(lots):
            gpu_micros = self._cheapest(lot.need) if index else self._gpu_micros
            if lot.need.gpu_count:
                sold = sold & (gpu_micros != NOT_FOR_SALE)
            more, part = self._of_replica(lot, gpu_micros)
            whole = np.minimum(
                whole + np.minimum(more, PRICE_MICROS_MAX // lot.replicas) * lot.replicas, PRICE_MICROS_MAX
            )
            rest = rest + part * lot.replicas
        price = np.minimum(np.maximum(whole - (-rest // (_MILLI * _GIB)), self._least_micros), PRICE_MICROS_MAX)
        price = -(-price * self._paid_milli // _MILLI)
        asks: Integers = np.where(sold, price, NOT_FOR_SALE)
        assert bool((asks >= NOT_FOR_SALE).all()), "a price is never negative"
        return asks

    def _of_replica(self, lot: Lot, gpu_micros: Integers) -> tuple[Integers, Integers]:
        """Of one replica, with GPUs at these rates: whole micros, and the rest in parts of 1,000 times 2^30."""
        by_milli = self._core_micros * lot.need.cpu_milli + gpu_micros * lot.need.total_milli
        whole, rest = self._by_byte(self._gib_micros, lot.memory_bytes)
        for name, size_bytes in lot.storage:
            if name in self._storage_micros:
                more, part = self._by_byte(self._storage_micros[name], size_bytes)
                whole, rest = whole + more, rest + part
        whole, rest = whole + (rest >> _GIB_BITS) + by_milli // _MILLI, rest % _GIB
        return whole, (by_milli % _MILLI) * _GIB + rest * _MILLI

    def _cheapest(self, need: Need) -> Integers:
        """By row, the least rate at which its provider has GPUs that would do, anywhere, or ``NOT_FOR_SALE``."""
        inventory = self._inventory
        would_do = np.array([need.allows(kind) for kind in inventory.kinds], np.bool_)[inventory.kind]
        would_do &= (self._gpu_micros != NOT_FOR_SALE) & (inventory.device_count >= need.gpu_count)
        least = np.full(len(inventory.suppliers), RATE_MICROS_MAX + 1)
        np.minimum.at(least, inventory.provider[would_do], self._gpu_micros[would_do])
        cheapest: Integers = np.where(least > RATE_MICROS_MAX, NOT_FOR_SALE, least)[inventory.provider]
        return cheapest

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


def _rate(rates: Mapping[str, int], model: str) -> int:
    """What a whole device of a model costs; ``NOT_FOR_SALE`` where it has no price, or one too high."""
    rate = rates.get(model, NOT_FOR_SALE)
    return rate if rate <= RATE_MICROS_MAX else NOT_FOR_SALE
