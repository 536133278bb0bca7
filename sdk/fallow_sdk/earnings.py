"""What charges earned a provider's owner, added up by day, by lease or by month. Pure: charges in, sums out, all in micros.

Of a charge the owner has the amount without the platform's fee and the community pool's part; these three add up to it.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from fallow.settlement.v1 import charge_pb2


class Span(StrEnum):
    """What the charges of one line have in common."""

    DAY = "day"
    LEASE = "lease"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class Earning:
    """One line: the sums of its charges, in one asset. ``key`` is a day, a month, or a lease."""

    key: str
    asset: str
    charges: int = 0
    running_ms: int = 0
    charged_micros: int = 0
    fee_micros: int = 0
    pool_micros: int = 0

    @property
    def earned_micros(self) -> int:
        """The owner's part."""
        return self.charged_micros - self.fee_micros - self.pool_micros

    def with_charge(self, charge: charge_pb2.Charge) -> "Earning":
        """The line with one charge more."""
        return replace(
            self,
            charges=self.charges + 1,
            running_ms=self.running_ms + charge.to_running_ms - charge.from_running_ms,
            charged_micros=self.charged_micros + charge.amount.micros,
            fee_micros=self.fee_micros + charge.fee.micros,
            pool_micros=self.pool_micros + charge.pool.micros,
        )

    def as_dict(self) -> dict[str, Any]:
        """The line for programs."""
        return {**asdict(self), "earned_micros": self.earned_micros}


def add_up(charges: Iterable[charge_pb2.Charge], account: str, span: Span) -> list[Earning]:
    """The lines of what ``account`` earned, newest first; what it paid as a tenant is left out.

    Charges come newest first. A day and a month are UTC's, by when the charge was posted.
    """
    lines: dict[tuple[str, str], Earning] = {}
    for charge in charges:
        if charge.provider_account == account:
            key = (_key(charge, span), charge.amount.asset)
            lines[key] = lines.get(key, Earning(*key)).with_charge(charge)
    return list(lines.values())


def totals(lines: Iterable[Earning]) -> list[Earning]:
    """One line an asset."""
    found: dict[str, Earning] = {}
    for line in lines:
        before = found.get(line.asset, Earning("total", line.asset))
        found[line.asset] = replace(
            before,
            charges=before.charges + line.charges,
            running_ms=before.running_ms + line.running_ms,
            charged_micros=before.charged_micros + line.charged_micros,
            fee_micros=before.fee_micros + line.fee_micros,
            pool_micros=before.pool_micros + line.pool_micros,
        )
    return list(found.values())


def _key(charge: charge_pb2.Charge, span: Span) -> str:
    """The line that a charge belongs to."""
    if span is Span.LEASE:
        return charge.lease
    posted = datetime.fromtimestamp(charge.create_time.seconds, UTC)
    return posted.strftime("%Y-%m-%d" if span is Span.DAY else "%Y-%m")
