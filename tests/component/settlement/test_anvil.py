"""Anchoring on a real node whose mining is under control: the chain ends with each batch once and in order."""

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
from argparse import Namespace
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from eth_abi.abi import encode

from fallow_receipts import keccak
from fallow_settlement import chain_store, resending
from fallow_settlement.anchoring import Anchoring, AnchoringRule
from fallow_settlement.chain import ChainUnavailableError, JsonRpcNode
from fallow_settlement.chain_store import ChainTransaction
from fallow_settlement.contracts_abi import anchor_call
from fallow_settlement.deployment import deploy
from fallow_settlement.domain.transaction import Fees, TransactionState
from fallow_settlement.resending import ResendRefusedError, Standing
from fallow_settlement.settings import Contracts
from fallow_settlement.signer import Signer
from tests.component.settlement.anvil import KEY, Anvil, Door, open_door, running_anvil
from tests.component.settlement.market import Market
from tests.component.settlement.test_chain import anchored_events, charge_again, charged, sealing

GWEI = 10**9
CAP = 50 * GWEI
RULE = AnchoringRule(confirmations=3, bump_after_ms=60_000, fee_cap=CAP)
PROCESS = Path(__file__).with_name("anchorer_process.py")


@pytest.fixture
async def anvil(tmp_path: Path, unused_tcp_port: int) -> AsyncIterator[Anvil]:
    """A node of the test's own."""
    async with running_anvil(tmp_path, unused_tcp_port) as node:
        yield node


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """The anchorer's key."""
    path = tmp_path / "anchorer.key"
    path.write_text(KEY, "utf-8")
    return path


@pytest.fixture
async def contracts(anvil: Anvil, key_file: Path, tmp_path: Path) -> Contracts:
    """Contracts of the test's own; from then on nothing is mined that the test does not mine."""
    options = Namespace(
        rpc_url=anvil.url, key_file=key_file, output=tmp_path / "contracts.json", test_token=True, token=None, owner="",
        guardian="", challenge_seconds=60, escape_seconds=86_400, daily_limit=10**12,
    )  # fmt: skip
    await deploy(options)
    await anvil.rpc("evm_setAutomine", False)
    return Contracts.load(options.output)


@pytest.fixture
async def node(anvil: Anvil, contracts: Contracts) -> AsyncIterator[JsonRpcNode]:
    """A client of it."""
    async with JsonRpcNode(anvil.url, contracts.chain_id) as opened:
        yield opened


@pytest.fixture
def signer(contracts: Contracts, key_file: Path) -> Signer:
    """The anchorer."""
    return Signer.load(key_file, contracts.chain_id)


class Life:
    """An anchorer on one market, and what became of its batches."""

    def __init__(self, market: Market, node: JsonRpcNode, signer: Signer, contracts: Contracts) -> None:
        self.market = market
        self.contracts = contracts
        self.anchoring = Anchoring(market.database, node, signer, contracts, RULE)
        self.charges = 0

    async def batch(self) -> None:
        """One more charge, and a batch of it."""
        self.charges += 1
        if self.charges == 1:
            await charged(self.market)
        else:
            await charge_again(self.market, self.charges)
        await sealing(self.market.database, self.contracts).seal_due()

    async def states(self) -> list[str]:
        """The states of all batches, oldest first."""
        async with self.market.database.read() as connection:
            return [batch.state.value for batch in reversed(await chain_store.list_batches(connection, 0, 100))]

    async def in_flight(self) -> ChainTransaction:
        """The transaction on its way."""
        async with self.market.database.read() as connection:
            found = await chain_store.load_in_flight(connection)
        assert found is not None
        return found


@pytest.fixture
def life(market: Market, node: JsonRpcNode, signer: Signer, contracts: Contracts) -> Life:
    """The anchorer."""
    return Life(market, node, signer, contracts)


async def settled(life: Life, anvil: Anvil, batches: int) -> None:
    """Mine until all is final; the contract has each batch once and in order."""
    for _ in range(batches * 4 + 4):
        await life.anchoring.advance()
        await anvil.mine()
    await life.anchoring.advance()
    assert await life.states() == ["FINAL"] * batches
    assert await anchored_events(anvil.url, life.contracts) == list(range(1, batches + 1))


