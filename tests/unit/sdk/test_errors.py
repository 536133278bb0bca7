"""A refusal as the command shows it."""

import grpc

from fallow_chassis.errors import DomainError, ErrorReason, FieldViolation
from fallow_chassis.status_details import DETAILS_HEADER, to_status
from fallow_sdk.errors import FallowError

REFUSED = DomainError(
    ErrorReason("INSUFFICIENT_FUNDS", "FAILED_PRECONDITION", "Too little.", "Deposit."),
    "the free balance is 1 micros of usdc, and 3 are needed",
    metadata={"short_micros": "2"},
    violations=(FieldViolation("accounts/a/balances/usdc", "2 micros are short"),),
)


def test_a_refusal_tells_code_reason_place_and_facts() -> None:
    """Goal: who reads the command's error knows what to do. Method: an error as a server sends it, as the SDK reads it."""
    status = to_status(REFUSED)
    sent = grpc.aio.AioRpcError(
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.aio.Metadata(),
        grpc.aio.Metadata((DETAILS_HEADER, status.SerializeToString())),
        details=status.message,
    )
    assert str(FallowError.from_rpc(sent)).splitlines() == [
        "INSUFFICIENT_FUNDS (FAILED_PRECONDITION): the free balance is 1 micros of usdc, and 3 are needed",
        "  accounts/a/balances/usdc: 2 micros are short",
        "  short_micros = 2",
        "  Deposit.",
    ]
    assert str(FallowError("UNAVAILABLE", "", "nobody there")) == "UNAVAILABLE: nobody there"
