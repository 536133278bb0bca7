"""Trees, proofs and leaves against OpenZeppelin's library, and what holds for any tree."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow_receipts import EMPTY_ROOT, MerkleTree, Payout, id_from_word, keccak, payout_leaf, verify_proof
from fallow_receipts.merkle import longest_proof

VECTORS = json.loads((Path(__file__).parent / "data" / "merkle_vectors.json").read_text())
# Few values, so that equal leaves are common.
LEAF = st.binary(max_size=2).map(keccak)
LEAVES = st.lists(LEAF, min_size=1, max_size=70)


def word(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def vector_leaves(tree: dict[str, Any]) -> list[bytes]:
    """The leaf hashes of a vector, computed by our own code from the values."""
    return [
        payout_leaf(
            Payout(account=id_from_word(word(account)), payee=payee, total_micros=int(total)),
            chain_id=31337,
            vault=tree["vault"],
        )
        for account, payee, total in tree["payouts"]
    ]


@pytest.mark.parametrize("tree", VECTORS["trees"], ids=lambda tree: f"{tree['count']}")
def test_trees_equal_openzeppelin(tree: dict[str, Any]) -> None:
    """Goal: leaves, roots and proofs are those of the library. Method: its output for the same values."""
    leaves = vector_leaves(tree)
    ours = MerkleTree(leaves)
    assert len(ours) == tree["count"]
    assert ours.root == word(tree["root"])
    for row in tree["proofs"]:
        assert leaves[row["index"]] == word(row["leaf"])
        assert verify_proof(leaves[row["index"]], [word(sibling) for sibling in row["proof"]], ours.root)
        # Equal leaves stand at different places of the tree: the library gives each the proof of its own place.
        assert ours.proof(row["index"]) == tuple(word(sibling) for sibling in row["proof"])


def test_vectors_cover_what_they_claim() -> None:
    """Goal: the vectors keep their odd sizes and duplicates. Method: count them."""
    counts = {tree["count"] for tree in VECTORS["trees"]}
    assert {1, 2, 3, 5, 33, 257, 1000} <= counts
    assert any(len({tuple(row) for row in tree["payouts"]}) < tree["count"] for tree in VECTORS["trees"])


@given(LEAVES)
def test_every_proof_leads_to_the_root(leaves: list[bytes]) -> None:
    """Goal: each leaf is provable. Method: any leaves, also equal ones; each proof verifies and is short enough."""
    tree = MerkleTree(leaves)
    for index, leaf in enumerate(leaves):
        proof = tree.proof(index)
        assert verify_proof(leaf, proof, tree.root)
        assert len(proof) <= longest_proof(len(leaves))


@given(LEAVES, st.randoms(use_true_random=False))
def test_the_root_does_not_depend_on_order(leaves: list[bytes], random: Any) -> None:
    """Goal: a tree is of a multiset. Method: shuffle."""
    shuffled = leaves.copy()
    random.shuffle(shuffled)
    assert MerkleTree(shuffled).root == MerkleTree(leaves).root


@given(LEAVES, LEAF)
def test_a_stranger_is_not_a_member(leaves: list[bytes], stranger: bytes) -> None:
    """Goal: no proof of one leaf serves another. Method: try every proof of a tree for a leaf that is not in it."""
    tree = MerkleTree(leaves)
    for index in range(len(leaves)):
        assert verify_proof(stranger, tree.proof(index), tree.root) == (stranger == leaves[index])


def test_an_empty_tree_has_no_members() -> None:
    """Goal: the root of nothing proves nothing. Method: its root, and proofs against it."""
    assert MerkleTree([]).root == EMPTY_ROOT
    assert not verify_proof(EMPTY_ROOT, [], EMPTY_ROOT)
    with pytest.raises(IndexError):
        MerkleTree([]).proof(0)
    with pytest.raises(IndexError):
        MerkleTree([keccak(b"")]).proof(-1)


def test_an_inner_node_is_no_leaf() -> None:
    """Goal: the shape of a tree cannot be shortened. Method: a leaf is hashed twice, so no pair of hashes makes one."""
    leaves = [
        payout_leaf(Payout("0" * 26, "0x" + "11" * 20, total), chain_id=1, vault="0x" + "22" * 20)
        for total in (1, 2, 3, 4)
    ]
    tree = MerkleTree(leaves)
    proof = tree.proof(0)
    inner = keccak(min(leaves[0], proof[0]) + max(leaves[0], proof[0]))
    # Membership of an inner node verifies in any such tree; what protects is that no leaf has such a preimage.
    assert verify_proof(inner, proof[1:], tree.root)
    assert all(keccak(keccak(min(a, b) + max(a, b))) not in leaves for a in leaves for b in leaves)
