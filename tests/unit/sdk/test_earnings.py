"""What charges earned: sums by day, month and lease, and what is left out."""

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from fallow.settlement.v1 import charge_pb2
from fallow.type.v1 import money_pb2
from fallow_sdk.commands.provider_site import earnings_table
from fallow_sdk.earnings import Earning, Span, add_up, totals

ME = "accounts/me"


def charge(lease: str, posted: str, amount: int, *, owner: str = ME, asset: str = "usdc") -> charge_pb2.Charge:
    """A charge for one second, of which a tenth is the fee and a hundredth the pool's."""
    time = Timestamp()
    time.FromJsonString(posted)
    return charge_pb2.Charge(
        lease=lease,
        provider_account=owner,
        from_running_ms=1_000,
        to_running_ms=2_000,
        amount=money_pb2.Amount(asset=asset, micros=amount),
        fee=money_pb2.Amount(asset=asset, micros=amount // 10),
        pool=money_pb2.Amount(asset=asset, micros=amount // 100),
        create_time=time,
    )


CHARGES = [
    charge("leases/b", "2026-03-01T00:00:00Z", 1_000),
    charge("leases/b", "2026-02-28T23:59:59.999Z", 200),
    charge("leases/a", "2026-02-28T12:00:00Z", 300),
    charge("leases/c", "2026-02-28T12:00:00Z", 5_000, owner="accounts/other"),
    charge("leases/a", "2026-02-01T12:00:00Z", 400, asset="fal"),
]


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        (Span.DAY, [("2026-03-01", "usdc", 890), ("2026-02-28", "usdc", 445), ("2026-02-01", "fal", 356)]),
        (Span.MONTH, [("2026-03", "usdc", 890), ("2026-02", "usdc", 445), ("2026-02", "fal", 356)]),
        (Span.LEASE, [("leases/b", "usdc", 1_068), ("leases/a", "usdc", 267), ("leases/a", "fal", 356)]),
    ],
)
def test_sums(span: Span, expected: list[tuple[str, str, int]]) -> None:
    """Goal: each charge of the owner counts once, in its asset, others' never. Method: charges around midnight, of two owners."""
    lines = add_up(CHARGES, ME, span)
    assert [(line.key, line.asset, line.earned_micros) for line in lines] == expected
    assert sum(line.charges for line in lines) == 4
    assert sum(line.running_ms for line in lines) == 4_000


def test_the_total_of_each_asset() -> None:
    """Goal: the last lines of the table are the sums. Method: add up the lines above, and look at the table."""
    lines = add_up(CHARGES, ME, Span.DAY)
    assert totals(lines) == [
        Earning("total", "usdc", 3, 3_000, 1_500, 150, 15),
        Earning("total", "fal", 1, 1_000, 400, 40, 4),
    ]
    assert lines[0].as_dict()["earned_micros"] == 890
    assert list(earnings_table(lines, Span.DAY).columns[5].cells)[-2:] == ["0.001335 USDC", "0.000356 FAL"]
