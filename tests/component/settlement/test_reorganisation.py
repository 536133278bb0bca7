"""Blocks that leave the chain: deposits are voided and come again, anchors are sent again."""

import itertools
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from eth_abi.abi import encode

from fallow_chassis.postgres import Database
from fallow_receipts import id_to_word
from fallow_sdk.wallet import Wallet
from fallow_settlement import chain_store
from fallow_settlement.anchoring import Anchoring, AnchoringRule
from fallow_settlement.chain import Log
from fallow_settlement.contracts_abi import DEPOSITED_TOPIC
from fallow_settlement.domain.transaction import TransactionState
from fallow_settlement.queries import Money, Reads
from fallow_settlement.sealing import Sealing, SealingRule
from fallow_settlement.settings import Contracts
from fallow_settlement.signer import Signer
from fallow_settlement.vault_watcher import VaultWatcher
from tests.component.settlement.chain import TurningNode
from tests.component.settlement.market import ASSET, RULES, TENANT, Market, identifier

CHAIN_ID = 1
CONTRACTS = Contracts(CHAIN_ID, "0x" + "aa" * 20, "0x" + "bb" * 20, "0x" + "cc" * 20, block=1)
ORDER = identifier(1)
LEASE = identifier(2)
BUMP_MS = 60_000
FEE_CAP = 10**12


@pytest.fixture
def turning(tmp_path: Path) -> TurningNode:
    """A chain in memory."""
    Wallet.load_or_create(tmp_path / "key")
    return TurningNode(Signer.load(tmp_path / "key", CHAIN_ID))


def deposited(micros: int, index: int = 0) -> Log:
    """The vault's log of a deposit of the tenant's."""
    sender = "0x" + "00" * 12 + "dd" * 20
    topics = (DEPOSITED_TOPIC, "0x" + id_to_word(TENANT).hex(), sender)
    return Log(index, "0x" + "ee" * 32, topics, bytes(encode(("uint256", "uint256"), (micros, micros))))


async def money(database: Database) -> Money:
    """The tenant's money."""
    return await Reads(database, RULES).money(TENANT, ASSET)


async def states(database: Database) -> list[str]:
    """States of all deposits, oldest first."""
    async with database.read() as connection:
        return [row["state"] for row in await connection.fetch("SELECT state FROM deposit ORDER BY create_time, id")]


async def test_a_pending_deposit_that_vanishes_is_voided_and_may_come_again(
    market: Market, turning: TurningNode
) -> None:
    """Goal: a shallow reorganisation costs and makes nothing. Method: turn two blocks away, mine the deposit again."""
    watcher = VaultWatcher(market.database, turning, CONTRACTS, ASSET, confirmations=3)
    turning.mine([deposited(500)])
    turning.mine()
    await watcher.scan()
    assert (await money(market.database)).pending == 500
    turning.turn(2)
    turning.mine()
    await watcher.scan()
    assert await money(market.database) == Money(0, 0, 0, 0)
    turning.mine([deposited(500)])
    for _ in range(2):
        turning.mine()
    await watcher.scan()
    assert (await money(market.database)).free == 500
    assert sorted(await states(market.database)) == ["POSTED", "VOIDED"]


async def test_a_block_that_comes_back_brings_its_deposit_back(market: Market, turning: TurningNode) -> None:
    """Goal: A, then B, then A again credits once. Method: put the first branch's blocks back."""
    watcher = VaultWatcher(market.database, turning, CONTRACTS, ASSET, confirmations=2)
    turning.mine([deposited(500)])
    first = list(turning.blocks)
    await watcher.scan()
    turning.turn(1)
    turning.mine()
    turning.mine()
    await watcher.scan()
    turning.blocks = first
    turning.mine()
    await watcher.scan()
    await watcher.scan()
    assert (await money(market.database)).free == 500
    assert sorted(await states(market.database)) == ["POSTED", "VOIDED"]


async def test_a_posted_deposit_is_never_credited_twice(market: Market, turning: TurningNode) -> None:
    """Goal: a chain that turns below the confirmations and comes back credits once. Method: one confirmation, A, B, A."""
    watcher = VaultWatcher(market.database, turning, CONTRACTS, ASSET, confirmations=1)
    turning.mine([deposited(500)])
    first = list(turning.blocks)
    await watcher.scan()
    turning.turn(1)
    turning.mine()
    await watcher.scan()
    turning.blocks = first
    turning.mine()
    await watcher.scan()
    assert (await money(market.database)).free == 500
    assert await states(market.database) == ["POSTED"]


