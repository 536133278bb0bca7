"""What the contracts cost, measured on the development chain: `make gas` writes the tables of the README.

Every figure is the gas of a mined transaction on a chain of its own in a temporary folder. It varies by a few dozen with the bytes
of addresses and hashes, because a byte that is zero costs less.
"""

import re
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fallow_receipts import MerkleTree, Payout, keccak
from tests.component.contracts.test_vault import TENANT_REF, claim_values
from tests.component.contracts.world import CHALLENGE_SECONDS, ESCAPE_SECONDS, House, World, header_values

ACCOUNTS = 1_000
"""Leaves of the payout tree: proofs of about 10 siblings."""
CHARGES = (1, 100, 10_000, 100_000)
README = Path(__file__).with_name("README.md")
BEGIN = "<!-- written by contracts/gas.py -->\n"
END = "<!-- end -->\n"
FIGURE = re.compile(r"\d[\d,]*(?:\.\d+)?")


def gas(receipt: Any) -> int:
    """The gas of a transaction."""
    return int(receipt["gasUsed"], 16)


def measure(world: World) -> tuple[list[tuple[str, str]], int]:
    """Rows of the first table, and what one transfer to an old holder costs."""
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
    return rows, transfers[1]


def anchors(world: World) -> list[int]:
    """What anchoring a batch of each size of ``CHARGES`` takes, with the root of a tree of so many leaves."""
    house = House.make(world)
    house.append(house.next_header())
    used = []
    for count in CHARGES:
        root = MerkleTree([keccak(index.to_bytes(32)) for index in range(count)]).root
        header = replace(house.next_header(settlement_root=root), count=count, payout_total=10**12)
        used.append(gas(house.append(header)))
    return used


def tables() -> str:
    """Both tables, measured now."""
    with tempfile.TemporaryDirectory() as folder:
        world = World.make(Path(folder))
        rows, transfer = measure(world)
        anchored = anchors(world)
        world.store.close()
    lines = ["| | gas |", "|---|---|", *(f"| {what} | {used} |" for what, used in rows), ""]
    lines += [
        "| charges in a batch | gas of its anchor | for each charge | one transfer for each | |",
        "|---|---|---|---|---|",
    ]
    for count, used in zip(CHARGES, anchored, strict=True):
        each = used / count
        times = each / transfer
        told = f"{times:.1f} times as much" if times > 1 else f"{1 / times:,.0f} times less"
        lines.append(f"| {count:,} | {used:,} | {each:,.1f} | {transfer:,} | {told} |")
    return "\n".join(lines) + "\n"


def parts() -> tuple[str, str, str]:
    """The README before the tables, the tables, and what comes after them."""
    before, begin, rest = README.read_text("utf-8").partition(BEGIN)
    written, end, after = rest.partition(END)
    assert begin, f"{README} lacks {BEGIN}"
    assert end, f"{README} lacks {END}"
    return before + begin, written, end + after


def differences(written: str, measured: str) -> list[str]:
    """A sentence for each line whose words are others, or whose figures are more than 1 % off."""
    rows, wanted = written.splitlines(), measured.splitlines()
    if len(rows) != len(wanted):
        return [f"the tables have {len(rows)} lines, not {len(wanted)}"]
    return [
        f"{row!r} should be {want!r}"
        for row, want in zip(rows, wanted, strict=True)
        if FIGURE.sub("", row) != FIGURE.sub("", want)
        or any(abs(one - other) > other / 100 for one, other in zip(figures(row), figures(want), strict=True))
    ]


def figures(row: str) -> list[float]:
    """The numbers of a row."""
    return [float(number.replace(",", "")) for number in FIGURE.findall(row)]


def main() -> int:
    """Write both tables into the README."""
    measured = tables()
    before, _, after = parts()
    README.write_text(before + measured + after, "utf-8")
    sys.stdout.write(measured)
    return 0


if __name__ == "__main__":
    sys.exit(main())
