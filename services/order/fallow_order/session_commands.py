"""Signing in, by wallet, API key or identity token, and API keys.

A challenge's nonce is a row that is deleted when it is taken, so it works once, however many calls race for it. It is
taken only after the message reads well, is meant for us and bears a good signature of its address: nobody can use up
another's nonce. An API key's secret is 256 random bits, stored as SHA-256: hashing slowly would guard only a secret
that can be guessed. Quotas are held in the transaction that would break them, under a lock on their holder alone.
"""

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from google.protobuf.message import Message

from fallow_chassis.errors import DomainError
from fallow_chassis.idempotency import claim
from fallow_chassis.identity import TokenSigner
from fallow_chassis.logging import get_logger
from fallow_chassis.postgres import Database, UnitOfWork
from fallow_order import session_store, store
from fallow_order.domain.quota import API_KEYS, RETRY_AFTER_MS, SIGN_IN_CHALLENGES, check_quota
from fallow_order.domain.reasons import (
    API_KEY_INVALID,
    API_KEY_NOT_FOUND,
    SIGN_IN_EXPIRED,
    SIGN_IN_NONCE_USED,
)
from fallow_order.domain.session import (
    KEEP_EXPIRED_KEYS,
    MAX_TOKEN_SECONDS,
    Account,
    ApiKey,
    Trusted,
    key_expiry,
    key_scopes,
    scopes_of,
)
from fallow_order.domain.sign_in import SignInMessage, check_message, read_message, write_message
from fallow_order.oidc import OidcVerifier
from fallow_order.signatures import check_checksum, checksum_address, recover_address

STATEMENT: Final = "Sign in to Fallow. This costs nothing and moves no money."
SECRET_PREFIX: Final = "fallow_"  # noqa: S105 - what secrets start with, so that scanners know one
FORGET_BATCH_ROWS: Final = 1_000
CREATE_KEY_METHOD: Final = "fallow.order.v1.SessionService/CreateApiKey"

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SignInRules:
    """What a message must say, how long challenges and tokens last, and who may audit."""

    domain: str
    uri: str
    chain_id: int
    challenge_seconds: int
    token_seconds: int
    trusted: Trusted
    max_api_keys: int = 0
    max_challenges: int = 0

    def __post_init__(self) -> None:
        """Hold the contract's bound on tokens."""
        assert 0 < self.token_seconds <= MAX_TOKEN_SECONDS, "an access token lasts at most 15 minutes"


