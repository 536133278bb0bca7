"""Tokens: what is believed and what is not."""

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from fallow_chassis.context import GrantClaims, Identity
from fallow_chassis.errors import TOKEN_EXPIRED, UNAUTHENTICATED, DomainError
from fallow_chassis.identity import (
    ACCESS_TYPE,
    GRANT_TYPE,
    LEEWAY_SECONDS,
    SERVICE_TYPE,
    KeyFileError,
    TokenSigner,
    TokenVerifier,
    generate_key_file,
    public_jwk,
    write_jwks,
)

NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
GRANT = GrantClaims("accounts/a", "orders/o", 2, 3, "leases/l", "providers/p", frozenset({"logs.read", "exec"}), 4)


class Hand:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time = NOW

    def now(self) -> datetime:
        return self.time

    def monotonic_ms(self) -> int:
        return 0


class House:
    """Three services with a key each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Hand()
        self.jwks = folder / "jwks.json"
        for name in ("order", "bidding", "settlement"):
            generate_key_file(self.file(name))
        self.publish("order", "bidding", "settlement")
        self.verifier = TokenVerifier.load(self.jwks, clock=self.clock)

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.pem"

    def publish(self, *names: str) -> None:
        write_jwks(self.jwks, [public_jwk(self.file(name), name) for name in names])

    def signer(self, name: str) -> TokenSigner:
        return TokenSigner.load(self.file(name), name, clock=self.clock)

    def forge(
        self, signed_by: str, kind: str, changes: Mapping[str, Any], header: Mapping[str, Any] | None = None
    ) -> str:
        """A token with a good signature and whatever claims; None takes a claim away."""
        now_s = int(NOW.timestamp())
        claims = {"iss": signed_by, "aud": "fallow", "sub": "accounts/a", "iat": now_s, "exp": now_s + 60, **changes}
        claims = {name: value for name, value in claims.items() if value is not None}
        key: Any = load_pem_private_key(self.file(signed_by).read_bytes(), None)
        headers = {"typ": kind, "kid": public_jwk(self.file(signed_by), signed_by)["kid"], **(header or {})}
        return jwt.encode(claims, key, algorithm="EdDSA", headers=headers)


@pytest.fixture
def house(tmp_path: Path) -> House:
    """Keys, a key set, a clock."""
    return House(tmp_path)


def refused(house: House, token: str) -> str:
    """The reason why a token is not believed."""
    with pytest.raises(DomainError) as caught:
        house.verifier.verify(token)
    return caught.value.reason.reason


def test_tokens_say_what_was_signed(house: House) -> None:
    """Goal: all three kinds come back whole. Method: sign and verify."""
    token = house.signer("order").access_token("accounts/a", ["b", "a"], 60, "0xAb")
    assert house.verifier.verify(token) == Identity("accounts/a", "order", frozenset({"a", "b"}), "0xAb")
    token = house.signer("settlement").service_token()
    assert house.verifier.verify(token) == Identity("services/settlement", "settlement")
    token = house.signer("bidding").grant(GRANT, 60)
    assert house.verifier.verify(token) == Identity("accounts/a", "bidding", grant=GRANT)


def test_time_ends_a_token(house: House) -> None:
    """Goal: expiry has its own reason, at the second it should. Method: move the clock over the leeway's edge."""
    token = house.signer("order").access_token("accounts/a", [], 60)
    house.clock.time = NOW + timedelta(seconds=60 + LEEWAY_SECONDS - 1)
    assert house.verifier.verify(token).subject == "accounts/a"
    house.clock.time = NOW + timedelta(seconds=60 + LEEWAY_SECONDS)
    assert refused(house, token) == TOKEN_EXPIRED.reason
    house.clock.time = NOW - timedelta(seconds=LEEWAY_SECONDS + 1)
    assert refused(house, token) == UNAUTHENTICATED.reason


