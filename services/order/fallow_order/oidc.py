"""Identity tokens of the issuers that settings name, checked against the keys that each issuer publishes.

Keys are fetched when first needed, kept, and fetched anew once they are five minutes old or a token names a key that is
not among them, never twice within ten seconds, whatever is sent to us. A fetch is bounded in time and size, follows no
redirect and goes to addresses of the settings, or of the issuer's own discovery document, alone. While an issuer cannot
be reached, the keys that are known go on for a day; a token of a key that is not known is answered UNAVAILABLE then,
since nobody can tell.
"""

import asyncio
import ipaddress
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from fallow_chassis.clock import Clock
from fallow_chassis.context import bounded_seconds
from fallow_chassis.errors import UNAVAILABLE, DomainError
from fallow_chassis.logging import get_logger
from fallow_chassis.settings import SettingsError
from fallow_order.domain.oidc import Issuer, OidcIdentity, check_claims, check_header, invalid

FRESH_MS: Final = 300_000
MIN_FETCH_MS: Final = 10_000
MAX_STALE_MS: Final = 86_400_000
FETCH_SECONDS: Final = 5.0
MAX_DOCUMENT_BYTES: Final = 262_144
MAX_KEYS: Final = 100
RSA_BITS: Final = range(2_048, 8_193)
MAX_RSA_EXPONENT: Final = 1 << 32
WELL_KNOWN: Final = "/.well-known/openid-configuration"

_KINDS: Final = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}
_SIGNATURE_ONLY: Final[Any] = {"verify_signature": True} | {
    f"verify_{name}": False for name in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")
}
_log = get_logger(__name__)

Fetch = Callable[[str], Awaitable[Any]]


class FetchError(Exception):
    """A document of an issuer cannot be had, or is not what it should be."""


def parse_issuers(text: str) -> tuple[Issuer, ...]:
    """Read the setting, a JSON list of objects; SettingsError says what is wrong."""
    if not text:
        return ()
    try:
        entries = json.loads(text)
        issuers = tuple(_issuer(entry) for entry in entries)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SettingsError(
            "FALLOW_OIDC_ISSUERS must be a JSON list of objects with issuer, audience and, where needed, jwks and "
            f"authorized_parties: {error}"
        ) from error
    if len({issuer.issuer for issuer in issuers}) < len(issuers):
        raise SettingsError("FALLOW_OIDC_ISSUERS names an issuer twice")
    return issuers


def _issuer(entry: Mapping[str, Any]) -> Issuer:
    """One entry of the setting."""
    unknown = sorted(set(entry) - {"issuer", "audience", "jwks", "authorized_parties"})
    if unknown:
        raise ValueError(f"{unknown[0]} is not known")
    issuer = Issuer(
        entry["issuer"], entry["audience"], entry.get("jwks", ""), frozenset(entry.get("authorized_parties", ()))
    )
    texts = [issuer.issuer, issuer.audience, issuer.jwks, *issuer.authorized_parties]
    if not all(isinstance(text, str) for text in texts) or not issuer.audience:
        raise ValueError("each value is a text")
    for address in filter(None, (issuer.issuer, issuer.jwks)):
        check_address(address)
    return issuer


