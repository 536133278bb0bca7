"""Anchoring: takes batches to the chain, one transaction in flight, each exactly once in effect.

A tick asks the chain what it sees, decides one step (``domain.transaction``), does it, and goes on while that changed
something. Nothing is sent before its signed bytes are committed, and every step writes only if the transaction is still
in the state in which it was looked at: a kill at any point, or two processes at once, repeat nothing. Even a header that
is sent twice is anchored once, because the contract knows it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from fallow_chassis.logging import get_logger
from fallow_chassis.postgres import Database, UnitOfWork
from fallow_chassis.telemetry import meter as telemetry_meter
from fallow_settlement import chain_store
from fallow_settlement.chain import NodeError, TransactionReceipt
from fallow_settlement.chain_store import Attempt, Batch, ChainTransaction
from fallow_settlement.contracts_abi import anchor_call, commitment_call, next_batch_call
from fallow_settlement.domain.transaction import (
    Fees,
    Sight,
    Step,
    TransactionState,
    bumped_fees,
    market_fees,
    next_step,
)
from fallow_settlement.events import state_anchored, state_finalized
from fallow_settlement.ports import ChainNode
from fallow_settlement.settings import Contracts
from fallow_settlement.signer import Signer

ANCHOR_GAS_LIMIT: Final = 250_000
"""Anchoring takes below 100,000 gas; what is left over is not paid."""
WORD_BYTES: Final = 32
MAX_STEPS: Final = 100
"""The most steps of one tick."""

_MILLISECOND: Final = timedelta(milliseconds=1)
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class AnchoringRule:
    """When a transaction is final, when its fee rises, and how far (wei per gas)."""

    confirmations: int
    bump_after_ms: int
    fee_cap: int


class Anchoring:
    """The timer that anchors batches."""

    def __init__(
        self, database: Database, node: ChainNode, signer: Signer, contracts: Contracts, rule: AnchoringRule
    ) -> None:
        """``signer`` is an anchorer of the contract."""
        self._database = database
        self._node = node
        self._signer = signer
        self._contracts = contracts
        self._rule = rule
        self._alarm = telemetry_meter().create_gauge("fallow.settlement.chain_disagrees", unit="1")

    async def advance(self) -> None:
        """Take the batch in flight as far as it goes now, then the next; nothing while the chain and the books disagree."""
        try:
            disagreement = await self._disagreement()
            self._alarm.set(int(bool(disagreement)))
            if disagreement:
                _log.critical("chain_disagrees", anchor=self._contracts.anchor, why=disagreement)
                return
            for _ in range(MAX_STEPS):
                if not await self.step():
                    return
        except NodeError as error:
            # What a node refuses today (fees, limits, its own trouble) it may take at the next tick.
            _log.error("anchoring_waits", error=str(error))

    async def step(self) -> bool:
        """Do one step; False where there is nothing to do but wait."""
        async with self._database.transaction() as unit:
            transaction = await chain_store.load_in_flight(unit.connection)
            if transaction is None:
                await chain_store.lock_anchoring(unit.connection)
                await chain_store.start_transaction(unit.connection, self._signer.address, unit.clock.now())
                transaction = await chain_store.load_in_flight(unit.connection)
            if transaction is None:
                return False
            batch = await chain_store.load_batch(unit.connection, transaction.batch_number)
        assert batch is not None, "a transaction has its batch"
        if transaction.state is TransactionState.PENDING:
            return await self._sign(transaction, batch)
        sight, receipt, winner = await self._look(transaction, batch)
        step = next_step(
            transaction.state,
            sight,
            confirmations=self._rule.confirmations,
            bump_after_ms=self._rule.bump_after_ms,
        )
        if step is Step.SEND:
            return await self._send(transaction, batch)
        if step is Step.BUMP:
            return await self._bump(transaction, batch)
        if step is Step.MARK_MINED:
            assert receipt is not None, "what is mined has a receipt"
            return await self._mark_mined(transaction, batch, receipt, winner)
        if step is Step.MARK_LOST:
            _log.warning("anchor_lost_to_reorganisation", batch=batch.number)
            return await self._move(transaction, TransactionState.SENT, batch)
        if step is Step.FINALIZE:
            return await self._move(transaction, TransactionState.FINAL, batch, state_finalized)
        if step is Step.ABANDON:
            _log.error("anchor_abandoned", batch=batch.number, nonce=transaction.nonce, reverted=sight.reverted)
            return await self._move(transaction, TransactionState.ABANDONED, batch)
        return False

    async def _disagreement(self) -> str:
        """How the anchor on the chain differs from what is final here; empty where it does not.

        A chain that was rolled back below what was final, a node of an empty chain, or a database that was restored from an
        old copy must not be anchored on: a person has to look.
        """
        async with self._database.read() as connection:
            final = await chain_store.load_last_final(connection)
            last = await chain_store.load_last_batch(connection)
        answer = await self._node.call(self._contracts.anchor, next_batch_call())
        if len(answer) != WORD_BYTES:
            return "there is no anchor at its address"
        anchored = int.from_bytes(answer) - 1
        known = 0 if last is None else last.number
        if anchored > known:
            return f"the anchor has batches up to {anchored}, and this database knows of {known}"
        if final is None:
            return ""
        stored = await self._node.call(self._contracts.anchor, commitment_call(final.number))
        return (
            "" if stored == final.commitment else f"batch {final.number} was final, and the anchor has another, or none"
        )

    async def _look(self, transaction: ChainTransaction, batch: Batch) -> tuple[Sight, TransactionReceipt | None, str]:
        """What the chain says; with the canonical receipt of any attempt and that attempt's hash."""
        assert transaction.nonce is not None, "what was signed has a nonce"
        # The nonce is asked for first: a transaction that is mined in between then shows its receipt.
        used = await self._node.transaction_count(transaction.signer) > transaction.nonce
        head = await self._node.head()
        found: TransactionReceipt | None = None
        winner = ""
        for attempt in transaction.attempts:
            receipt = await self._node.receipt(attempt.transaction_hash)
            if receipt is None:
                continue
            block = await self._node.block(receipt.block_number)
            if block is not None and block.hash == receipt.block_hash:
                found, winner = receipt, attempt.transaction_hash
        stored = await self._node.call(self._contracts.anchor, commitment_call(batch.number))
        sent = transaction.attempts[-1].send_time
        waited = self._database.clock.now() - sent if sent is not None else timedelta()
        sight = Sight(
            head=head,
            receipt_block=None if found is None else found.block_number,
            reverted=found is not None and not found.succeeded,
            anchored=stored == batch.commitment,
            # A key that was changed raises no fee any more: its transaction is replaced, and the contract takes either, once.
            nonce_used=used or transaction.signer != self._signer.address,
            waited_ms=waited // _MILLISECOND,
        )
        if found is not None and found.succeeded and not sight.anchored:
            _log.error("anchor_commitment_differs", batch=batch.number, on_chain=stored.hex())
        return sight, found, winner

    async def _sign(self, transaction: ChainTransaction, batch: Batch) -> bool:
        """Give a transaction its nonce and keep its signed bytes; nothing is sent yet."""
        try:
            await self._node.call(self._contracts.anchor, anchor_call(batch.header), self._signer.address)
        except NodeError as error:
            # Sending what the contract refuses would only burn fees; a person has to look.
            _log.error("anchor_refused", batch=batch.number, error=str(error))
            return False
        fees = await self._market_fees()
        mined = await self._node.transaction_count(self._signer.address)
        async with self._database.transaction() as unit:
            if not await chain_store.lock_transaction(unit.connection, transaction):
                return False
            nonce = max(mined, await chain_store.load_next_nonce(unit.connection, self._signer.address))
            signed = replace(transaction, nonce=nonce, gas_limit=ANCHOR_GAS_LIMIT, state=TransactionState.SIGNED)
            await chain_store.save_transaction(unit.connection, signed)
            await self._keep_attempt(unit, signed, batch, fees)
            await self._save_batch(unit, replace(batch, state=TransactionState.SIGNED))
        return True

    async def _bump(self, transaction: ChainTransaction, batch: Batch) -> bool:
        """Sign the same transaction with higher fees, or send the old bytes again where the cap forbids that."""
        last = transaction.attempts[-1]
        fees = bumped_fees(last.fees, await self._market_fees(), self._rule.fee_cap)
        if fees is None:
            await self._node.send(last.raw)
            return False
        async with self._database.transaction() as unit:
            if not await chain_store.lock_transaction(unit.connection, transaction):
                return False
            signed = replace(transaction, state=TransactionState.SIGNED)
            await chain_store.save_transaction(unit.connection, signed)
            await self._keep_attempt(unit, signed, batch, fees)
        return True

    async def _send(self, transaction: ChainTransaction, batch: Batch) -> bool:
        """Send the newest bytes; again at each tick while they are in no block, because nodes forget."""
        attempt = transaction.attempts[-1]
        await self._node.send(attempt.raw)
        async with self._database.transaction() as unit:
            await chain_store.mark_sent(unit.connection, attempt.transaction_hash, unit.clock.now())
        if transaction.state is TransactionState.SENT:
            return False
        return await self._move(transaction, TransactionState.SENT, batch)

    async def _mark_mined(
        self, transaction: ChainTransaction, batch: Batch, receipt: TransactionReceipt, transaction_hash: str
    ) -> bool:
        """Note the block; the first time, state that the batch is anchored."""
        mined = replace(batch, transaction_hash=transaction_hash, block_number=receipt.block_number)
        first = batch.version == 0
        return await self._move(transaction, TransactionState.MINED, mined, state_anchored if first else None)

    async def _move(
        self,
        transaction: ChainTransaction,
        state: TransactionState,
        batch: Batch,
        announce: Callable[[UnitOfWork, Batch], Batch] | None = None,
    ) -> bool:
        """Put transaction and batch into a state, if the transaction is still where it was seen."""
        async with self._database.transaction() as unit:
            if not await chain_store.lock_transaction(unit.connection, transaction):
                return False
            await chain_store.save_transaction(unit.connection, replace(transaction, state=state))
            if state is TransactionState.ABANDONED:
                await chain_store.abandon_lost_anchors(unit.connection)
            batch_state = TransactionState.PENDING if state is TransactionState.ABANDONED else state
            moved = replace(batch, state=batch_state)
            await self._save_batch(unit, announce(unit, moved) if announce is not None else moved)
        return True

    async def _save_batch(self, unit: UnitOfWork, batch: Batch) -> None:
        """Write the batch; the lock on its transaction is the lock on its way."""
        await chain_store.save_batch(unit.connection, batch)

    async def _keep_attempt(self, unit: UnitOfWork, transaction: ChainTransaction, batch: Batch, fees: Fees) -> None:
        """Sign and store the next attempt of a transaction."""
        assert transaction.nonce is not None, "a nonce comes before a signature"
        assert transaction.gas_limit is not None, "so does a gas limit"
        signed = self._signer.sign(
            nonce=transaction.nonce,
            to=self._contracts.anchor,
            data=anchor_call(batch.header),
            gas_limit=transaction.gas_limit,
            fees=fees,
        )
        number = len(transaction.attempts) + 1
        attempt = Attempt(signed.transaction_hash, number, signed.raw, fees, unit.clock.now(), None)
        await chain_store.insert_attempt(unit.connection, transaction.id, attempt)

    async def _market_fees(self) -> Fees:
        """What the chain asks now."""
        head = await self._node.block(await self._node.head())
        assert head is not None, "the newest block is there"
        return market_fees(head.base_fee, await self._node.priority_fee(), self._rule.fee_cap)
