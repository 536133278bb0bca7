"""The servicer of sessions."""

from typing import Any

from google.protobuf import empty_pb2

from fallow.order.v1 import session_service_pb2, session_service_pb2_grpc
from fallow_chassis.context import current_identity
from fallow_chassis.errors import DomainError
from fallow_chassis.paging import Page
from fallow_chassis.rate_limit import peer_host
from fallow_chassis.wire import from_timestamp, to_timestamp
from fallow_order import convert
from fallow_order.domain.reasons import ACCOUNT_NOT_FOUND
from fallow_order.queries import SessionQueries
from fallow_order.rpc import caller_account
from fallow_order.session_commands import Session, SessionCommands


class SessionServicer(session_service_pb2_grpc.SessionServiceServicer):
    """SessionService."""

    def __init__(self, commands: SessionCommands, queries: SessionQueries) -> None:
        """Serve use-cases and reads."""
        self._commands = commands
        self._queries = queries

    async def CreateSignInChallenge(
        self, request: session_service_pb2.CreateSignInChallengeRequest, context: Any
    ) -> session_service_pb2.SignInChallenge:
        """Make a message for a wallet to sign."""
        challenge = await self._commands.challenge(request.address, peer_host(context.peer()))
        return session_service_pb2.SignInChallenge(
            message=challenge.text, nonce=challenge.nonce, expire_time=to_timestamp(challenge.expires_at)
        )

    async def SignIn(self, request: session_service_pb2.SignInRequest, context: Any) -> session_service_pb2.Session:
        """Trade a signed message for an access token."""
        return _session(await self._commands.sign_in(request.message, request.signature))

    async def ExchangeApiKey(
        self, request: session_service_pb2.ExchangeApiKeyRequest, context: Any
    ) -> session_service_pb2.Session:
        """Trade an API key for an access token."""
        return _session(await self._commands.exchange_key(request.secret))

    async def ExchangeOidcToken(
        self, request: session_service_pb2.ExchangeOidcTokenRequest, context: Any
    ) -> session_service_pb2.Session:
        """Trade an issuer's identity token for an access token."""
        return _session(await self._commands.exchange_oidc(request.id_token))

    async def GetAccount(
        self, request: session_service_pb2.GetAccountRequest, context: Any
    ) -> session_service_pb2.Account:
        """Return the caller's account."""
        return convert.account_to_proto(await self._queries.account(_own_account(request.name)))

    async def CreateApiKey(
        self, request: session_service_pb2.CreateApiKeyRequest, context: Any
    ) -> session_service_pb2.ApiKey:
        """Make an API key; this answer alone shows its secret."""
        wanted = request.api_key
        key, secret = await self._commands.create_key(
            _own_account(request.parent),
            current_identity().scopes,
            maker=current_identity().api_key.rpartition("/")[2],
            display_name=wanted.display_name,
            scopes=tuple(wanted.scopes),
            expires_at=from_timestamp(wanted.expire_time) if wanted.HasField("expire_time") else None,
            request_id=request.request_id,
            request=request,
        )
        return convert.api_key_to_proto(key, secret)

    async def ListApiKeys(
        self, request: session_service_pb2.ListApiKeysRequest, context: Any
    ) -> session_service_pb2.ListApiKeysResponse:
        """List the caller's API keys, newest first."""
        page = Page(request)
        found = await self._queries.api_keys(
            _own_account(request.parent), before_id=page.after_text(), limit=page.limit
        )
        shown, token = page.cut(found, lambda key: key.id)
        return session_service_pb2.ListApiKeysResponse(
            api_keys=[convert.api_key_to_proto(key) for key in shown], next_page_token=token
        )

    async def DeleteApiKey(self, request: session_service_pb2.DeleteApiKeyRequest, context: Any) -> empty_pb2.Empty:
        """Revoke an API key."""
        parent, _, key_id = request.name.partition("/apiKeys/")
        await self._commands.delete_key(_own_account(parent), key_id)
        return empty_pb2.Empty()


def _own_account(name: str) -> str:
    """The id of an account that must be the caller's, or ``accounts/me``; ACCOUNT_NOT_FOUND for another's."""
    own = caller_account()
    if name not in {"accounts/me", f"accounts/{own}"}:
        raise DomainError(ACCOUNT_NOT_FOUND, "there is no such account")
    return own


def _session(session: Session) -> session_service_pb2.Session:
    """A session as the contract shows it."""
    return session_service_pb2.Session(
        account=f"accounts/{session.account}",
        access_token=session.token,
        expire_time=to_timestamp(session.expires_at),
        scopes=session.scopes,
    )