def check_address(address: str) -> str:
    """An address that keys may come from: https, or http on this machine; ValueError for any other."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    if parts.scheme == "https" and host:
        return address
    try:
        is_local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_local = False
    if parts.scheme == "http" and is_local:
        return address
    raise ValueError(f"{address} must start with https:// (http:// is for this machine alone)")


async def fetch_json(address: str) -> Any:
    """A JSON document from an address, bounded in time and size; FetchError."""
    try:
        async with (
            asyncio.timeout(bounded_seconds(FETCH_SECONDS)),
            aiohttp.ClientSession() as session,
            session.get(address, allow_redirects=False, headers={"accept": "application/json"}) as response,
        ):
            if response.status != 200:
                raise FetchError(f"{address} answers {response.status}")
            content = bytearray()
            async for chunk in response.content.iter_chunked(16_384):
                content += chunk
                if len(content) > MAX_DOCUMENT_BYTES:
                    raise FetchError(f"{address} answers more than {MAX_DOCUMENT_BYTES} bytes")
            return json.loads(content)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, RecursionError) as error:
        raise FetchError(f"{address} does not answer with JSON: {error!r}") from error


class OidcVerifier:
    """Checks tokens of the issuers."""

    def __init__(self, issuers: Sequence[Issuer], clock: Clock, fetch: Fetch = fetch_json) -> None:
        """``fetch`` gets documents; nothing is fetched before a token comes."""
        self._clock = clock
        self._issuers = {issuer.issuer: (issuer, _IssuerKeys(issuer, clock, fetch)) for issuer in issuers}

    async def verify(self, token: str) -> OidcIdentity:
        """Whom a token names; OIDC_TOKEN_INVALID, OIDC_TOKEN_EXPIRED, or UNAVAILABLE where nobody can tell now."""
        try:
            algorithm, key_id = check_header(jwt.get_unverified_header(token))
            named = jwt.decode(token, options={"verify_signature": False}).get("iss")
        except (jwt.PyJWTError, RecursionError) as error:
            raise invalid("the token is malformed") from error
        known = self._issuers.get(named) if isinstance(named, str) else None
        if known is None:
            raise invalid("this market takes no tokens of that issuer")
        issuer, keys = known
        key = await keys.find(key_id, algorithm)
        try:
            claims = jwt.decode(token, key, algorithms=[algorithm], options=_SIGNATURE_ONLY)
        except jwt.PyJWTError as error:
            raise invalid("the token does not verify") from error
        return check_claims(claims, issuer, self._clock.now())


class _IssuerKeys:
    """The keys of one issuer, by key id and algorithm."""

    def __init__(self, issuer: Issuer, clock: Clock, fetch: Fetch) -> None:
        self._issuer = issuer
        self._clock = clock
        self._fetch = fetch
        self._keys: dict[tuple[str, str], Any] = {}
        self._fetched_ms: int | None = None
        self._tried_ms: int | None = None
        self._failed = False
        self._fetching = asyncio.Lock()

    async def find(self, key_id: str, algorithm: str) -> Any:
        """A key; OIDC_TOKEN_INVALID if the issuer has none such, UNAVAILABLE if it cannot be asked."""
        wanted = key_id, algorithm
        known = self._known(wanted, MAX_STALE_MS)
        if known is not None and (self._is_younger(FRESH_MS) or self._fetching.locked()):
            return known
        async with self._fetching:
            if self._known(wanted, FRESH_MS) is None and self._may_fetch():
                await self._refresh()
        known = self._known(wanted, MAX_STALE_MS)
        if known is not None:
            return known
        if self._failed:
            raise DomainError(
                UNAVAILABLE,
                "the issuer's keys cannot be fetched now",
                metadata={"issuer": self._issuer.issuer},
                retry_after_ms=MIN_FETCH_MS,
            )
        raise invalid("the issuer has no such key")

    def _known(self, wanted: tuple[str, str], max_age_ms: int) -> Any:
        """A key of a set that is young enough, or None."""
        return self._keys.get(wanted) if self._is_younger(max_age_ms) else None

    def _is_younger(self, max_age_ms: int) -> bool:
        """Whether the keys were fetched less than so long ago."""
        return self._fetched_ms is not None and self._clock.monotonic_ms() - self._fetched_ms < max_age_ms

    def _may_fetch(self) -> bool:
        """Whether the last attempt is long enough ago."""
        return self._tried_ms is None or self._clock.monotonic_ms() - self._tried_ms >= MIN_FETCH_MS

    async def _refresh(self) -> None:
        """Fetch the keys; those that are known stay if that fails."""
        self._tried_ms = self._clock.monotonic_ms()
        # Whatever ends this early (the caller's deadline, too) is no answer of the issuer's.
        self._failed = True
        try:
            self._keys = usable_keys(await self._fetch(await self._address()))
        except (FetchError, ValueError, TypeError, KeyError, AttributeError) as error:
            _log.warning("oidc_keys_not_fetched", issuer=self._issuer.issuer, error=str(error))
            return
        self._fetched_ms = self._clock.monotonic_ms()
        self._failed = False

    async def _address(self) -> str:
        """Where the keys stand: by the settings, or by the discovery document, which must be the issuer's own."""
        if self._issuer.jwks:
            return self._issuer.jwks
        document = await self._fetch(self._issuer.issuer.rstrip("/") + WELL_KNOWN)
        if document["issuer"] != self._issuer.issuer:
            raise FetchError(f"the discovery document is of {document['issuer']!r}")
        return check_address(document["jwks_uri"])


def usable_keys(document: Any) -> dict[tuple[str, str], Any]:
    """The keys of a JWKS that may have signed a token; others (for encryption, weak, of other kinds) are passed over."""
    keys: dict[tuple[str, str], Any] = {}
    for entry in document["keys"][:MAX_KEYS]:
        curve = None if entry.get("kty") == "RSA" else entry.get("crv")
        algorithm = _KINDS.get((entry.get("kty"), curve))
        key_id = entry.get("kid")
        if algorithm is None or not isinstance(key_id, str) or "d" in entry:
            continue
        if entry.get("use", "sig") != "sig" or entry.get("alg", algorithm) != algorithm:
            continue
        try:
            key = jwt.PyJWK(entry, algorithm=algorithm).key
        except (jwt.PyJWTError, ValueError, TypeError, KeyError) as error:
            _log.warning("oidc_key_unusable", key=key_id, error=repr(error))
            continue
        if isinstance(key, RSAPublicKey) and not _is_sound(key):
            _log.warning("oidc_key_unusable", key=key_id, error="an RSA key of this size is not taken")
            continue
        keys.setdefault((key_id, algorithm), key)
    return keys


def _is_sound(key: RSAPublicKey) -> bool:
    """Whether an RSA key is strong enough, and cheap enough to verify with."""
    return key.key_size in RSA_BITS and key.public_numbers().e < MAX_RSA_EXPONENT
