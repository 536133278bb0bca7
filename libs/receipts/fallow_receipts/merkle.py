"""Merkle trees in the format of OpenZeppelin's StandardMerkleTree.

The tree is a complete binary tree in one array (children of i at 2i+1 and 2i+2), leaves sorted by hash and laid from
the end, each parent the keccak-256 of its two children in ascending order. So a proof is a list of siblings without
sides, and any tool that knows OpenZeppelin's library, or the contract, can check it. Such a proof shows membership and
not position: a leaf that must be unique holds its own index. A leaf is hashed twice (see leaves.py), therefore no inner
node of 64 bytes can be passed off as a leaf.
"""

from collections.abc import Sequence
from typing import Final

from tiny_keccak import keccak256

from fallow_receipts.words import WORD_BYTES

# What a header holds for a tree without leaves: no proof leads there.
EMPTY_ROOT: Final = bytes(WORD_BYTES)
# A proof longer than this would stand for more leaves than an index can name.
PROOF_LENGTH_MAX: Final = 64


def pair_hash(first: bytes, second: bytes) -> bytes:
    """Return the parent of two nodes, which does not depend on their order."""
    return keccak256(first + second if first < second else second + first)


class MerkleTree:
    """The tree over the leaf hashes given, 32 bytes each, in any order; duplicates are allowed.

    `proof(i)` is the proof of `leaves[i]`. Building hashes once per leaf; a proof reads the logarithm of that.
    """

    __slots__ = ("_nodes", "_positions")

    def __init__(self, leaves: Sequence[bytes]) -> None:
        assert all(len(leaf) == WORD_BYTES for leaf in leaves), "a leaf is 32 bytes"
        count = len(leaves)
        nodes = [b""] * max(2 * count - 1, 0)
        positions = [0] * count
        for rank, index in enumerate(sorted(range(count), key=leaves.__getitem__)):
            position = 2 * count - 2 - rank
            nodes[position] = leaves[index]
            positions[index] = position
        for position in range(count - 2, -1, -1):
            left, right = nodes[2 * position + 1], nodes[2 * position + 2]
            nodes[position] = keccak256(left + right if left < right else right + left)
        self._nodes = nodes
        self._positions = positions

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def root(self) -> bytes:
        """The root, or EMPTY_ROOT where there are no leaves."""
        return self._nodes[0] if self._nodes else EMPTY_ROOT

    def proof(self, index: int) -> tuple[bytes, ...]:
        """Return the siblings from the leaf at `index` up to the root; empty for a tree of one leaf."""
        if not 0 <= index < len(self._positions):
            raise IndexError(f"no leaf {index} in a tree of {len(self._positions)}")
        position = self._positions[index]
        siblings = []
        while position > 0:
            siblings.append(self._nodes[position + 1 if position % 2 else position - 1])
            position = (position - 1) // 2
        return tuple(siblings)


def root_of_proof(leaf: bytes, proof: Sequence[bytes]) -> bytes:
    """Return the root that a leaf and its proof lead to."""
    node = leaf
    for sibling in proof:
        node = pair_hash(node, sibling)
    return node


def verify_proof(leaf: bytes, proof: Sequence[bytes], root: bytes) -> bool:
    """Tell whether the proof leads from the leaf to the root. The empty root has no members."""
    return root != EMPTY_ROOT and len(proof) <= PROOF_LENGTH_MAX and root_of_proof(leaf, proof) == root


def longest_proof(count: int) -> int:
    """Return the length of the longest proof in a tree of `count` leaves."""
    assert count >= 1, count
    return (count - 1).bit_length()
