"""A provider's proof: the text that is signed, and whether the signature stands."""

from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class SignedProof:
    """The fields of a proof as they came; names with their collections (``leases/…``, ``orders/…``)."""

    lease: str
    order: str
    group: int
    generation: int
    sequence: int
    running_ms: int
    device_health: int
    final: bool
    signature: bytes


def proof_text(proof: SignedProof) -> bytes:
    """What the provider signs, in UTF-8."""
    parts = (
        "fallow-proof-v1",
        proof.lease,
        proof.order,
        proof.group,
        proof.generation,
        proof.sequence,
        proof.running_ms,
        proof.device_health,
        int(proof.final),
    )
    return "|".join(str(part) for part in parts).encode()


def is_genuine(proof: SignedProof, public_key: bytes) -> bool:
    """Whether the signature over the text is the key's; False too for a key or signature of the wrong shape."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(proof.signature, proof_text(proof))
    except (InvalidSignature, ValueError):
        return False
    return True
