"""Which proofs are taken: a table in the documented order of precedence."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fallow_bidding.domain.leases import GenerationKey, ProofMark
from fallow_bidding.domain.proofs import (
    FOREIGN_LEASE,
    GENERATION_OLD,
    NOT_GROWING,
    SIGNATURE_INVALID,
    ProofClaim,
    Refusal,
    judge_proofs,
)
from fallow_bidding.signatures import verifies
from tests.unit.bidding.market import reserved_lease

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC_KEY = KEY.public_key().public_bytes_raw()
LEASE = replace(reserved_lease(GenerationKey("order", 1, 3), NOW), proof=ProofMark(5, 10_000, final=False))


def _verifies(signature: bytes, text: bytes) -> bool:
    """The provider's key."""
    return verifies(PUBLIC_KEY, signature, text)


def _claim(*, signed: bool = True, **fields: object) -> ProofClaim:
    """The next good proof, unless the fields say otherwise; signed as it then stands."""
    bare = replace(
        ProofClaim(0, "lease", LEASE.key, 6, 11_000, device_health=1, final=False, signature=b""),
        **fields,  # type: ignore[arg-type]
    )
    return replace(bare, signature=KEY.sign(bare.text.encode()) if signed else bytes(64))


TABLE = [
    ("the next one", _claim(), ""),
    ("no more running time, but a new number", _claim(running_ms=10_000), ""),
    ("the last one again", _claim(sequence=5, running_ms=10_000), ""),
    ("another number skipped", _claim(sequence=60), ""),
    ("an unknown lease", _claim(lease_id="other"), FOREIGN_LEASE),
    ("another order", _claim(key=GenerationKey("other", 1, 3)), FOREIGN_LEASE),
    ("another group", _claim(key=GenerationKey("order", 2, 3)), FOREIGN_LEASE),
    ("a generation that was never made", _claim(key=GenerationKey("order", 1, 4)), FOREIGN_LEASE),
    ("an older generation", _claim(key=GenerationKey("order", 1, 2)), GENERATION_OLD),
    (
        "an older generation goes before a bad signature",
        _claim(signed=False, key=GenerationKey("order", 1, 2)),
        GENERATION_OLD,
    ),
    ("no signature", _claim(signed=False), SIGNATURE_INVALID),
    ("a bad signature goes before no growth", _claim(signed=False, sequence=1), SIGNATURE_INVALID),
    ("a forged time", replace(_claim(), running_ms=99_000), SIGNATURE_INVALID),
    ("a forged end", replace(_claim(), final=True), SIGNATURE_INVALID),
    ("a forged health", replace(_claim(), device_health=0), SIGNATURE_INVALID),
    ("a short signature", replace(_claim(), signature=b"x"), SIGNATURE_INVALID),
    ("an older number", _claim(sequence=4), NOT_GROWING),
    ("the same number with other content", _claim(sequence=5, running_ms=10_001), NOT_GROWING),
    ("less running time", _claim(running_ms=9_999), NOT_GROWING),
]


@pytest.mark.parametrize(("why", "claim", "reason"), TABLE)
def test_a_proof_is_judged(why: str, claim: ProofClaim, reason: str) -> None:
    """Goal: forged, foreign, old and shrinking proofs are refused, each with its reason. Method: one proof at a time
    against a lease whose last one was number 5 with 10,000 ms.
    """
    verdict = judge_proofs("provider", [claim], {"lease": LEASE}, _verifies)
    assert [refusal.reason for refusal in verdict.refusals] == ([reason] if reason else []), why
    is_repeat = claim.sequence == 5 and not reason
    assert len(verdict.taken) == (0 if reason or is_repeat else 1)
    assert dict(verdict.marks) == (
        {"lease": ProofMark(claim.sequence, claim.running_ms, claim.final)} if verdict.taken else {}
    )


def test_another_provider_cannot_prove_it() -> None:
    """Goal: a lease belongs to one provider. Method: the same good proof from another."""
    verdict = judge_proofs("thief", [_claim()], {"lease": LEASE}, _verifies)
    assert verdict.refusals == (Refusal("lease", 6, FOREIGN_LEASE),)
    assert verdict.taken == ()


def test_proofs_of_one_heartbeat_follow_each_other() -> None:
    """Goal: proofs are held against those before them in the same heartbeat, and nothing comes after the final one.
    Method: a run of proofs, the final one, its repeat, and another.
    """
    claims = [
        _claim(position=0, sequence=6),
        _claim(position=1, sequence=6),
        _claim(position=2, sequence=7, running_ms=10_500),
        _claim(position=3, sequence=8, running_ms=12_000, final=True),
        _claim(position=4, sequence=8, running_ms=12_000, final=True),
        _claim(position=5, sequence=9, running_ms=13_000),
    ]
    verdict = judge_proofs("provider", claims, {"lease": LEASE}, _verifies)
    assert [claim.position for claim in verdict.taken] == [0, 3]
    assert [(refusal.sequence, refusal.reason) for refusal in verdict.refusals] == [(7, NOT_GROWING), (9, NOT_GROWING)]
    assert verdict.marks == {"lease": ProofMark(8, 12_000, final=True)}


def test_the_signed_text_is_the_contract() -> None:
    """Goal: the text is byte for byte what the contract's comment says. Method: write it out."""
    text = "fallow-proof-v1|leases/lease|orders/order|1|3|6|11000|1|0"
    assert _claim().text == text
    assert replace(_claim(), final=True).text == text[:-1] + "1"
