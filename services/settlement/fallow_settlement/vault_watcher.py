"""The contracts' logs, read block by block: deposits credit accounts once the chain has confirmed them, claims debit them,
vetoes stop payout roots at once.

Each block is read by its hash, after its parent was found to be the block that was read before; both are kept. A block
that does not follow means a reorganisation: the watcher goes back to the last block that still stands, voids the pending
deposits of the blocks that are gone, and reads on from there. A node that is not as far as what was read says nothing. A deposit is one log in one block: seen, it is a pending
transfer; confirmed, the transfer is posted; vanished, it is voided. A claim moves money once, when it is confirmed.

One transaction writes a block with everything in it, so a kill between two blocks repeats and loses nothing.
"""

import hashlib
from typing import Final

from fallow_chassis.ids import id_from_bytes
from fallow_chassis.logging import get_logger
from fallow_chassis.postgres import Database, UnitOfWork
from fallow_settlement import chain_store, gaps, vetoes, withdrawal_store
from fallow_settlement.chain import Block, Log, NodeError
from fallow_settlement.chain_store import Deposit
from fallow_settlement.contracts_abi import CLAIMED_TOPIC, DEPOSITED_TOPIC, VETOED_TOPIC, read_claimed, read_deposited
from fallow_settlement.domain import moves
from fallow_settlement.domain.ledger import LARGEST_MICROS, AccountKind, Result, account_id
from fallow_settlement.ledger_store import lock_accounts, must_post, post_transfers
from fallow_settlement.ports import ChainNode
from fallow_settlement.settings import Contracts
from fallow_settlement.withdrawal_store import VaultClaim, Withdrawal

MAX_BLOCKS: Final = 500
"""The most blocks of one tick."""
KEPT_BLOCKS: Final = 512
"""How many blocks are remembered to find where branches part; at least twice the confirmations."""

_log = get_logger(__name__)


