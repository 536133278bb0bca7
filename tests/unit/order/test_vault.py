"""Workloads at rest: sealed, opened, rotated, and refused where they were moved or changed."""

import base64
from dataclasses import replace

import pytest

from fallow_chassis.errors import DomainError
from fallow_chassis.settings import SettingsError
from fallow_order.vault import Vault, VaultError

OLD = base64.b64encode(b"o" * 32).decode()
NEW = base64.b64encode(b"n" * 32).decode()


def test_a_workload_opens_as_it_was_sealed_and_hides_meanwhile() -> None:
    """Goal: encryption at rest. Method: seal twice, look for the plain text, open."""
    vault = Vault.parse(f"k1:{OLD}")
    first, second = vault.seal("o", 0, b"secret"), vault.seal("o", 0, b"secret")
    assert b"secret" not in first.ciphertext
    assert first.nonce != second.nonce
    assert vault.open("o", 0, first) == vault.open("o", 0, second) == b"secret"


def test_rotation_seals_with_the_new_key_and_opens_the_old() -> None:
    """Goal: keys rotate without a pause. Method: put a new key first, then take the old one out."""
    sealed = Vault.parse(f"k1:{OLD}").seal("o", 0, b"secret")
    rotated = Vault.parse(f"k2:{NEW}, k1:{OLD}")
    assert rotated.open("o", 0, sealed) == b"secret"
    assert rotated.seal("o", 0, b"x").key_id == "k2"
    with pytest.raises(DomainError, match="k1"):
        Vault.parse(f"k2:{NEW}").open("o", 0, sealed)


def test_moved_and_changed_rows_do_not_open() -> None:
    """Goal: a row opens only where it was put, unchanged. Method: another order, group, revision, a flipped bit."""
    vault = Vault.parse(f"k1:{OLD}")
    sealed = vault.seal("o", 0, b"secret")
    changed = replace(sealed, ciphertext=bytes([sealed.ciphertext[0] ^ 1]) + sealed.ciphertext[1:])
    second = vault.seal("o", 0, b"secret", 2)
    places = (("p", 0, sealed, 1), ("o", 1, sealed, 1), ("o", 0, changed, 1))
    for order, group, row, revision in (*places, ("o", 0, sealed, 2), ("o", 0, second, 1), ("o", 0, second, 3)):
        with pytest.raises(VaultError):
            vault.open(order, group, row, revision)
    assert vault.open("o", 0, second, 2) == b"secret"


@pytest.mark.parametrize(
    "text",
    [
        "",
        " , ",
        "k1",
        "k1:",
        ":" + OLD,
        "k1:not base64",
        f"k1:{OLD},k1:{NEW}",
        "k1:" + base64.b64encode(b"short").decode(),
    ],
)
def test_bad_keys_are_named_but_never_shown(text: str) -> None:
    """Goal: a wrong setting stops the start and leaks nothing. Method: malformed settings."""
    with pytest.raises(SettingsError) as caught:
        Vault.parse(text)
    assert "FALLOW_WORKLOAD_KEYS" in str(caught.value)
    assert OLD not in str(caught.value)
