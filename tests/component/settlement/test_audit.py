"""The audit: it holds over books that were kept, and names the place of each fault that is planted."""

import json
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from fallow_chassis.postgres import Database
from fallow_chassis.testing import DatabaseFactory, ManualClock, SequentialIds
from fallow_settlement.audit import CHECKS, Finding, audit
from fallow_settlement.chain import JsonRpcNode
from fallow_settlement.domain import moves
from fallow_settlement.grants import Grants
from fallow_settlement.ledger_store import must_post
from fallow_settlement.settings import Contracts
from fallow_settlement.signer import Signer
from fallow_settlement.withdrawal_store import VaultClaim, confirm_claims_to, insert_claim
from tests.component.settlement.chain import LocalChain
from tests.component.settlement.market import ASSET, RULES, TENANT, Market
from tests.component.settlement.test_chain import charge_again, charged
from tests.component.settlement.test_programmes import (
    ANNA,
    BERT,
    REFERENCE,
    fill_pool,
    online,
    propose,
    settle,
    start,
)
from tests.component.settlement.test_withdrawals import Out

FALLOW = Path(sys.executable).with_name("fallow")


@pytest.fixture
async def url(database_factory: DatabaseFactory) -> str:
    """The database of the books."""
    return await database_factory("fallow_settlement")


@pytest.fixture
async def books(
    url: str, clock: ManualClock, ids: SequentialIds, contracts: Contracts, node: JsonRpcNode, signer: Signer
) -> Database:
    """Books with a hold, three charges, two anchored batches, a withdrawal and a part of it claimed."""
    database = await Database.connect(url, pool_size=4, ids=ids, clock=clock, source="services/settlement")
    market = Market(database, clock)
    out = Out(market, contracts, node, signer)
    await charged(market)
    await out.anchor()
    await out.withdraw(TENANT, 70, "one")
    for number in (2, 3):
        await charge_again(market, number)
    await out.anchor()
    async with database.transaction() as unit:
        seen = VaultClaim(TENANT, "0x" + "12" * 20, 50, 50, "0x" + "ee" * 32, 0, 1, "0x" + "ff" * 32)
        await insert_claim(unit.connection, seen)
        await confirm_claims_to(unit.connection, 1)
        move = moves.claimed(TENANT, ASSET, total=50, amount=50)
        await must_post(unit.connection, move.accounts, move.transfers, clock.now())
    await given(market)
    return database


