"""Workloads at rest: AES-256-GCM (NIST SP 800-38D), a fresh 96-bit random nonce each, the key's id beside it.

The order, the group and the revision are associated data, so a row that is moved does not open. New workloads are
sealed with the first key; the others still open what they sealed, and a job seals that anew with the first. Plain text
is never logged, and errors name the key's id only.
"""

import base64
import binascii
import os
from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fallow_chassis.errors import DomainError
from fallow_chassis.logging import get_logger
from fallow_chassis.settings import SettingsError
from fallow_order.domain.reasons import WORKLOAD_KEY_MISSING
from fallow_order.store import Sealed

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12

_log = get_logger(__name__)


class VaultError(Exception):
    """A workload does not open: the row was tampered with or moved."""


class Vault:
    """Seals and opens workloads."""

    def __init__(self, keys: Mapping[str, bytes], current: str) -> None:
        """Keep the keys by id; ``current`` seals."""
        assert current in keys, "the current key is one of the keys"
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self.current = current

    @property
    def key_ids(self) -> frozenset[str]:
        """Ids of the keys that are there."""
        return frozenset(self._ciphers)

    @classmethod
    def parse(cls, text: str) -> "Vault":
        """Read ``id:base64,id:base64``, the current key first; SettingsError names what is wrong, never a key."""
        keys: dict[str, bytes] = {}
        for number, entry in enumerate(filter(None, (part.strip() for part in text.split(","))), start=1):
            key_id, colon, encoded = entry.partition(":")
            try:
                key = base64.b64decode(encoded, validate=True)
            except (binascii.Error, ValueError):
                key = b""
            if not colon or not key_id or key_id in keys or len(key) != KEY_BYTES:
                raise SettingsError(
                    f"FALLOW_WORKLOAD_KEYS: entry {number} must be id:base64 of {KEY_BYTES} bytes, with an id of its own"
                )
            keys[key_id] = key
        if not keys:
            raise SettingsError("FALLOW_WORKLOAD_KEYS is not set")
        return cls(keys, next(iter(keys)))

    def seal(self, order_id: str, index: int, workload: bytes, revision: int = 1) -> Sealed:
        """Encrypt one revision of one group's workload."""
        nonce = os.urandom(NONCE_BYTES)
        ciphertext = self._ciphers[self.current].encrypt(nonce, workload, _associated(order_id, index, revision))
        return Sealed(self.current, nonce, ciphertext)

    def open(self, order_id: str, index: int, sealed: Sealed, revision: int = 1) -> bytes:
        """Decrypt one revision of one group's workload; WORKLOAD_KEY_MISSING, or VaultError if it was changed."""
        cipher = self._ciphers.get(sealed.key_id)
        if cipher is None:
            _log.error("workload_key_missing", key=sealed.key_id, order=f"orders/{order_id}")
            raise DomainError(
                WORKLOAD_KEY_MISSING,
                f"the workload was sealed with the key {sealed.key_id}, which the service does not have now",
                metadata={"key": sealed.key_id},
            )
        try:
            return cipher.decrypt(sealed.nonce, sealed.ciphertext, _associated(order_id, index, revision))
        except InvalidTag:
            raise VaultError(f"a workload sealed with the key {sealed.key_id} does not open") from None


def _associated(order_id: str, index: int, revision: int) -> bytes:
    """What a workload belongs to; the first revision is named as it was before there were others."""
    later = f"|{revision}" if revision > 1 else ""
    return f"fallow-workload-v1|{order_id}|{index}{later}".encode()
