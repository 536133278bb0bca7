"""Auditors' words for a provider's attributes: the text that is signed, who counts as an auditor, and what still holds.

The text names the provider's key, so that a signature is of use to no other provider. Names and values are
percent-encoded, so that no two sets of attributes have one text. A signature is checked once, when it is handed in; from
then on it counts for each attribute that the provider still has with the signed value, so that a changed attribute ends it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

TITLE: Final = "Fallow attribute audit v1"
ED25519_PREFIX: Final = "ed25519:"
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_AUDITOR: Final = re.compile(r"0x[0-9a-f]{40}|ed25519:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class AuditorSignature:
    """An auditor's word for a provider's attributes. ``auditor`` is in lower case, ``signature`` hexadecimal."""

    auditor: str
    attributes: Mapping[str, str]
    signature: str


def audit_text(public_key: bytes, attributes: Mapping[str, str]) -> str:
    """The text that an auditor signs; proto/fallow/bidding/v1/provider.proto tells its format."""
    lines = sorted(f"{_encoded(name)}={_encoded(value)}" for name, value in attributes.items())
    return "\n".join((TITLE, f"provider key {public_key.hex()}", *lines))


def auditor_of(text: str) -> str | None:
    """An auditor's id as it is compared, in lower case; None for a text that names nobody who could sign."""
    lowered = text.lower()
    return lowered if _AUDITOR.fullmatch(lowered) else None


def audited_attributes(
    signatures: Iterable[AuditorSignature], attributes: Mapping[str, str]
) -> dict[str, frozenset[str]]:
    """By auditor, the names of the attributes that it vouches for as they are now; who vouches for none is left out."""
    found: dict[str, frozenset[str]] = {}
    for signature in signatures:
        held = {name for name, value in signature.attributes.items() if attributes.get(name) == value}
        if held:
            found[signature.auditor] = found.get(signature.auditor, frozenset()) | held
    return found


def _encoded(text: str) -> str:
    """A text percent-encoded by RFC 3986, all but its unreserved characters."""
    return "".join(chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in text.encode())
