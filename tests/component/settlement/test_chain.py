"""Deposits and anchors on the embedded chain."""

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from fallow_chassis.errors import DomainError
from fallow_chassis.postgres import Database
from fallow_receipts import Receipt, ReceiptError, id_to_word, keccak, verify_receipt
from fallow_sdk.chain import ChainClient
from fallow_sdk.wallet import Wallet
from fallow_settlement import chain_store, deployment
from fallow_settlement.anchoring import Anchoring, AnchoringRule
from fallow_settlement.audit import audit
from fallow_settlement.chain import ChainUnavailableError, JsonRpcNode, WrongChainError
from fallow_settlement.contracts_abi import commitment_call
from fallow_settlement.domain.reasons import RECEIPT_NOT_READY
from fallow_settlement.domain.transaction import TransactionState
from fallow_settlement.ports import ChainNode
from fallow_settlement.queries import Reads
from fallow_settlement.sealing import Sealing, SealingRule
from fallow_settlement.settings import Contracts
from fallow_settlement.signer import Signer
from fallow_settlement.stray_command import give
from fallow_settlement.vault_watcher import VaultWatcher
from fallow_stack.faucet import Faucet
from tests.component.settlement.chain import DyingNode, Killed, LocalChain, deployed
from tests.component.settlement.market import ASSET, RULES, TENANT, Market, identifier

ORDER = identifier(1)
LEASE = identifier(2)
PRICE = 3_600_000
RULE = AnchoringRule(confirmations=1, bump_after_ms=60_000, fee_cap=10**12)
LONGEST_LIFE_CALLS = 12
ANCHORED_TOPIC = "0x" + keccak(b"Anchored(uint256,bytes32,bytes32,bytes32,uint256)").hex()


async def charged(market: Market, seconds: int = 1) -> None:
    """An order with one charge."""
    await market.fund(TENANT, 1_000_000)
    await market.open(ORDER, 500_000)
    await market.state(market.lease_created(ORDER, LEASE, price=PRICE), market.lease_running(ORDER, LEASE))
    await market.run_for(ORDER, LEASE, seconds)
    await market.charging.charge_due()


async def charge_again(market: Market, number: int) -> None:
    """One more charge of that order; ``number`` counts its seconds."""
    await market.run_for(ORDER, LEASE, 1, first=number, start_ms=(number - 1) * 1_000)
    await market.charging.charge_due()


def sealing(database: Database, contracts: Contracts) -> Sealing:
    """Seals whatever waits."""
    return Sealing(database, contracts, ASSET, SealingRule(10_000, timedelta(), timedelta(days=1)))


def anchoring(database: Database, node: ChainNode, signer: Signer, contracts: Contracts) -> Anchoring:
    """A life of the anchorer."""
    return Anchoring(database, node, signer, contracts, RULE)


async def anchored_events(url: str, contracts: Contracts) -> list[int]:
    """Numbers of the batches that the contract announced, in order."""
    async with ChainClient(url) as chain:
        query = {"address": contracts.anchor, "topics": [ANCHORED_TOPIC], "fromBlock": "0x0", "toBlock": "latest"}
        logs = await chain.rpc("eth_getLogs", query)
    return [int(log["topics"][1], 16) for log in logs]


async def batch_events(database: Database) -> list[str]:
    """Types of the events about batches, in order."""
    async with database.read() as connection:
        rows = await connection.fetch("SELECT type FROM outbox WHERE topic LIKE '%batches%' ORDER BY sequence")
    return [row["type"].rpartition(".")[2] for row in rows]


async def test_a_deposit_is_pending_until_it_is_confirmed(
    market: Market, local_chain: LocalChain, contracts: Contracts, node: JsonRpcNode, tmp_path: Path
) -> None:
    """Goal: money from the chain is free only after the confirmations. Method: deposit, scan, mine, scan."""
    watcher = VaultWatcher(market.database, node, contracts, ASSET, confirmations=3)
    reads = Reads(market.database, RULES)
    wallet = Wallet.load_or_create(tmp_path / "tenant.key")
    async with ChainClient(local_chain.url) as chain:
        faucet = Faucet(chain, local_chain.development_account)
        await faucet.give_fee_money(wallet.address)
        await faucet.fill_tokens(contracts.token, wallet.address, 5_000_000)
        reference = "0x" + id_to_word(TENANT).hex()
        await chain.deposit(
            wallet, token=contracts.token, vault=contracts.vault, account_reference=reference, micros=2_000_000
        )
        await watcher.scan()
        money = await reads.money(TENANT, ASSET)
        assert (money.free, money.pending) == (0, 2_000_000)
        await chain.rpc("evm_mine", {"blocks": 2})
    await watcher.scan()
    await watcher.scan()
    money = await reads.money(TENANT, ASSET)
    assert (money.free, money.pending) == (2_000_000, 0)
    deposits, head = await reads.deposits(TENANT, None, 10)
    assert [(deposit.state, deposit.sender) for deposit in deposits] == [("POSTED", wallet.address.lower())]
    assert head == await node.head()


