"""A receipt over a small batch, and what a reader would trust."""

import pytest

from fallow_receipts import Anchor, Charge, Header, MerkleTree, Receipt, charge_leaf, keccak

CHAIN_ID = 31337
ANCHOR = "0x" + "ab" * 20


def charge_number(number: int) -> Charge:
    """A sound charge that differs from its neighbours."""
    return Charge(
        charge_id=f"01k9v3d6h4m8p2q5r7s9t1v3{number:02d}",
        order_id="01k9v3d6h4m8p2q5r7s9t1v3wx",
        group=0,
        generation=1 + number,
        sequence=7,
        tenant="01k9v3d6h4m8p2q5r7s9t1aaaa",
        provider="01k9v3d6h4m8p2q5r7s9t1bbbb",
        asset="usdc",
        from_running_ms=1_001,
        to_running_ms=61_002,
        price_micros_per_hour=1_800_000,
        amount_micros=30_001,
        fee_micros=6_000,
        pool_micros=12,
        evidence="PROBED",
    )


@pytest.fixture
def receipt() -> Receipt:
    """The receipt of the third of five charges."""
    charges = [charge_number(number) for number in range(5)]
    tree = MerkleTree([charge_leaf(charge, batch_id=3, index=index) for index, charge in enumerate(charges)])
    header = Header(
        batch_id=3,
        prev=keccak(b"the batch before"),
        payout_parent=1,
        settlement_root=tree.root,
        payout_root=keccak(b"payouts"),
        count=len(charges),
        payout_total=150_000,
        totals_hash=keccak(b"totals"),
    )
    return Receipt(
        charge=charges[2],
        index=2,
        proof=tree.proof(2),
        header=header,
        anchor=Anchor(chain_id=CHAIN_ID, contract=ANCHOR, transaction="0x" + "12" * 32),
    )
