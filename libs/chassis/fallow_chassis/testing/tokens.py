"""Keys and tokens of all services for tests: each signed as its real issuer would sign it."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from fallow_chassis.clock import Clock, SystemClock
from fallow_chassis.context import GrantClaims
from fallow_chassis.identity import TokenSigner, TokenVerifier, generate_key_file, public_jwk, write_jwks

SERVICES: Final = ("order", "bidding", "settlement", "provider")
TOKEN_SECONDS: Final = 900
GRANT_SECONDS: Final = 3_600


class TestIdentity:
    """One Ed25519 key a service, the JWKS of all of them, and makers of every kind of token."""

    # pytest would take the name for a test class.
    __test__ = False

    def __init__(self, directory: Path, *, clock: Clock | None = None, services: Iterable[str] = SERVICES) -> None:
        """Write the keys into ``directory``; tokens live by ``clock``."""
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._clock = clock or SystemClock()
        self.jwks = directory / "jwks.json"
        names = list(services)
        for name in names:
            generate_key_file(self.key_file(name))
        write_jwks(self.jwks, [public_jwk(self.key_file(name), name) for name in names])
        self.verifier = TokenVerifier.load(self.jwks, clock=self._clock)

    def key_file(self, service: str) -> Path:
        """A service's private key, for its setting ``identity_key_file``."""
        return self._directory / f"{service}.pem"

    def signer(self, service: str) -> TokenSigner:
        """What a service signs with."""
        return TokenSigner.load(self.key_file(service), service, clock=self._clock)

    def account_token(
        self,
        account: str = "accounts/tenant",
        scopes: Iterable[str] = (),
        *,
        address: str = "",
        lifetime_seconds: int = TOKEN_SECONDS,
    ) -> str:
        """An access token as the order service gives to an account."""
        return self.signer("order").access_token(account, scopes, lifetime_seconds, address)

    def service_token(self, service: str) -> str:
        """A service's own token."""
        return self.signer(service).service_token()

    def grant(self, claims: GrantClaims, *, lifetime_seconds: int = GRANT_SECONDS) -> str:
        """A grant as the bidding service hands it out."""
        return self.signer("bidding").grant(claims, lifetime_seconds)

    def as_service(self, service: str) -> Callable[[], str]:
        """What ``grpc_client.channel`` takes to call as a service."""
        return self.signer(service).service_token

    def as_account(self, account: str = "accounts/tenant", scopes: Iterable[str] = ()) -> Callable[[], str]:
        """What ``grpc_client.channel`` takes to call as an account; each call has a token of its own."""
        return lambda: self.account_token(account, scopes)