async def test_a_deposit_for_no_account_waits_for_an_operator(
    market: Market, local_chain: LocalChain, contracts: Contracts, node: JsonRpcNode, tmp_path: Path
) -> None:
    """Goal: a reference that is no account's loses no money and stops nothing. Method: deposit for nobody and for a tenant;
    list, give the first before and after its confirmation, and once more.
    """
    wallet = Wallet.load_or_create(tmp_path / "tenant.key")
    async with ChainClient(local_chain.url) as chain:
        faucet = Faucet(chain, local_chain.development_account)
        await faucet.give_fee_money(wallet.address)
        await faucet.fill_tokens(contracts.token, wallet.address, 100)
        for reference in ("0x" + "ff" * 32, "0x" + id_to_word(TENANT).hex()):
            await chain.deposit(
                wallet, token=contracts.token, vault=contracts.vault, account_reference=reference, micros=7
            )
    await VaultWatcher(market.database, node, contracts, ASSET, confirmations=1).scan()
    reads = Reads(market.database, RULES)
    assert (await reads.money(TENANT, ASSET)).free == 7
    async with market.database.read() as connection:
        (stray,) = await chain_store.list_strays(connection)
    assert (stray.amount, stray.sender, stray.state) == (7, wallet.address.lower(), "STRAY")

    async def given(deposit: str, confirmations: int) -> bool:
        async with market.database.transaction() as unit:
            return await give(unit, deposit, TENANT, confirmations)

    assert not await given(stray.id, 1_000)
    assert not await given("nothing", 1)
    assert await given(stray.id, 1)
    assert not await given(stray.id, 1)
    assert (await reads.money(TENANT, ASSET)).free == 14
    findings = [finding async for finding in audit(market.database, None, contracts.vault, lambda _: None)]
    assert [finding for finding in findings if finding.difference is not None] == []


async def test_a_receipt_verifies_offline_against_the_chain(
    market: Market, contracts: Contracts, node: JsonRpcNode, signer: Signer
) -> None:
    """Goal: what GetReceipt gives is proven by the commitment on the chain. Method: anchor 3 charges, verify one."""
    await charged(market)
    for number in (2, 3):
        await charge_again(market, number)
    reads = Reads(market.database, RULES)
    charge = (await reads.charges(TENANT, ORDER, None, 10))[1]
    with pytest.raises(DomainError) as refusal:
        await reads.receipt(charge.id, TENANT)
    assert refusal.value.has_reason(RECEIPT_NOT_READY)

    await sealing(market.database, contracts).seal_due()
    await anchoring(market.database, node, signer, contracts).advance()
    _, batch, receipt = await reads.receipt(charge.id, TENANT)
    assert batch.state is TransactionState.FINAL
    assert await batch_events(market.database) == ["BatchAnchored", "BatchFinalized"]
    commitment = await node.call(contracts.anchor, commitment_call(batch.number))
    read = Receipt.from_json(receipt.to_json())
    assert verify_receipt(read, commitment=commitment).charge.amount_micros == charge.amount
    tampered = json.loads(receipt.to_json())
    tampered["charge"]["amount_micros"] = str(charge.amount - 1)
    with pytest.raises(ReceiptError):
        verify_receipt(Receipt.from_json(json.dumps(tampered)), commitment=commitment)


@pytest.mark.parametrize("after", [False, True])
async def test_each_batch_is_anchored_once_whenever_the_process_dies(
    market: Market, local_chain: LocalChain, contracts: Contracts, node: JsonRpcNode, signer: Signer, *, after: bool
) -> None:
    """Goal: exactly once. Method: die at each call to the chain in turn, a batch for each; a new life finishes it."""
    await charged(market)
    start = await node.transaction_count(signer.address)
    deaths = 0
    for at in range(1, LONGEST_LIFE_CALLS + 1):
        await charge_again(market, at + 1)
        await sealing(market.database, contracts).seal_due()
        dying = DyingNode(node, at, after=after)
        try:
            await anchoring(market.database, dying, signer, contracts).advance()
        except Killed:
            deaths += 1
        await anchoring(market.database, node, signer, contracts).advance()
        async with market.database.read() as connection:
            last = await chain_store.load_last_batch(connection)
        assert last is not None
        assert (last.number, last.state) == (at, TransactionState.FINAL)
    assert deaths >= 9, "most lives were cut short"
    assert await anchored_events(local_chain.url, contracts) == list(range(1, LONGEST_LIFE_CALLS + 1))
    assert await node.transaction_count(signer.address) - start == LONGEST_LIFE_CALLS, "one transaction a batch"
    assert await batch_events(market.database) == ["BatchAnchored", "BatchFinalized"] * LONGEST_LIFE_CALLS


