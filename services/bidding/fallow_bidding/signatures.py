"""Signatures of providers and of auditors: Ed25519, and EIP-191 by an EVM key."""

from typing import Final

import coincurve
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sha3 import keccak_256

from fallow_bidding.domain.audits import ED25519_PREFIX

EVM_SIGNATURE_BYTES: Final = 65
_RECOVERY_IDS: Final = {0: 0, 1: 1, 27: 0, 28: 1}
"""What wallets write as v, and the bit that it means."""


def verifies(public_key: bytes, signature: bytes, text: bytes) -> bool:
    """Whether the owner of a public key (32 bytes) signed a text."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, text)
    except (InvalidSignature, ValueError):
        return False
    return True


def auditor_signed(auditor: str, signature: bytes, text: str) -> bool:
    """Whether an auditor (an id in lower case, see ``domain/audits.py``) signed a text."""
    if auditor.startswith(ED25519_PREFIX):
        return verifies(bytes.fromhex(auditor.removeprefix(ED25519_PREFIX)), signature, text.encode())
    return _evm_signer(signature, text.encode()) == auditor


def _evm_signer(signature: bytes, text: bytes) -> str | None:
    """The address, in lower case, whose key made an EIP-191 signature of a text; None where it is no signature."""
    if len(signature) != EVM_SIGNATURE_BYTES or signature[-1] not in _RECOVERY_IDS:
        return None
    recoverable = signature[:-1] + bytes([_RECOVERY_IDS[signature[-1]]])
    digest = keccak_256(b"\x19Ethereum Signed Message:\n%d" % len(text) + text).digest()
    try:
        key = coincurve.PublicKey.from_signature_and_message(recoverable, digest, hasher=None)
    except ValueError:
        return None
    return f"0x{keccak_256(key.format(compressed=False)[1:]).digest()[-20:].hex()}"
