"""Who is who: signed tokens that any service checks offline.

A token is a JWT signed with Ed25519 (``EdDSA``, RFC 8037). Each service has a key of its own; all public keys stand in
one JWKS (RFC 7517), each with ``kid`` (its RFC 7638 thumbprint) and ``fallow_issuer`` (the service that owns it). A
token is believed only if the key that its ``kid`` names verifies it, that key's ``fallow_issuer`` equals its ``iss``,
its ``typ`` is one of ours (RFC 8725 §3.11), and that issuer may say what the token says:

* ``order`` names accounts and their scopes (``accounts/…``);
* ``bidding`` hands out grants;
* every service names itself, ``services/{issuer}``, and nobody else.

Times are checked here against our own clock and not by the library, so that a test can move time, and so that expiry
has a reason of its own: TOKEN_EXPIRED is mended by a fresh token, UNAUTHENTICATED is not. A private key and a token are
never logged.

A caller shows one token many times, so what verified is remembered by the token's hash, for as long as the key set that
verified it counts; its times are held against the clock at each call all the same.
"""

import base64
import hashlib
import json
import os
import urllib.request
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeGuard

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from fallow_chassis.clock import Clock, SystemClock
from fallow_chassis.context import RIGHTS, GrantClaims, Identity
from fallow_chassis.errors import TOKEN_EXPIRED, UNAUTHENTICATED, DomainError

AUDIENCE: Final = "fallow"
ACCESS_TYPE: Final = "fallow-access+jwt"
SERVICE_TYPE: Final = "fallow-service+jwt"
GRANT_TYPE: Final = "fallow-grant+jwt"
ACCOUNT_ISSUER: Final = "order"
GRANT_ISSUER: Final = "bidding"
SERVICE_LIFETIME_SECONDS: Final = 300
MAX_ACCESS_SECONDS: Final = 900
"""The longest life of an access token that anybody believes, whoever signed it."""
LEEWAY_SECONDS: Final = 5
"""How far clocks of our machines may differ before a token that was just made, or just ended, is refused."""
MAX_TOKEN_CHARACTERS: Final = 8_192
MAX_BELIEVED_TOKENS: Final = 10_000
"""Tokens that are remembered at once; some 5 MB. One that is forgotten is verified again."""
MAX_JWKS_BYTES: Final = 1_000_000
JWKS_TIMEOUT_SECONDS: Final = 5

_ALGORITHM: Final = "EdDSA"
_MAX_INSTANT_SECONDS: Final = 1 << 40


class KeyFileError(Exception):
    """A private key or a key set cannot be read, or is not what it should be."""


def generate_key_file(path: str | Path) -> None:
    """Write a new Ed25519 private key (PKCS #8, PEM, mode 0600); FileExistsError if the file is there already."""
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)


def public_jwk(key_file: str | Path, issuer: str) -> dict[str, str]:
    """The public half of a key file as a JWK that names the service it belongs to."""
    return _jwk(_load_private_key(key_file).public_key(), issuer)


def write_jwks(path: str | Path, keys: Sequence[Mapping[str, str]]) -> None:
    """Write a JWKS file in one step, so that a reader never sees half of it."""
    target = Path(path)
    draft = target.with_name(target.name + ".new")
    draft.write_text(json.dumps({"keys": [dict(key) for key in keys]}, indent=2) + "\n", encoding="utf-8")
    draft.replace(target)


