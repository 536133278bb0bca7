"""Sealing: charges and withdrawals that wait become a batch, with its two roots and a place in the chain of headers.

A batch is made when enough charges wait, or the oldest charge or withdrawal has waited for long enough; and one of nothing where there was none for long,
because a vault whose operator is silent may be wound down by anyone. The settlement root
is over the batch's charges; the payout root over all that was ever withdrawn, a leaf for each account, and over balances. It is immutable from then on: what
follows is only its way to the chain. One transaction takes the charges off the queue and writes the batch, under a lock,
so numbers have no gaps and no charge is in two batches.
"""

import json
from dataclasses import dataclass
from datetime import timedelta

from fallow_chassis.postgres import Database, UnitOfWork
from fallow_receipts import Header, MerkleTree, genesis_commitment, header_commitment, keccak
from fallow_settlement import balances, chain_store, vetoes, withdrawal_store
from fallow_settlement.chain_store import Batch
from fallow_settlement.domain.charge import Charge
from fallow_settlement.domain.transaction import TransactionState
from fallow_settlement.payouts import payout_tree
from fallow_settlement.queries import leaves_of
from fallow_settlement.settings import Contracts
from fallow_settlement.withdrawals import is_halted


@dataclass(frozen=True, slots=True)
class SealingRule:
    """When a batch is made: of so many charges, after so long a wait, and after so long a silence even where nothing waits."""

    size: int
    wait: timedelta
    longest_silence: timedelta


class Sealing:
    """The timer that makes batches."""

    def __init__(self, database: Database, contracts: Contracts, asset: str, rule: SealingRule) -> None:
        """Take where the headers will be anchored: their genesis names it; ``asset`` is the one of the vault's token."""
        self._database = database
        self._contracts = contracts
        self._asset = asset
        self._rule = rule

    async def seal_due(self) -> None:
        """Make batches until nothing waits that should not."""
        while True:
            async with self._database.transaction() as unit:
                await chain_store.lock_sealing(unit.connection)
                count, oldest_charge = await chain_store.unbatched(unit.connection)
                halted = await is_halted(unit.connection)
                oldest_withdrawal = None if halted else await withdrawal_store.oldest_unbatched(unit.connection)
                oldest = min((time for time in (oldest_charge, oldest_withdrawal) if time is not None), default=None)
                waited = oldest is not None and unit.clock.now() - oldest >= self._rule.wait
                last = await chain_store.load_last_batch(unit.connection)
                silent = last is not None and unit.clock.now() - last.create_time >= self._rule.longest_silence
                if not (waited or silent or count >= self._rule.size):
                    return
                await self._seal(unit, last, halted=halted)

    async def _seal(self, unit: UnitOfWork, last: Batch | None, *, halted: bool) -> None:
        """Make one batch of the charges and withdrawals that wait; while withdrawals are halted its payouts are the last ones."""
        charges = await chain_store.take_unbatched(unit.connection)
        number = 1 if last is None else last.number + 1
        if last is None:
            prev = genesis_commitment(chain_id=self._contracts.chain_id, anchor=self._contracts.anchor)
        else:
            assert (last.chain_id, last.anchor_address) == (self._contracts.chain_id, self._contracts.anchor), (
                "the batches of this database are anchored elsewhere than the contracts file says"
            )
            prev = last.commitment
        parent = await vetoes.last_payable(unit.connection)
        through = 0 if parent is None else parent.payouts_through
        if not halted:
            await withdrawal_store.take_into_batch(unit.connection, number)
            through = number
        payouts = await withdrawal_store.load_payouts(unit.connection, through)
        payout_total = await withdrawal_store.load_payout_total(unit.connection, through)
        balances_of = 0 if parent is None else parent.balances_of
        if not halted:
            owes_more = payout_total != (0 if parent is None else parent.header.payout_total)
            balances_of = await balances.take(
                unit.connection, number, parent, self._asset, unit.clock.now(), owes_more=owes_more
            )
        held = await balances.load_balances(unit.connection, balances_of)
        header = Header(
            batch_id=number,
            prev=prev,
            payout_parent=0 if parent is None else parent.number,
            settlement_root=MerkleTree(leaves_of(charges, number)).root,
            payout_root=payout_tree(payouts, held, self._contracts).root,
            count=len(charges),
            payout_total=payout_total,
            totals_hash=totals_hash(charges),
        )
        batch = Batch(
            number=number,
            chain_id=self._contracts.chain_id,
            anchor_address=self._contracts.anchor,
            header=header,
            commitment=header_commitment(header),
            state=TransactionState.PENDING,
            transaction_hash="",
            block_number=0,
            version=0,
            create_time=unit.clock.now(),
            payouts_through=through,
            balances_of=balances_of,
        )
        await chain_store.insert_batch(unit.connection, batch, [charge.id for charge in charges])


def totals_hash(charges: list[Charge]) -> bytes:
    """A hash over the sums of a batch by asset: canonical JSON of asset to amount, fee, pool and shortfall."""
    totals: dict[str, dict[str, int]] = {}
    for charge in charges:
        sums = totals.setdefault(charge.asset, {"amount": 0, "fee": 0, "pool": 0, "short": 0})
        sums["amount"] += charge.amount
        sums["fee"] += charge.fee
        sums["pool"] += charge.pool
        sums["short"] += charge.short
    text = {asset: {name: str(value) for name, value in sums.items()} for asset, sums in totals.items()}
    return keccak(json.dumps(text, sort_keys=True, separators=(",", ":")).encode("ascii"))
