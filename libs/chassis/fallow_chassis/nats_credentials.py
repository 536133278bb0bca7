"""NATS in operator mode: who signs whom, and what each user may do.

An operator key signs accounts, an account's key signs users, and a user's JWT carries its permissions, so the server
checks everybody offline and knows no password. There are two accounts: ``SYS``, which the server itself needs, and
``FALLOW``, in which all traffic and JetStream live. The seed of ``FALLOW`` is what the bidding service signs providers'
credentials with; operator and account seeds are files of mode 0600 and never leave the platform.

A provider may speak on its own subjects and listen to its commands, to the market's announcements and to its own
inbox, whose prefix is ``_INBOX_{name}`` (``inbox_prefix``); answers to commands are allowed by reply permission, so it
can publish into nobody's inbox unasked. A user without any allowed subject is denied all: to NATS an empty list means
everything.

JWTs are NATS's version 2 claims with algorithm ``ed25519-nkey`` (nats-io/jwt).
"""

import base64
import hashlib
import json
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import nkeys

from fallow_chassis.clock import Clock, SystemClock

ACCOUNT_NAME: Final = "FALLOW"
SYSTEM_ACCOUNT_NAME: Final = "SYS"
RESPONSE_TTL_SECONDS: Final = 120
"""How long after a request a user may still answer it."""
PROVIDER_MAX_SUBSCRIPTIONS: Final = 64
PROVIDER_MAX_PAYLOAD_BYTES: Final = 1024 * 1024
PROVIDER_SPEAKS: Final = ("heartbeat", "inventory", "bid", "log")
"""The last tokens of the subjects ``fallow.provider.{id}.…`` on which a provider may publish."""
PROVIDER_HEARS: Final = ("command",)
"""The last tokens of those it may subscribe to."""
ANNOUNCEMENTS: Final = "fallow.market.auction.>"

_NAME_SHAPE: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_UNLIMITED: Final = -1
_JWT_LINE: Final = re.compile(r"-----BEGIN NATS USER JWT-----\s+(\S+)\s+------END NATS USER JWT------")


@dataclass(frozen=True, slots=True)
class Operator:
    """What a server needs to check users, and the seed that signs them; ``repr`` shows no seed."""

    operator_jwt: str
    system_account: str
    system_account_jwt: str
    account: str
    account_jwt: str
    account_seed_file: Path

    @property
    def account_seed(self) -> str:
        """The seed of the account ``FALLOW``, which signs users."""
        return self.account_seed_file.read_text("ascii").strip()


def make_operator(directory: Path, *, clock: Clock | None = None) -> Operator:
    """Make the operator and its two accounts in ``directory``, or load what was made there before.

    Seeds are written with mode 0600. Safe to repeat after a crash in the middle: each seed is kept once it is there,
    and the JWTs are signed anew from them.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    now_s = int((clock or SystemClock()).now().timestamp())
    operator = _keep_seed(directory / "operator.seed", nkeys.PREFIX_BYTE_OPERATOR)
    system = _keep_seed(directory / "system.seed", nkeys.PREFIX_BYTE_ACCOUNT)
    account = _keep_seed(directory / "account.seed", nkeys.PREFIX_BYTE_ACCOUNT)
    operator_public, system_public, account_public = (_public(seed) for seed in (operator, system, account))
    return Operator(
        operator_jwt=_sign(
            operator,
            {
                "name": "fallow",
                "sub": operator_public,
                "nats": {"type": "operator", "version": 2, "system_account": system_public},
            },
            now_s,
        ),
        system_account=system_public,
        system_account_jwt=_sign(operator, _account_claims(SYSTEM_ACCOUNT_NAME, system_public, stored=0), now_s),
        account=account_public,
        account_jwt=_sign(operator, _account_claims(ACCOUNT_NAME, account_public, stored=_UNLIMITED), now_s),
        account_seed_file=directory / "account.seed",
    )


def user_credentials(
    account_seed: str,
    name: str,
    *,
    publish: Sequence[str],
    subscribe: Sequence[str],
    responses: int = 1,
    max_subscriptions: int = _UNLIMITED,
    max_payload_bytes: int = _UNLIMITED,
    expires_at: datetime | None = None,
    clock: Clock | None = None,
) -> str:
    """The text of a .creds file for a new user key with these permissions and no others.

    ``responses`` is how many answers it may give to one request that it received (0: none), whatever ``publish`` says.
    Each call makes a new key; ``name`` becomes the user's name and its inbox prefix and must be one NATS token.
    """
    assert _NAME_SHAPE.fullmatch(name), f"{name!r} cannot be a token of a subject"
    user_seed = _new_seed(nkeys.PREFIX_BYTE_USER)
    permissions: dict[str, Any] = {
        "type": "user",
        "version": 2,
        "pub": _allowed(publish),
        "sub": _allowed(subscribe),
        "subs": max_subscriptions,
        "data": _UNLIMITED,
        "payload": max_payload_bytes,
    }
    if responses:
        permissions["resp"] = {"max": responses, "ttl": RESPONSE_TTL_SECONDS * 1_000_000_000}
    claims: dict[str, Any] = {"name": name, "sub": _public(user_seed), "nats": permissions}
    if expires_at is not None:
        claims["exp"] = int(expires_at.timestamp())
    jwt = _sign(account_seed, claims, int((clock or SystemClock()).now().timestamp()))
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user_seed}\n------END USER NKEY SEED------\n"
    )


def provider_credentials(
    account_seed: str, provider: str, *, expires_at: datetime | None = None, clock: Clock | None = None
) -> str:
    """Credentials of one provider (its id, not its resource name): its own subjects and inbox, nothing else."""
    own = f"fallow.provider.{provider}"
    return user_credentials(
        account_seed,
        provider,
        publish=[f"{own}.{word}" for word in PROVIDER_SPEAKS],
        subscribe=[*(f"{own}.{word}" for word in PROVIDER_HEARS), ANNOUNCEMENTS, f"{inbox_prefix(provider)}.>"],
        max_subscriptions=PROVIDER_MAX_SUBSCRIPTIONS,
        max_payload_bytes=PROVIDER_MAX_PAYLOAD_BYTES,
        expires_at=expires_at,
        clock=clock,
    )


def service_credentials(account_seed: str, service: str, *, clock: Clock | None = None) -> str:
    """Credentials of one of the platform's services: every subject of the account, JetStream with it."""
    return user_credentials(account_seed, service, publish=[">"], subscribe=[">"], clock=clock)