class VaultWatcher:
    """The timer that reads the vault's logs."""

    def __init__(
        self, database: Database, node: ChainNode, contracts: Contracts, asset: str, confirmations: int
    ) -> None:
        """``asset`` is what the vault's token is called here; ``confirmations`` counts the deposit's own block."""
        assert confirmations * 2 <= KEPT_BLOCKS, "more confirmations need a longer memory of blocks"
        self._database = database
        self._node = node
        self._contracts = contracts
        self._asset = asset
        self._confirmations = confirmations

    async def scan(self) -> None:
        """Read the blocks that are new."""
        try:
            head = await self._node.head()
            async with self._database.read() as connection:
                newest = await chain_store.last_scanned(connection)
            if newest is not None and newest[0] > head:
                # A node that is behind says nothing of the blocks that it lacks; a chain that turned will be longer.
                _log.info("node_is_behind", head=head, read=newest[0])
                return
            last = await self._standing_block()
            number = self._contracts.block if last is None else last[0] + 1
            parent = "" if last is None else last[1]
            for _ in range(MAX_BLOCKS):
                block = await self._node.block(number) if number <= head else None
                if block is None or (parent and block.parent_hash != parent):
                    # Either all is read, or the chain has turned meanwhile: the next tick goes back.
                    return
                deposits = await self._node.logs(block.hash, self._contracts.vault, DEPOSITED_TOPIC)
                claims = await self._node.logs(block.hash, self._contracts.vault, CLAIMED_TOPIC)
                stops = await self._node.logs(block.hash, self._contracts.anchor, VETOED_TOPIC)
                await self._write(block, deposits, claims, stops)
                number, parent = block.number + 1, block.hash
        except NodeError as error:
            _log.error("deposits_wait", error=str(error))

    async def _standing_block(self) -> tuple[int, str] | None:
        """The newest block that was read and still stands, its hash empty where it was forgotten; undoes what is beyond."""
        async with self._database.read() as connection:
            scanned = await chain_store.list_scanned(connection, KEPT_BLOCKS)
        if not scanned:
            return None
        oldest = scanned[-1][0]
        standing = (oldest - 1, "")
        for number, block_hash in scanned:
            block = await self._node.block(number)
            if block is None:
                raise NodeError("eth_getBlockByNumber", 0, f"block {number}, below the head, is not there")
            if block.hash == block_hash:
                standing = (number, block_hash)
                break
        if standing[0] < oldest and oldest > self._contracts.block:
            _log.critical("chain_turned_beyond_memory", oldest_known_block=oldest)
        if standing[0] < scanned[0][0]:
            await self._undo(standing[0] + 1)
        return standing

    async def _undo(self, number: int) -> None:
        """Void the pending deposits from a block on and forget these blocks."""
        async with self._database.transaction() as unit:
            for deposit in await chain_store.lock_pending_from(unit.connection, number):
                await self._void(unit, deposit)
            for deposit in await chain_store.list_posted_from(unit.connection, number):
                await gaps.book(unit, deposit)
                await chain_store.set_deposit_state(unit.connection, deposit.id, "LOST")
            await chain_store.void_strays_from(unit.connection, number)
            await vetoes.forget_from(unit.connection, number)
            await withdrawal_store.forget_pending_claims_from(unit.connection, number)
            for claim in await withdrawal_store.lose_posted_claims_from(unit.connection, number):
                # The vault has the money again and pays it by the next claim; until then the books owe the account less.
                _log.critical("posted_claim_left_the_chain", account=claim.account_id, amount_micros=claim.amount)
            await chain_store.forget_scanned_from(unit.connection, number)

    async def _void(self, unit: UnitOfWork, deposit: Deposit) -> None:
        """Take back a deposit that was not confirmed; one that was to repair a gap has moved nothing."""
        if deposit.repairs:
            is_own = deposit.repairs.startswith(f"{deposit.id}-")
            await chain_store.set_deposit_state(unit.connection, deposit.id, "LOST" if is_own else "VOIDED")
        else:
            move = moves.deposit_vanished(deposit.id, deposit.account_id, deposit.asset, deposit.amount)
            await must_post(unit.connection, move.accounts, move.transfers, unit.clock.now())
            await chain_store.set_deposit_state(unit.connection, deposit.id, "VOIDED")
        _log.warning("deposit_voided", deposit=deposit.id, block=deposit.block_number)

    async def _write(self, block: Block, deposits: list[Log], claims: list[Log], stops: list[Log]) -> None:
        """Write a block's deposits and claims as pending, its vetoes for good, and post what it confirms."""
        async with self._database.transaction() as unit:
            await chain_store.insert_scanned(unit.connection, block.number, block.hash, block.number - KEPT_BLOCKS)
            for log in deposits:
                await self._see(unit, block, log)
            for log in claims:
                await withdrawal_store.insert_claim(unit.connection, _claim_of(block, log))
            for log in stops:
                await vetoes.book(unit, block, log)
            confirmed = block.number - self._confirmations + 1
            for deposit in await chain_store.lock_pending_to(unit.connection, confirmed):
                await chain_store.set_deposit_state(unit.connection, deposit.id, "POSTED")
                if deposit.repairs:
                    await gaps.repair(unit, deposit.repairs)
                    continue
                move = moves.deposit_confirmed(deposit.id, deposit.account_id, deposit.asset, deposit.amount)
                await must_post(unit.connection, move.accounts, move.transfers, unit.clock.now())
            for claim in await withdrawal_store.confirm_claims_to(unit.connection, confirmed):
                await self._book(unit, claim)

    async def _book(self, unit: UnitOfWork, claim: VaultClaim) -> None:
        """Book what a confirmed claim paid beyond what is booked: one that came again after a reorganisation adds nothing."""
        if not claim.account_id:
            await self._bear(unit, claim, f"{claim.transaction_hash}-{claim.log_index}", claim.amount)
            return
        payable = account_id(AccountKind.PAYABLE, claim.account_id, self._asset)
        locked = await lock_accounts(unit.connection, [payable])
        paid = claim.total - (locked[payable].debits_posted if payable in locked else 0)
        if paid <= 0:
            return
        if not await withdrawal_store.is_owed(unit.connection, claim):
            await self._bear(unit, claim, f"{claim.account_id}-{self._asset}-{claim.total}", paid)
        move = moves.claimed(claim.account_id, self._asset, total=claim.total, amount=paid)
        await must_post(unit.connection, move.accounts, move.transfers, unit.clock.now())

    async def _bear(self, unit: UnitOfWork, claim: VaultClaim, key: str, amount: int) -> None:
        """Book what the vault paid by a root that is not ours to the operator's loss, once for each ``key``.

        It counts as withdrawn from then on: the vault keeps one sum for an account, so the account's own money is paid on top.
        """
        move = moves.overpaid(key, claim.account_id, self._asset, amount)
        results = await post_transfers(unit.connection, move.accounts, move.transfers, unit.clock.now())
        if results[0] is Result.EXISTS:
            return
        assert results[0] is Result.OK, f"a loss was answered {results[0]}"
        _log.critical("vault_paid_what_was_not_owed", account=claim.account_id, amount_micros=amount)
        overpaid = Withdrawal(
            unit.ids.new(), claim.account_id, self._asset, amount, claim.payee, unit.clock.now(), overpaid=True
        )
        await withdrawal_store.insert_withdrawal(unit.connection, overpaid)

    async def _see(self, unit: UnitOfWork, block: Block, log: Log) -> None:
        """Write one deposit as pending, or, where it names no account, as one that an operator has to look at.

        One that is beyond all bounds is only told of.
        """
        seen = read_deposited(log)
        if not 0 < seen.amount <= LARGEST_MICROS:
            _log.error("deposit_not_creditable", transaction=log.transaction_hash, sender=seen.sender)
            return
        sighting, standing = await chain_store.count_sightings(unit.connection, block.hash, log.index)
        if standing:
            # The chain turned deeper than the confirmations and came back: this very deposit was credited.
            await gaps.reopen_lost(unit.connection, block.hash, log.index)
            return
        deposit = Deposit(
            id=deposit_id(self._contracts.chain_id, block.hash, log.index, sighting),
            account_id=seen.account_id,
            asset=self._asset,
            amount=seen.amount,
            sender=seen.sender,
            state="PENDING" if seen.account_id else "STRAY",
            transaction_hash=log.transaction_hash,
            log_index=log.index,
            block_number=block.number,
            block_hash=block.hash,
            create_time=unit.clock.now(),
            repairs=await gaps.gap_for(unit.connection, log.transaction_hash, seen.account_id, seen.amount),
        )
        if not deposit.account_id:
            _log.error("deposit_of_nobody", deposit=deposit.id, amount_micros=deposit.amount, sender=deposit.sender)
        if deposit.repairs or not deposit.account_id:
            await chain_store.insert_deposit(unit.connection, deposit)
            return
        move = moves.deposit_seen(deposit.id, deposit.account_id, deposit.asset, deposit.amount)
        results = await post_transfers(unit.connection, move.accounts, move.transfers, unit.clock.now())
        if results[0] is Result.OVERFLOWS:
            _log.error("deposit_not_creditable", transaction=log.transaction_hash, sender=seen.sender)
            return
        assert results[0] is Result.OK, f"a new deposit was answered {results[0]}"
        await chain_store.insert_deposit(unit.connection, deposit)


def _claim_of(block: Block, log: Log) -> VaultClaim:
    """A claim as a log of a block tells it."""
    seen = read_claimed(log)
    return VaultClaim(
        account_id=seen.account_id,
        payee=seen.payee,
        amount=seen.amount,
        total=seen.total,
        transaction_hash=log.transaction_hash,
        log_index=log.index,
        block_number=block.number,
        block_hash=block.hash,
    )


def deposit_id(chain_id: int, block_hash: str, log_index: int, sighting: int) -> str:
    """The id of a deposit, derived from its place on the chain and how often it was seen there before."""
    text = f"fallow-deposit-v1|{chain_id}|{block_hash}|{log_index}|{sighting}"
    return id_from_bytes(hashlib.sha256(text.encode()).digest()[:16])
