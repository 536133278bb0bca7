"""Balances under payout roots: a tenant is paid by the vault when nobody answers any more."""

import asyncio
import json
from pathlib import Path

import pytest
from google.protobuf import json_format

from fallow.settlement.v1 import settlement_service_pb2
from fallow_chassis.errors import DomainError
from fallow_receipts import id_to_word
from fallow_sdk.chain import ChainClient
from fallow_sdk.errors import ChainError
from fallow_settlement import chain_store, convert
from fallow_settlement.audit import audit
from fallow_settlement.balances import Balances
from fallow_settlement.chain import JsonRpcNode
from fallow_settlement.domain.reasons import NOTHING_TO_CLAIM, PAYEE_INVALID
from fallow_settlement.queries import Reads
from fallow_settlement.settings import Contracts
from fallow_settlement.signer import Signer
from tests.component.settlement.chain import LocalChain, deployed
from tests.component.settlement.market import ASSET, OWNER, RULES, TENANT, Market
from tests.component.settlement.test_chain import charge_again, charged
from tests.component.settlement.test_withdrawals import PAYEE, Out, funded_wallet

WINDOW_SECONDS = 1
ESCAPE_SECONDS = 4
NOBODY = "0x" + "0" * 40


@pytest.fixture
async def contracts(local_chain: LocalChain, tmp_path: Path) -> Contracts:
    """Contracts of the test's own that lose patience soon."""
    return await deployed(local_chain, tmp_path, challenge_seconds=WINDOW_SECONDS, escape_seconds=ESCAPE_SECONDS)


@pytest.fixture
def out(market: Market, contracts: Contracts, node: JsonRpcNode, signer: Signer) -> Out:
    """The way out."""
    return Out(market, contracts, node, signer)


@pytest.fixture
def balances(market: Market, contracts: Contracts, node: JsonRpcNode) -> Balances:
    """The use-cases."""
    return Balances(market.database, node, contracts)


async def silence(chain: ChainClient) -> None:
    """Let so much time pass that the vault lets anyone escape."""
    start = int((await chain.rpc("eth_getBlockByNumber", "latest", False))["timestamp"], 16)
    while (await chain.rpc("eth_getBlockByNumber", "latest", False))["timestamp"] < hex(start + ESCAPE_SECONDS):
        await asyncio.sleep(0.1)
        await chain.rpc("evm_mine", {"blocks": 1})


async def leaves(market: Market, number: int) -> tuple[int, bytes]:
    """Whose balances a batch holds, and its payout root."""
    async with market.database.read() as connection:
        batch = await chain_store.load_batch(connection, number)
    assert batch is not None
    return batch.balances_of, batch.header.payout_root


async def test_a_tenant_is_paid_without_the_operator(
    market: Market, out: Out, balances: Balances, contracts: Contracts, local_chain: LocalChain, tmp_path: Path,
    node: JsonRpcNode,
) -> None:  # fmt: skip
    """Goal: money needs no operator. Method: deposit, an order, a batch, a kit in a file; silence; the file alone pays what
    was free and held, once; before the silence the vault refuses.
    """
    async with ChainClient(local_chain.url) as chain:
        wallet = await funded_wallet(chain, local_chain, contracts, tmp_path / "wallet.key")
        reference = "0x" + id_to_word(TENANT).hex()
        await chain.deposit(
            wallet, token=contracts.token, vault=contracts.vault, account_reference=reference, micros=1_000_000
        )
        assert await balances.set_payee(TENANT, PAYEE, keeps=True) == PAYEE.lower()
        await charged(market)
        await out.anchor()
        text = json_format.MessageToJson(convert.balance_claim_message(await balances.claimable(TENANT), contracts, ""))
        assert json.loads(text)["cumulativeMicros"] == str(1_000_000 - 1_000)
        kit = json_format.Parse(text, settlement_service_pb2.Claim())
        with pytest.raises(ChainError, match="the operator is there"):
            await chain.escape(wallet, kit)
        await silence(chain)
        await chain.escape(wallet, kit)
        assert await chain.read(contracts.token, "balanceOf(address)", "uint256", PAYEE.lower()) == 999_000
        with pytest.raises(ChainError, match="claimed already"):
            await chain.escape(wallet, kit)
    findings = [finding async for finding in audit(market.database, node, contracts.vault, lambda _: None)]
    assert [finding for finding in findings if finding.difference is not None] == []


async def test_balances_are_taken_once_an_hour(market: Market, out: Out, balances: Balances) -> None:
    """Goal: batches are many, balances change little. Method: three batches within the hour and one after it; the sums of
    each, all that somebody has, and nothing of who named nobody.
    """
    await charged(market)
    await balances.set_payee(TENANT, PAYEE, keeps=False)
    await out.anchor()
    for number in (2, 3):
        await charge_again(market, number)
        await out.anchor()
    assert [(await leaves(market, number))[0] for number in (1, 2, 3)] == [1, 1, 1]
    market.clock.advance(seconds=3_600)
    await balances.set_payee(OWNER, PAYEE, keeps=False)
    # The first proof after an hour of silence pays nothing.
    for number in (4, 5):
        await charge_again(market, number)
    await out.anchor()
    assert (await leaves(market, 4))[0] == 4
    assert (await balances.claimable(TENANT)).balance.total_micros == 1_000_000 - 4_000
    assert (await balances.claimable(OWNER)).balance.total_micros == 4_000 * 8 // 10


