"""Scopes of accounts and keys."""

from datetime import UTC, datetime

import pytest

from fallow_chassis.errors import INVALID_FIELD, PERMISSION_DENIED, DomainError
from fallow_order.domain.session import (
    ACCOUNT_SCOPES,
    AUDIT_SCOPE,
    TREASURY_SCOPES,
    Account,
    Trusted,
    key_scopes,
    scopes_of,
)

ACCOUNT = Account("a" * 26, "0xAbCdEf0000000000000000000000000000000000", datetime(2026, 1, 1, tzinfo=UTC))


def test_auditors_are_named_by_account_or_address() -> None:
    """Goal: the whole ledger opens to few. Method: not named, named by account, named by address."""
    assert scopes_of(ACCOUNT, Trusted()) == ACCOUNT_SCOPES
    for name in (f"accounts/{ACCOUNT.id}", ACCOUNT.address.lower()):
        assert scopes_of(ACCOUNT, Trusted(auditors=frozenset({name}))) == ACCOUNT_SCOPES | {AUDIT_SCOPE}
        assert scopes_of(ACCOUNT, Trusted(treasurers=frozenset({name}))) == ACCOUNT_SCOPES | TREASURY_SCOPES


def test_a_key_takes_its_makers_scopes_or_fewer() -> None:
    """Goal: no key can do more than its maker. Method: none asked for, some, too many, unknown."""
    held = frozenset({"orders.read", "keys.write"})
    assert key_scopes((), held) == ("keys.write", "orders.read")
    assert key_scopes(("orders.read",), held) == ("orders.read",)
    for asked, reason in (("orders.write", PERMISSION_DENIED), (AUDIT_SCOPE, PERMISSION_DENIED), ("x", INVALID_FIELD)):
        with pytest.raises(DomainError) as caught:
            key_scopes((asked,), held)
        assert caught.value.has_reason(reason)
