"""The text that a provider signs: the contract's ``Proof.signature`` says its form."""

from typing import Final

from fallow_provider.domain.run import ProofFacts

VERSION: Final = "fallow-proof-v1"


def proof_text(facts: ProofFacts) -> bytes:
    """The signed text of a proof, UTF-8; the same facts always make the same bytes."""
    parts = (
        VERSION,
        facts.lease,
        facts.key.order,
        str(facts.key.group),
        str(facts.key.generation),
        str(facts.sequence),
        str(facts.running_ms),
        str(facts.device_health),
        "1" if facts.is_final else "0",
    )
    assert not any("|" in part for part in parts), "a part must not hold the separator"
    return "|".join(parts).encode("utf-8")
