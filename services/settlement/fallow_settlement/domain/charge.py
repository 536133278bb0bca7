"""What is metered and charged: one generation of one lease, and the immutable charges made of it."""

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from fallow_chassis.ids import id_from_bytes
from fallow_settlement.domain.charging import Rates, due_micros, share_out, split_charge
from fallow_settlement.domain.metering import Meter

ATTESTED: Final = "ATTESTED"
"""Level of a charge for proven time: the provider's signed word."""
TERM: Final = "TERM"
"""Level of a charge for time that did not run, which a reserved term owes that its tenant closed early."""


@dataclass(frozen=True, slots=True)
class Metering:
    """One generation as settlement knows it: who pays whom, at what price, for how much proven time.

    Price and rates are fixed for the generation. ``charged_ms`` and ``charged_micros`` are what was charged to date.
    ``early_close_ms`` is what a reserved term owes beyond proven time because its tenant closed it early; it is charged
    once nothing more can be proven.
    """

    order_id: str
    group: int
    generation: int
    lease_id: str
    tenant_id: str
    provider_id: str
    provider_account_id: str
    provider_public_key: bytes
    asset: str
    price_micros_per_hour: int
    rates: Rates
    meter: Meter
    ready: bool = False
    ended: bool = False
    charge_sequence: int = 0
    charged_ms: int = 0
    charged_micros: int = 0
    early_close_ms: int = 0

    def __post_init__(self) -> None:
        """Hold the bounds."""
        assert len(self.provider_public_key) == 32, "an Ed25519 public key has 32 bytes"
        assert self.early_close_ms >= 0, "a term never gives time back"
        assert 0 <= self.charged_ms <= self.meter.proven_ms + self.early_close_ms, (
            "only what is proven or owed is charged"
        )
        assert self.charged_micros <= due_micros(self.price_micros_per_hour, self.charged_ms), "never more than is due"

    @property
    def due(self) -> int:
        """Micros that proven time owes and no charge has covered yet."""
        return self.due_until(self.meter.proven_ms)

    def due_until(self, running_ms: int) -> int:
        """Micros that so much running time owes and no charge has covered yet."""
        price = self.price_micros_per_hour
        return due_micros(price, max(running_ms, self.charged_ms)) - due_micros(price, self.charged_ms)

    @property
    def is_running(self) -> bool:
        """Whether it costs the tenant money now."""
        return self.ready and not self.ended and not self.meter.final

    @property
    def is_settled(self) -> bool:
        """Whether nothing more can be proven: the final proof is there, or it never ran."""
        return self.meter.final or (self.ended and not self.ready and not self.meter.recent)


@dataclass(frozen=True, slots=True)
class Charge:
    """What one generation owes for one proven interval; ``short`` is what the escrow could not pay of it."""

    id: str
    order_id: str
    group: int
    generation: int
    lease_id: str
    sequence: int
    tenant_id: str
    provider_account_id: str
    asset: str
    from_running_ms: int
    to_running_ms: int
    price_micros_per_hour: int
    amount: int
    fee: int
    pool: int
    short: int
    proof_level: str
    create_time: datetime
    batch_number: int = 0
    leaf_index: int = 0

    @property
    def provider_part(self) -> int:
        """What the provider gets."""
        return self.amount - self.fee - self.pool


def charge_id(order_id: str, group: int, generation: int, sequence: int) -> str:
    """The id of a charge, derived from what it is, so that making it twice makes the same one."""
    text = f"fallow-charge-v1|{order_id}|{group}|{generation}|{sequence}"
    return id_from_bytes(hashlib.sha256(text.encode()).digest()[:16])


def charge_all(
    meterings: tuple[Metering, ...], held: int, now: datetime, *, level: str = ATTESTED, last: bool = False
) -> tuple[tuple[Charge, ...], tuple[Metering, ...], bool]:
    """Charge all proven time of one escrow's generations out of what it holds.

    Returns the charges, the generations they changed, and whether the funds fell short. Where the funds do not cover all dues,
    the generations share them pro rata. Nothing is charged to an escrow that holds nothing, because a top-up may come; only
    the ``last`` charges of an escrow say what is short in full. With the level ``TERM`` what terms that were closed early owe
    is charged, after all that was proven.
    """
    extra = {metering.lease_id: metering.early_close_ms if level == TERM else 0 for metering in meterings}
    ends = tuple(metering.meter.proven_ms + extra[metering.lease_id] for metering in meterings)
    dues = tuple(metering.due_until(end_ms) for metering, end_ms in zip(meterings, ends, strict=True))
    short = sum(dues) > held
    if held == 0 and not last:
        return (), (), short
    charges: list[Charge] = []
    changed: list[Metering] = []
    for metering, end_ms, due, amount in zip(meterings, ends, dues, share_out(held, dues), strict=True):
        if due == 0:
            continue
        parts = split_charge(metering.charged_micros, amount, metering.rates)
        sequence = metering.charge_sequence + 1
        charges.append(
            Charge(
                id=charge_id(metering.order_id, metering.group, metering.generation, sequence),
                order_id=metering.order_id,
                group=metering.group,
                generation=metering.generation,
                lease_id=metering.lease_id,
                sequence=sequence,
                tenant_id=metering.tenant_id,
                provider_account_id=metering.provider_account_id,
                asset=metering.asset,
                from_running_ms=metering.charged_ms,
                to_running_ms=end_ms,
                price_micros_per_hour=metering.price_micros_per_hour,
                amount=amount,
                fee=parts.fee,
                pool=parts.pool,
                short=due - amount,
                proof_level=level,
                create_time=now,
            )
        )
        changed.append(
            replace(
                metering,
                charge_sequence=sequence,
                charged_ms=end_ms,
                charged_micros=metering.charged_micros + amount,
            )
        )
    assert sum(charge.amount for charge in charges) <= held, "never beyond the escrow"
    return tuple(charges), tuple(changed), short