async def test_processes_side_by_side_anchor_once(
    market: Market, local_chain: LocalChain, contracts: Contracts, node: JsonRpcNode, signer: Signer
) -> None:
    """Goal: a second process changes nothing. Method: three anchorers at once on one database, four batches."""
    await charged(market)
    start = await node.transaction_count(signer.address)
    batches = 4
    for number in range(batches):
        if number:
            await charge_again(market, number + 1)
        await sealing(market.database, contracts).seal_due()
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(anchoring(market.database, node, signer, contracts).advance())
    await anchoring(market.database, node, signer, contracts).advance()
    assert await anchored_events(local_chain.url, contracts) == list(range(1, batches + 1))
    assert await node.transaction_count(signer.address) - start == batches
    assert await batch_events(market.database) == ["BatchAnchored", "BatchFinalized"] * batches


async def test_a_nonce_that_somebody_else_used_is_replaced(
    market: Market, local_chain: LocalChain, contracts: Contracts, node: JsonRpcNode, signer: Signer
) -> None:
    """Goal: a foreign transaction of the key does not stop the anchors. Method: take the nonce after the signing."""
    await charged(market)
    await sealing(market.database, contracts).seal_due()
    life = anchoring(market.database, node, signer, contracts)
    assert await life.step()
    async with ChainClient(local_chain.url) as chain:
        account = json.loads(local_chain.development_account.read_text())["private_key"]
        path = Path(local_chain.development_account).with_name("key")
        path.write_text(account)
        await chain.send(Wallet.load(path), signer.address, value_wei=1)
    await anchoring(market.database, node, signer, contracts).advance()
    assert await anchored_events(local_chain.url, contracts) == [1]
    async with market.database.read() as connection:
        states = await connection.fetch("SELECT state FROM chain_transaction ORDER BY id")
    assert [row["state"] for row in states] == ["ABANDONED", "FINAL"]


async def test_a_header_that_the_contract_refuses_is_never_sent(
    market: Market, contracts: Contracts, node: JsonRpcNode, signer: Signer, tmp_path: Path
) -> None:
    """Goal: no fees for what must fail. Method: anchor with a key that is no anchorer."""
    await charged(market)
    await sealing(market.database, contracts).seal_due()
    stranger = tmp_path / "stranger.key"
    Wallet.load_or_create(stranger)
    await anchoring(market.database, node, Signer.load(stranger, contracts.chain_id), contracts).advance()
    async with market.database.read() as connection:
        assert await connection.fetchval("SELECT state FROM chain_transaction") == "PENDING"
        assert await connection.fetchval("SELECT count(*) FROM chain_attempt") == 0


async def test_a_node_of_another_chain_is_refused(local_chain: LocalChain, contracts: Contracts) -> None:
    """Goal: a wrong address never moves money. Method: expect another chain id than the node's."""
    async with JsonRpcNode(local_chain.url, contracts.chain_id + 1) as node:
        with pytest.raises(WrongChainError):
            await node.head()


async def test_a_node_that_is_away_gives_way_to_the_next(local_chain: LocalChain, contracts: Contracts) -> None:
    """Goal: one node less stops nothing, and none at all is told. Method: nobody at the first address, then at no address."""
    nobody = "http://127.0.0.1:1"
    async with JsonRpcNode(f"{nobody}, {local_chain.url}", contracts.chain_id) as node:
        assert await node.head() >= contracts.block
        assert await node.code(contracts.vault)
    async with JsonRpcNode(f"{nobody},{nobody}", contracts.chain_id) as node:
        with pytest.raises(ChainUnavailableError):
            await node.head()


async def test_a_second_node_of_another_chain_is_refused_too(local_chain: LocalChain, contracts: Contracts) -> None:
    """Goal: fail-over never moves money to another chain. Method: the first is away, the second speaks for another."""
    async with JsonRpcNode(f"http://127.0.0.1:1,{local_chain.url}", contracts.chain_id + 1) as node:
        with pytest.raises(WrongChainError):
            await node.transaction_count(contracts.vault)


async def test_deploying_waits_for_a_chain_but_not_for_ever(
    local_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a chain that was started a moment ago is waited for. Method: nobody there, with the wait cut short."""
    monkeypatch.setattr(deployment, "START_SECONDS", 0.5)
    with pytest.raises(deployment.DeploymentError, match="no chain answers"):
        await deployed(replace(local_chain, url="http://127.0.0.1:1"), tmp_path)


def test_deploying_twice_does_nothing(local_chain: LocalChain, tmp_path: Path) -> None:
    """Goal: the command is idempotent. Method: run it twice and compare the file; then lose the file's contracts."""
    output = tmp_path / "contracts.json"
    command = [sys.executable, "-m", "fallow_settlement", "deploy-contracts", "--test-token"]
    command += ["--rpc-url", local_chain.url, "--key-file", str(local_chain.development_account)]
    command += ["--output", str(output)]
    subprocess.run(command, check=True, capture_output=True)
    first = Contracts.load(output)
    subprocess.run(command, check=True, capture_output=True)
    assert Contracts.load(output) == first
    replace(first, vault="0x" + "11" * 20).save(output)
    subprocess.run(command, check=True, capture_output=True)
    assert Contracts.load(output).vault not in {first.vault, "0x" + "11" * 20}
