"""Blocks that leave the chain: deposits are voided and come again, anchors are sent again."""

import asyncio
import itertools
import os
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from eth_abi.abi import encode

from fallow.settlement.v1 import settlement_service_pb2
from fallow_chassis.errors import DomainError
from fallow_chassis.postgres import Database
from fallow_chassis.testing import DatabaseFactory
from fallow_receipts import id_to_word
from fallow_sdk.wallet import Wallet
from fallow_settlement import chain_store, gap_command, gaps, ledger_store
from fallow_settlement.anchoring import Anchoring, AnchoringRule
from fallow_settlement.chain import Log
from fallow_settlement.contracts_abi import DEPOSITED_TOPIC
from fallow_settlement.domain.reasons import INSUFFICIENT_FUNDS, WITHDRAWALS_HALTED
from fallow_settlement.domain.transaction import TransactionState
from fallow_settlement.queries import Money, Reads
from fallow_settlement.sealing import Sealing, SealingRule
from fallow_settlement.settings import Contracts
from fallow_settlement.signer import Signer
from fallow_settlement.vault_watcher import VaultWatcher
from fallow_settlement.withdrawals import Withdrawals
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
    for _ in range(2):
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
    assert (await money(market.database)).free == 0
    turning.blocks = first
    turning.mine()
    await watcher.scan()
    await watcher.scan()
    assert (await money(market.database)).free == 500
    assert sorted(await states(market.database)) == ["POSTED", "VOIDED"]


@pytest.mark.parametrize("confirmations", [1, 3])
async def test_a_node_that_is_behind_changes_nothing(market: Market, turning: TurningNode, confirmations: int) -> None:
    """Goal: unknown is not gone. Method: a node that lacks the newest blocks, with a deposit in them, pending or credited."""
    watcher = VaultWatcher(market.database, turning, CONTRACTS, ASSET, confirmations)
    turning.mine([deposited(500)])
    turning.mine()
    await watcher.scan()
    before, whole = await money(market.database), list(turning.blocks)
    assert before.free + before.pending == 500
    for lacking in (1, 2):
        turning.blocks = whole[:-lacking]
        await watcher.scan()
        assert await money(market.database) == before
    turning.blocks = whole
    for _ in range(2):
        turning.mine()
    await watcher.scan()
    assert (await money(market.database)).free == 500
    assert await states(market.database) == ["POSTED"]


async def loss(database: Database) -> int:
    """What the operator's account of losses bears."""
    async with database.read() as connection:
        found = (await ledger_store.load_accounts(connection, [f"chain-loss-{ASSET}"])).get(f"chain-loss-{ASSET}")
    return 0 if found is None else found.debits_posted - found.credits_posted


async def withdraw(market: Market, turning: TurningNode, micros: int, request_id: str) -> None:
    """Withdraw some of the tenant's money."""
    request = settlement_service_pb2.CreateWithdrawalRequest(parent=f"accounts/{TENANT}", request_id=request_id)
    out = Withdrawals(market.database, turning, CONTRACTS, ASSET)
    await out.create(TENANT, ASSET, micros, "0x" + "12" * 20, request_id=request_id, request=request)


async def lost(market: Market, turning: TurningNode, *, spent: int) -> VaultWatcher:
    """A confirmed deposit of 500 that left the chain after some of it was held for an order."""
    watcher = VaultWatcher(market.database, turning, CONTRACTS, ASSET, confirmations=1)
    turning.mine([deposited(500)])
    await watcher.scan()
    if spent:
        await market.open(ORDER, spent)
    turning.turn(1)
    turning.mine()
    await watcher.scan()
    return watcher


