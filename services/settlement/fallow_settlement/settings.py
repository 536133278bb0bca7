"""What settlement can be told from outside."""

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from fallow_chassis.settings import ServiceSettings, SettingsError
from fallow_settlement.domain.rules import Rules


class SettlementSettings(ServiceSettings):
    """Settings of the settlement service; times are seconds, shares are basis points."""

    needed = ("database_url", "identity_key_file", "jwks")

    bidding_address: str = Field(
        default="", description="Bidding's gRPC address; empty: orders are never ended for funds."
    )
    take_basis_points: dict[str, int] = Field(
        default={"usdc": 2_000, "fallow": 400},
        description="Assets that are taken, each with the platform's take in basis points, as JSON: `fallow` is the native one.",
    )
    pool_basis_points: int = Field(
        default=0, ge=0, le=10_000, description="The community pool's part of the platform's take."
    )
    charge_interval_seconds: float = Field(default=60, gt=0, description="How often proven time is charged.")
    close_interval_seconds: float = Field(default=1, gt=0, description="How often ended orders are looked at.")
    final_proof_wait_seconds: float = Field(
        default=60, ge=0, description="How long an ended order waits for its final proofs."
    )
    low_runway_seconds: float = Field(default=600, ge=0, description="The runway below which an escrow is low.")
    grace_seconds: float = Field(
        default=600, ge=0, description="How long an order whose funds are used up stays paused before it is ended."
    )
    chain_rpc_url: str = Field(
        default="",
        repr=False,
        description="JSON-RPC addresses of the chain, with commas between them; empty: no chain.",
    )
    chain_key_file: str = Field(default="", description="The anchorer's EVM key: 0x and 64 hexadecimal digits.")
    contracts_file: str = Field(default="", description="Addresses of the contracts, as deploy-contracts writes them.")
    chain_interval_seconds: float = Field(default=1, gt=0, description="How often the chain is asked.")
    chain_confirmations: int = Field(default=1, ge=1, le=10_000, description="Blocks until something is final.")
    chain_asset: str = Field(default="usdc", description="The asset that the vault's token is.")
    chain_public_rpc_url: str = Field(default="", description="JSON-RPC address that tenants are told; empty: none.")
    chain_fee_cap_gwei: int = Field(default=200, ge=1, description="The most that a transaction pays per gas, in gwei.")
    chain_bump_seconds: float = Field(
        default=60, gt=0, description="How long a transaction waits before its fee rises."
    )
    batch_interval_seconds: float = Field(default=600, gt=0, description="How long a charge waits for a batch at most.")
    longest_silence_seconds: float = Field(
        default=86_400,
        gt=0,
        description="After how long a batch is made of nothing: far less than the contracts' escape-seconds.",
    )
    batch_size: int = Field(default=10_000, ge=1, le=10_000, description="Charges that fill a batch.")

    def rules(self) -> Rules:
        """What this installation decides about money."""
        if any(not 0 <= take <= 10_000 for take in self.take_basis_points.values()):
            raise SettingsError("FALLOW_TAKE_BASIS_POINTS: a take is 0 to 10000 basis points")
        return Rules(
            take_basis_points=dict(self.take_basis_points),
            pool_basis_points=self.pool_basis_points,
            final_wait_ms=round(self.final_proof_wait_seconds * 1_000),
            low_runway_ms=round(self.low_runway_seconds * 1_000),
            grace_ms=round(self.grace_seconds * 1_000),
        )


@dataclass(frozen=True, slots=True)
class Contracts:
    """Where the contracts stand; ``token`` is the ERC-20 that the vault takes, ``block`` the first one to scan."""

    chain_id: int
    anchor: str
    vault: str
    token: str
    block: int

    @classmethod
    def load(cls, path: Path) -> "Contracts":
        """Read the file that deploy-contracts wrote; SettingsError where it is none."""
        try:
            document = json.loads(path.read_text("utf-8"))
            return cls(
                chain_id=int(document["chain_id"]),
                anchor=str(document["anchor"]),
                vault=str(document["vault"]),
                token=str(document["token"]),
                block=int(document["block"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SettingsError(f"FALLOW_CONTRACTS_FILE: {path}: {type(error).__name__}: {error}") from error

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        document = {
            "chain_id": self.chain_id,
            "anchor": self.anchor,
            "vault": self.vault,
            "token": self.token,
            "block": self.block,
        }
        draft = path.with_name(path.name + ".new")
        draft.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
        draft.replace(path)
