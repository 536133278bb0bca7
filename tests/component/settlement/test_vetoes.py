"""Vetoes of payout roots: settlements go on, nobody withdraws until an operator releases it, and then all are paid once."""

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from fallow.settlement.v1 import settlement_service_pb2
from fallow_chassis.errors import DomainError
from fallow_chassis.postgres import Database
from fallow_receipts import EMPTY_ROOT, Header, MerkleTree, Payout, id_to_word, keccak
from fallow_receipts.leaves import PAYOUT_TAG
from fallow_receipts.words import address_word, integer_word
from fallow_sdk.chain import ChainClient
from fallow_sdk.wallet import Wallet
from fallow_settlement import chain_store, convert, ledger_store, vetoes, withdrawal_store
from fallow_settlement.audit import audit
from fallow_settlement.chain import JsonRpcNode, Log
from fallow_settlement.chain_store import Batch
from fallow_settlement.contracts_abi import HEADER_TYPE, VETOED_TOPIC, anchor_call, commitment_call, next_batch_call
from fallow_settlement.domain.reasons import NOTHING_TO_CLAIM, WITHDRAWALS_HALTED
from fallow_settlement.domain.transaction import Fees, TransactionState
from fallow_settlement.settings import Contracts
from fallow_settlement.signer import Signer
from fallow_settlement.vault_watcher import VaultWatcher
from fallow_settlement.withdrawal_store import VaultClaim
from tests.component.settlement.chain import LocalChain, TurningNode, deployed
from tests.component.settlement.market import ASSET, TENANT, Market
from tests.component.settlement.test_chain import charge_again, charged
from tests.component.settlement.test_withdrawals import (
    PAYEE,
    WINDOW_SECONDS,
    Out,
    funded_wallet,
    past_chain_window,
    past_window,
)


@pytest.fixture
async def contracts(local_chain: LocalChain, tmp_path: Path) -> Contracts:
    """Contracts of the test's own, with a short challenge window."""
    return await deployed(local_chain, tmp_path, challenge_seconds=WINDOW_SECONDS)


@pytest.fixture
def out(market: Market, contracts: Contracts, node: JsonRpcNode, signer: Signer) -> Out:
    """The way out."""
    return Out(market, contracts, node, signer)


async def batch(database: Database, number: int) -> Batch:
    """A batch."""
    async with database.read() as connection:
        found = await chain_store.load_batch(connection, number)
    assert found is not None
    return found


async def veto(node: JsonRpcNode, signer: Signer, contracts: Contracts, header: Header) -> None:
    """The guardian's veto, mined."""
    await mined(node, signer, contracts.anchor, keccak(f"veto({HEADER_TYPE})".encode())[:4] + header.words())


async def mined(node: JsonRpcNode, signer: Signer, to: str, data: bytes) -> None:
    """A transaction of the key that owns, guards and anchors."""
    signed = signer.sign(
        nonce=await node.transaction_count(signer.address),
        to=to,
        data=data,
        gas_limit=300_000,
        fees=Fees(10 * 10**9, 10**9),
    )
    await node.send(signed.raw)
    receipt = await node.receipt(signed.transaction_hash)
    assert receipt is not None
    assert receipt.succeeded


async def release(database: Database) -> int:
    """The operator's decision."""
    async with database.transaction() as unit:
        return await vetoes.release(unit)


async def test_after_a_veto_all_are_paid_once_by_another_root(
    market: Market, out: Out, node: JsonRpcNode, signer: Signer, contracts: Contracts, local_chain: LocalChain,
    tmp_path: Path,
) -> None:  # fmt: skip
    """Goal: a veto costs time and no money. Method: two withdrawals, the second's root vetoed; a charge goes on being
    settled; release; the tenant claims both by the new root, and the books hold.
    """
    async with ChainClient(local_chain.url) as chain:
        wallet = await funded_wallet(chain, local_chain, contracts, tmp_path / "wallet.key")
        reference = "0x" + id_to_word(TENANT).hex()
        await chain.deposit(
            wallet, token=contracts.token, vault=contracts.vault, account_reference=reference, micros=1_000_000
        )
        await charged(market)
        await out.withdraw(TENANT, 100, "one")
        await out.anchor()
        await out.withdraw(TENANT, 50, "two")
        await out.anchor()
        await veto(node, signer, contracts, (await batch(market.database, 2)).header)
        for _ in range(2):
            await out.watcher.scan()
        assert await out.states(TENANT) == [2, 1], "CLAIMABLE by the first root, and PENDING"
        with pytest.raises(DomainError) as halted:
            await out.withdraw(TENANT, 1, "three")
        assert halted.value.has_reason(WITHDRAWALS_HALTED)

        await charge_again(market, 2)
        await out.anchor()
        third = await batch(market.database, 3)
        first = await batch(market.database, 1)
        assert third.state in {TransactionState.MINED, TransactionState.FINAL}
        assert (third.header.count, third.header.payout_parent) == (1, 1)
        assert third.header.payout_root == first.header.payout_root, "it says what the last one that counts said"
        await past_window(chain, market)
        assert (await out.claim(TENANT)).cumulative_micros == 100

        assert await release(market.database) == 1
        assert await release(market.database) == 0
        await out.anchor()
        fourth = await batch(market.database, 4)
        assert (fourth.header.payout_parent, fourth.header.payout_total) == (3, 150)
        assert await out.states(TENANT) == [2, 2]
        await past_window(chain, market)
        claim = await out.claim(TENANT)
        assert (claim.cumulative_micros, claim.header.batch_id) == (150, 4)
        await chain.claim(wallet, claim)
        assert await chain.read(contracts.token, "balanceOf(address)", "uint256", PAYEE.lower()) == 150
    for _ in range(2):
        await out.watcher.scan()
    assert await out.states(TENANT) == [3, 3]
    findings = [finding async for finding in audit(market.database, node, contracts.vault, lambda _: None)]
    assert [finding for finding in findings if finding.difference is not None] == []


