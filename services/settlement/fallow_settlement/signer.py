"""The anchorer's key: the only module that touches it. Its text never appears in a repr, a log or an error."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount

from fallow_chassis.settings import SettingsError
from fallow_settlement.domain.transaction import Fees


@dataclass(frozen=True, slots=True)
class Signed:
    """Signed bytes and their hash."""

    raw: bytes
    transaction_hash: str


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs transactions of type 2 (EIP-1559) for one chain; the same input gives the same bytes."""

    chain_id: int
    account: LocalAccount = field(repr=False)

    @classmethod
    def load(cls, path: Path, chain_id: int) -> "Signer":
        """Read a key file: 0x and 64 hexadecimal digits, or a JSON object with ``private_key``."""
        try:
            text = path.read_text("utf-8").strip()
            key = json.loads(text)["private_key"] if text.startswith("{") else text
            return cls(chain_id, Account.from_key(key))
        except (OSError, ValueError, KeyError, TypeError) as error:
            # The error's own text may hold the key.
            raise SettingsError(f"{path} holds no EVM key: {type(error).__name__}") from None

    @property
    def address(self) -> str:
        """The address, lower case."""
        return str(self.account.address).lower()

    def sign(self, *, nonce: int, to: str, data: bytes, gas_limit: int, fees: Fees) -> Signed:
        """Sign a transaction that moves no ether; an empty ``to`` creates a contract."""
        transaction: dict[str, Any] = {
            "type": 2,
            "chainId": self.chain_id,
            "nonce": nonce,
            "value": 0,
            "data": data,
            "gas": gas_limit,
            "maxFeePerGas": fees.max_fee,
            "maxPriorityFeePerGas": fees.max_priority_fee,
            "to": bytes.fromhex(to.removeprefix("0x")) if to else b"",
        }
        signed = self.account.sign_transaction(transaction)
        return Signed(bytes(signed.raw_transaction), "0x" + bytes(signed.hash).hex())
