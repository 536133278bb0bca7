"""Sign-in messages against vectors of two other implementations, and against texts that only look right."""

import json
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fallow_chassis.errors import DomainError
from fallow_order.domain.reasons import SIGN_IN_EXPIRED, SIGN_IN_MESSAGE_INVALID, SIGN_IN_SIGNATURE_INVALID
from fallow_order.domain.sign_in import SignInMessage, check_message, read_message, write_message
from fallow_order.signatures import HALF_ORDER, check_checksum, checksum_address, recover_address

DATA: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parents[2] / "data" / "eip4361.json").read_text("utf-8")
)
"""Made by `tests/data/make_eip4361.mjs`."""
VECTORS = DATA["vectors"]
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
NOW = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
PLAIN: str = VECTORS[0]["text"]


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_messages_of_other_implementations_read_as_they_were_meant(vector: dict[str, Any]) -> None:
    """Goal: any wallet's conforming text reads. Method: texts of siwe and viem, with the fields they were made of."""
    fields = vector["fields"]
    message = read_message(vector["text"])
    assert message.domain == fields["domain"]
    assert message.address == fields["address"] == vector["address"]
    assert message.statement == fields.get("statement", "")
    assert (message.uri, message.chain_id, message.nonce) == (fields["uri"], fields["chainId"], fields["nonce"])
    assert message.issued_at == _instant(fields["issuedAt"])
    assert message.expires_at == _instant(fields.get("expirationTime"))
    assert message.not_before == _instant(fields.get("notBefore"))
    assert message.request_id == fields.get("requestId")
    assert message.resources == tuple(fields.get("resources", ()))


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_signatures_of_another_implementation_are_the_addresses(vector: dict[str, Any]) -> None:
    """Goal: a wallet's signature is known as its own. Method: signatures by viem; and not as another's."""
    signature = bytes.fromhex(vector["signature"][2:])
    recover_address(vector["text"], signature, vector["address"])
    with pytest.raises(DomainError) as caught:
        recover_address(vector["text"] + " ", signature, vector["address"])
    assert caught.value.has_reason(SIGN_IN_SIGNATURE_INVALID)


@pytest.mark.parametrize("vector", [vector for vector in VECTORS if not vector["name"].endswith("offset in times")])
def test_what_is_written_is_what_others_write(vector: dict[str, Any]) -> None:
    """Goal: our challenges are the standard's. Method: write what was read; it must be the same text."""
    assert write_message(read_message(vector["text"])) == vector["text"]


@pytest.mark.parametrize("vector", DATA["refused"], ids=[vector["name"] for vector in DATA["refused"]])
def test_what_another_implementation_refuses_is_refused(vector: dict[str, Any]) -> None:
    """Goal: no laxer than siwe. Method: texts that siwe's parser throws at."""
    assert vector["siwe"], "siwe took this text: it belongs elsewhere"
    with pytest.raises(DomainError) as caught:
        check_checksum(read_message(vector["text"]).address)
    assert caught.value.has_reason(SIGN_IN_MESSAGE_INVALID)


@pytest.mark.parametrize("vector", DATA["verdicts"], ids=[vector["name"] for vector in DATA["verdicts"]])
def test_verdicts_are_another_implementations(vector: dict[str, Any]) -> None:
    """Goal: a signed message gets in when siwe lets it in. Method: siwe's verdict for a domain, nonce and time."""
    message = read_message(vector["text"])
    now = datetime.fromisoformat(vector["time"])
    try:
        check_message(message, domain=vector["domain"], uri=message.uri, chain_id=message.chain_id, now=now)
        recover_address(vector["text"], bytes.fromhex(vector["signature"][2:]), message.address)
        is_good = message.nonce == vector["nonce"]
    except DomainError:
        is_good = False
    assert is_good == vector["success"], vector["error"]


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (" wants you to sign in with your Ethereum account:", " wants you to sign in with your Bitcoin account:", 1),
        ("fallow.test wants", "fallow.test\u200b wants", 1),
        ("fallow.test wants", " wants", 1),
        ("0x", "0X", 2),
        ("\n\nSign in", "\nSign in", 3),
        ("Sign in to Fallow.\n\n", "Sign in to Fallow.\n", 5),
        ("Sign in to Fallow.", "Sign in\x1b[2K to Fallow.", 4),
        ("Sign in to Fallow.", "Sign in\r", 4),
        ("URI: https://fallow.test", "URI: fallow", 6),
        ("Version: 1", "Version: 2", 7),
        ("Version: 1\n", "", 7),
        ("Chain ID: 31337", "Chain ID: 0x7a69", 8),
        ("Chain ID: 31337", "Chain ID: -1", 8),
        ("Nonce: abcdef0123456789", "Nonce: abc", 9),
        ("Nonce: abcdef0123456789", "Nonce: abcdef01-456789", 9),
        ("Issued At: 2026-01-01T00:00:00.000Z", "Issued At: 2026-01-01 00:00:00", 10),
        ("Issued At: 2026-01-01T00:00:00.000Z", "Issued At: 2026-13-01T00:00:00.000Z", 10),
        ("Expiration Time: 2026-01-01T00:05:00.000Z", "Expiration Time: never", 11),
        ("Expiration Time: 2026-01-01T00:05:00.000Z", "Expiration Time: 0000-01-01T00:05:00.000Z", 11),
    ],
)
def test_texts_that_leave_the_grammar_are_refused(old: str, new: str, line: int) -> None:
    """Goal: nothing reads otherwise than it looks. Method: one change each; the error names the line."""
    assert old in PLAIN
    with pytest.raises(DomainError) as caught:
        read_message(PLAIN.replace(old, new, 1))
    assert caught.value.has_reason(SIGN_IN_MESSAGE_INVALID)
    assert caught.value.metadata["line"] == str(line)