class TokenSigner:
    """Signs what its service may say; ``load`` reads the key."""

    def __init__(self, key: Ed25519PrivateKey, issuer: str, clock: Clock) -> None:
        """Keep the key and derive its ``kid``."""
        self.issuer = issuer
        self._key = key
        self._clock = clock
        self._key_id = _jwk(key.public_key(), issuer)["kid"]
        self._service_token = ""
        self._service_token_renewed_at_s = 0

    @classmethod
    def load(cls, key_file: str | Path, issuer: str, *, clock: Clock | None = None) -> "TokenSigner":
        """Read a PEM key file; ``issuer`` is the service's name; KeyFileError if it holds no Ed25519 key."""
        return cls(_load_private_key(key_file), issuer, clock or SystemClock())

    def access_token(
        self, subject: str, scopes: Iterable[str], lifetime_seconds: int, address: str = "", *, api_key: str = ""
    ) -> str:
        """A token for an account (``accounts/…``); only the order service's are believed, for 15 minutes at most.

        ``api_key`` is the name of the key that it was traded for, if it was.
        """
        claims: dict[str, Any] = {"scope": " ".join(sorted(set(scopes)))}
        if address:
            claims["address"] = address
        if api_key:
            claims["api_key"] = api_key
        return self._sign(ACCESS_TYPE, subject, claims, lifetime_seconds)

    def service_token(self) -> str:
        """The token of this service itself, made anew once half of its five minutes have passed."""
        now_s = self._now_s()
        if now_s >= self._service_token_renewed_at_s + SERVICE_LIFETIME_SECONDS // 2 or not self._service_token:
            self._service_token = self._sign(SERVICE_TYPE, f"services/{self.issuer}", {}, SERVICE_LIFETIME_SECONDS)
            self._service_token_renewed_at_s = now_s
        return self._service_token

    def grant(self, claims: GrantClaims, lifetime_seconds: int) -> str:
        """A grant on one lease generation; only the bidding service's are believed."""
        grant = {
            "order": claims.order,
            "group": claims.group,
            "generation": claims.generation,
            "lease": claims.lease,
            "provider": claims.provider,
            "rights": sorted(claims.rights),
            "revision": claims.revision,
        }
        return self._sign(GRANT_TYPE, claims.subject, {"grant": grant}, lifetime_seconds)

    def _sign(self, kind: str, subject: str, claims: Mapping[str, Any], lifetime_seconds: int) -> str:
        """One signed token; its time starts now."""
        assert lifetime_seconds > 0, "a token must live"
        now_s = self._now_s()
        payload = {
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": subject,
            "iat": now_s,
            "exp": now_s + lifetime_seconds,
            **claims,
        }
        return jwt.encode(payload, self._key, algorithm=_ALGORITHM, headers={"typ": kind, "kid": self._key_id})

    def _now_s(self) -> int:
        """The present second."""
        return int(self._clock.now().timestamp())


@dataclass(frozen=True, slots=True)
class _Believed:
    """What a token that verified says, and from when to when, in seconds since 1970."""

    identity: Identity
    issued_s: int
    expires_s: int


@dataclass(frozen=True, slots=True)
class _KeySet:
    """Public keys by id, each with its owner, and what they verified of late, by the token's SHA-256."""

    keys: Mapping[str, tuple[str, Ed25519PublicKey]]
    believed: OrderedDict[bytes, _Believed]


class TokenVerifier:
    """Checks tokens against the key set; ``load`` reads it, ``refresh`` reads it again."""

    def __init__(self, source: str, clock: Clock) -> None:
        """Use ``load``; an instance without keys refuses every token."""
        self._source = source
        self._clock = clock
        self._known = _KeySet({}, OrderedDict())

    @classmethod
    def load(cls, jwks: str | Path, *, clock: Clock | None = None) -> "TokenVerifier":
        """Read a JWKS from a path or an http(s) address; KeyFileError if it cannot be read or a key is malformed."""
        verifier = cls(str(jwks), clock or SystemClock())
        verifier.refresh()
        return verifier

    def refresh(self) -> None:
        """Read the key set again (blocking); the old keys stay if it fails, and KeyFileError says why."""
        try:
            document = json.loads(_read_jwks(self._source))
            self._known = _KeySet(_parse_jwks(document), OrderedDict())
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise KeyFileError(f"cannot read the key set {self._source}: {error}") from error

    def verify(self, token: str) -> Identity:
        """The caller that a token names; UNAUTHENTICATED if it must not be believed, TOKEN_EXPIRED if it was once."""
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise _refused("the token is too long")
        # A refresh by another thread changes keys and memory together.
        known = self._known
        digest = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        believed = known.believed.get(digest)
        if believed is None:
            believed = _verified(token, known.keys)
            known.believed[digest] = believed
            if len(known.believed) > MAX_BELIEVED_TOKENS:
                known.believed.popitem(last=False)
        self._check_times(believed)
        return believed.identity

    def _check_times(self, believed: _Believed) -> None:
        """Hold a token's times against the present, with the leeway for clocks that differ."""
        now_s = int(self._clock.now().timestamp())
        if now_s >= believed.expires_s + LEEWAY_SECONDS:
            raise DomainError(TOKEN_EXPIRED, "the token's time is over")
        if now_s + LEEWAY_SECONDS < believed.issued_s:
            raise _refused("the token was made in the future")