async def test_no_blocks_for_long_and_then_many(life: Life, anvil: Anvil, signer: Signer, node: JsonRpcNode) -> None:
    """Goal: a chain that stands still costs one transaction. Method: three batches, five minutes without a block, with the
    fee raised meanwhile; then fifty blocks at once.
    """
    start = await node.transaction_count(signer.address)
    for _ in range(3):
        await life.batch()
    for _ in range(5):
        await life.anchoring.advance()
        life.market.clock.advance(seconds=61)
    flight = await life.in_flight()
    assert await life.states() == ["SENT", "PENDING", "PENDING"]
    assert len(flight.attempts) >= 3
    assert {attempt.fees.max_fee <= CAP for attempt in flight.attempts} == {True}
    pool = await anvil.rpc("txpool_content")
    assert [len(waiting) for waiting in pool["pending"].values()] == [1], (
        "one nonce, however often it was paid more for"
    )
    await anvil.mine(50)
    await settled(life, anvil, 3)
    assert await node.transaction_count(signer.address) - start == 3


@pytest.mark.parametrize("depth", [1, 2])
async def test_a_reorganisation_sends_again(life: Life, anvil: Anvil, depth: int) -> None:
    """Goal: what a reorganisation takes away comes back, once. Method: anchor, mine short of the confirmations, turn."""
    await life.batch()
    await life.anchoring.advance()
    await anvil.mine(depth)
    await life.anchoring.advance()
    assert await life.states() == ["MINED"]
    await anvil.rpc("anvil_reorg", depth, [])
    assert await anchored_events(anvil.url, life.contracts) == []
    await life.anchoring.advance()
    assert await life.states() == ["SENT"]
    await life.batch()
    await settled(life, anvil, 2)


async def test_a_node_that_is_stopped_and_started(life: Life, anvil: Anvil) -> None:
    """Goal: a node may go and come. Method: stop it with a transaction in its pool, which it loses; it is away for a while."""
    await life.batch()
    await life.anchoring.advance()
    assert await life.states() == ["SENT"]
    await anvil.stop()
    with pytest.raises(ChainUnavailableError):
        await life.anchoring.advance()
    await anvil.start()
    await anvil.rpc("evm_setAutomine", False)
    assert (await anvil.rpc("txpool_status"))["pending"] == "0x0"
    await settled(life, anvil, 1)


