"""The payout tree: what it is made of, and who may be paid."""

from collections.abc import Sequence
from typing import Final

from fallow_chassis.errors import DomainError, FieldViolation
from fallow_receipts import MerkleTree, Payout, balance_leaf, payout_leaf
from fallow_settlement.domain.reasons import PAYEE_INVALID
from fallow_settlement.settings import Contracts

_NOBODY: Final = "0x" + "0" * 40


def payout_tree(payouts: Sequence[Payout], balances: Sequence[Payout], contracts: Contracts) -> MerkleTree:
    """The tree over payouts, in their order, and balances behind them."""
    chain_id, vault = contracts.chain_id, contracts.vault
    leaves = [payout_leaf(payout, chain_id=chain_id, vault=vault) for payout in payouts]
    return MerkleTree([*leaves, *(balance_leaf(balance, chain_id=chain_id, vault=vault) for balance in balances)])


def check_payee(payee: str, contracts: Contracts, field: str) -> None:
    """Refuse an address that nobody could ever be paid at."""
    if payee.lower() in {_NOBODY, contracts.vault.lower(), contracts.anchor.lower(), contracts.token.lower()}:
        raise DomainError(
            PAYEE_INVALID,
            f"nobody can be paid at {payee}",
            metadata={"payee": payee},
            violations=(FieldViolation(field, "must be an address that somebody has the key of"),),
        )
