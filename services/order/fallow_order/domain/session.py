"""Accounts, sign-in nonces, API keys, and what a token may carry."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from fallow_chassis.errors import PERMISSION_DENIED, DomainError, invalid_field

ACCOUNT_SCOPES: Final = frozenset(
    {
        "orders.read",
        "orders.write",
        "funds.read",
        "funds.write",
        "providers.read",
        "providers.write",
        "keys.write",
        "leases.grant",
    }
)
"""What every account may do with what is its own."""
AUDIT_SCOPE: Final = "ledger.audit"
"""Reading the whole ledger: for accounts that settings name."""
TREASURY_SCOPES: Final = frozenset({"ledger.write", "programmes.write"})
"""Moving the platform's money, and giving of it: for accounts that settings name."""
MAX_TOKEN_SECONDS: Final = 900
KEEP_EXPIRED_KEYS: Final = timedelta(days=30)
"""How long a key that ran out is still listed."""


@dataclass(frozen=True, slots=True)
class Account:
    """An account; ``address`` has its EIP-55 checksum, and is empty for one that has no wallet."""

    id: str
    address: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key for programs, without its secret."""

    id: str
    account: str
    display_name: str
    scopes: tuple[str, ...]
    created_at: datetime
    last_used_at: datetime | None = None
    expires_at: datetime | None = None

    def is_live(self, now: datetime) -> bool:
        """Whether its time is not over."""
        return self.expires_at is None or now < self.expires_at


@dataclass(frozen=True, slots=True)
class Trusted:
    """Who may do more than what is its own: account names and lower-case addresses."""

    auditors: frozenset[str] = frozenset()
    treasurers: frozenset[str] = frozenset()


def scopes_of(account: Account, trusted: Trusted) -> frozenset[str]:
    """All scopes of an account."""
    names = {f"accounts/{account.id}", account.address.lower()} - {""}
    scopes = ACCOUNT_SCOPES
    if names & trusted.auditors:
        scopes |= {AUDIT_SCOPE}
    return scopes | TREASURY_SCOPES if names & trusted.treasurers else scopes


def key_scopes(requested: tuple[str, ...], held: frozenset[str]) -> tuple[str, ...]:
    """Scopes of a new key: those asked for, or all of the maker's; PERMISSION_DENIED for one that the maker lacks."""
    unknown = sorted(set(requested) - ACCOUNT_SCOPES - TREASURY_SCOPES - {AUDIT_SCOPE})
    if unknown:
        raise invalid_field("api_key.scopes", f"there is no scope {unknown[0]}")
    lacking = sorted(set(requested) - held)
    if lacking:
        raise DomainError(PERMISSION_DENIED, f"the caller lacks the scope {lacking[0]}", metadata={"scope": lacking[0]})
    return tuple(sorted(set(requested) or held))


def key_expiry(requested: datetime | None, maker: ApiKey | None, now: datetime) -> datetime | None:
    """When a new key runs out: as asked for, in the future; one that another key makes never outlives that one."""
    if requested is not None and requested <= now:
        raise invalid_field("api_key.expire_time", "must be in the future")
    if maker is None or maker.expires_at is None:
        return requested
    if requested is not None and requested > maker.expires_at:
        raise invalid_field("api_key.expire_time", "must not be later than that of the key which makes it")
    return requested or maker.expires_at
