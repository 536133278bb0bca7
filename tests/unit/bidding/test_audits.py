"""Auditors' signatures: the text, who signed it, and what of it still holds."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from eth_account import Account
from eth_account.messages import encode_defunct

from fallow_bidding.domain.audits import AuditorSignature, audit_text, audited_attributes, auditor_of
from fallow_bidding.signatures import auditor_signed
from fallow_sdk.audits import audit_text as sdk_audit_text

KEY = bytes(range(32))
ATTRIBUTES = {"tier": "gold", "host": "Zürich/ä b", "a=b": "c\nd"}


def test_the_text_is_what_the_contract_says() -> None:
    """Goal: the text is the one of the contract's comment, on both sides. Method: hand-written, and with entries that would
    be another's text if nothing were encoded.
    """
    text = audit_text(KEY, ATTRIBUTES)
    assert text == (
        "Fallow attribute audit v1\n"
        "provider key 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n"
        "a%3Db=c%0Ad\n"
        "host=Z%C3%BCrich%2F%C3%A4%20b\n"
        "tier=gold"
    )
    assert sdk_audit_text(KEY, ATTRIBUTES) == text
    assert audit_text(KEY, {"a": "1\nb=2"}) != audit_text(KEY, {"a": "1", "b": "2"})
    assert audit_text(bytes(32), ATTRIBUTES) != text


def test_a_wallet_signs_for_its_address_alone() -> None:
    """Goal: an EVM signature counts for the address that made it, over exactly that text. Method: sign as wallets do, then
    change the auditor, the text, the length, the recovery id, and take words that are no signature.
    """
    account, other = Account.create(), Account.create()
    text = audit_text(KEY, ATTRIBUTES)
    signature = bytes(account.sign_message(encode_defunct(text=text)).signature)
    auditor = account.address.lower()
    assert auditor_signed(auditor, signature, text)
    low_v = signature[:-1] + bytes([signature[-1] - 27])
    assert auditor_signed(auditor, low_v, text)
    assert not auditor_signed(other.address.lower(), signature, text)
    assert not auditor_signed(auditor, signature, audit_text(KEY, {**ATTRIBUTES, "tier": "silver"}))
    flipped = signature[:-1] + bytes([55 - signature[-1]])
    for bad in (
        b"",
        signature[:-1],
        signature + b"\0",
        flipped,
        signature[:-1] + b"\x05",
        b"\xff" * 64 + b"\x1b",
        bytes(65),
    ):
        assert not auditor_signed(auditor, bad, text)


def test_an_ed25519_key_signs_too() -> None:
    """Goal: `ed25519:` and a key names an auditor. Method: its signature, another's, and a key that is no point."""
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    auditor = f"ed25519:{key.public_key().public_bytes_raw().hex()}"
    text = audit_text(KEY, ATTRIBUTES)
    assert auditor_signed(auditor, key.sign(text.encode()), text)
    assert not auditor_signed(auditor, other.sign(text.encode()), text)
    assert not auditor_signed(f"ed25519:{'ff' * 32}", key.sign(text.encode()), text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0x" + "aB" * 20, "0x" + "ab" * 20),
        ("ED25519:" + "0F" * 32, "ed25519:" + "0f" * 32),
        ("0x" + "ab" * 19, None),
        ("0x" + "zz" * 20, None),
        ("ed25519:" + "00" * 31, None),
        ("akash1365yvmc4s7awdyj3n2sav7xfx76adc6dnmlx63", None),
        ("0x" + "ab" * 20 + "\n", None),
        ("", None),
    ],
)
def test_who_can_be_an_auditor(text: str, expected: str | None) -> None:
    """Goal: an auditor's name is one that a signature can be checked against, compared without regard to case. Method: a
    table.
    """
    assert auditor_of(text) == expected


def test_a_changed_attribute_ends_what_was_signed_of_it() -> None:
    """Goal: an auditor counts for attributes that are as it signed them, and for no others. Method: two signatures of one
    auditor and one of another, over a provider that has changed.
    """
    signatures = (
        AuditorSignature("x", {"tier": "gold", "region": "eu"}, ""),
        AuditorSignature("x", {"power": "green"}, ""),
        AuditorSignature("y", {"region": "eu"}, ""),
    )
    now = {"tier": "gold", "region": "us", "power": "green", "other": "1"}
    assert audited_attributes(signatures, now) == {"x": {"tier", "power"}}
    assert audited_attributes(signatures, {}) == {}