@dataclass(frozen=True, slots=True)
class Challenge:
    """A text to sign."""

    text: str
    nonce: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in account with its access token."""

    account: str
    token: str
    expires_at: datetime
    scopes: tuple[str, ...]


class SessionCommands:
    """The use-cases of sessions."""

    def __init__(
        self,
        database: Database,
        signer: TokenSigner,
        rules: SignInRules,
        oidc: OidcVerifier,
        random_text: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        """Work on a database; ``random_text`` gives nonces of at least 8 letters and digits."""
        self._database = database
        self._signer = signer
        self._rules = rules
        self._oidc = oidc
        self._random_text = random_text

    async def challenge(self, address: str, peer: str) -> Challenge:
        """A message for a wallet to sign; its nonce works once. QUOTA_EXCEEDED where ``peer`` leaves too many."""
        checksummed = checksum_address(address)
        nonce = self._random_text()
        async with self._database.transaction() as unit:
            now = unit.clock.now()
            await self._check_challenges(unit, peer, now)
            expires_at = now + timedelta(seconds=self._rules.challenge_seconds)
            await session_store.insert_nonce(
                unit.connection, nonce, address=checksummed, peer=peer, created_at=now, expires_at=expires_at
            )
        message = SignInMessage(
            domain=self._rules.domain,
            address=checksummed,
            statement=STATEMENT,
            uri=self._rules.uri,
            chain_id=self._rules.chain_id,
            nonce=nonce,
            issued_at=now,
            expires_at=expires_at,
        )
        return Challenge(write_message(message), nonce, expires_at)

    async def sign_in(self, text: str, signature: bytes) -> Session:
        """A session for a signed message; the account is made at its first.

        Precedence: the message reads well, is meant for us, is in time; its signature is the address's; its nonce is
        ours, for that address, unused and in time.
        """
        message = read_message(text)
        check_checksum(message.address)
        rules = self._rules
        check_message(
            message, domain=rules.domain, uri=rules.uri, chain_id=rules.chain_id, now=self._database.clock.now()
        )
        recover_address(text, signature, message.address)
        async with self._database.transaction() as unit:
            now = unit.clock.now()
            taken = await session_store.take_nonce(unit.connection, message.nonce)
            if taken is None or taken[0] != message.address:
                raise DomainError(SIGN_IN_NONCE_USED, "the nonce is not for use, or no longer")
            if taken[1] <= now:
                raise DomainError(SIGN_IN_EXPIRED, "the challenge has run out")
            account = await session_store.ensure_account(unit.connection, unit.ids.new(), message.address, now)
        _log.info("signed_in", account=f"accounts/{account.id}")
        return self._session(account, scopes_of(account, rules.trusted))

    async def exchange_key(self, secret: str) -> Session:
        """A session for an API key; API_KEY_INVALID for a key that is unknown, revoked or over."""
        async with self._database.transaction() as unit:
            now = unit.clock.now()
            key = await session_store.use_api_key(unit.connection, secret_hash(secret), now)
            account = None if key is None else await session_store.load_account(unit.connection, key.account)
        if key is None or account is None or not key.is_live(now):
            raise DomainError(API_KEY_INVALID, "the key is unknown, revoked or has run out")
        # A scope that the account has lost since the key was made is lost for the key, too.
        scopes = scopes_of(account, self._rules.trusted) & frozenset(key.scopes)
        return self._session(account, scopes, until=key.expires_at, api_key=key.id)

    async def exchange_oidc(self, token: str) -> Session:
        """A session for an issuer's identity token, no longer than that; the account is made at its first."""
        identity = await self._oidc.verify(token)
        async with self._database.transaction() as unit:
            now = unit.clock.now()
            account = await session_store.ensure_account_of_identity(unit.connection, unit.ids.new(), identity, now)
        _log.info("signed_in", account=f"accounts/{account.id}", issuer=identity.issuer)
        return self._session(account, scopes_of(account, self._rules.trusted), until=identity.expires_at)

    async def create_key(
        self,
        account: str,
        held_scopes: frozenset[str],
        *,
        maker: str,
        display_name: str,
        scopes: tuple[str, ...],
        expires_at: datetime | None,
        request_id: str,
        request: Message,
    ) -> tuple[ApiKey, str]:
        """A new key and its secret; a repeat answers the key with an empty secret, for it is nowhere any more.

        ``maker`` is the id of the key that the caller's token was traded for, or empty: a key makes none that can do
        more or lives longer than itself, and none once it is revoked.
        """
        granted = key_scopes(scopes, held_scopes)
        async with self._database.transaction() as unit:
            until = key_expiry(expires_at, await _live_maker(unit, maker, account), unit.clock.now())
            taken = await claim(
                unit,
                caller=f"accounts/{account}",
                method=CREATE_KEY_METHOD,
                request_id=request_id,
                request=request,
                resource=unit.ids.new(),
            )
            if not taken.first:
                found = await session_store.load_api_key(unit.connection, taken.resource, account)
                if found is None:
                    raise DomainError(API_KEY_NOT_FOUND, "the key of this request was revoked")
                return found, ""
            await self._check_keys(unit, account)
            secret = SECRET_PREFIX + secrets.token_urlsafe(32)
            key = ApiKey(
                id=taken.resource,
                account=account,
                display_name=display_name,
                scopes=granted,
                created_at=unit.clock.now(),
                expires_at=until,
            )
            await session_store.insert_api_key(unit.connection, key, secret_hash(secret))
        _log.info("api_key_created", account=f"accounts/{account}", key=key.id)
        return key, secret

    async def delete_key(self, account: str, key_id: str) -> None:
        """Revoke a key; API_KEY_NOT_FOUND for another's as for none."""
        async with self._database.transaction() as unit:
            if not await session_store.delete_api_key(unit.connection, key_id, account):
                raise DomainError(API_KEY_NOT_FOUND, "there is no such key")

    async def forget(self) -> None:
        """Delete nonces that ran out unused, and keys that ran out long ago."""
        async with self._database.transaction() as unit:
            now = unit.clock.now()
            await session_store.delete_old_nonces(unit.connection, now, FORGET_BATCH_ROWS)
            await session_store.delete_old_api_keys(unit.connection, now - KEEP_EXPIRED_KEYS, FORGET_BATCH_ROWS)

    async def _check_challenges(self, unit: UnitOfWork, peer: str, now: datetime) -> None:
        """Whether a peer may have one more challenge; room comes when the first of those it has runs out."""
        limit = self._rules.max_challenges
        if not limit:
            return
        await store.lock_quotas(unit.connection, [f"{SIGN_IN_CHALLENGES}|{peer}"])
        waiting, next_at = await session_store.count_nonces(unit.connection, peer, now)
        wait_ms = RETRY_AFTER_MS if next_at is None else max(1, round((next_at - now) / timedelta(milliseconds=1)))
        check_quota(SIGN_IN_CHALLENGES, limit=limit, used=waiting, retry_after_ms=wait_ms)

    async def _check_keys(self, unit: UnitOfWork, account: str) -> None:
        """Whether an account may have one more key."""
        limit = self._rules.max_api_keys
        if not limit:
            return
        await store.lock_quotas(unit.connection, [f"{API_KEYS}|{account}"])
        used = await session_store.count_api_keys(unit.connection, account, unit.clock.now())
        check_quota(API_KEYS, limit=limit, used=used)

    def _session(
        self, account: Account, scopes: frozenset[str], *, until: datetime | None = None, api_key: str = ""
    ) -> Session:
        """Sign an access token that does not outlive what it was given for."""
        now = self._database.clock.now()
        lifetime = self._rules.token_seconds
        if until is not None:
            lifetime = max(1, min(lifetime, int((until - now).total_seconds())))
        name = f"accounts/{account.id}"
        key_name = f"{name}/apiKeys/{api_key}" if api_key else ""
        token = self._signer.access_token(name, scopes, lifetime, account.address, api_key=key_name)
        return Session(account.id, token, now + timedelta(seconds=lifetime), tuple(sorted(scopes)))


async def _live_maker(unit: UnitOfWork, key_id: str, account: str) -> ApiKey | None:
    """The key that makes another, or None where the account itself does; API_KEY_INVALID for one that is over."""
    if not key_id:
        return None
    maker = await session_store.load_api_key(unit.connection, key_id, account)
    if maker is None or not maker.is_live(unit.clock.now()):
        raise DomainError(API_KEY_INVALID, "the key that the token was traded for is revoked or has run out")
    return maker


def secret_hash(secret: str) -> bytes:
    """What is stored of a secret."""
    return hashlib.sha256(secret.encode()).digest()
