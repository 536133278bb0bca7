"""What the leaves of the two trees of a batch say, and their hashes.

The settlement tree has a leaf for each charge (audit); the payout tree has one for each account that is owed money
(claims), and one for each account that named an address for the case that the operator vanishes (balances). A leaf is keccak256(keccak256(abi.encode(words))), OpenZeppelin's standard leaf, and its first word is a
domain tag, so that no leaf of one kind can be read as another. A charge's leaf holds its batch and index: the same
charge twice would be two leaves that anyone can see. A payout's leaf holds the chain and the vault: it is worth nothing
in another vault that reads the same anchor.
"""

from dataclasses import dataclass
from functools import lru_cache
from struct import Struct
from typing import Final

from fallow_receipts import errors
from fallow_receipts.errors import ReceiptError
from fallow_receipts.words import (
    INT32_MAX,
    INT64_MAX,
    UINT256_MAX,
    address_word,
    asset_word,
    checked_address,
    checked_integer,
    id_to_word,
    integer_word,
    keccak,
)

CHARGE_TAG: Final = keccak(b"fallow.leaf.charge.v1")
PAYOUT_TAG: Final = keccak(b"fallow.leaf.payout.v1")
BALANCE_TAG: Final = keccak(b"fallow.leaf.balance.v1")
MS_PER_HOUR: Final = 3_600_000
_INTEGER: Final = "24xq"
"""A word that holds an integer of at most 63 bits."""
_CHARGE_WORDS: Final = Struct(">32s" + _INTEGER * 2 + "32s32s" + _INTEGER * 3 + "32s32s32s" + _INTEGER * 8)

ATTESTED: Final = "ATTESTED"
PROBED: Final = "PROBED"
TERM: Final = "TERM"
EVIDENCE_NUMBER: Final = {ATTESTED: 1, PROBED: 2, TERM: 3}


def due_micros(price_micros_per_hour: int, from_running_ms: int, to_running_ms: int) -> int:
    """Return what an interval of running costs, in micros.

    The charge to date rounds down, in the tenant's favour, and an interval is the difference of two charges to date:
    over a lease nothing is lost or gained by rounding, however its time is cut into intervals.
    """
    assert 0 <= from_running_ms <= to_running_ms, (from_running_ms, to_running_ms)
    assert price_micros_per_hour >= 0, price_micros_per_hour
    return price_micros_per_hour * to_running_ms // MS_PER_HOUR - price_micros_per_hour * from_running_ms // MS_PER_HOUR


@dataclass(frozen=True, slots=True)
class Charge:
    """What one generation of a lease owes for one proven interval of running.

    Ids are the 26 characters without their collection. `amount_micros` is what the tenant paid, of which `fee_micros`
    went to the platform, `pool_micros` to the community pool and the rest to the provider; `short_micros` is what the
    escrow could not pay, so that amount and shortfall together are what was due. Evidence is ATTESTED (the provider's
    word), PROBED (the market saw it from outside too) or TERM (nothing ran: a reserved term that its tenant closed early
    owes it).

    Construction refuses fields of a wrong kind or out of bounds (ReceiptError, INVALID_FIELD); whether the sums are
    right is the business of check_amounts.
    """

    charge_id: str
    order_id: str
    group: int
    generation: int
    sequence: int
    tenant: str
    provider: str
    asset: str
    from_running_ms: int
    to_running_ms: int
    price_micros_per_hour: int
    amount_micros: int
    fee_micros: int
    pool_micros: int
    evidence: str
    short_micros: int = 0

    def __post_init__(self) -> None:
        for name in ("charge_id", "order_id", "tenant", "provider"):
            id_to_word(getattr(self, name), name)
        checked_integer(self.group, "group", 0, INT32_MAX)
        checked_integer(self.generation, "generation", 1, INT64_MAX)
        checked_integer(self.sequence, "sequence", 0, INT64_MAX)
        asset_word(self.asset)
        checked_integer(self.from_running_ms, "from_running_ms", 0, INT64_MAX)
        checked_integer(self.to_running_ms, "to_running_ms", 0, INT64_MAX)
        if self.to_running_ms <= self.from_running_ms:
            raise ReceiptError(errors.INVALID_FIELD, "must be after from_running_ms", field="to_running_ms")
        for name in ("price_micros_per_hour", "amount_micros", "fee_micros", "pool_micros", "short_micros"):
            checked_integer(getattr(self, name), name, 0, INT64_MAX)
        if self.evidence not in EVIDENCE_NUMBER:
            raise ReceiptError(errors.INVALID_FIELD, "must be ATTESTED, PROBED or TERM", field="evidence")

    @property
    def provider_micros(self) -> int:
        """What the provider was credited with."""
        return self.amount_micros - self.fee_micros - self.pool_micros


