"""Anchors that were final and that a rollback took from the chain: which they are, and an operator's word to send them again.

Nothing is sent here. The lost transactions are marked, with all that came after them, in one write; from then on the
service takes them up in the order of their batches, one in flight, with the nonces and the signed bytes that they have.
What the chain mines by itself in between is recognised by those bytes, and the contract takes each header once.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fallow_chassis.postgres import Database
from fallow_settlement import chain_store
from fallow_settlement.chain_store import Batch
from fallow_settlement.contracts_abi import commitment_call, next_batch_call
from fallow_settlement.domain.transaction import TransactionState
from fallow_settlement.ports import ChainNode
from fallow_settlement.settings import Contracts

LISTED_BATCHES: Final = 20
"""How many of the newest batches are listed, beside all that are lost."""
WORD_BYTES: Final = 32


class Standing(StrEnum):
    """What the chain has of a batch."""

    STANDS = "STANDS"
    NOT_YET = "NOT_YET"
    LOST = "LOST"
    OTHER = "OTHER"


@dataclass(frozen=True, slots=True)
class AnchorLine:
    """One batch, and what the chain has of it."""

    batch: Batch
    standing: Standing


class ResendRefusedError(Exception):
    """Nothing may be sent again; the text says why, and what to do."""


async def list_anchors(database: Database, node: ChainNode, contracts: Contracts) -> list[AnchorLine]:
    """The newest batches and all that are lost, oldest first. ResendRefusedError where the chain has no anchor."""
    anchored = await _anchored(node, contracts)
    async with database.read() as connection:
        lost = await chain_store.list_final_above(connection, anchored)
        newest = await chain_store.list_batches(connection, 0, LISTED_BATCHES)
    listed = {batch.number: batch for batch in (*lost, *newest)}
    return [AnchorLine(batch, await _standing(node, contracts, batch, anchored)) for _, batch in sorted(listed.items())]


async def resend(database: Database, node: ChainNode, contracts: Contracts) -> list[int]:
    """Put lost anchors back to be sent again, in order; returns the numbers of their batches.

    Safe to repeat: empty where those that are lost wait already. ResendRefusedError, with nothing changed, where nothing
    that was final is lost, or where the chain has something that sending again cannot mend.
    """
    anchored = await _anchored(node, contracts)
    on_chain = await node.call(contracts.anchor, commitment_call(anchored))
    async with database.transaction() as unit:
        await chain_store.lock_anchoring(unit.connection)
        last = await chain_store.load_last_batch(unit.connection)
        known = 0 if last is None else last.number
        if anchored > known:
            raise ResendRefusedError(
                f"the anchor has batches up to {anchored}, and this database knows of {known}: it was restored from an old copy"
            )
        # Each header names the one before it, so what holds for the last holds for all.
        newest = await chain_store.load_batch(unit.connection, anchored)
        if newest is not None and newest.commitment != on_chain:
            raise ResendRefusedError(
                f"the chain has another header in the place of batches/{anchored}: somebody else anchors with a key of ours. "
                "`fallow ledger audit` says from where; contracts must be deployed anew"
            )
        final = await chain_store.load_last_final(unit.connection)
        if final is None or final.number <= anchored:
            if await chain_store.count_resending(unit.connection):
                return []
            raise ResendRefusedError("nothing is lost: the chain has every batch that was final")
        return await chain_store.mark_anchors_lost(unit.connection, anchored)


async def _anchored(node: ChainNode, contracts: Contracts) -> int:
    """The number of the last batch on the chain; 0 before any."""
    answer = await node.call(contracts.anchor, next_batch_call())
    if len(answer) != WORD_BYTES:
        raise ResendRefusedError(
            f"there is no anchor at {contracts.anchor}: is it the right node? A chain without the contracts needs new ones"
        )
    return int.from_bytes(answer) - 1


async def _standing(node: ChainNode, contracts: Contracts, batch: Batch, anchored: int) -> Standing:
    """What the chain has of a batch."""
    if batch.number > anchored:
        return Standing.LOST if batch.state is TransactionState.FINAL else Standing.NOT_YET
    found = await node.call(contracts.anchor, commitment_call(batch.number))
    return Standing.STANDS if found == batch.commitment else Standing.OTHER