@pytest.mark.parametrize(
    ("signed_by", "kind", "changes"),
    [
        ("order", ACCESS_TYPE, {"aud": "other"}),
        ("order", ACCESS_TYPE, {"aud": ["fallow"]}),
        ("order", ACCESS_TYPE, {"aud": ["fallow", "other"]}),
        ("order", ACCESS_TYPE, {"aud": None}),
        ("order", ACCESS_TYPE, {"iss": "bidding"}),
        ("order", ACCESS_TYPE, {"iss": None}),
        ("order", ACCESS_TYPE, {"sub": None}),
        ("order", ACCESS_TYPE, {"sub": "services/order"}),
        ("order", ACCESS_TYPE, {"sub": "providers/p"}),
        ("order", ACCESS_TYPE, {"exp": None}),
        ("order", ACCESS_TYPE, {"iat": None}),
        ("order", ACCESS_TYPE, {"exp": True}),
        ("order", ACCESS_TYPE, {"exp": "1"}),
        ("order", ACCESS_TYPE, {"exp": 1e400}),
        ("order", ACCESS_TYPE, {"exp": int(NOW.timestamp()) + 901}),
        ("order", ACCESS_TYPE, {"iat": int(NOW.timestamp()) - 880}),
        ("order", ACCESS_TYPE, {"iat": int(NOW.timestamp()) + LEEWAY_SECONDS + 1}),
        ("settlement", SERVICE_TYPE, {"sub": "services/settlement", "exp": int(NOW.timestamp()) + 301}),
        ("order", ACCESS_TYPE, {"api_key": ["k"]}),
        ("order", ACCESS_TYPE, {"exp": 10**30}),
        ("order", ACCESS_TYPE, {"scope": ["orders.write"]}),
        ("order", ACCESS_TYPE, {"address": 7}),
        ("bidding", ACCESS_TYPE, {}),
        ("settlement", ACCESS_TYPE, {"sub": "services/settlement"}),
        ("settlement", SERVICE_TYPE, {"sub": "services/order"}),
        ("settlement", SERVICE_TYPE, {"sub": "accounts/a"}),
        ("order", GRANT_TYPE, {"grant": {}}),
        ("bidding", GRANT_TYPE, {}),
        ("bidding", GRANT_TYPE, {"grant": "all"}),
        ("order", "JWT", {}),
    ],
)
def test_good_signatures_do_not_make_good_claims(
    house: House, signed_by: str, kind: str, changes: dict[str, Any]
) -> None:
    """Goal: who may say what. Method: tokens with a good signature and one claim too bold."""
    assert refused(house, house.forge(signed_by, kind, changes)) == UNAUTHENTICATED.reason


@pytest.mark.parametrize(
    "change",
    [
        {"generation": 0},
        {"generation": True},
        {"group": -1},
        {"group": "0"},
        {"rights": "exec"},
        {"rights": [1]},
        {"order": ""},
        {"lease": None},
        {"provider": 5},
    ],
)
def test_malformed_grants_are_refused(house: House, change: dict[str, Any]) -> None:
    """Goal: a grant is whole or nothing. Method: one field of a good one spoilt."""
    good = {"order": "orders/o", "group": 0, "generation": 1, "lease": "leases/l", "provider": "p", "rights": ["exec"]}
    assert house.verifier.verify(house.forge("bidding", GRANT_TYPE, {"grant": good})).grant is not None
    assert refused(house, house.forge("order", GRANT_TYPE, {"grant": good})) == "UNAUTHENTICATED"
    assert refused(house, house.forge("bidding", GRANT_TYPE, {"grant": {**good, **change}})) == "UNAUTHENTICATED"


def test_rights_of_a_later_release_are_passed_over(house: House) -> None:
    """Goal: an old agent takes what it knows from a new grant. Method: an unknown right beside a known one."""
    grant = {"order": "o", "group": 0, "generation": 1, "lease": "l", "provider": "p", "rights": ["exec", "teleport"]}
    identity = house.verifier.verify(house.forge("bidding", GRANT_TYPE, {"grant": grant}))
    assert identity.grant is not None
    assert identity.grant.rights == {"exec"}


def test_signatures_are_checked(house: House, tmp_path: Path) -> None:
    """Goal: no key, no word. Method: altered claims, no algorithm, a public key as a secret, another's kid, noise."""
    token = house.signer("order").access_token("accounts/a", [], 60)
    head, body, signature = token.split(".")
    other = house.signer("order").access_token("accounts/b", [], 60).split(".")[1]
    assert refused(house, f"{head}.{other}.{signature}") == "UNAUTHENTICATED"
    assert refused(house, f"{head}.{body}.") == "UNAUTHENTICATED"
    jwk = public_jwk(house.file("order"), "order")
    claims = {"iss": "order", "aud": "fallow", "sub": "accounts/a", "iat": 0, "exp": 2_000_000_000}
    bare = jwt.encode(claims, "", algorithm="none", headers={"typ": ACCESS_TYPE, "kid": jwk["kid"]})
    assert refused(house, bare) == "UNAUTHENTICATED"
    key: Any = load_pem_private_key(house.file("order").read_bytes(), None)
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    hashed = jwt.encode(claims, public, algorithm="HS256", headers={"typ": ACCESS_TYPE, "kid": jwk["kid"]})
    assert refused(house, hashed) == "UNAUTHENTICATED"
    borrowed = house.forge("bidding", ACCESS_TYPE, {"iss": "order"}, {"kid": jwk["kid"]})
    assert refused(house, borrowed) == "UNAUTHENTICATED"
    for noise in ("", "a", "a.b.c", "....", "\x00", "é.é.é", "x" * 10_000, head, f"{head}.{body}"):
        assert refused(house, noise) == "UNAUTHENTICATED"


@pytest.mark.parametrize(
    "header",
    [
        {"typ": GRANT_TYPE},
        {"typ": SERVICE_TYPE},
        {"typ": "at+jwt"},
        {"typ": None},
        {"typ": "fallow-access+JWT"},
        {"kid": ""},
        {"kid": "unknown"},
        {"crit": ["exp"]},
    ],
)
def test_headers_are_ours_to_the_letter(house: House, header: dict[str, Any]) -> None:
    """Goal: no token passes for one of another kind. Method: one field of a good header changed, well signed."""
    assert house.verifier.verify(house.forge("order", ACCESS_TYPE, {})).subject == "accounts/a"
    assert refused(house, house.forge("order", ACCESS_TYPE, {}, header)) == "UNAUTHENTICATED"