_MAX_SECONDS: Final = {ACCESS_TYPE: MAX_ACCESS_SECONDS, SERVICE_TYPE: SERVICE_LIFETIME_SECONDS}
_SIGNATURE_ONLY: Final[Any] = {
    "verify_signature": True,
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}


def _verified(token: str, keys: Mapping[str, tuple[str, Ed25519PublicKey]]) -> _Believed:
    """What a token says whose key verifies it and whose issuer may say it; its times are not looked at."""
    kind, issuer, key = _key_of(token, keys)
    try:
        claims = jwt.decode(token, key, algorithms=[_ALGORITHM], options=_SIGNATURE_ONLY)
    except jwt.PyJWTError as error:
        raise _refused("the token does not verify") from error
    if claims.get("iss") != issuer:
        raise _refused("the token's issuer is not the owner of its key")
    if claims.get("aud") != AUDIENCE:
        raise _refused("the token is meant for somebody else")
    identity = _identity_of(kind, issuer, claims)
    issued_s, expires_s = claims.get("iat"), claims.get("exp")
    if not _is_instant(issued_s) or not _is_instant(expires_s):
        raise _refused("the token has no times")
    max_seconds = _MAX_SECONDS.get(kind)
    if max_seconds is not None and expires_s - issued_s > max_seconds:
        raise _refused("the token is made to live too long")
    if identity.grant is not None:
        identity = replace(identity, expire_time=datetime.fromtimestamp(expires_s, UTC))
    return _Believed(identity, issued_s, expires_s)


def _key_of(token: str, keys: Mapping[str, tuple[str, Ed25519PublicKey]]) -> tuple[str, str, Ed25519PublicKey]:
    """The token's kind, and the owner and key that its header names."""
    try:
        header = jwt.get_unverified_header(token)
    except jwt.PyJWTError as error:
        raise _refused("the token is malformed") from error
    kind, key_id = header.get("typ"), header.get("kid")
    if header.get("alg") != _ALGORITHM or "crit" in header or kind not in {ACCESS_TYPE, SERVICE_TYPE, GRANT_TYPE}:
        raise _refused("the token is not one of ours")
    known = keys.get(key_id) if isinstance(key_id, str) else None
    if known is None:
        raise _refused("no known key signed the token")
    return str(kind), *known


def _identity_of(kind: str, issuer: str, claims: Mapping[str, Any]) -> Identity:
    """What a verified token says, if its issuer may say it."""
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject:
        raise _refused("the token names nobody")
    if kind == SERVICE_TYPE:
        if subject != f"services/{issuer}":
            raise _refused("a service may name only itself")
        return Identity(subject, issuer)
    if kind == ACCESS_TYPE:
        if issuer != ACCOUNT_ISSUER or not subject.startswith("accounts/"):
            raise _refused("only the order service names accounts, and nothing else")
        scope, address, api_key = (claims.get(name, "") for name in ("scope", "address", "api_key"))
        if not isinstance(scope, str) or not isinstance(address, str) or not isinstance(api_key, str):
            raise _refused("the token's scope, address or key is malformed")
        return Identity(subject, issuer, frozenset(scope.split()), address, api_key=api_key)
    if issuer != GRANT_ISSUER:
        raise _refused("only the bidding service hands out grants")
    return Identity(subject, issuer, grant=_grant_of(subject, claims.get("grant")))


