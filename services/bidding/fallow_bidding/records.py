"""Decisions of the market as files: what each followed from, and what it was. ``fallow market replay`` decides again.

A file holds the order's demand, all suppliers with what was free at that instant, the mix and what slots cost; a decision is
a function of these alone.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import TypeAdapter

from fallow_bidding.domain.demand import OrderDemand
from fallow_bidding.domain.engine.mix import Snapshot
from fallow_bidding.domain.matching import Decision, Market, decide
from fallow_bidding.domain.supply import Supplier
from fallow_chassis.logging import get_logger

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """One decision with its inputs."""

    order: OrderDemand
    suppliers: tuple[Supplier, ...]
    mix: Snapshot
    slot_prices: list[list[float]] | None
    decision: Decision


RECORD: Final = TypeAdapter(DecisionRecord)
_DECISION: Final = TypeAdapter(Decision)


class DecisionFolder:
    """Decides, and keeps decisions in a folder: ``<order>.json``, then ``<order>.2.json``, and so on.

    One that matched nothing gives its place to the next, however often an order is looked at; one that did stays.
    """

    def __init__(self, folder: Path) -> None:
        """The folder is made where it is not there."""
        self._folder = folder
        self._places: dict[str, int] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def decide(self, order: OrderDemand, market: Market) -> Decision:
        """As ``matching.decide``; leaves a file named for the order."""
        suppliers, prices = market.present(), market.placer.slot_prices()
        mix = market.placer.mix
        decision = decide(order, market)
        kept = None if prices is None else prices.tolist()
        record = DecisionRecord(order, suppliers, mix, kept, decision)
        assert Path(order.order_id).name == order.order_id, "an order's id is no path"
        try:
            self._keep(order.order_id, record)
        except OSError as error:
            # A record that cannot be kept (the folder has gone, the disk is full) holds up no order.
            _log.error("decision_not_kept", order=order.order_id, error=str(error))
        return decision

    def _keep(self, order_id: str, record: DecisionRecord) -> None:
        """Write a record in its place, whole or not at all."""
        place = self._places.get(order_id) or self._free_place(order_id)
        draft = self._folder / f"{order_id}.json.draft"
        draft.write_bytes(RECORD.dump_json(record))
        draft.replace(self._path(order_id, place))
        if record.decision.matches:
            self._places.pop(order_id, None)
        else:
            self._places[order_id] = place

    def _free_place(self, order_id: str) -> int:
        """The first place that no decision has, or that of one that matched nothing."""
        place = 1
        while (path := self._path(order_id, place)).exists():
            if not RECORD.validate_json(path.read_bytes()).decision.matches:
                break
            place += 1
        return place

    def _path(self, order_id: str, place: int) -> Path:
        """The file of one decision about an order."""
        return self._folder / (f"{order_id}.json" if place == 1 else f"{order_id}.{place}.json")


def replay(record: DecisionRecord) -> Decision:
    """Decide again from what a record holds."""
    prices = None
    if record.slot_prices is not None:
        prices = np.array(record.slot_prices, np.float64).reshape(len(record.slot_prices), -1)
    return decide(record.order, Market(record.suppliers, mix=record.mix, slot_prices=prices))


def plain(decision: Decision) -> dict[str, Any]:
    """A decision in plain values, as a file has it: the form in which two are compared."""
    shown: dict[str, Any] = _DECISION.dump_python(decision, mode="json")
    return shown
