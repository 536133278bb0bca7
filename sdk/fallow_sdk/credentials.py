"""What a client signs in with, and how it trades that for an access token: a wallet, an API key, an identity token.

A credential is kept by the client, which trades it again before the access token runs out.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fallow.order.v1 import session_service_pb2, session_service_pb2_grpc
from fallow_sdk.wallet import Wallet

Call = Callable[[Any, Any], Awaitable[Any]]
"""One unary call with the client's deadline and retries: the stub's method and the request."""


class Credential(Protocol):
    """Something that the order service trades for an access token."""

    async def trade(
        self, sessions: "session_service_pb2_grpc.SessionServiceAsyncStub", call: Call
    ) -> session_service_pb2.Session:
        """A new session."""
        ...


@dataclass(frozen=True, slots=True)
class WalletCredential:
    """Sign-in by EIP-4361 with a wallet's key."""

    wallet: Wallet = field(repr=False)

    async def trade(
        self, sessions: "session_service_pb2_grpc.SessionServiceAsyncStub", call: Call
    ) -> session_service_pb2.Session:
        """Ask for a challenge and sign it."""
        challenge = await call(
            sessions.CreateSignInChallenge,
            session_service_pb2.CreateSignInChallengeRequest(address=self.wallet.address),
        )
        signature = self.wallet.sign_text(challenge.message)
        request = session_service_pb2.SignInRequest(message=challenge.message, signature=signature)
        session: session_service_pb2.Session = await call(sessions.SignIn, request)
        return session


@dataclass(frozen=True, slots=True)
class ApiKeyCredential:
    """An API key's secret."""

    secret: str = field(repr=False)

    @classmethod
    def load(cls, path: Path) -> "ApiKeyCredential":
        """The key in a file. Raises OSError."""
        return cls(path.read_text("utf-8").strip())

    async def trade(
        self, sessions: "session_service_pb2_grpc.SessionServiceAsyncStub", call: Call
    ) -> session_service_pb2.Session:
        """Trade the secret."""
        request = session_service_pb2.ExchangeApiKeyRequest(secret=self.secret)
        session: session_service_pb2.Session = await call(sessions.ExchangeApiKey, request)
        return session


@dataclass(frozen=True, slots=True)
class OidcTokenFile:
    """An identity token in a file, which somebody else renews; it is read anew at each trade."""

    path: Path

    async def trade(
        self, sessions: "session_service_pb2_grpc.SessionServiceAsyncStub", call: Call
    ) -> session_service_pb2.Session:
        """Trade the token that the file holds now. Raises OSError."""
        request = session_service_pb2.ExchangeOidcTokenRequest(id_token=self.path.read_text("utf-8").strip())
        session: session_service_pb2.Session = await call(sessions.ExchangeOidcToken, request)
        return session