async def given(market: Market) -> None:
    """A programme that has paid a day and runs on, and a grant that was paid."""
    await fill_pool(market, 1_000_000_000)
    await start(market, days=30)
    grants = Grants(market.database, RULES)
    grant = await propose(market, 400)
    for operator in (ANNA, BERT):
        await grants.approve(grant, operator)
    market.clock.advance(seconds=3_600)
    await online(market, 2)
    assert [share.paid for share in await settle(market)] == [2 * REFERENCE * 950 // 1_000]


async def findings(database: Database, node: JsonRpcNode | None, contracts: Contracts) -> list[Finding]:
    """All findings of an audit."""
    return [finding async for finding in audit(database, node, contracts.vault, lambda _: None)]


async def plant(url: str, *statements: str) -> None:
    """Change the books as their owner could, with every guard taken away."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            tables = await connection.fetch(
                "SELECT conrelid::regclass::text AS place, conname FROM pg_constraint "
                "WHERE contype = 'c' AND connamespace = 'public'::regnamespace"
            )
            for row in tables:
                await connection.execute(f'ALTER TABLE {row["place"]} DROP CONSTRAINT "{row["conname"]}"')
            named = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            for row in named:
                await connection.execute(f"ALTER TABLE {row['tablename']} DISABLE TRIGGER USER")
            for statement in statements:
                status = await connection.execute(statement)
                assert status.split()[-1] != "0", f"nothing planted by {statement}"
    finally:
        await connection.close()


async def test_kept_books_hold(books: Database, node: JsonRpcNode, contracts: Contracts) -> None:
    """Goal: no false alarm. Method: audit busy books with the chain, and without."""
    found = await findings(books, node, contracts)
    assert [finding.check for finding in found] == list(CHECKS)
    assert [finding for finding in found if finding.difference or not finding.is_made] == []
    without = await findings(books, None, contracts)
    assert [finding.check for finding in without if not finding.is_made] == ["anchors"]
    await books.close()


@pytest.mark.parametrize(
    ("check", "place", "statement"),
    [
        ("balances", "ledgerAccounts/balance-", "UPDATE ledger_account SET credits_posted = credits_posted + 1 WHERE kind = 'BALANCE'"),
        ("balances", "ledgerAccounts/", "UPDATE transfer SET amount = amount + 1 WHERE reason = 'HOLD'"),
        ("assets", "asset usdc", "UPDATE ledger_account SET credits_posted = credits_posted + 1 WHERE kind = 'FEES'"),
        ("resolutions", "transfers/deposit-", "UPDATE transfer SET amount = amount + 1 WHERE phase = 'POST_PENDING'"),
        ("escrows", "escrows/", "UPDATE escrow SET refunded = refunded + 1"),
        ("charges", "charges/", "UPDATE charge SET short = short + 1 WHERE sequence = 2"),
        ("charges", "charges/", "UPDATE charge SET from_running_ms = from_running_ms + 1 WHERE sequence = 3"),
        ("shares", "charges/", "UPDATE charge SET fee = fee + 1 WHERE sequence = 2"),
        ("places", "charges/", "DELETE FROM batch_charge WHERE leaf_index = 0 AND batch_number = 1"),
        ("withdrawals", "accounts/", "UPDATE withdrawal SET amount = amount + 1"),
        ("withdrawals", "accounts/", "UPDATE vault_claim SET amount = amount + 1"),
        ("programmes", "programmes/", "UPDATE programme SET budget = budget + 1"),
        ("programmes", "programmes/", "UPDATE programme_share SET paid = paid + 1"),
        ("programmes", "programmes/", "UPDATE programme_share SET due = paid - 1"),
        ("programmes", "transfers/programme-", "DELETE FROM programme_share"),
        ("grants", "communityGrants/", "UPDATE community_grant SET amount = amount + 1"),
        ("grants", "communityGrants/", "UPDATE community_grant SET pay_time = NULL"),
        ("grants", "communityGrants/", "DELETE FROM grant_approval WHERE account_id = (SELECT min(account_id) FROM grant_approval)"),
        ("batches", "batches/1 settlement_root", "UPDATE charge SET tenant_id = provider_account_id WHERE sequence = 1"),
        ("batches", "batches/2 payout_root", "UPDATE withdrawal SET payee = '0x' || repeat('34', 20)"),
        ("batches", "batches/2 prev", "UPDATE batch SET parent_commitment = sha256('x') WHERE number = 2"),
        ("batches", "batches/2 count", "UPDATE batch SET charge_count = 7 WHERE number = 2"),
        ("batches", "batches/1 totals_hash", "UPDATE batch SET totals_hash = sha256('x') WHERE number = 1"),
        ("batches", "batches/2 commitment", "UPDATE batch SET commitment = sha256('x') WHERE number = 2"),
        ("anchors", "batches/2 on the chain", "UPDATE batch SET commitment = sha256('x') WHERE number = 2"),
    ],
)  # fmt: skip
async def test_each_planted_fault_is_named(
    books: Database, url: str, node: JsonRpcNode, contracts: Contracts, check: str, place: str, statement: str
) -> None:
    """Goal: the first difference of each kind is told with its place. Method: plant one with all guards off."""
    await plant(url, statement)
    found = {finding.check: finding.difference for finding in await findings(books, node, contracts)}
    difference = found[check]
    assert difference is not None, found
    assert difference.place.startswith(place), difference
    assert difference.expected != difference.found
    await books.close()


async def test_a_chain_that_is_ahead_is_found(
    books: Database, url: str, node: JsonRpcNode, contracts: Contracts
) -> None:
    """Goal: books restored from an old copy are seen. Method: forget the last batch."""
    await plant(
        url,
        "DELETE FROM batch_charge WHERE batch_number = 2",
        "INSERT INTO unbatched_charge SELECT id, create_time FROM charge WHERE sequence > 1",
        "DELETE FROM withdrawal",
        "DELETE FROM chain_attempt",
        "DELETE FROM chain_transaction",
        "DELETE FROM batch WHERE number = 2",
    )
    found = {finding.check: finding.difference for finding in await findings(books, node, contracts)}
    difference = found["anchors"]
    assert difference is not None
    assert difference.place == "batches/2 on the chain"
    await books.close()


async def test_the_command_says_what_it_found(
    books: Database, url: str, local_chain: LocalChain, contracts: Contracts, tmp_path: Path
) -> None:
    """Goal: an operator reads it and a program too. Method: good books, bad ones, as JSON, and wrong usage."""
    await books.close()
    file = tmp_path / "held.json"
    contracts.save(file)
    options = ["--database-url", url, "--contracts-file", str(file), "--rpc-url", local_chain.url]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [FALLOW, "ledger", "audit", *arguments], capture_output=True, text=True, check=False, env={"COLUMNS": "100"}
        )

    good = run(*options)
    assert (good.returncode, good.stdout.count("holds")) == (0, len(CHECKS)), good.stderr
    await plant(url, "UPDATE ledger_account SET credits_posted = credits_posted + 1 WHERE kind = 'FEES'")
    bad = run(*options)
    assert bad.returncode == 1
    assert "balances: ledgerAccounts/fees-usdc" in bad.stdout
    told = json.loads(run(*options, "--json").stdout)
    assert [one["check"] for one in told if one["difference"]] == ["balances", "assets"]
    for wrong in ([], ["--database-url", "postgresql://127.0.0.1:1/x", "--contracts-file", str(file)]):
        assert run(*wrong).returncode == 2