@pytest.mark.parametrize("spent", [0, 200, 500])
async def test_a_lost_deposit_is_booked_and_repaired_when_it_is_mined_again(
    market: Market, turning: TurningNode, spent: int
) -> None:
    """Goal: a deep reorganisation moves the sum to the operator's loss, holds back what is free, and halts withdrawals; mined
    again, all is as it was. Method: lose a deposit of which some is spent, try to spend and withdraw, mine it in another block.
    """
    watcher = await lost(market, turning, spent=spent)
    assert (await money(market.database)).free == 0
    assert await loss(market.database) == 500
    assert await states(market.database) == ["LOST"]
    with pytest.raises(DomainError) as refusal:
        await withdraw(market, turning, 1, "halted")
    assert refusal.value.has_reason(WITHDRAWALS_HALTED)
    with pytest.raises(DomainError) as short:
        await market.open(identifier(9), 1)
    assert short.value.has_reason(INSUFFICIENT_FUNDS)
    turning.mine([deposited(500)])
    for _ in range(2):
        turning.mine()
        await watcher.scan()
    assert (await money(market.database)).free == 500 - spent
    assert await loss(market.database) == 0
    assert sorted(await states(market.database)) == ["LOST", "POSTED"]
    if spent < 500:
        await withdraw(market, turning, 1, "again")


@pytest.mark.parametrize(("how", "free", "borne"), [("write-off", 300, 500), ("recover", 0, 200)])
async def test_an_operator_ends_a_gap_and_a_late_deposit_still_repairs_it(
    market: Market, turning: TurningNode, how: str, free: int, borne: int
) -> None:
    """Goal: who decides lifts the halt, and what comes after all is not credited twice. Method: decide twice, then mine again."""
    watcher = await lost(market, turning, spent=200)
    (gap,) = await gaps.list_gaps(market.database)
    for expected in (True, False):
        async with market.database.transaction() as unit:
            assert await gaps.decide(unit, gap.id, gap_command.DECISIONS[how]) is expected
    assert ((await money(market.database)).free, await loss(market.database)) == (free, borne)
    if free:
        await withdraw(market, turning, 1, "lifted")
    turning.mine([deposited(500)])
    for _ in range(2):
        turning.mine()
        await watcher.scan()
    assert ((await money(market.database)).free, await loss(market.database)) == (300 - (1 if free else 0), 0)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ([], 0, ""),
        (["write-off", "g"], 1, "no such open gap"),
        (["write-off"], 2, "name it after the decision"),
        (["forget", "g"], 2, "invalid choice"),
    ],
)
async def test_the_command_of_gaps_says_what_it_did(
    database_factory: DatabaseFactory, arguments: list[str], status: int, said: str
) -> None:
    """Goal: an operator is told. Method: list nothing, decide about none, and use it wrongly."""
    environment = {**os.environ, "FALLOW_DATABASE_URL": await database_factory("fallow_settlement")}
    command = [sys.executable, "-m", "fallow_settlement", "gaps", *arguments]
    run = partial(subprocess.run, command, env=environment, capture_output=True, text=True, check=False)
    result = await asyncio.to_thread(run)
    assert (result.returncode, said in result.stdout + result.stderr) == (status, True), result


async def test_a_repair_that_vanishes_leaves_the_gap_open(market: Market, turning: TurningNode) -> None:
    """Goal: only a confirmed deposit repairs. Method: mine it again, turn that away before its confirmations, mine it once more."""
    await lost(market, turning, spent=0)
    watcher = VaultWatcher(market.database, turning, CONTRACTS, ASSET, confirmations=3)
    turning.mine([deposited(500)])
    await watcher.scan()
    turning.turn(1)
    turning.mine()
    await watcher.scan()
    assert ((await money(market.database)).free, await loss(market.database)) == (0, 500)
    turning.mine([deposited(500)])
    for _ in range(3):
        turning.mine()
    await watcher.scan()
    assert ((await money(market.database)).free, await loss(market.database)) == (500, 0)


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
    await Sealing(market.database, CONTRACTS, ASSET, SealingRule(1, timedelta(), timedelta(days=1))).seal_due()
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
