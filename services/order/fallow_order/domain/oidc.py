"""What an identity token of an OpenID Connect issuer must say (OpenID Connect Core 1.0 §3.1.3.7, RFC 8725).

Its signature is checked elsewhere, against the issuer's keys; here is what is true of a token that bears a good one.
A token may be traded again until it runs out: programs renew their session from the same file, and an answer may get
lost, so a second use is no sign of theft. What bounds a stolen one: it is made for us alone (``aud``, ``azp``), it ends
at its own ``exp``, at the latest a day after ``iat``, and no session that is traded for it outlives it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeGuard

from fallow_chassis.errors import DomainError
from fallow_order.domain.reasons import OIDC_TOKEN_EXPIRED, OIDC_TOKEN_INVALID

ALGORITHMS: Final = frozenset({"RS256", "ES256", "EdDSA"})
"""What may sign: never ``none``, never an HMAC, whose key the issuer's public keys would be."""
TYPES: Final = frozenset({"", "jwt"})
"""``typ`` of an identity token; access tokens (``at+jwt``) and logout tokens of the same issuer name theirs."""
CLOCK_TOLERANCE: Final = timedelta(seconds=30)
MAX_AGE: Final = timedelta(days=1)
MAX_KEY_ID_CHARACTERS: Final = 256
MAX_SUBJECT_CHARACTERS: Final = 255
_MAX_INSTANT_SECONDS: Final = 1 << 40


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuer whose tokens are taken: its name, our name with it, and where its keys stand (empty: discovery)."""

    issuer: str
    audience: str
    jwks: str = ""
    authorized_parties: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class OidcIdentity:
    """Whom a token names, and until when."""

    issuer: str
    subject: str
    expires_at: datetime


def check_header(header: Mapping[str, Any]) -> tuple[str, str]:
    """The algorithm and the key id that a token's header names; ``jku``, ``jwk`` and ``x5u`` are never looked at."""
    algorithm, key_id, kind = header.get("alg"), header.get("kid"), header.get("typ", "")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise invalid("the token is not signed with RS256, ES256 or EdDSA")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in TYPES:
        raise invalid("the token is not an identity token by its typ")
    if "crit" in header or header.get("b64", True) is not True:
        raise invalid("the token's header asks for what is not understood")
    if not isinstance(key_id, str) or not 0 < len(key_id) <= MAX_KEY_ID_CHARACTERS:
        raise invalid("the token does not name its key (kid)")
    return algorithm, key_id


def check_claims(claims: Mapping[str, Any], issuer: Issuer, now: datetime) -> OidcIdentity:
    """Whom a token with a good signature of ``issuer`` names. Precedence: issuer, audience, subject, times."""
    if claims.get("iss") != issuer.issuer:
        raise invalid("the token is of another issuer than its keys")
    _check_audience(claims, issuer)
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT_CHARACTERS:
        raise invalid("the token names nobody (sub)")
    # Postgres keeps no NUL, and people read it in logs: what does not print is nobody's name.
    if not (subject.isascii() and subject.isprintable()):
        raise invalid("the token names somebody in characters that are not printable ASCII (sub)")
    expires_at = _instant(claims, "exp")
    issued_at = _instant(claims, "iat")
    not_before = _instant(claims, "nbf") if "nbf" in claims else issued_at
    if max(issued_at, not_before) > now + CLOCK_TOLERANCE:
        raise invalid("the token's time has not come")
    if now >= min(expires_at, issued_at + MAX_AGE):
        raise DomainError(OIDC_TOKEN_EXPIRED, "the token's time is over")
    return OidcIdentity(issuer.issuer, subject, min(expires_at, issued_at + MAX_AGE))


def _check_audience(claims: Mapping[str, Any], issuer: Issuer) -> None:
    """Whether a token is for us: ``aud`` holds us; a party beside us must be vouched for by ``azp``, which is known."""
    audience = claims.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or not all(isinstance(entry, str) for entry in audiences):
        raise invalid("the token's audience is malformed")
    if issuer.audience not in audiences:
        raise invalid("the token is for somebody else", audience=issuer.audience)
    party = claims.get("azp")
    if party is None and len(set(audiences)) > 1:
        raise invalid("the token is for several parties and does not say which asked for it (azp)")
    if party is not None and party not in (issuer.authorized_parties | {issuer.audience}):
        raise invalid("another party asked for the token (azp)")


def _instant(claims: Mapping[str, Any], name: str) -> datetime:
    """A time that must be there; fractions of a second are dropped."""
    value = claims.get(name)
    if not _is_number(value) or not 0 <= value < _MAX_INSTANT_SECONDS:
        raise invalid(f"the token has no {name} that is a time")
    return min(datetime.fromtimestamp(0, UTC) + timedelta(seconds=int(value)), datetime.max.replace(tzinfo=UTC))


def _is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a claim is a JSON number; true is none, and neither is NaN, which is below nothing."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def invalid(why: str, **metadata: str) -> DomainError:
    """The error for a token that must not be believed."""
    return DomainError(OIDC_TOKEN_INVALID, why, metadata=metadata)