async def test_what_was_withdrawn_stands_in_no_balance(
    market: Market, out: Out, balances: Balances, contracts: Contracts, local_chain: LocalChain, tmp_path: Path
) -> None:
    """Goal: payouts and balances of one root never come to more than the vault holds. Method: balances of tenant and provider,
    withdrawals of both within the hour, all of the tenant's a batch later; after an escape all leaves pay what was paid in.
    """
    async with ChainClient(local_chain.url) as chain:
        wallet = await funded_wallet(chain, local_chain, contracts, tmp_path / "wallet.key")
        reference = "0x" + id_to_word(TENANT).hex()
        await chain.deposit(
            wallet, token=contracts.token, vault=contracts.vault, account_reference=reference, micros=1_000_000
        )
        tenants, providers = wallet.address, PAYEE.lower()
        await balances.set_payee(TENANT, tenants, keeps=False)
        await balances.set_payee(OWNER, providers, keeps=False)
        await charged(market)
        await out.anchor()
        earned = (await Reads(market.database, RULES).money(OWNER, ASSET)).earned
        assert (await balances.claimable(OWNER)).balance.total_micros == earned
        before = await chain.read(contracts.token, "balanceOf(address)", "uint256", tenants)
        await out.withdraw(OWNER, earned, "provider", providers)
        await out.withdraw(TENANT, 300_000, "tenant", tenants)
        await out.anchor()
        assert (await leaves(market, 2))[0] == 2
        assert (await balances.claimable(TENANT)).balance.total_micros == 1_000_000 - 1_000
        with pytest.raises(DomainError) as gone:
            await balances.claimable(OWNER)
        assert gone.value.has_reason(NOTHING_TO_CLAIM)
        kit = convert.balance_claim_message(await balances.claimable(TENANT), contracts, "")
        claims = [await out.use_cases.claimable(account) for account in (OWNER, TENANT)]
        await silence(chain)
        await chain.escape(wallet, kit)
        for claim in claims:
            await chain.claim(wallet, convert.claim_message(claim, contracts, ""))
        with pytest.raises(DomainError) as paid:
            await out.use_cases.claimable(TENANT)
        assert paid.value.has_reason(NOTHING_TO_CLAIM)
        after = await chain.read(contracts.token, "balanceOf(address)", "uint256", tenants)
        assert after - before == 999_000
        assert await chain.read(contracts.token, "balanceOf(address)", "uint256", providers) == earned


async def test_a_root_without_balances_holds_none_of_older_ones(market: Market, out: Out, balances: Balances) -> None:
    """Goal: money that is gone stands in no leaf. Method: a provider's earnings in one root, withdrawn whole in the next."""
    await balances.set_payee(OWNER, PAYEE, keeps=False)
    await charged(market)
    await out.anchor()
    assert (await leaves(market, 1))[0] == 1
    await out.withdraw(OWNER, (await Reads(market.database, RULES).money(OWNER, ASSET)).earned, "all")
    await out.anchor()
    assert (await leaves(market, 2))[0] == 0


async def test_who_named_nobody_has_no_leaf(market: Market, out: Out, balances: Balances) -> None:
    """Goal: a clear answer. Method: ask before any batch, and after one that holds nothing of the account."""
    with pytest.raises(DomainError) as early:
        await balances.claimable(TENANT)
    await charged(market)
    await out.anchor()
    with pytest.raises(DomainError) as late:
        await balances.claimable(TENANT)
    assert early.value.has_reason(NOTHING_TO_CLAIM)
    assert late.value.has_reason(NOTHING_TO_CLAIM)
    assert (await leaves(market, 1))[0] == 0


async def test_a_payee_is_named_and_kept(market: Market, balances: Balances, contracts: Contracts) -> None:
    """Goal: a deposit names a payee only where there is none. Method: keep, replace, keep; addresses of nobody."""
    other = "0x" + "cd" * 20
    assert await balances.set_payee(TENANT, PAYEE, keeps=True) == PAYEE.lower()
    assert await balances.set_payee(TENANT, other, keeps=True) == PAYEE.lower()
    assert await balances.set_payee(TENANT, other, keeps=False) == other
    assert await balances.set_payee(TENANT, PAYEE, keeps=True) == other
    for address in (NOBODY, contracts.vault, contracts.token, contracts.anchor):
        with pytest.raises(DomainError) as refusal:
            await balances.set_payee(TENANT, address, keeps=False)
        assert refusal.value.has_reason(PAYEE_INVALID)
    assert await balances.set_payee(TENANT, PAYEE, keeps=True) == other
