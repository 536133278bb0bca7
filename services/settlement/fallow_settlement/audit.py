"""The audit: everything that settlement's books say of each other, worked out again from what they were made of.

All checks look at one instant of the database. Each finds the first place that does not hold: balances from transfers,
escrows and charges from each other, the chain of headers and both roots of every batch from its charges and withdrawals,
and, where a node is given, what the anchor on the chain holds. It reads and changes nothing.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Final

from fallow_chassis.postgres import Connection, Database
from fallow_receipts import MerkleTree, genesis_commitment, header_commitment
from fallow_settlement import balances, chain_store, withdrawal_store
from fallow_settlement.chain import NodeError
from fallow_settlement.chain_store import Batch, batch_of
from fallow_settlement.contracts_abi import commitment_call, next_batch_call
from fallow_settlement.domain.transaction import ANCHORED
from fallow_settlement.ledger_store import QUERIES
from fallow_settlement.payouts import payout_tree
from fallow_settlement.ports import ChainNode
from fallow_settlement.queries import leaves_of
from fallow_settlement.sealing import totals_hash
from fallow_settlement.settings import Contracts

TABLES: Final = {
    "balances": ("audit_accounts", "its balance is not the sum of its transfers: find who wrote past the ledger"),
    "assets": ("audit_assets", "debits and credits differ: look at the accounts of this asset"),
    "resolutions": ("audit_resolutions", "it resolves another transfer than it names"),
    "deposits": ("audit_deposits", "it was confirmed and never credited, or credited with something else"),
    "escrows": ("audit_escrows", "compare its charges and the transfers of its ledger account"),
    "charges": ("audit_charges", "it does not follow the one before, or price times time is another sum"),
    "shares": ("audit_charge_transfers", "what moved for it is not what it says"),
    "places": ("audit_queue", "it would be anchored never, or twice"),
    "vetoes": ("audit_vetoes", "whether its payouts count is not what the vetoes of the chain make of it"),
    "withdrawals": ("audit_withdrawals", "what the account is owed on the chain is not what it withdrew"),
    "programmes": ("audit_programmes", "what moved for it is not what it says, or more than was due"),
    "grants": ("audit_grants", "what moved for it is not what two operators approved"),
}
"""The checks that one query does: its name, and what a difference means."""
BATCHES: Final = "batches"
ANCHORS: Final = "anchors"
CHECKS: Final = (*TABLES, BATCHES, ANCHORS)
"""All checks, in the order in which they are made."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place at which something does not hold."""

    place: str
    expected: str
    found: str
    advice: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; ``is_made`` is False where there was nothing to hold the books against."""

    check: str
    difference: Difference | None = None
    is_made: bool = True


async def audit(
    database: Database, node: ChainNode | None, vault: str, step: Callable[[str], None]
) -> AsyncIterator[Finding]:
    """Make all checks; ``step`` is told of each one, and of each batch, before it is looked at.

    ``node`` speaks for the chain of the anchors, None for no look at a chain; ``vault`` is the address in payout leaves.
    """
    async with database.read() as connection:
        for check, (query, advice) in TABLES.items():
            step(check)
            row = await connection.fetchrow(QUERIES.get(query))
            difference = None if row is None else Difference(row["place"], row["expected"], row["found"], advice)
            yield Finding(check, difference)
        batches = [batch_of(row) for row in await connection.fetch(QUERIES.get("audit_batches"))]
        yield Finding(BATCHES, await _batches(connection, batches, vault, step))
    if node is None:
        yield Finding(ANCHORS, is_made=False)
        return
    yield Finding(ANCHORS, await _anchors(node, batches, step))


async def _batches(
    connection: Connection, batches: list[Batch], vault: str, step: Callable[[str], None]
) -> Difference | None:
    """The first batch that is not what its charges and withdrawals, and the batch before, make of it."""
    parent: Batch | None = None
    payable = 0
    for batch in batches:
        step(f"{BATCHES}: {batch.number} of {len(batches)}")
        charges = await chain_store.load_batch_charges(connection, batch.number)
        payouts = await withdrawal_store.load_payouts(connection, batch.payouts_through)
        held = await balances.load_balances(connection, batch.balances_of)
        contracts = Contracts(batch.chain_id, batch.anchor_address, vault, "", 0)
        genesis = genesis_commitment(chain_id=batch.chain_id, anchor=batch.anchor_address)
        expected = replace(
            batch.header,
            batch_id=1 if parent is None else parent.number + 1,
            prev=genesis if parent is None else parent.commitment,
            # What was vetoed itself may name a parent that was vetoed later than it.
            payout_parent=payable if batch.payable else batch.header.payout_parent,
            settlement_root=MerkleTree(leaves_of(charges, batch.number)).root,
            payout_root=payout_tree(payouts, held, contracts).root,
            count=len(charges),
            payout_total=await withdrawal_store.load_payout_total(connection, batch.payouts_through),
            totals_hash=totals_hash(charges),
        )
        for name in (
            "batch_id",
            "prev",
            "payout_parent",
            "settlement_root",
            "payout_root",
            "count",
            "payout_total",
            "totals_hash",
        ):
            wanted, found = getattr(expected, name), getattr(batch.header, name)
            if wanted != found:
                place = f"batches/{batch.number} {name}"
                return Difference(
                    place, _told(wanted), _told(found), "its charges or withdrawals were changed after it"
                )
        if header_commitment(batch.header) != batch.commitment:
            place, wanted = f"batches/{batch.number} commitment", header_commitment(batch.header)
            return Difference(place, _told(wanted), _told(batch.commitment), "its header was changed after it")
        parent = batch
        payable = batch.number if batch.payable else payable
    return None


async def _anchors(node: ChainNode, batches: list[Batch], step: Callable[[str], None]) -> Difference | None:
    """The first batch of which the chain holds something else, or that only the chain knows."""
    for batch in batches:
        step(f"{ANCHORS}: {batch.number} of {len(batches)}")
        try:
            found = await node.call(batch.anchor_address, commitment_call(batch.number))
        except NodeError as error:
            return Difference(
                f"batches/{batch.number}", "an anchor that answers", str(error), "ask a node of that chain"
            )
        is_there = batch.state in ANCHORED
        if found != batch.commitment and (is_there or any(found)):
            advice = "the chain was rolled back, or another database anchors there: stop anchoring and look"
            return Difference(f"batches/{batch.number} on the chain", _told(batch.commitment), _told(found), advice)
    if batches:
        following = int.from_bytes(await node.call(batches[-1].anchor_address, next_batch_call()))
        if following > batches[-1].number + 1:
            place = f"batches/{following - 1} on the chain"
            advice = "the database lacks batches that are anchored: it was restored from an old copy"
            return Difference(place, f"none after {batches[-1].number}", f"anchored up to {following - 1}", advice)
    return None


def _told(value: bytes | int) -> str:
    """A word or a number for people."""
    return "0x" + value.hex() if isinstance(value, bytes) else str(value)
