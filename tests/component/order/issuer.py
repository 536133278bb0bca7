"""An OpenID Connect issuer for tests: keys that rotate, real HTTP, faults as fields. Keys guard nothing."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from fallow_chassis.clock import SystemClock

AUDIENCE = "fallow.test"
_CLOCK = SystemClock()
_MAKERS: dict[str, tuple[Any, Any]] = {
    "RS256": (lambda: rsa.generate_private_key(65_537, 2_048), RSAAlgorithm),
    "ES256": (lambda: ec.generate_private_key(ec.SECP256R1()), ECAlgorithm),
    "EdDSA": (ed25519.Ed25519PrivateKey.generate, OKPAlgorithm),
}


@dataclass(frozen=True)
class SigningKey:
    """A private key with its id and algorithm."""

    kid: str
    algorithm: str
    key: Any

    @classmethod
    def make(cls, kid: str, algorithm: str) -> Self:
        """A new key."""
        return cls(kid, algorithm, _MAKERS[algorithm][0]())

    @property
    def jwk(self) -> dict[str, Any]:
        """The public half as the issuer publishes it."""
        text = _MAKERS[self.algorithm][1].to_jwk(self.key.public_key())
        return {**json.loads(text), "kid": self.kid, "use": "sig", "alg": self.algorithm}


@dataclass
class LocalIssuer:
    """What it publishes, how it misbehaves, and how often it was asked."""

    address: str = ""
    published: list[SigningKey] = field(default_factory=list)
    extra_keys: list[dict[str, Any]] = field(default_factory=list)
    claimed_issuer: str = ""
    status: int = 200
    padding_bytes: int = 0
    hold: asyncio.Event | None = None
    redirect: str = ""
    asked: int = 0
    runner: web.AppRunner | None = None

    @asynccontextmanager
    async def served(self) -> AsyncIterator[Self]:
        """Serve until the block ends."""
        application = web.Application()
        application.router.add_get("/.well-known/openid-configuration", self._configuration)
        application.router.add_get("/keys", self._keys)
        self.runner = web.AppRunner(application, shutdown_timeout=0)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        host, port = self.runner.addresses[0][:2]
        self.address = f"http://{host}:{port}"
        try:
            yield self
        finally:
            if self.hold is not None:
                self.hold.set()
            await self.runner.cleanup()

    async def _configuration(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {"issuer": self.claimed_issuer or self.address, "jwks_uri": f"{self.address}/keys", "scopes_supported": []}
        )

    async def _keys(self, _request: web.Request) -> web.Response:
        self.asked += 1
        if self.hold is not None:
            await self.hold.wait()
        if self.redirect:
            raise web.HTTPFound(self.redirect)
        keys = [key.jwk for key in self.published] + self.extra_keys
        return web.json_response({"keys": keys, "padding": "x" * self.padding_bytes}, status=self.status)

    def rotate(self, kid: str, algorithm: str = "ES256", *, keep: int = 0) -> SigningKey:
        """Publish a new key with the last ``keep`` ones beside it."""
        made = SigningKey.make(kid, algorithm)
        self.published = [*self.published[len(self.published) - keep :], made]
        return made

    def token(
        self, key: SigningKey, subject: str = "user-1", header: Mapping[str, Any] | None = None, **changes: Any
    ) -> str:
        """A token that ``key`` signs; a claim of None is left out."""
        now_s = int(_CLOCK.now().timestamp())
        claims = {"iss": self.address, "aud": AUDIENCE, "sub": subject, "iat": now_s, "exp": now_s + 600, **changes}
        claims = {name: value for name, value in claims.items() if value is not None}
        headers = {"kid": key.kid, "typ": "JWT", **(header or {})}
        return jwt.encode(claims, key.key, algorithm=key.algorithm, headers=headers)