async def rob(
    chain: ChainClient, node: JsonRpcNode, signer: Signer, contracts: Contracts, thief: Wallet, words: dict[bytes, int]
) -> Header:
    """What a thief of the anchorer's key does: a root of his own, which pays him so much for each account's word."""
    leaves = [
        keccak(
            keccak(
                PAYOUT_TAG
                + integer_word(contracts.chain_id)
                + address_word(contracts.vault)
                + word
                + address_word(thief.address)
                + integer_word(micros)
            )
        )
        for word, micros in words.items()
    ]
    tree = MerkleTree(leaves)
    number = int.from_bytes(await node.call(contracts.anchor, next_batch_call()))
    prev = await node.call(contracts.anchor, commitment_call(number - 1))
    header = Header(number, prev, number - 1, EMPTY_ROOT, tree.root, 0, 10**12, bytes(32))
    await mined(node, signer, contracts.anchor, anchor_call(header))
    await past_chain_window(chain)
    for index, (word, micros) in enumerate(words.items()):
        claim = settlement_service_pb2.Claim(
            header=convert.header_message(header),
            payee=thief.address,
            cumulative_micros=micros,
            proof=["0x" + sibling.hex() for sibling in tree.proof(index)],
            account_reference="0x" + word.hex(),
            vault_address=contracts.vault,
        )
        await chain.claim(thief, claim)
    return header


async def test_a_thief_of_the_key_costs_the_operator_and_nobody_else(
    market: Market, out: Out, node: JsonRpcNode, signer: Signer, contracts: Contracts, local_chain: LocalChain,
    tmp_path: Path,
) -> None:  # fmt: skip
    """Goal: what a stolen key takes is the operator's loss; the service lives on and owes everybody what it owed. Method: a
    withdrawal of the tenant's; a thief's root pays him 300,000 for the tenant's account and twice 50 for nobody's; what the
    books and the next payout root say then, and that the claims in another block are not booked again.
    """
    async with ChainClient(local_chain.url) as chain:
        wallet = await funded_wallet(chain, local_chain, contracts, tmp_path / "wallet.key")
        tenant = id_to_word(TENANT)
        await chain.deposit(
            wallet,
            token=contracts.token,
            vault=contracts.vault,
            account_reference="0x" + tenant.hex(),
            micros=1_000_000,
        )
        await charged(market)
        await out.withdraw(TENANT, 100, "one")
        await out.anchor()
        header = await rob(
            chain, node, signer, contracts, wallet, {tenant: 300_000, b"\xff" * 32: 50, b"\xfe" * 32: 50}
        )
        await veto(node, signer, contracts, header)
        for _ in range(3):
            await out.watcher.scan()
    assert await out.sums(TENANT) == (300_100, 300_000)
    assert await out.states(TENANT) == [2], "CLAIMABLE, not CLAIMED: the thief was paid, not the tenant"
    async with market.database.read() as connection:
        loss = (await ledger_store.load_accounts(connection, [f"chain-loss-{ASSET}"]))[f"chain-loss-{ASSET}"]
        rows = await connection.fetch("SELECT * FROM vault_claim ORDER BY block_number, log_index")
    claims = [VaultClaim(**{field.name: row[field.name] for field in fields(VaultClaim)}) for row in rows]
    assert loss.debits_posted == 300_100
    assert [(claim.account_id, claim.amount) for claim in claims] == [(TENANT, 300_000), ("", 50), ("", 50)]

    findings = [finding async for finding in audit(market.database, None, contracts.vault, lambda _: None)]
    assert [finding for finding in findings if finding.difference is not None] == []

    await release(market.database)
    await out._sealing.seal_due()
    async with market.database.read() as connection:
        payouts = await withdrawal_store.load_payouts(connection, 2)
    assert payouts == [Payout(TENANT, PAYEE, 300_100)], "the tenant's own 100 on top, at the address that it named"
    assert (await batch(market.database, 2)).header.payout_total == 300_200
    async with market.database.transaction() as unit:
        for claim in claims:
            await out.watcher._book(unit, claim)
    assert await out.sums(TENANT) == (300_100, 300_000)