@pytest.mark.parametrize(
    "tail", ["\n", "\n\n", "\nExpiration Time: 2027-01-01T00:00:00Z", "\nResources:\nx", "\nHello: x"]
)
def test_nothing_may_follow(tail: str) -> None:
    """Goal: no second opinion after the end. Method: tails that a lax reader would pass over."""
    with pytest.raises(DomainError) as caught:
        read_message(PLAIN + tail)
    assert caught.value.has_reason(SIGN_IN_MESSAGE_INVALID)


def test_every_truncation_is_refused_or_lacks_the_expiry() -> None:
    """Goal: a cut text never signs in. Method: all prefixes; those that read have lost whole optional lines only."""
    full = read_message(PLAIN)
    read = []
    for length in range(len(PLAIN)):
        with suppress(DomainError):
            read.append(read_message(PLAIN[:length]))
    assert read == [replace(full, expires_at=None)]


def _message(**changes: Any) -> SignInMessage:
    return replace(read_message(PLAIN), **changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"domain": "evil.test"}, SIGN_IN_MESSAGE_INVALID),
        ({"uri": "https://evil.test"}, SIGN_IN_MESSAGE_INVALID),
        ({"chain_id": 1}, SIGN_IN_MESSAGE_INVALID),
        ({"issued_at": NOW + timedelta(minutes=1)}, SIGN_IN_EXPIRED),
        ({"not_before": NOW + timedelta(minutes=1)}, SIGN_IN_EXPIRED),
        ({"expires_at": NOW}, SIGN_IN_EXPIRED),
        # Precedence: another domain outweighs a time that is over.
        ({"domain": "evil.test", "expires_at": NOW}, SIGN_IN_MESSAGE_INVALID),
    ],
)
def test_messages_for_others_or_other_times_are_refused(changes: dict[str, Any], reason: Any) -> None:
    """Goal: a message works here and now only. Method: one thing changed each."""
    with pytest.raises(DomainError) as caught:
        check_message(_message(**changes), domain="fallow.test", uri="https://fallow.test", chain_id=31_337, now=NOW)
    assert caught.value.has_reason(reason)


def test_a_message_for_us_in_time_passes() -> None:
    """Goal: the checks let the right one through. Method: the plain vector a minute after its issue."""
    message = _message()
    check_message(message, domain="fallow.test", uri="https://fallow.test", chain_id=31_337, now=NOW)
    assert message.expires_at is not None


def _tampered(index: int) -> list[bytes]:
    """Signatures that are not what the wallet made."""
    good = bytes.fromhex(VECTORS[index]["signature"][2:])
    s = int.from_bytes(good[32:64], "big")
    assert s <= HALF_ORDER
    high = good[:32] + (ORDER - s).to_bytes(32, "big") + bytes([55 - good[64]])
    return [
        good[:64],
        good + b"\x00",
        good[:64] + b"\x1d",
        high,
        bytes(32) + good[32:],
        good[:32] + bytes(32) + good[64:],
        b"\xff" * 32 + good[32:],
        bytes([good[0] ^ 1]) + good[1:],
        good[:64] + bytes([55 - good[64]]),
    ]


@pytest.mark.parametrize("index", range(9))
def test_malformed_and_malleable_signatures_are_refused(index: int) -> None:
    """Goal: one signature has one form. Method: wrong length, v, high s (its own twin), zeros, flipped bits."""
    with pytest.raises(DomainError) as caught:
        recover_address(PLAIN, _tampered(0)[index], VECTORS[0]["address"])
    assert caught.value.has_reason(SIGN_IN_SIGNATURE_INVALID)


def test_v_of_0_and_1_is_what_some_wallets_write() -> None:
    """Goal: such wallets sign in, too. Method: the same signature with v less 27."""
    good = bytes.fromhex(VECTORS[0]["signature"][2:])
    recover_address(PLAIN, good[:64] + bytes([good[64] - 27]), VECTORS[0]["address"])
    assert checksum_address(VECTORS[0]["address"].lower()) == VECTORS[0]["address"]
