"""What settlement tells: escrows, balances, deposits, charges, receipts, batches, the ledger. Reads only."""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from fallow_chassis.errors import DomainError
from fallow_chassis.paging import TimePlace
from fallow_chassis.postgres import Database
from fallow_receipts import Anchor, MerkleTree, Receipt, charge_leaf
from fallow_receipts import Charge as ReceiptCharge
from fallow_settlement import chain_store, escrow_store, ledger_store, metering_store
from fallow_settlement.chain_store import Batch, Deposit
from fallow_settlement.charging import runway
from fallow_settlement.commands import check_visible
from fallow_settlement.domain.charge import Charge
from fallow_settlement.domain.escrow import LIVE, Escrow
from fallow_settlement.domain.ledger import Account, AccountKind, Transfer, account_id
from fallow_settlement.domain.reasons import (
    BATCH_NOT_FOUND,
    CHARGE_NOT_FOUND,
    LEDGER_ACCOUNT_NOT_FOUND,
    RECEIPT_NOT_READY,
)
from fallow_settlement.domain.rules import Rules
from fallow_settlement.domain.transaction import ANCHORED

RETRY_AFTER_MS: Final = 2_000
KEPT_TREES: Final = 8
"""How many batches' trees are kept in memory."""


@dataclass(frozen=True, slots=True)
class Money:
    """An account's money in one asset, micros."""

    free: int
    held: int
    earned: int
    pending: int


