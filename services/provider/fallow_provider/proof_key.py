"""The agent's Ed25519 key, with which it signs proofs; made at the first start, and never leaves the machine."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from fallow_chassis.identity import generate_key_file
from fallow_chassis.settings import SettingsError
from fallow_provider.domain.proof import proof_text
from fallow_provider.domain.run import ProofFacts


class ProofKey:
    """Signs proofs."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        """Use ``load``."""
        self._key = key

    @classmethod
    def load(cls, path: Path) -> "ProofKey":
        """Read the key, or make it (mode 0600) where there is none; SettingsError if the file holds something else."""
        if not path.exists():
            generate_key_file(path)
        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
        except ValueError as error:
            raise SettingsError(f"{path} holds no private key") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise SettingsError(f"{path} holds no Ed25519 key")
        return cls(key)

    @property
    def public_key(self) -> bytes:
        """The 32 bytes that the market registers."""
        return self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def sign(self, facts: ProofFacts) -> bytes:
        """The 64 bytes of a proof's signature."""
        return self._key.sign(proof_text(facts))
