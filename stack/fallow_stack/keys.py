"""Development keys: made at the first start, kept under the stack's folder, marked as what they are.

One Ed25519 identity key a service with the public halves in one JWKS file; wallets (EVM keys) of the settlement
service, of the development tenant and of each provider's owner; the key that encrypts workloads at rest.
"""

import base64
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fallow_chassis.identity import generate_key_file, public_jwk, write_jwks
from fallow_sdk.wallet import Wallet
from fallow_stack.home import Home

NOTICE = """These keys were made by `fallow up` for development on this machine.
They guard nothing of value. Never use them anywhere else, and never copy them into a deployment.
"""
SIGNING_SERVICES = ("order", "bidding", "settlement")
WORKLOAD_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Keys:
    """Where the keys of a stack are."""

    folder: Path

    def identity(self, service: str) -> Path:
        """The Ed25519 key with which a service signs its tokens."""
        return self.folder / f"{service}-identity.pem"

    @property
    def jwks(self) -> Path:
        """The public halves of all identity keys."""
        return self.folder / "jwks.json"

    @property
    def workload(self) -> Path:
        """The key that encrypts workloads at rest: one line `{key id}:{base64}`."""
        return self.folder / "workload.key"

    def wallet(self, owner: str) -> Path:
        """The EVM key of `settlement`, `tenant` or a provider's owner."""
        return self.folder / f"{owner}-wallet.key"


def make_keys(home: Home, wallets: Sequence[str]) -> Keys:
    """The keys of a stack; those that are missing are made."""
    keys = Keys(home.keys)
    (keys.folder / "README").write_text(NOTICE, "utf-8")
    for service in SIGNING_SERVICES:
        if not keys.identity(service).exists():
            generate_key_file(keys.identity(service))
    write_jwks(keys.jwks, [public_jwk(keys.identity(service), service) for service in SIGNING_SERVICES])
    if not keys.workload.exists():
        keys.workload.touch(mode=0o600)
        secret = base64.b64encode(secrets.token_bytes(WORKLOAD_KEY_BYTES)).decode("ascii")
        keys.workload.write_text(f"development-1:{secret}\n", "utf-8")
    for owner in wallets:
        Wallet.load_or_create(keys.wallet(owner))
    return keys