async def test_a_chain_that_turns_while_it_is_read_is_read_again(market: Market, turning: TurningNode) -> None:
    """Goal: blocks of two branches are never mixed. Method: a block whose parent is not the one that was read."""
    watcher = VaultWatcher(market.database, turning, CONTRACTS, ASSET, confirmations=1)
    turning.mine()
    await watcher.scan()
    turning.mine([deposited(500)])
    turning.blocks[-1] = replace(turning.blocks[-1], parent_hash="0x" + "99" * 32)
    await watcher.scan()
    assert await states(market.database) == []


async def prepared(market: Market, turning: TurningNode, confirmations: int) -> Anchoring:
    """A batch that waits, and its anchorer."""
    await market.fund(TENANT, 1_000_000)
    await market.open(ORDER, 500_000)
    await market.state(market.lease_created(ORDER, LEASE, price=3_600_000), market.lease_running(ORDER, LEASE))
    await market.run_for(ORDER, LEASE, 1)
    await market.charging.charge_due()
    await Sealing(market.database, CONTRACTS, SealingRule(1, timedelta())).seal_due()
    async with market.database.read() as connection:
        batch = await chain_store.load_batch(connection, 1)
    assert batch is not None
    turning.commitment = batch.commitment
    rule = AnchoringRule(confirmations, BUMP_MS, FEE_CAP)
    return Anchoring(market.database, turning, turning.signer, CONTRACTS, rule)


async def batch_state(database: Database) -> TransactionState:
    """The state of the batch."""
    async with database.read() as connection:
        batch = await chain_store.load_batch(connection, 1)
    assert batch is not None
    return batch.state


async def test_an_anchor_whose_block_is_gone_is_sent_again(market: Market, turning: TurningNode) -> None:
    """Goal: a reorganisation before the confirmations sends the same bytes again. Method: turn it away, twice."""
    life = await prepared(market, turning, confirmations=3)
    await life.advance()
    assert await batch_state(market.database) is TransactionState.MINED
    for _ in range(2):
        turning.turn(1)
        turning.holding = True
        await life.advance()
        assert await batch_state(market.database) is TransactionState.SENT
        turning.holding = False
        await life.advance()
        await life.advance()
        assert await batch_state(market.database) is TransactionState.MINED
    assert len(set(turning.sent)) == 1, "always the same bytes"
    turning.mine()
    turning.mine()
    await life.advance()
    assert await batch_state(market.database) is TransactionState.FINAL
    async with market.database.read() as connection:
        rows = await connection.fetch("SELECT version FROM outbox WHERE topic LIKE '%batches%' ORDER BY sequence")
    assert [row["version"] for row in rows] == [1, 2], "anchored and finalized are stated once each"


async def test_an_anchor_that_reverts_is_made_anew(market: Market, turning: TurningNode) -> None:
    """Goal: what the contract threw back anchors nothing. Method: a node that mines the first transaction as reverted."""
    life = await prepared(market, turning, confirmations=1)
    turning.reverting = 1
    await life.advance()
    assert await batch_state(market.database) is TransactionState.FINAL
    async with market.database.read() as connection:
        rows = await connection.fetch("SELECT state, nonce FROM chain_transaction ORDER BY id")
    assert [tuple(row) for row in rows] == [("ABANDONED", 0), ("FINAL", 1)]


async def test_a_stuck_transaction_pays_more_with_the_same_nonce(market: Market, turning: TurningNode) -> None:
    """Goal: a fee bump replaces, never adds. Method: a node that mines nothing, the clock a minute on, twice."""
    turning.holding = True
    life = await prepared(market, turning, confirmations=1)
    await life.advance()
    for _ in range(2):
        market.clock.advance(milliseconds=BUMP_MS)
        await life.advance()
    async with market.database.read() as connection:
        transaction = await chain_store.load_in_flight(connection)
    assert transaction is not None
    fees = [attempt.fees for attempt in transaction.attempts]
    assert len(fees) == 3
    for old, new in itertools.pairwise(fees):
        assert new.max_fee * 1_000 >= old.max_fee * 1_125
        assert new.max_priority_fee * 1_000 >= old.max_priority_fee * 1_125
    turning.holding = False
    await life.advance()
    await life.advance()
    assert await batch_state(market.database) is TransactionState.FINAL
    assert len(turning.mined) == 1
