"""What people read about why an order ended."""

import pytest

from fallow_bidding.convert.leases import end_detail
from fallow_bidding.domain.leases import EndReason


@pytest.mark.parametrize(
    ("reason", "caller", "told"),
    [
        (EndReason.TENANT, "services/order", "closed by its tenant"),
        (EndReason.FUNDS, "services/settlement", "its funds were used up"),
        (EndReason.EXPIRED, "services/order", "asked by services/order"),
    ],
)
def test_an_end_is_told_for_people(reason: EndReason, caller: str, told: str) -> None:
    """Goal: no service's name where the reason says it all. Method: each kind of caller."""
    assert end_detail(reason, caller) == told
