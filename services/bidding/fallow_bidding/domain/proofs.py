"""Which proofs of a heartbeat are taken.

A proof is refused, in this order of precedence, when its lease is unknown or another provider's
(``PROOF_FOREIGN_LEASE``), when its generation is below the lease's (``PROOF_GENERATION_OLD``), when the provider's
registered key did not sign it (``PROOF_SIGNATURE_INVALID``), and when it does not grow (``PROOF_NOT_GROWING``): a
lower sequence, the same one with other content, less running time, or anything after the final one. The last proof
sent again is neither refused nor counted twice. How much of the growth is paid is settlement's question.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fallow_bidding.domain.leases import GenerationKey, Lease, ProofMark

FOREIGN_LEASE: Final = "PROOF_FOREIGN_LEASE"
GENERATION_OLD: Final = "PROOF_GENERATION_OLD"
SIGNATURE_INVALID: Final = "PROOF_SIGNATURE_INVALID"
NOT_GROWING: Final = "PROOF_NOT_GROWING"


@dataclass(frozen=True, slots=True)
class ProofClaim:
    """A proof as it came; ``position`` is its place in the heartbeat, ``device_health`` the number on the wire."""

    position: int
    lease_id: str
    key: GenerationKey
    sequence: int
    running_ms: int
    device_health: int
    final: bool
    signature: bytes

    @property
    def text(self) -> str:
        """What the provider signed."""
        return (
            f"fallow-proof-v1|leases/{self.lease_id}|orders/{self.key.order_id}|{self.key.group}|{self.key.generation}"
            f"|{self.sequence}|{self.running_ms}|{self.device_health}|{int(self.final)}"
        )


@dataclass(frozen=True, slots=True)
class Refusal:
    """A proof that was not taken, and why."""

    lease_id: str
    sequence: int
    reason: str


@dataclass(frozen=True, slots=True)
class ProofVerdict:
    """What became of the proofs of one heartbeat: those taken, by their position, and each lease's new mark."""

    taken: tuple[ProofClaim, ...]
    refusals: tuple[Refusal, ...]
    marks: Mapping[str, ProofMark]


def judge_proofs(
    provider_id: str,
    claims: Sequence[ProofClaim],
    leases: Mapping[str, Lease],
    verifies: Callable[[bytes, bytes], bool],
) -> ProofVerdict:
    """Judge proofs in the order in which they came; ``verifies(signature, text)`` checks the provider's key."""
    marks: dict[str, ProofMark] = {}
    taken: list[ProofClaim] = []
    refusals: list[Refusal] = []
    for claim in claims:
        lease = leases.get(claim.lease_id)
        mark = marks.get(claim.lease_id) or (ProofMark() if lease is None else lease.proof)
        reason = _refusal(provider_id, claim, lease, mark, verifies)
        if reason:
            refusals.append(Refusal(claim.lease_id, claim.sequence, reason))
        elif not _is_repeat(claim, mark):
            marks[claim.lease_id] = ProofMark(claim.sequence, claim.running_ms, claim.final)
            taken.append(claim)
    return ProofVerdict(tuple(taken), tuple(refusals), marks)


def _refusal(
    provider_id: str,
    claim: ProofClaim,
    lease: Lease | None,
    mark: ProofMark,
    verifies: Callable[[bytes, bytes], bool],
) -> str:
    """Why a proof is refused, or nothing; the checks stand in the documented order."""
    if lease is None or lease.provider_id != provider_id:
        return FOREIGN_LEASE
    if (claim.key.order_id, claim.key.group) != (lease.key.order_id, lease.key.group):
        return FOREIGN_LEASE
    if claim.key.generation > lease.key.generation:
        return FOREIGN_LEASE
    if claim.key.generation < lease.key.generation:
        return GENERATION_OLD
    if not verifies(claim.signature, claim.text.encode()):
        return SIGNATURE_INVALID
    if _is_repeat(claim, mark):
        return ""
    if mark.final or claim.sequence <= mark.sequence or claim.running_ms < mark.running_ms:
        return NOT_GROWING
    return ""


def _is_repeat(claim: ProofClaim, mark: ProofMark) -> bool:
    """Whether a proof is the last one again."""
    return mark.sequence > 0 and mark == ProofMark(claim.sequence, claim.running_ms, claim.final)
