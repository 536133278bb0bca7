"""Leaves, Merkle trees, proofs and offline verification of receipts."""