async def test_a_batch_on_its_way_meets_a_veto(
    market: Market, out: Out, node: JsonRpcNode, signer: Signer, contracts: Contracts
) -> None:
    """Goal: no header is stuck. Method: seal a batch, veto its parent, then anchor it: it is anchored and does not count,
    before and after the veto is seen; the next one counts.
    """
    await charged(market)
    await out.withdraw(TENANT, 100, "one")
    await out.anchor()
    await charge_again(market, 2)
    await out._sealing.seal_due()
    await veto(node, signer, contracts, (await batch(market.database, 1)).header)
    await out._anchoring.advance()
    await out.watcher.scan()
    assert [(await batch(market.database, number)).payable for number in (1, 2)] == [False, False]
    assert (await batch(market.database, 2)).state in {TransactionState.MINED, TransactionState.FINAL}
    with pytest.raises(DomainError) as nothing:
        await out.claim(TENANT)
    assert nothing.value.has_reason(NOTHING_TO_CLAIM)
    await release(market.database)
    await out.anchor()
    third = await batch(market.database, 3)
    assert (third.header.payout_parent, third.header.payout_total, third.payable) == (0, 100, True)
    assert (await out.claim(TENANT)).header.batch_id == 3
    findings = [finding async for finding in audit(market.database, node, contracts.vault, lambda _: None)]
    assert [finding for finding in findings if finding.difference is not None] == []


async def test_a_veto_that_leaves_the_chain_is_none(market: Market, out: Out, signer: Signer) -> None:
    """Goal: books follow the chain, both ways. Method: see a veto, turn its block away, see it again."""
    await charged(market)
    await out.anchor()
    node = TurningNode(signer)
    watcher = VaultWatcher(market.database, node, out.contracts, ASSET, confirmations=2)
    for _ in range(out.contracts.block + 1):
        node.mine()
    await watcher.scan()
    words = (2, 0)
    log = Log(
        0,
        "0x" + "22" * 32,
        (VETOED_TOPIC, "0x" + (1).to_bytes(32, "big").hex()),
        b"".join(word.to_bytes(32, "big") for word in words),
    )
    node.mine([log])
    for _ in range(2):
        await watcher.scan()
    assert not (await batch(market.database, 1)).payable
    node.turn(1)
    node.mine()
    await watcher.scan()
    assert (await batch(market.database, 1)).payable
    await out.withdraw(TENANT, 1, "one")
    node.mine([log])
    await watcher.scan()
    assert not (await batch(market.database, 1)).payable
    with pytest.raises(DomainError):
        await out.withdraw(TENANT, 1, "two")


async def test_a_batch_of_nothing_breaks_a_long_silence(market: Market, out: Out) -> None:
    """Goal: an idle operator is no silent one. Method: one batch, then nothing for a moment less than a day, and a day."""
    await charged(market)
    await out.anchor()
    market.clock.advance(milliseconds=86_399_999)
    await out.anchor()
    async with market.database.read() as connection:
        assert (await chain_store.load_last_batch(connection) or pytest.fail("no batch")).number == 1
    market.clock.advance(milliseconds=1)
    for _ in range(2):
        await out.anchor()
    async with market.database.read() as connection:
        last = await chain_store.load_last_batch(connection)
    assert last is not None
    assert (last.number, last.header.count, last.payable) == (2, 0, True)


async def test_the_operator_lists_and_releases(market: Market) -> None:
    """Goal: two words are enough to go on. Method: the command with nothing to tell, with a veto, its release, once more."""

    def command(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "fallow_settlement", "vetoes", *arguments],
            env=os.environ | {"FALLOW_DATABASE_URL": market.database._url}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout

    assert command() == (0, "")
    async with market.database.transaction() as unit:
        await unit.connection.execute(
            "INSERT INTO payout_veto (block_hash, log_index, batch_number, next_batch, transaction_hash, block_number,"
            " create_time) VALUES ('0x1', 0, 3, 5, '0xabc', 7, now())"
        )
    status, told = command()
    assert status == 0
    assert told.startswith("batches/3 to batches/4  stops withdrawals  since ")
    assert command("release")[0] == 0
    assert command("release")[0] == 1
    assert "released" in command()[1]
