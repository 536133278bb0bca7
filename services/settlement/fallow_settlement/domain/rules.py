"""What an installation decides about money: the assets it takes, its shares, its waits."""

from collections.abc import Mapping
from dataclasses import dataclass

from fallow_chassis.errors import DomainError, FieldViolation
from fallow_settlement.domain.charging import Rates
from fallow_settlement.domain.reasons import ASSET_UNKNOWN


@dataclass(frozen=True, slots=True)
class Rules:
    """Settings of money.

    ``take_basis_points``: the platform's take by asset; its keys are the assets that are taken. ``final_wait_ms``: how
    long an ended order waits for the final proofs. ``low_runway_ms``: below it an escrow is topped up, or is LOW.
    ``grace_ms``: how long an order whose funds are used up stays paused before it is ended.
    """

    take_basis_points: Mapping[str, int]
    pool_basis_points: int
    final_wait_ms: int
    low_runway_ms: int
    grace_ms: int

    @property
    def assets(self) -> tuple[str, ...]:
        """The assets that are taken, sorted."""
        return tuple(sorted(self.take_basis_points))

    def rates(self, asset: str) -> Rates:
        """The shares of a charge in an asset that is taken."""
        return Rates(self.take_basis_points[asset], self.pool_basis_points)

    def check_asset(self, asset: str, field: str) -> None:
        """Refuse an asset that is not taken; ``field`` is the path of the field that names it."""
        if asset not in self.take_basis_points:
            taken = ",".join(self.assets)
            raise DomainError(
                ASSET_UNKNOWN,
                f"the asset {asset!r} is not taken here",
                metadata={"asset": asset, "assets": taken},
                violations=(FieldViolation(field, f"{asset!r} is none of {taken}"),),
            )