async def test_a_node_that_forgot_its_chain_gets_nothing(
    life: Life, anvil: Anvil, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Goal: nothing is signed for a chain that lacks the contract, and somebody is told. Method: a batch is final; the node
    comes back empty; the real chain comes back.
    """
    await life.batch()
    await settled(life, anvil, 1)
    await anvil.stop()
    state = tmp_path / "state.json"
    kept = state.read_bytes()
    state.unlink()
    await life.batch()
    await anvil.start()
    for _ in range(3):
        await life.anchoring.advance()
    assert "there is no anchor at its address" in capsys.readouterr().out
    assert await life.states() == ["FINAL", "PENDING"]
    async with life.market.database.read() as connection:
        assert await connection.fetchval("SELECT count(*) FROM chain_attempt") == 1
    await anvil.kill()
    state.write_bytes(kept)
    await anvil.start()
    await anvil.rpc("evm_setAutomine", False)
    await settled(life, anvil, 2)


async def test_a_chain_that_rolled_back_what_was_final_halts(
    life: Life, anvil: Anvil, capsys: pytest.CaptureFixture[str]
) -> None:
    """Goal: halt and tell, do not guess. Method: two batches final; the chain goes back below the second; nothing is sent."""
    await life.batch()
    await settled(life, anvil, 1)
    snapshot = await anvil.rpc("evm_snapshot")
    await life.batch()
    await settled(life, anvil, 2)
    await anvil.rpc("evm_revert", snapshot)
    await life.batch()
    for _ in range(3):
        await life.anchoring.advance()
        await anvil.mine()
    assert "batch 2 was final" in capsys.readouterr().out
    assert await life.states() == ["FINAL", "FINAL", "PENDING"]
    assert await anchored_events(anvil.url, life.contracts) == [1]


async def test_a_database_of_an_old_copy_anchors_nothing(
    life: Life, anvil: Anvil, node: JsonRpcNode, signer: Signer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Goal: two histories never meet on one anchor. Method: a batch is anchored that this database knows nothing of."""
    await life.batch()
    await settled(life, anvil, 1)
    async with life.market.database.read() as connection:
        first = await chain_store.load_batch(connection, 1)
    assert first is not None
    other = replace(first.header, batch_id=2, prev=first.commitment, payout_parent=1)
    signed = signer.sign(
        nonce=await node.transaction_count(signer.address), to=life.contracts.anchor, data=anchor_call(other),
        gas_limit=200_000, fees=Fees(20 * GWEI, GWEI),
    )  # fmt: skip
    await node.send(signed.raw)
    await anvil.mine()
    await life.anchoring.advance()
    assert "this database knows of 1" in capsys.readouterr().out


async def test_a_spike_of_fees_is_waited_out(life: Life, anvil: Anvil) -> None:
    """Goal: no anchor costs more than the cap, and none is lost. Method: a base fee above the cap for ten blocks and five
    minutes; then it falls.
    """
    await anvil.rpc("anvil_setNextBlockBaseFeePerGas", hex(10 * CAP))
    await anvil.mine()
    await life.batch()
    for _ in range(5):
        await life.anchoring.advance()
        await anvil.rpc("anvil_setNextBlockBaseFeePerGas", hex(10 * CAP))
        await anvil.mine(2)
        life.market.clock.advance(seconds=61)
    assert await life.states() in (["SENT"], ["SIGNED"])
    assert await anchored_events(anvil.url, life.contracts) == []
    assert all(attempt.fees.max_fee <= CAP for attempt in (await life.in_flight()).attempts)
    await anvil.rpc("anvil_setNextBlockBaseFeePerGas", hex(GWEI))
    await settled(life, anvil, 1)


async def test_a_dropped_transaction_is_sent_again(life: Life, anvil: Anvil) -> None:
    """Goal: nodes forget, and nothing is lost by it. Method: take it out of the pool, three times; the bytes stay the same."""
    await life.batch()
    await life.anchoring.advance()
    (attempt,) = (await life.in_flight()).attempts
    for _ in range(3):
        await anvil.rpc("anvil_dropTransaction", attempt.transaction_hash)
        assert (await anvil.rpc("txpool_status"))["pending"] == "0x0"
        await life.anchoring.advance()
        assert (await anvil.rpc("txpool_status"))["pending"] == "0x1"
    assert [kept.raw for kept in (await life.in_flight()).attempts] == [attempt.raw]
    await settled(life, anvil, 1)


async def test_a_stolen_nonce_is_replaced(life: Life, anvil: Anvil, node: JsonRpcNode, signer: Signer) -> None:
    """Goal: somebody else with the key stops nothing. Method: outbid our transaction in the pool with the same nonce."""
    await life.batch()
    await life.anchoring.advance()
    (attempt,) = (await life.in_flight()).attempts
    thief = signer.sign(
        nonce=(await life.in_flight()).nonce or 0,
        to=signer.address,
        data=b"",
        gas_limit=21_000,
        fees=Fees(attempt.fees.max_fee * 3, attempt.fees.max_priority_fee * 3),
    )
    await node.send(thief.raw)
    await anvil.mine(3)
    assert await anchored_events(anvil.url, life.contracts) == []
    await life.batch()
    await settled(life, anvil, 2)
    async with life.market.database.read() as connection:
        rows = await connection.fetch("SELECT state FROM chain_transaction ORDER BY id")
    assert [row["state"] for row in rows] == ["ABANDONED", "FINAL", "FINAL"]


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_third_of_all_calls_fails(
    market: Market, anvil: Anvil, contracts: Contracts, signer: Signer, seed: int
) -> None:
    """Goal: a bad line costs time and nothing else. Method: five batches through a door that answers busy, hangs up before
    and after the node was asked, cuts answers in half, and refuses, for 30 % of the calls.
    """
    start = int(await anvil.rpc("eth_getTransactionCount", signer.address, "latest"), 16)
    async with open_door(anvil.url, seed, 0.3) as door, JsonRpcNode(door.url, contracts.chain_id) as node:
        life = Life(market, node, signer, contracts)
        for _ in range(5):
            await life.batch()
        for _ in range(400):
            with contextlib.suppress(ChainUnavailableError):
                await life.anchoring.advance()
            await anvil.mine()
            if await life.states() == ["FINAL"] * 5:
                break
        assert door.faults > 20
    assert await life.states() == ["FINAL"] * 5
    assert await anchored_events(anvil.url, contracts) == [1, 2, 3, 4, 5]
    assert int(await anvil.rpc("eth_getTransactionCount", signer.address, "latest"), 16) - start == 5


async def test_a_process_that_is_killed_at_each_call(
    market: Market, anvil: Anvil, contracts: Contracts, key_file: Path, tmp_path: Path, signer: Signer
) -> None:
    """Goal: SIGKILL at any step anchors each batch once. Method: a real process, killed when its call to the node arrives, or
    when it was answered, one call further each time, a batch for each; a last one finishes.
    """
    await anvil.rpc("evm_setAutomine", True)
    start = int(await anvil.rpc("eth_getTransactionCount", signer.address, "latest"), 16)
    draw = random.Random(5)
    killed, batches = 0, 0
    async with open_door(anvil.url) as door:
        running: list[asyncio.subprocess.Process] = []

        async def die(number: int) -> None:
            if number == fatal and running[-1].returncode is None:
                running[-1].send_signal(signal.SIGKILL)

        async def run() -> int:
            door.requests = 0
            arguments = (market.database._url, door.url, str(tmp_path / "contracts.json"), str(key_file))
            running.append(await asyncio.create_subprocess_exec(sys.executable, str(PROCESS), *arguments))
            return await running[-1].wait()

        for at in range(1, 13):
            batches += 1
            if batches == 1:
                await charged(market)
            else:
                await charge_again(market, batches)
            fatal = at
            moment = draw.choice(["before", "after"])
            setattr(door, moment, die)
            killed += await run() == -signal.SIGKILL
            door.before = door.after = None
        fatal = 0
        assert await run() == 0
    assert killed >= 10
    assert await anchored_events(anvil.url, contracts) == list(range(1, batches + 1))
    assert int(await anvil.rpc("eth_getTransactionCount", signer.address, "latest"), 16) - start == batches
    async with market.database.read() as connection:
        states = await connection.fetch("SELECT state FROM batch ORDER BY number")
    assert [row["state"] for row in states] == [TransactionState.FINAL] * batches


async def rolled_back(life: Life, anvil: Anvil, kept: int, lost: int) -> None:
    """Some final batches that the chain has, and some more that were final and that it has no more."""
    for _ in range(kept):
        await life.batch()
    if kept:
        await settled(life, anvil, kept)
    snapshot = await anvil.rpc("evm_snapshot")
    for _ in range(lost):
        await life.batch()
    await settled(life, anvil, kept + lost)
    await anvil.rpc("evm_revert", snapshot)
    assert await anchored_events(anvil.url, life.contracts) == list(range(1, kept + 1))


async def kept_bytes(market: Market) -> set[bytes]:
    """All signed bytes that were ever stored."""
    async with market.database.read() as connection:
        return {row["raw"] for row in await connection.fetch("SELECT raw FROM chain_attempt")}


@pytest.mark.parametrize("kept", [0, 2])
@pytest.mark.parametrize("flight", ["none", "PENDING", "SENT", "MINED"])
async def test_an_operator_sends_lost_anchors_again(
    life: Life, anvil: Anvil, node: JsonRpcNode, signer: Signer, kept: int, flight: str
) -> None:
    """Goal: what a rollback took comes back once, in order, by the bytes that are stored; what was on its way follows.
    Method: three final batches lost, with one behind them in each state, then the operator's word, twice.
    """
    start = await node.transaction_count(signer.address)
    for _ in range(kept):
        await life.batch()
    if kept:
        await settled(life, anvil, kept)
    snapshot = await anvil.rpc("evm_snapshot")
    for _ in range(3):
        await life.batch()
    await settled(life, anvil, kept + 3)
    if flight != "none":
        await life.batch()
        async with life.market.database.transaction() as unit:
            await chain_store.start_transaction(unit.connection, signer.address, unit.clock.now())
    if flight in {"SENT", "MINED"}:
        await life.anchoring.advance()
    if flight == "MINED":
        await anvil.mine()
        await life.anchoring.advance()
    before = await kept_bytes(life.market)
    await anvil.rpc("evm_revert", snapshot)
    await life.anchoring.advance()
    listed = await resending.list_anchors(life.market.database, node, life.contracts)
    assert [line.standing for line in listed][: kept + 3] == [Standing.STANDS] * kept + [Standing.LOST] * 3
    behind = [kept + 4] if flight in {"SENT", "MINED"} else []
    numbers = await resending.resend(life.market.database, node, life.contracts)
    assert numbers == [kept + 1, kept + 2, kept + 3, *behind]
    assert await life.states() == ["FINAL"] * kept + ["PENDING"] * (3 + (flight != "none"))
    assert await resending.resend(life.market.database, node, life.contracts) == []
    await life.anchoring.advance()
    assert (await life.states())[kept : kept + 2] == ["SENT", "PENDING"], "one in flight"
    await life.batch()
    total = kept + 4 + (flight != "none")
    await settled(life, anvil, total)
    assert await node.transaction_count(signer.address) - start == total
    assert before <= await kept_bytes(life.market)
    assert len(await kept_bytes(life.market)) == total, "nothing was signed anew"
    with pytest.raises(ResendRefusedError, match="nothing is lost"):
        await resending.resend(life.market.database, node, life.contracts)


async def test_lost_anchors_that_nodes_remember_are_recognised(
    life: Life, anvil: Anvil, node: JsonRpcNode, signer: Signer
) -> None:
    """Goal: a node that puts old transactions back costs no second one. Method: the bytes of two of three lost ones are mined
    by themselves after the operator's word.
    """
    start = await node.transaction_count(signer.address)
    await rolled_back(life, anvil, 1, 3)
    await resending.resend(life.market.database, node, life.contracts)
    async with life.market.database.read() as connection:
        rows = await connection.fetch("SELECT raw FROM chain_attempt ORDER BY transaction_id")
    for row in rows[1:3]:
        await node.send(row["raw"])
    await anvil.mine()
    await settled(life, anvil, 4)
    assert await node.transaction_count(signer.address) - start == 4


async def test_a_nonce_that_is_taken_after_a_rollback_renumbers_what_is_lost(
    life: Life, anvil: Anvil, node: JsonRpcNode, signer: Signer
) -> None:
    """Goal: the order holds also where the old nonces are gone. Method: a foreign transaction takes the first one of three."""
    await rolled_back(life, anvil, 1, 3)
    nonce = await node.transaction_count(signer.address)
    thief = signer.sign(nonce=nonce, to=signer.address, data=b"", gas_limit=21_000, fees=Fees(20 * GWEI, GWEI))
    await node.send(thief.raw)
    await anvil.mine()
    await resending.resend(life.market.database, node, life.contracts)
    await settled(life, anvil, 4)
    assert await node.transaction_count(signer.address) == nonce + 4


async def test_a_second_rollback_while_anchors_are_sent_again(life: Life, anvil: Anvil, node: JsonRpcNode) -> None:
    """Goal: the operator may say it again. Method: one of two lost ones is final anew, and lost anew."""
    await rolled_back(life, anvil, 1, 2)
    snapshot = await anvil.rpc("evm_snapshot")
    await resending.resend(life.market.database, node, life.contracts)
    await life.anchoring.advance()
    await anvil.mine(RULE.confirmations)
    await life.anchoring.advance()
    assert await life.states() == ["FINAL", "FINAL", "SENT"]
    await anvil.rpc("evm_revert", snapshot)
    assert await resending.resend(life.market.database, node, life.contracts) == [2, 3]
    await settled(life, anvil, 3)


async def test_a_key_that_was_changed_leaves_nothing_on_its_way(
    life: Life, anvil: Anvil, node: JsonRpcNode, contracts: Contracts, tmp_path: Path
) -> None:
    """Goal: what the old key signed is replaced by the new one's. Method: an anchor on its way that every node forgot, for so
    long that its fee would rise; then another anchorer.
    """
    other = tmp_path / "other.key"
    other.write_text("0x" + "5a" * 32, "utf-8")
    signer = Signer.load(other, contracts.chain_id)
    await anvil.rpc("anvil_setBalance", signer.address, hex(10**20))
    owner = Signer.load(tmp_path / "anchorer.key", contracts.chain_id)
    allow = keccak(b"set_anchorer(address,bool)")[:4] + bytes(encode(("address", "bool"), (signer.address, True)))
    count = await node.transaction_count(owner.address)
    await node.send(
        owner.sign(nonce=count, to=contracts.anchor, data=allow, gas_limit=100_000, fees=Fees(20 * GWEI, GWEI)).raw
    )
    await anvil.mine()
    await life.batch()
    await life.anchoring.advance()
    (attempt,) = (await life.in_flight()).attempts
    await anvil.rpc("anvil_dropTransaction", attempt.transaction_hash)
    life.market.clock.advance(seconds=61)
    await settled(Life(life.market, node, signer, contracts), anvil, 1)
    assert await node.transaction_count(signer.address) == 1


async def test_a_process_that_is_killed_while_it_sends_again(
    life: Life, anvil: Anvil, contracts: Contracts, key_file: Path, tmp_path: Path, signer: Signer
) -> None:
    """Goal: SIGKILL at any step sends each lost anchor once. Method: the command dies at each of its calls to the node, then
    the anchoring process, one call further each time; a last one finishes.
    """
    start = int(await anvil.rpc("eth_getTransactionCount", signer.address, "latest"), 16)
    await rolled_back(life, anvil, 1, 8)
    await anvil.rpc("evm_setAutomine", True)
    contracts_file = tmp_path / "contracts.json"
    async with open_door(anvil.url) as door:
        command = AnchorCommand(life.market.database._url, door.url, contracts_file)
        for at in range(1, 4):
            assert await dies(door, at, command.start) == -signal.SIGKILL
            assert await life.states() == ["FINAL"] * 9
        assert await (await command.start()).wait() == 0
        assert await life.states() == ["FINAL"] + ["PENDING"] * 8

        async def anchorer() -> asyncio.subprocess.Process:
            arguments = (life.market.database._url, door.url, str(contracts_file), str(key_file))
            return await asyncio.create_subprocess_exec(sys.executable, str(PROCESS), *arguments)

        ends = [await dies(door, at, anchorer) for at in range(1, 13)]
        assert ends.count(-signal.SIGKILL) >= 8
        await (await anchorer()).wait()
    # The anchoring process, whose clock is ahead of the test's, seals a batch of nothing.
    assert await life.states() == ["FINAL"] * 10
    assert await anchored_events(anvil.url, contracts) == list(range(1, 11))
    assert int(await anvil.rpc("eth_getTransactionCount", signer.address, "latest"), 16) - start == 10


class AnchorCommand:
    """``python -m fallow_settlement anchors``, as an operator runs it."""

    def __init__(self, database_url: str, rpc_url: str, contracts_file: Path) -> None:
        self.url = database_url
        self.environment = {
            **os.environ,
            "FALLOW_DATABASE_URL": database_url,
            "FALLOW_CHAIN_RPC_URL": rpc_url,
            "FALLOW_CONTRACTS_FILE": str(contracts_file),
        }

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        """The process; without arguments it sends again."""
        command = [sys.executable, "-m", "fallow_settlement", "anchors", *(arguments or ("resend",))]
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(*command, env=self.environment, stdout=pipe, stderr=pipe)

    async def said(self, *arguments: str) -> tuple[int, str]:
        """Its status and all that it said."""
        process = await self.start(*arguments)
        told = b"".join(await process.communicate()).decode()
        assert process.returncode is not None
        return process.returncode, told


async def dies(door: Door, at: int, start: Callable[[], Awaitable[asyncio.subprocess.Process]]) -> int:
    """The status of a process that is killed when its call of that number was answered by the node."""
    running: list[asyncio.subprocess.Process] = []

    async def die(number: int) -> None:
        if number == at and running[-1].returncode is None:
            running[-1].send_signal(signal.SIGKILL)

    door.requests, door.after = 0, die
    running.append(await start())
    status = await running[-1].wait()
    door.after = None
    return status


async def test_the_command_of_anchors_says_what_it_did(
    life: Life, anvil: Anvil, contracts: Contracts, tmp_path: Path
) -> None:
    """Goal: an operator is told, and a refusal changes nothing. Method: each answer of the command, on a real chain."""
    command = AnchorCommand(life.market.database._url, anvil.url, tmp_path / "contracts.json")
    assert await command.said() == (1, "nothing is lost: the chain has every batch that was final\n")
    await life.batch()
    await settled(life, anvil, 1)
    assert (await command.said())[0] == 1
    await anvil.rpc("anvil_setCode", contracts.anchor, "0x")
    status, told = await command.said()
    assert (status, "there is no anchor at" in told) == (1, True)
    for url, rpc_url in (("postgresql://nobody@127.0.0.1:1/none", anvil.url), (command.url, "http://127.0.0.1:1")):
        status, told = await AnchorCommand(url, rpc_url, tmp_path / "contracts.json").said()
        assert (status, told.count("\n"), "cannot be looked at" in told) == (2, 1, True), told


async def test_the_command_of_anchors_lists_and_sends_again(life: Life, anvil: Anvil, tmp_path: Path) -> None:
    """Goal: what is lost is seen before and after. Method: lose one of two; list as JSON, send, repeat."""
    command = AnchorCommand(life.market.database._url, anvil.url, tmp_path / "contracts.json")
    await rolled_back(life, anvil, 1, 1)
    status, told = await command.said("--json")
    assert status == 0
    assert [(row["state"], row["chain"]) for row in json.loads(told)] == [("FINAL", "STANDS"), ("FINAL", "LOST")]
    assert await command.said("resend", "--json") == (0, '{"resend": ["batches/2"]}\n')
    assert "already" in (await command.said())[1]
    await settled(life, anvil, 2)


async def test_a_foreign_header_in_a_lost_place_is_no_case_for_sending_again(
    life: Life, anvil: Anvil, contracts: Contracts, node: JsonRpcNode, signer: Signer
) -> None:
    """Goal: what sending cannot mend is refused. Method: after a rollback somebody with the key anchors another header."""
    await rolled_back(life, anvil, 1, 2)
    async with life.market.database.read() as connection:
        first = await chain_store.load_batch(connection, 1)
    assert first is not None
    other = replace(first.header, batch_id=2, prev=first.commitment, payout_parent=1)
    nonce = await node.transaction_count(signer.address)
    fees = Fees(20 * GWEI, GWEI)
    await node.send(
        signer.sign(nonce=nonce, to=contracts.anchor, data=anchor_call(other), gas_limit=200_000, fees=fees).raw
    )
    await anvil.mine()
    with pytest.raises(ResendRefusedError, match="another header in the place of batches/2"):
        await resending.resend(life.market.database, node, contracts)
    assert await life.states() == ["FINAL"] * 3
    listed = await resending.list_anchors(life.market.database, node, contracts)
    assert [line.standing for line in listed] == [Standing.STANDS, Standing.OTHER, Standing.LOST]
