"""A wallet: an EVM key in a file. It signs in to the market and pays on the chain."""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount


@dataclass(frozen=True, slots=True)
class Wallet:
    """One private key. Its text never appears in `repr` or in a log."""

    account: "LocalAccount"

    @property
    def address(self) -> str:
        """The EVM address with its EIP-55 checksum."""
        return str(self.account.address)

    @classmethod
    def load(cls, path: Path) -> "Wallet":
        """The wallet of a key file (0x and 64 hexadecimal digits). Raises ValueError when it is not one."""
        from eth_account import Account  # noqa: PLC0415  # takes half a second to import

        try:
            return cls(Account.from_key(path.read_text("utf-8").strip()))
        except (ValueError, OSError) as error:
            raise ValueError(f"{path} holds no private key: {type(error).__name__}") from error

    @classmethod
    def load_or_create(cls, path: Path) -> "Wallet":
        """The wallet of a key file; a new key (mode 0600) when there is no file."""
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(f"0x{secrets.token_hex(32)}\n")
        return cls.load(path)

    def sign_text(self, text: str) -> bytes:
        """The 65-byte EIP-191 signature of a text."""
        from eth_account.messages import encode_defunct  # noqa: PLC0415  # takes half a second to import

        return bytes(self.account.sign_message(encode_defunct(text=text)).signature)