def _grant_of(subject: str, grant: Any) -> GrantClaims:
    """The claims of a grant; UNAUTHENTICATED where they are malformed."""
    if not isinstance(grant, dict):
        raise _refused("the grant is malformed")
    texts = [grant.get(name) for name in ("order", "lease", "provider")]
    group, generation, rights = grant.get("group"), grant.get("generation"), grant.get("rights")
    # A grant that was signed before workloads had revisions is on the first.
    revision = grant.get("revision", 1)
    if not all(isinstance(text, str) and text for text in texts):
        raise _refused("the grant is malformed")
    if not _is_count(group, 0) or not _is_count(generation, 1) or not _is_count(revision, 1):
        raise _refused("the grant is malformed")
    if not isinstance(rights, list) or not all(isinstance(right, str) for right in rights):
        raise _refused("the grant is malformed")
    order, lease, provider = (str(text) for text in texts)
    # A right that this release does not know is no reason to refuse those it does.
    known = frozenset(rights) & RIGHTS
    return GrantClaims(subject, order, group, generation, lease, provider, known, revision)


def _is_count(value: Any, least: int) -> TypeGuard[int]:
    """Whether a claim is a whole number from ``least`` on; JSON's true is not 1 here."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_instant(value: Any) -> TypeGuard[int]:
    """Whether a claim is a whole number of seconds that a date can have."""
    return _is_count(value, 0) and value < _MAX_INSTANT_SECONDS


def _refused(why: str) -> DomainError:
    """The error for a token that must not be believed."""
    return DomainError(UNAUTHENTICATED, why)


def _load_private_key(path: str | Path) -> Ed25519PrivateKey:
    """Read a PEM file; KeyFileError (which never holds its content) if it has no Ed25519 key."""
    try:
        key = load_pem_private_key(Path(path).read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise KeyFileError(f"cannot read the private key {path}: {type(error).__name__}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path} holds no Ed25519 key")
    return key


def _jwk(key: Ed25519PublicKey, issuer: str) -> dict[str, str]:
    """A public key as a JWK; ``kid`` is the thumbprint of RFC 7638, so equal keys have equal ids."""
    x = _base64url(key.public_bytes(Encoding.Raw, PublicFormat.Raw))
    canonical = json.dumps({"crv": "Ed25519", "kty": "OKP", "x": x}, separators=(",", ":"))
    thumbprint = _base64url(hashlib.sha256(canonical.encode()).digest())
    return {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": x,
        "kid": thumbprint,
        "alg": _ALGORITHM,
        "use": "sig",
        "fallow_issuer": issuer,
    }


def _parse_jwks(document: Any) -> dict[str, tuple[str, Ed25519PublicKey]]:
    """The keys of a JWKS by ``kid``; ValueError or KeyError where one is malformed or stands twice."""
    keys: dict[str, tuple[str, Ed25519PublicKey]] = {}
    for entry in document["keys"]:
        if entry.get("kty") != "OKP" or entry.get("crv") != "Ed25519":
            raise ValueError("the key set holds a key that is not Ed25519")
        text = str(entry["x"])
        key = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        issuer = entry["fallow_issuer"]
        if not isinstance(issuer, str) or not issuer:
            raise ValueError("a key of the key set names no issuer")
        expected = _jwk(key, issuer)["kid"]
        if entry["kid"] != expected:
            raise ValueError(f"the kid of {issuer}'s key is not its thumbprint")
        if expected in keys:
            raise ValueError(f"a key of {issuer} stands twice: each service has a key of its own")
        keys[expected] = (issuer, key)
    return keys


def _read_jwks(source: str) -> bytes:
    """The bytes of a key set from a path or an http(s) address."""
    if not source.startswith(("http://", "https://")):
        return Path(source).read_bytes()
    with urllib.request.urlopen(source, timeout=JWKS_TIMEOUT_SECONDS) as response:  # noqa: S310 - checked above
        content: bytes = response.read(MAX_JWKS_BYTES + 1)
    if len(content) > MAX_JWKS_BYTES:
        raise ValueError("the key set is too large")
    return content


def _base64url(value: bytes) -> str:
    """Base64url without padding, as JOSE writes it."""
    return base64.urlsafe_b64encode(value).decode().rstrip("=")