def inbox_prefix(name: str) -> str:
    """Where answers to the user ``name`` arrive: only it may listen there."""
    return f"_INBOX_{name}"


def user_name(credentials: str) -> str:
    """The name inside the text of a .creds file; ValueError if it is none. The signature is the server's to check."""
    found = _JWT_LINE.search(credentials)
    if found is None:
        raise ValueError("the text holds no NATS user JWT")
    try:
        body = found.group(1).split(".")[1]
        name = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))["name"]
    except (IndexError, KeyError, ValueError) as error:
        raise ValueError("the NATS user JWT is malformed") from error
    if not isinstance(name, str) or not _NAME_SHAPE.fullmatch(name):
        raise ValueError("the NATS user JWT has no usable name")
    return name


def _allowed(subjects: Sequence[str]) -> dict[str, list[str]]:
    """Permissions for these subjects; an empty list denies all."""
    return {"allow": list(subjects)} if subjects else {"deny": [">"]}


def _account_claims(name: str, public: str, *, stored: int) -> dict[str, Any]:
    """Claims of an account; ``stored`` is its limit of JetStream storage (0: no JetStream, -1: unlimited)."""
    limits: dict[str, Any] = dict.fromkeys(
        ("subs", "data", "payload", "imports", "exports", "conn", "leaf", "streams", "consumer"), _UNLIMITED
    )
    limits |= {"wildcards": True, "mem_storage": stored, "disk_storage": stored}
    return {
        "name": name,
        "sub": public,
        "nats": {"type": "account", "version": 2, "limits": limits, "default_permissions": {"pub": {}, "sub": {}}},
    }


def _sign(seed: str, claims: Mapping[str, Any], now_s: int) -> str:
    """A NATS JWT, issued by the key of ``seed``; ``jti`` is the hash of the claims, as nats-io/jwt makes it."""
    body = {**claims, "iss": _public(seed), "iat": now_s}
    digest = hashlib.sha256(_json(body)).digest()
    body["jti"] = base64.b32encode(digest).decode().rstrip("=")
    signed = f"{_base64url(_json({'typ': 'JWT', 'alg': 'ed25519-nkey'}))}.{_base64url(_json(body))}"
    return f"{signed}.{_base64url(nkeys.from_seed(seed.encode()).sign(signed.encode()))}"


def _keep_seed(path: Path, prefix: int) -> str:
    """The seed in a file, made first if the file is not there."""
    try:
        return path.read_text("ascii").strip()
    except FileNotFoundError:
        pass
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(_new_seed(prefix) + "\n")
    try:
        # A link fails where the file is there already, so that of two processes that race one key stands.
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return path.read_text("ascii").strip()


def _new_seed(prefix: int) -> str:
    """A fresh nkey seed of this kind."""
    seed: bytes = nkeys.encode_seed(secrets.token_bytes(32), prefix)
    return seed.decode()


def _public(seed: str) -> str:
    """The public key of a seed, in nkey form."""
    key: bytes = nkeys.from_seed(seed.encode()).public_key
    return key.decode()


def _json(value: Mapping[str, Any]) -> bytes:
    """Compact JSON."""
    return json.dumps(value, separators=(",", ":")).encode()


def _base64url(value: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(value).decode().rstrip("=")