class Reads:
    """The reads. ``account`` is the id of the account that asks; it sees its own and nothing else."""

    def __init__(self, database: Database, rules: Rules) -> None:
        """Take the database and the assets that are taken."""
        self._database = database
        self._rules = rules
        self._trees: dict[int, MerkleTree] = {}

    async def escrow(self, order_id: str, caller: str) -> tuple[Escrow, int | None]:
        """An escrow with its runway in milliseconds; ``caller`` is the subject of the token."""
        async with self._database.read() as connection:
            escrow = await escrow_store.load_escrow(connection, order_id)
            check_visible(escrow, order_id, caller)
            assert escrow is not None, "an escrow that is visible exists"
            meterings = await metering_store.load_order_meterings(connection, order_id, lock=False)
        return escrow, runway(escrow, meterings) if escrow.state in LIVE else None

    async def money(self, account: str, asset: str) -> Money:
        """An account's money; all 0 for one that never had any."""
        self._rules.check_asset(asset, "name")
        balance_id = account_id(AccountKind.BALANCE, account, asset)
        earnings_id = account_id(AccountKind.EARNINGS, account, asset)
        async with self._database.read() as connection:
            found = await ledger_store.load_accounts(connection, [balance_id, earnings_id])
            held = await escrow_store.sum_held(connection, account, asset)
        balance, earnings = found.get(balance_id), found.get(earnings_id)
        return Money(
            free=balance.available if balance else 0,
            held=held,
            earned=earnings.available if earnings else 0,
            pending=balance.credits_pending if balance else 0,
        )

    async def deposits(self, account: str, before: TimePlace | None, limit: int) -> tuple[list[Deposit], int]:
        """Deposits of an account, newest first, and the newest block that was scanned."""
        async with self._database.read() as connection:
            last = await chain_store.last_scanned(connection)
            return await chain_store.list_deposits(connection, account, before, limit), last[0] if last else 0

    async def charge(self, charge_id: str, account: str) -> Charge:
        """A charge that the account paid or earned."""
        async with self._database.read() as connection:
            found = await metering_store.load_charge(connection, charge_id)
        if found is None or account not in {found.tenant_id, found.provider_account_id}:
            raise DomainError(
                CHARGE_NOT_FOUND, f"there is no charge charges/{charge_id}", metadata={"name": f"charges/{charge_id}"}
            )
        return found

    async def charges(self, account: str, order_id: str, before: TimePlace | None, limit: int) -> list[Charge]:
        """Charges that the account paid or earned, newest first."""
        async with self._database.read() as connection:
            return await metering_store.list_charges(connection, account, order_id, before, limit)

    async def receipt(self, charge_id: str, account: str) -> tuple[Charge, Batch, Receipt]:
        """A charge with its proof, once its batch is on the chain."""
        charge = await self.charge(charge_id, account)
        async with self._database.read() as connection:
            batch = await chain_store.load_batch(connection, charge.batch_number) if charge.batch_number else None
            if batch is None or batch.state not in ANCHORED:
                raise DomainError(
                    RECEIPT_NOT_READY,
                    "the charge is in no anchored batch yet",
                    metadata={"name": f"charges/{charge_id}"},
                    retry_after_ms=RETRY_AFTER_MS,
                )
        tree = await self._tree(batch.number)
        assert tree.root == batch.header.settlement_root, "a batch's charges never change"
        receipt = Receipt(
            charge=receipt_charge(charge),
            index=charge.leaf_index,
            proof=tree.proof(charge.leaf_index),
            header=batch.header,
            anchor=Anchor(batch.chain_id, batch.anchor_address, batch.transaction_hash or None),
        )
        return charge, batch, receipt

    async def _tree(self, number: int) -> MerkleTree:
        """The settlement tree of a batch; the last few are kept, because batches never change."""
        tree = self._trees.pop(number, None)
        if tree is None:
            async with self._database.read() as connection:
                charges = await chain_store.load_batch_charges(connection, number)
            # Thousands of hashes: the loop goes on meanwhile.
            tree = await asyncio.to_thread(lambda: MerkleTree(leaves_of(charges, number)))
        self._trees[number] = tree
        while len(self._trees) > KEPT_TREES:
            del self._trees[next(iter(self._trees))]
        return tree

    async def batch(self, number: int) -> Batch:
        """A batch."""
        async with self._database.read() as connection:
            found = await chain_store.load_batch(connection, number)
        if found is None:
            raise DomainError(BATCH_NOT_FOUND, f"there is no batch {number}", metadata={"name": f"batches/{number}"})
        return found

    async def batches(self, before: int, limit: int) -> list[Batch]:
        """Batches below a number (0: all), newest first."""
        async with self._database.read() as connection:
            return await chain_store.list_batches(connection, before, limit)

    async def ledger_account(self, identifier: str) -> Account:
        """An account of the ledger."""
        async with self._database.read() as connection:
            found = (await ledger_store.load_accounts(connection, [identifier])).get(identifier)
        if found is None:
            raise DomainError(
                LEDGER_ACCOUNT_NOT_FOUND,
                f"the ledger has no account {identifier}",
                metadata={"name": f"ledgerAccounts/{identifier}"},
            )
        return found

    async def ledger_accounts(self, after: str, limit: int) -> list[Account]:
        """Accounts of the ledger by id."""
        async with self._database.read() as connection:
            return await ledger_store.list_accounts(connection, after, limit)

    async def transfers(self, identifier: str, before: TimePlace | None, limit: int) -> list[tuple[Transfer, datetime]]:
        """Transfers with their times, newest first; ``identifier`` filters by account, empty lists all."""
        async with self._database.read() as connection:
            return await ledger_store.list_transfers(connection, identifier, before, limit)


def receipt_charge(charge: Charge) -> ReceiptCharge:
    """A charge as leaves and receipts have it."""
    return ReceiptCharge(
        charge_id=charge.id,
        order_id=charge.order_id,
        group=charge.group,
        generation=charge.generation,
        sequence=charge.sequence,
        tenant=charge.tenant_id,
        provider=charge.provider_account_id,
        asset=charge.asset,
        from_running_ms=charge.from_running_ms,
        to_running_ms=charge.to_running_ms,
        price_micros_per_hour=charge.price_micros_per_hour,
        amount_micros=charge.amount,
        fee_micros=charge.fee,
        pool_micros=charge.pool,
        evidence=charge.proof_level,
        short_micros=charge.short,
    )


def leaves_of(charges: list[Charge], batch_number: int) -> list[bytes]:
    """The leaves of a batch's settlement tree, in the order of its charges."""
    return [
        charge_leaf(receipt_charge(charge), batch_id=batch_number, index=index) for index, charge in enumerate(charges)
    ]
