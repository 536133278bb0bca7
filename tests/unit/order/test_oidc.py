"""What an identity token must say, and which issuers may be set."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fallow_chassis.errors import DomainError
from fallow_chassis.settings import SettingsError
from fallow_order.domain.oidc import Issuer, check_claims, check_header
from fallow_order.domain.reasons import OIDC_TOKEN_EXPIRED, OIDC_TOKEN_INVALID
from fallow_order.oidc import check_address, parse_issuers

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
NOW_S = int(NOW.timestamp())
ISSUER = Issuer("https://id.test", "fallow", authorized_parties=frozenset({"cli"}))
GOOD: dict[str, Any] = {"iss": "https://id.test", "aud": "fallow", "sub": "u", "iat": NOW_S - 5, "exp": NOW_S + 60}


def _claims(changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**GOOD, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"aud": ["fallow"]},
        {"aud": ["fallow", "fallow"]},
        {"aud": ["fallow", "other"], "azp": "fallow"},
        {"aud": ["fallow", "other"], "azp": "cli"},
        {"azp": "cli"},
        {"nonce": "n", "at_hash": "h", "auth_time": 1},
        {"nbf": NOW_S + 30},
        {"iat": NOW_S + 30},
        {"exp": NOW_S + 0.9 + 1},
    ],
)
def test_tokens_that_are_good(changes: dict[str, Any]) -> None:
    """Goal: what conforms gets in. Method: one variation each."""
    identity = check_claims(_claims(changes), ISSUER, NOW)
    assert (identity.issuer, identity.subject) == ("https://id.test", "u")
    assert NOW < identity.expires_at <= NOW + timedelta(seconds=60)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "https://id.test/"}, OIDC_TOKEN_INVALID),
        ({"iss": None}, OIDC_TOKEN_INVALID),
        ({"aud": None}, OIDC_TOKEN_INVALID),
        ({"aud": "other"}, OIDC_TOKEN_INVALID),
        ({"aud": []}, OIDC_TOKEN_INVALID),
        ({"aud": ["fallow", 7]}, OIDC_TOKEN_INVALID),
        ({"aud": {"fallow": 1}}, OIDC_TOKEN_INVALID),
        ({"aud": ["fallow", "other"]}, OIDC_TOKEN_INVALID),
        ({"aud": ["fallow", "other"], "azp": "other"}, OIDC_TOKEN_INVALID),
        ({"azp": "other"}, OIDC_TOKEN_INVALID),
        ({"azp": 7}, OIDC_TOKEN_INVALID),
        ({"sub": None}, OIDC_TOKEN_INVALID),
        ({"sub": ""}, OIDC_TOKEN_INVALID),
        ({"sub": 7}, OIDC_TOKEN_INVALID),
        ({"sub": "é"}, OIDC_TOKEN_INVALID),
        ({"sub": "a\x00"}, OIDC_TOKEN_INVALID),
        ({"sub": "a\nb"}, OIDC_TOKEN_INVALID),
        ({"sub": "a\x7f"}, OIDC_TOKEN_INVALID),
        ({"sub": "x" * 256}, OIDC_TOKEN_INVALID),
        ({"exp": None}, OIDC_TOKEN_INVALID),
        ({"exp": "soon"}, OIDC_TOKEN_INVALID),
        ({"exp": True}, OIDC_TOKEN_INVALID),
        ({"exp": float("nan")}, OIDC_TOKEN_INVALID),
        ({"exp": float("inf")}, OIDC_TOKEN_INVALID),
        ({"exp": -1}, OIDC_TOKEN_INVALID),
        ({"iat": None}, OIDC_TOKEN_INVALID),
        ({"nbf": "never"}, OIDC_TOKEN_INVALID),
        ({"iat": NOW_S + 31}, OIDC_TOKEN_INVALID),
        ({"nbf": NOW_S + 31}, OIDC_TOKEN_INVALID),
        ({"exp": NOW_S}, OIDC_TOKEN_EXPIRED),
        ({"iat": NOW_S - 86_400, "exp": NOW_S + 86_400}, OIDC_TOKEN_EXPIRED),
        # Precedence: for somebody else outweighs over.
        ({"aud": "other", "exp": NOW_S}, OIDC_TOKEN_INVALID),
    ],
)
def test_tokens_that_are_not(changes: dict[str, Any], reason: Any) -> None:
    """Goal: each rule holds by itself. Method: one claim changed each."""
    with pytest.raises(DomainError) as caught:
        check_claims(_claims(changes), ISSUER, NOW)
    assert caught.value.has_reason(reason)


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "RS512"},
        {"alg": "es256"},
        {"alg": None},
        {"alg": ["ES256"]},
        {"typ": "at+jwt"},
        {"typ": "application/at+jwt"},
        {"typ": 7},
        {"crit": ["b64"]},
        {"b64": False},
        {"kid": ""},
        {"kid": 7},
        {"kid": "x" * 257},
    ],
)
def test_headers_that_are_refused(header: dict[str, Any]) -> None:
    """Goal: no other algorithm, kind or extension. Method: one field of a good header changed."""
    good = {"alg": "ES256", "kid": "k", "typ": "JWT"}
    assert check_header(good) == ("ES256", "k")
    with pytest.raises(DomainError) as caught:
        check_header({**good, **header})
    assert caught.value.has_reason(OIDC_TOKEN_INVALID)


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "{}x",
        '{"issuer": "https://id.test"}',
        '[{"issuer": "https://id.test"}]',
        '[{"issuer": "https://id.test", "audience": ""}]',
        '[{"issuer": "http://id.test", "audience": "a"}]',
        '[{"issuer": "https://id.test", "audience": "a", "jwks": "file:///keys"}]',
        '[{"issuer": "https://id.test", "audience": "a", "extra": 1}]',
        '[{"issuer": "https://id.test", "audience": ["a"]}]',
        '[{"issuer": "https://id.test", "audience": "a"}, {"issuer": "https://id.test", "audience": "b"}]',
        "[7]",
    ],
)
def test_settings_that_are_refused(text: str) -> None:
    """Goal: a wrong setting stops the start and is named. Method: malformed lists."""
    with pytest.raises(SettingsError, match="FALLOW_OIDC_ISSUERS"):
        parse_issuers(text)


def test_settings_that_are_read() -> None:
    """Goal: several issuers, with and without an address. Method: a list of two, and none."""
    issuers = parse_issuers(
        '[{"issuer": "https://a.test", "audience": "x"}, {"issuer": "https://b.test", "audience": "y", "jwks":'
        ' "https://b.test/keys", "authorized_parties": ["cli"]}]'
    )
    assert issuers == (
        Issuer("https://a.test", "x"),
        Issuer("https://b.test", "y", "https://b.test/keys", frozenset({"cli"})),
    )
    assert parse_issuers("") == ()
    for address in ("http://localhost:1", "http://127.0.0.1:1/k", "http://[::1]/k", "https://10.0.0.1"):
        assert check_address(address) == address
