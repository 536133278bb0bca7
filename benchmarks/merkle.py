"""How long the roots of a batch take, and a proof: leaves, tree, proofs and their verification, in one thread.

    python -m benchmarks.merkle [--charges 100000] [--rounds 3]

The ceiling is what the bytes cost that must be hashed: one keccak-256 of a leaf's words, one of its hash, and one of two
hashes for each parent, over bytes that are there already. Rounds take turns; each figure is the median. The last line is
one JSON object.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from tiny_keccak import keccak256

from fallow_receipts import ATTESTED, Charge, MerkleTree, charge_leaf, due_micros, verify_proof
from fallow_receipts.leaves import charge_words
from fallow_receipts.words import WORD_BYTES

PROOFS = 2_000
PRICE = 346_250


def charges(count: int) -> list[Charge]:
    """Charges as a busy market makes them."""
    made = []
    for number in range(count):
        start, end = number % 977 * 1_000, number % 977 * 1_000 + 60_000
        amount = due_micros(PRICE, start, end)
        made.append(
            Charge(
                charge_id=f"{number:026d}",
                order_id=f"{number // 3:026d}",
                group=number % 3,
                generation=1,
                sequence=number % 977 + 1,
                tenant=f"{number % 501:026d}",
                provider=f"{number % 97:026d}",
                asset="usdc",
                from_running_ms=start,
                to_running_ms=end,
                price_micros_per_hour=PRICE,
                amount_micros=amount,
                fee_micros=amount // 5,
                pool_micros=amount // 50,
                evidence=ATTESTED,
            )
        )
    return made


def seconds(work: Callable[[], object]) -> float:
    """Processor time of this process for some work."""
    start = time.process_time()
    work()
    return time.process_time() - start


def one_round(listed: Sequence[Charge]) -> dict[str, float]:
    """Processor seconds of each part; a proof and its verification by the one."""
    made: list[Any] = []
    spent = {
        "leaves": seconds(
            lambda: made.append([charge_leaf(charge, batch_id=1, index=index) for index, charge in enumerate(listed)])
        )
    }
    leaves = made.pop()
    spent["tree"] = seconds(lambda: made.append(MerkleTree(leaves)))
    tree = made.pop()
    places = [index * (len(listed) - 1) // PROOFS for index in range(PROOFS)]
    spent["proof"] = seconds(lambda: made.append([tree.proof(place) for place in places])) / PROOFS
    proofs = [(leaves[place], proof) for place, proof in zip(places, made.pop(), strict=True)]
    spent["verify"] = (
        seconds(lambda: made.append(all(verify_proof(leaf, proof, tree.root) for leaf, proof in proofs))) / PROOFS
    )
    if not made.pop():
        raise SystemExit("a proof does not hold")
    words, pair = charge_words(listed[0], batch_id=1, index=0), bytes(2 * WORD_BYTES)
    spent["ceiling"] = seconds(
        lambda: [(keccak256(words), keccak256(pair[:WORD_BYTES]), keccak256(pair)) for _ in listed]
    )
    return spent


def main() -> int:
    """Measure, print a line for each round and the result last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--charges", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if not 1 <= options.charges <= 2_000_000 or not 1 <= options.rounds <= 100:
        parser.error("1 to 2,000,000 charges, 1 to 100 rounds")
    listed = charges(options.charges)
    found: dict[str, list[float]] = {name: [] for name in ("leaves", "tree", "proof", "verify", "ceiling")}
    for number in range(options.rounds):
        for name, value in one_round(listed).items():
            found[name].append(value)
        sys.stdout.write(f"round {number + 1}: leaves {found['leaves'][-1]:.3f} s, tree {found['tree'][-1]:.3f} s\n")
    medians = {name: statistics.median(values) for name, values in found.items()}
    root_seconds = medians["leaves"] + medians["tree"]
    result = {
        "charges": options.charges,
        "root_seconds": round(root_seconds, 3),
        "leaves_seconds": round(medians["leaves"], 3),
        "tree_seconds": round(medians["tree"], 3),
        "proof_ms": round(medians["proof"] * 1_000, 4),
        "verify_ms": round(medians["verify"] * 1_000, 4),
        "ceiling_seconds": round(medians["ceiling"], 3),
        "ratio": round(medians["ceiling"] / root_seconds, 2),
        "rounds": options.rounds,
    }
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