@pytest.mark.parametrize("algorithm", ["none", "eddsa", "EdDSA ", "ES256", "RS256", "HS256", "Ed448", ""])
def test_another_algorithm_is_none_of_ours(house: House, algorithm: str) -> None:
    """Goal: the header cannot choose how it is checked. Method: a good signature under a header that says otherwise."""
    head, body, signature = house.forge("order", ACCESS_TYPE, {}).split(".")
    fields = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    changed = base64.urlsafe_b64encode(json.dumps({**fields, "alg": algorithm}).encode()).rstrip(b"=").decode()
    assert refused(house, f"{changed}.{body}.{signature}") == "UNAUTHENTICATED"


def test_a_key_that_was_taken_away_is_not_believed(house: House) -> None:
    """Goal: the key set decides. Method: take a key out, refresh; then break the file: the old keys stay."""
    token = house.signer("order").access_token("accounts/a", [], 60)
    house.publish("bidding", "settlement")
    assert house.verifier.verify(token).subject == "accounts/a"
    house.verifier.refresh()
    assert refused(house, token) == "UNAUTHENTICATED"
    house.publish("order")
    house.verifier.refresh()
    house.jwks.write_text("{")
    with pytest.raises(KeyFileError):
        house.verifier.refresh()
    assert house.verifier.verify(token).subject == "accounts/a"


def test_a_service_token_is_kept_and_renewed(house: House) -> None:
    """Goal: no signature per call, and never a stale one. Method: ask again at once, and later."""
    signer = house.signer("order")
    first = signer.service_token()
    assert signer.service_token() == first
    house.clock.time = NOW + timedelta(seconds=151)
    assert signer.service_token() != first
    assert house.verifier.verify(first).subject == "services/order"


def test_key_files_are_private_and_never_overwritten(house: House) -> None:
    """Goal: a key is made once. Method: its mode, and a second making."""
    assert house.file("order").stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        generate_key_file(house.file("order"))


def test_other_keys_are_refused(tmp_path: Path) -> None:
    """Goal: Ed25519 and nothing else; no error shows a key. Method: an EC key, noise, no file."""
    ec = generate_ec_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "ec.pem").write_bytes(ec)
    (tmp_path / "noise.pem").write_text("sesame")
    for name in ("ec.pem", "noise.pem", "absent.pem"):
        with pytest.raises(KeyFileError) as caught:
            TokenSigner.load(tmp_path / name, "order")
        assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("spoil", ["kid", "fallow_issuer", "x", "kty", "twice", "list", "no keys"])
def test_malformed_key_sets_are_refused(house: House, spoil: str) -> None:
    """Goal: a key set is whole or not read. Method: one spoilt part each."""
    key: dict[str, str] = public_jwk(house.file("order"), "order")
    keys = [key]
    if spoil == "twice":
        keys.append({**key, "fallow_issuer": "bidding"})
    elif spoil in key:
        key[spoil] = "" if spoil == "fallow_issuer" else "AAAA"
    document: Any = [] if spoil == "list" else {} if spoil == "no keys" else {"keys": keys}
    house.jwks.write_text(json.dumps(document))
    with pytest.raises(KeyFileError):
        TokenVerifier.load(house.jwks)


def test_what_is_remembered_ends_with_its_time_and_with_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a remembered token saves the signature's check and nothing else. Method: count decodings; then let its time
    pass, take the key away, and show more tokens than are remembered.
    """
    house = House(tmp_path)
    decoded: list[str] = []
    decode = jwt.decode

    def counting(token: str, *values: Any, **named: Any) -> Any:
        decoded.append(token)
        return decode(token, *values, **named)

    monkeypatch.setattr("fallow_chassis.identity.jwt.decode", counting)
    token = house.signer("order").access_token("accounts/a", ["orders.read"], 60)
    identities = {house.verifier.verify(token) for _ in range(3)}
    assert len(identities) == len(decoded) == 1
    with pytest.raises(DomainError):
        house.verifier.verify(token[:-4] + "AAAA")
    house.clock.time = NOW + timedelta(seconds=60 + LEEWAY_SECONDS)
    with pytest.raises(DomainError) as late:
        house.verifier.verify(token)
    assert late.value.has_reason(TOKEN_EXPIRED)
    house.clock.time = NOW
    house.publish("bidding", "settlement")
    house.verifier.refresh()
    with pytest.raises(DomainError) as gone:
        house.verifier.verify(token)
    assert gone.value.has_reason(UNAUTHENTICATED)
    house.publish("order", "bidding", "settlement")
    house.verifier.refresh()
    monkeypatch.setattr("fallow_chassis.identity.MAX_BELIEVED_TOKENS", 2)
    tokens = [house.signer("order").access_token(f"accounts/{name}", [], 60) for name in "abc"]
    decoded.clear()
    for shown in (*tokens, tokens[2], tokens[0]):
        house.verifier.verify(shown)
    assert decoded == [*tokens, tokens[0]]
