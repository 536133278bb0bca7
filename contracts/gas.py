"""What the contracts cost, measured on the development chain: `python contracts/gas.py` prints the tables of the README.

Every figure is the gas of a mined transaction on a chain of its own in a temporary folder.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fallow_receipts import Payout
from tests.component.contracts.test_vault import TENANT_REF, claim_values
from tests.component.contracts.world import CHALLENGE_SECONDS, ESCAPE_SECONDS, House, World, header_values

ACCOUNTS = 1_000
"""Leaves of the payout tree: proofs of about 10 siblings."""
CHARGES = (1, 100, 10_000, 100_000)


def gas(receipt: Any) -> int:
    """The gas of a transaction."""
    return int(receipt["gasUsed"], 16)


def measure(world: World) -> tuple[list[tuple[str, str]], int, int]:
    """Rows of the first table; what anchoring costs, and one transfer to an old holder."""
    house = House.make(world)
    wallet = world.account("alice")
    rows: list[tuple[str, str]] = []
    first, later = gas(house.append(house.next_header())), gas(house.append(house.next_header()))
    again = gas(house.anchor.send("anchor", header_values(house.headers[1]), sender=house.anchorer))
    rows.append(("anchor, first / later / the same header again", f"{first:,} / {later:,} / {again:,}"))
    vetoed = gas(house.anchor.send("veto", header_values(house.headers[1]), sender=house.guardian))
    rows.append(("veto of a header without heirs", f"{vetoed:,}"))
    deposits = [gas(house.fund(10**9, TENANT_REF)) for _ in range(2)]
    rows.append(
        ("deposit, first of an account / later (plus an approval)", " / ".join(f"{used:,}" for used in deposits))
    )
    totals = [100, 200]
    claims = []
    for total in totals:
        payouts = [Payout(f"01k9v3d6h4m8p2q5r7s9t1{index:04d}", wallet.address, total) for index in range(ACCOUNTS)]
        balances = [Payout(payout.account, payout.payee, total + 5) for payout in payouts[:24]]
        header, tree = house.settle(payouts, balances)
        world.clock.advance(seconds=CHALLENGE_SECONDS)
        values = claim_values(header, payouts[0], tree.proof(0))
        claims.append(gas(house.vault.send("claim", *values, sender=house.owner)))
    rows.append(
        (
            f"claim, proof of {len(tree.proof(0))} siblings: first ever / later",
            " / ".join(f"{used:,}" for used in claims),
        )
    )
    world.clock.advance(seconds=ESCAPE_SECONDS)
    escape = gas(house.vault.send("escape", sender=house.owner))
    values = claim_values(header, balances[0], tree.proof(ACCOUNTS))
    held = gas(house.vault.send("claim_balance", *values, sender=house.owner))
    rows.append(("escape / claim of a balance", f"{escape:,} / {held:,}"))
    house.token.send("mint", wallet.address, 10, sender=wallet)
    transfers = [gas(house.token.send("transfer", world.account("holder").address, 1, sender=wallet)) for _ in range(2)]
    rows.append(("transfer of the test token, to a new / an old holder", " / ".join(f"{used:,}" for used in transfers)))
    huge = gas(house.append(replace(house.next_header(), count=10**12)))
    assert abs(huge - later) <= 6_000, "the cost of anchoring does not depend on the batch"
    return rows, later, transfers[1]


def main() -> int:
    """Print both tables."""
    with tempfile.TemporaryDirectory() as folder:
        rows, anchor, transfer = measure(World.make(Path(folder)))
    lines = ["| | gas |", "|---|---|", *(f"| {what} | {used} |" for what, used in rows), ""]
    lines += ["| charges in a batch | anchor gas for each | one transfer for each | |", "|---|---|---|---|"]
    for count in CHARGES:
        each = anchor / count
        times = each / transfer
        told = f"{times:.1f} times as much" if times > 1 else f"{1 / times:,.0f} times less"
        lines.append(f"| {count:,} | {each:,.1f} | {transfer:,} | {told} |")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