def check_amounts(charge: Charge) -> None:
    """Refuse a charge whose amount is not price times time, or whose shares are more than its amount."""
    due = due_micros(charge.price_micros_per_hour, charge.from_running_ms, charge.to_running_ms)
    if charge.amount_micros + charge.short_micros != due:
        shortfall = f" and {charge.short_micros} short" if charge.short_micros else ""
        raise ReceiptError(
            errors.AMOUNT_WRONG,
            f"{charge.amount_micros} micros were charged{shortfall}, but the price and the time come to {due}",
            field="amount_micros",
        )
    if charge.provider_micros < 0:
        raise ReceiptError(
            errors.SPLIT_WRONG,
            f"the fee and the pool's share are more than the amount of {charge.amount_micros} micros",
            field="fee_micros",
        )


@lru_cache(maxsize=16_384)
def _known_word(identifier: str) -> bytes:
    """The word of an id that many charges of a batch share."""
    return id_to_word(identifier)


def charge_words(charge: Charge, *, batch_id: int, index: int) -> bytes:
    """Return abi.encode of a charge's leaf: the tag and eighteen words."""
    checked_integer(batch_id, "batch_id", 1, INT64_MAX)
    checked_integer(index, "index", 0, INT64_MAX)
    return _CHARGE_WORDS.pack(
        CHARGE_TAG,
        batch_id,
        index,
        id_to_word(charge.charge_id),
        _known_word(charge.order_id),
        charge.group,
        charge.generation,
        charge.sequence,
        _known_word(charge.tenant),
        _known_word(charge.provider),
        asset_word(charge.asset),
        charge.from_running_ms,
        charge.to_running_ms,
        charge.price_micros_per_hour,
        charge.amount_micros,
        charge.fee_micros,
        charge.pool_micros,
        charge.short_micros,
        EVIDENCE_NUMBER[charge.evidence],
    )


def charge_leaf(charge: Charge, *, batch_id: int, index: int) -> bytes:
    """Return the leaf of the charge that stands at `index` of batch `batch_id`."""
    return keccak(keccak(charge_words(charge, batch_id=batch_id, index=index)))


@dataclass(frozen=True, slots=True)
class Payout:
    """The total that an account was ever owed, and the address it is paid to. Totals only grow.

    In a balance's leaf the total is that and what the account had with the operator besides: what it would have been owed
    had it withdrawn all.
    """

    account: str
    payee: str
    total_micros: int

    def __post_init__(self) -> None:
        id_to_word(self.account, "account")
        object.__setattr__(self, "payee", checked_address(self.payee, "payee"))
        checked_integer(self.total_micros, "total_micros", 0, UINT256_MAX)


def payout_leaf(payout: Payout, *, chain_id: int, vault: str) -> bytes:
    """Return the leaf that lets an account's payee claim at that vault on that chain."""
    return _vault_leaf(PAYOUT_TAG, payout, chain_id=chain_id, vault=vault)


def balance_leaf(payout: Payout, *, chain_id: int, vault: str) -> bytes:
    """Return the leaf that lets an account's payee have its balance after an escape at that vault on that chain."""
    return _vault_leaf(BALANCE_TAG, payout, chain_id=chain_id, vault=vault)


def _vault_leaf(tag: bytes, payout: Payout, *, chain_id: int, vault: str) -> bytes:
    """A leaf as EscrowVault computes it: keccak256(keccak256(abi.encode(tag, chain, vault, account, payee, total)))."""
    checked_integer(chain_id, "chain_id", 0, UINT256_MAX)
    words = (
        tag,
        integer_word(chain_id),
        address_word(vault, "vault"),
        id_to_word(payout.account),
        address_word(payout.payee),
        integer_word(payout.total_micros),
    )
    return keccak(keccak(b"".join(words)))
