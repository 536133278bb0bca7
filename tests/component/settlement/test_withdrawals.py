"""Money out: withdrawals, payout roots and claims on the embedded chain."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fallow.settlement.v1 import settlement_service_pb2
from fallow_chassis.errors import DomainError
from fallow_chassis.postgres import Database
from fallow_receipts import EMPTY_ROOT, id_to_word
from fallow_sdk.chain import ChainClient
from fallow_sdk.wallet import Wallet
from fallow_settlement import chain_store, convert, ledger_store
from fallow_settlement.chain import JsonRpcNode, Log
from fallow_settlement.contracts_abi import CLAIMED_TOPIC
from fallow_settlement.domain.ledger import AccountKind, account_id
from fallow_settlement.domain.reasons import AMOUNT_INVALID, INSUFFICIENT_FUNDS, NOTHING_TO_CLAIM, PAYEE_INVALID
from fallow_settlement.queries import Reads
from fallow_settlement.settings import Contracts
from fallow_settlement.signer import Signer
from fallow_settlement.vault_watcher import VaultWatcher
from fallow_settlement.withdrawal_store import Withdrawal
from fallow_settlement.withdrawals import Withdrawals
from fallow_stack.faucet import Faucet
from tests.component.settlement.chain import LocalChain, TurningNode, deployed
from tests.component.settlement.market import ASSET, OWNER, RULES, TENANT, Market
from tests.component.settlement.test_chain import anchoring, charged, sealing

WINDOW_SECONDS = 1
PAYEE = "0x" + "Ab" * 20


class Out:
    """Withdrawals of one market, with the parts that take them to the chain."""

    def __init__(self, market: Market, contracts: Contracts, node: JsonRpcNode, signer: Signer) -> None:
        self.database = market.database
        self.contracts = contracts
        self.use_cases = Withdrawals(market.database, node, contracts, ASSET)
        self.watcher = VaultWatcher(market.database, node, contracts, ASSET, confirmations=1)
        self._sealing = sealing(market.database, contracts)
        self._anchoring = anchoring(market.database, node, signer, contracts)

    async def withdraw(self, account: str, micros: int, request_id: str, payee: str = PAYEE) -> Withdrawal:
        """Withdraw, as CreateWithdrawal does."""
        request = settlement_service_pb2.CreateWithdrawalRequest(parent=f"accounts/{account}", request_id=request_id)
        request.withdrawal.amount.asset, request.withdrawal.amount.micros = ASSET, micros
        request.withdrawal.payee = payee
        return await self.use_cases.create(account, ASSET, micros, payee, request_id=request_id, request=request)

    async def anchor(self) -> None:
        """Seal what waits and take it to the chain."""
        await self._sealing.seal_due()
        await self._anchoring.advance()

    async def claim(self, account: str) -> settlement_service_pb2.Claim:
        """What GetClaim answers."""
        return convert.claim_message(await self.use_cases.claimable(account), self.contracts, "")

    async def states(self, account: str) -> list[int]:
        """The states of an account's withdrawals, oldest first."""
        listed, claimed = await self.use_cases.list_of(account, None, 50)
        return [convert.withdrawal_message(one, claimed=claimed).state for one in reversed(listed)]

    async def sums(self, account: str) -> tuple[int, int]:
        """What an account is owed on the chain in all, and what it has claimed."""
        async with self.database.read() as connection:
            name = account_id(AccountKind.PAYABLE, account, ASSET)
            found = (await ledger_store.load_accounts(connection, [name])).get(name)
        return (0, 0) if found is None else (found.credits_posted, found.debits_posted)


@pytest.fixture
async def contracts(local_chain: LocalChain, tmp_path: Path) -> Contracts:
    """Contracts of the test's own, with a short challenge window."""
    return await deployed(local_chain, tmp_path, challenge_seconds=WINDOW_SECONDS)


@pytest.fixture
def out(market: Market, contracts: Contracts, node: JsonRpcNode, signer: Signer) -> Out:
    """The way out."""
    return Out(market, contracts, node, signer)


async def funded_wallet(chain: ChainClient, local_chain: LocalChain, contracts: Contracts, path: Path) -> Wallet:
    """A wallet with money for fees and a million micros of the token."""
    wallet = Wallet.load_or_create(path)
    faucet = Faucet(chain, local_chain.development_account)
    await faucet.give_fee_money(wallet.address)
    await faucet.fill_tokens(contracts.token, wallet.address, 2_000_000)
    return wallet


async def past_chain_window(chain: ChainClient) -> None:
    """Let the challenge window pass on the chain."""
    start = int((await chain.rpc("eth_getBlockByNumber", "latest", False))["timestamp"], 16)
    while int((await chain.rpc("eth_getBlockByNumber", "latest", False))["timestamp"], 16) <= start + WINDOW_SECONDS:
        await asyncio.sleep(0.1)
        await chain.rpc("evm_mine", {"blocks": 1})


async def past_window(chain: ChainClient, market: Market) -> None:
    """Let the challenge window pass, on the chain and on the market's clock."""
    await past_chain_window(chain)
    market.clock.advance(seconds=(datetime.now(UTC) - market.clock.now()).total_seconds() + WINDOW_SECONDS)


async def test_earnings_are_withdrawn_to_the_chain(
    market: Market, out: Out, local_chain: LocalChain, contracts: Contracts, tmp_path: Path
) -> None:
    """Goal: what a provider earned ends in its wallet, once. Method: earn, withdraw twice, anchor, claim, claim again."""
    async with ChainClient(local_chain.url) as chain:
        wallet = await funded_wallet(chain, local_chain, contracts, tmp_path / "wallet.key")
        reference = "0x" + id_to_word(TENANT).hex()
        await chain.deposit(
            wallet, token=contracts.token, vault=contracts.vault, account_reference=reference, micros=1_000_000
        )
        await charged(market, seconds=10)
        reads = Reads(market.database, RULES)
        earned = (await reads.money(OWNER, ASSET)).earned
        assert earned > 0
        await out.withdraw(OWNER, earned - 1, "one")
        await out.withdraw(OWNER, 1, "two")
        assert (await reads.money(OWNER, ASSET)).earned == 0
        assert await out.states(OWNER) == [1, 1], "PENDING"
        with pytest.raises(DomainError) as early:
            await out.claim(OWNER)
        assert early.value.has_reason(NOTHING_TO_CLAIM)

        await out.anchor()
        assert await out.states(OWNER) == [2, 2], "CLAIMABLE"
        claim = await out.claim(OWNER)
        assert (claim.payee, claim.cumulative_micros) == (PAYEE.lower(), earned)
        await past_window(chain, market)
        await chain.claim(wallet, claim)
        assert await chain.read(contracts.token, "balanceOf(address)", "uint256", PAYEE.lower()) == earned
        await chain.claim(wallet, claim)
        assert await chain.read(contracts.token, "balanceOf(address)", "uint256", PAYEE.lower()) == earned
    for _ in range(2):
        await out.watcher.scan()
    assert await out.states(OWNER) == [3, 3], "CLAIMED"
    assert await out.sums(OWNER) == (earned, earned)
    with pytest.raises(DomainError) as late:
        await out.claim(OWNER)
    assert late.value.has_reason(NOTHING_TO_CLAIM)


async def test_a_later_root_holds_the_total_and_the_payee_named_last(
    market: Market, out: Out, local_chain: LocalChain, contracts: Contracts, tmp_path: Path
) -> None:
    """Goal: one claim covers any number of withdrawals, also when the payee changes. Method: three, one claimed between."""
    other = "0x" + "cd" * 20
    async with ChainClient(local_chain.url) as chain:
        wallet = await funded_wallet(chain, local_chain, contracts, tmp_path / "wallet.key")
        reference = "0x" + id_to_word(TENANT).hex()
        await chain.deposit(
            wallet, token=contracts.token, vault=contracts.vault, account_reference=reference, micros=1_000_000
        )
        await market.fund(TENANT, 1_000_000)
        await out.withdraw(TENANT, 100, "one")
        await out.anchor()
        await past_window(chain, market)
        await chain.claim(wallet, await out.claim(TENANT))
        await out.watcher.scan()
        for request_id in ("two", "three"):
            await out.withdraw(TENANT, 50, request_id, other)
            await out.anchor()
        await past_window(chain, market)
        claim = await out.claim(TENANT)
        assert (claim.payee, claim.cumulative_micros) == (other, 200)
        await chain.claim(wallet, claim)
        assert await chain.read(contracts.token, "balanceOf(address)", "uint256", PAYEE.lower()) == 100
        assert await chain.read(contracts.token, "balanceOf(address)", "uint256", other) == 100
    await out.watcher.scan()
    assert await out.sums(TENANT) == (200, 200)
    assert await out.states(TENANT) == [3, 3, 3]


async def test_a_batch_of_withdrawals_alone_holds_no_charges(market: Market, out: Out, database: Database) -> None:
    """Goal: nobody waits for another's charge to be paid. Method: withdraw with no charge about; the payouts stay after."""
    await market.fund(OWNER, 1_000)
    await out.withdraw(OWNER, 10, "one")
    await out.anchor()
    await charged(market)
    await out.anchor()
    async with database.read() as connection:
        first, second = [await chain_store.load_batch(connection, number) for number in (1, 2)]
    assert first is not None
    assert second is not None
    assert (first.header.count, first.header.settlement_root, first.header.payout_total) == (0, EMPTY_ROOT, 10)
    assert (second.header.count, second.header.payout_root) == (1, first.header.payout_root), "totals only grow"


async def test_a_repeat_withdraws_once_and_races_never_overdraw(market: Market, out: Out) -> None:
    """Goal: never twice, never more than there is. Method: one request three times at once; then ten for a third each."""
    await market.fund(TENANT, 900)
    same = await asyncio.gather(*(out.withdraw(TENANT, 300, "same") for _ in range(3)))
    assert len({withdrawal.id for withdrawal in same}) == 1
    outcomes: list[Any] = await asyncio.gather(
        *(out.withdraw(TENANT, 300, f"race-{number}") for number in range(10)), return_exceptions=True
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, DomainError)]
    assert [outcome.reason for outcome in refused] == [INSUFFICIENT_FUNDS] * 8
    assert {outcome.metadata["short_micros"] for outcome in refused} == {"300"}
    assert await out.sums(TENANT) == (900, 0)


@pytest.mark.parametrize(
    ("micros", "payee", "reason"),
    [
        (0, PAYEE, AMOUNT_INVALID),
        (-1, PAYEE, AMOUNT_INVALID),
        (2**63 - 1, PAYEE, AMOUNT_INVALID),
        (1, "0x" + "0" * 40, PAYEE_INVALID),
        (1_001, PAYEE, INSUFFICIENT_FUNDS),
    ],
)
async def test_bad_withdrawals_store_nothing(market: Market, out: Out, micros: int, payee: str, reason: object) -> None:
    """Goal: a clear reason, and nothing moved. Method: sums out of range, an address of nobody, more than there is."""
    await market.fund(TENANT, 1_000)
    with pytest.raises(DomainError) as refusal:
        await out.withdraw(TENANT, micros, "bad", payee)
    assert refusal.value.reason == reason
    assert await out.states(TENANT) == []
    assert (await Reads(market.database, RULES).money(TENANT, ASSET)).free == 1_000


async def test_the_vault_itself_is_no_payee(market: Market, out: Out, contracts: Contracts) -> None:
    """Goal: money is not sent where it would be stuck. Method: name each contract."""
    await market.fund(TENANT, 1_000)
    for address in (contracts.vault, contracts.anchor, contracts.token):
        with pytest.raises(DomainError) as refusal:
            await out.withdraw(TENANT, 1, f"to-{address}", address)
        assert refusal.value.has_reason(PAYEE_INVALID)


async def test_a_claim_counts_once_whatever_the_chain_does(market: Market, out: Out, signer: Signer) -> None:
    """Goal: a claim moves the books once, when confirmed. Method: see it, turn its block away, see it again, confirm."""
    await market.fund(TENANT, 1_000)
    await out.withdraw(TENANT, 100, "one")
    await out.anchor()
    node = TurningNode(signer)
    watcher = VaultWatcher(market.database, node, out.contracts, ASSET, confirmations=2)
    # The chain in memory starts at block 0, the contracts somewhere later.
    for _ in range(out.contracts.block + 1):
        node.mine()
    await watcher.scan()
    words = (100, 100, 1)
    log = Log(
        0,
        "0x" + "11" * 32,
        (CLAIMED_TOPIC, "0x" + id_to_word(TENANT).hex(), "0x" + "00" * 12 + PAYEE[2:].lower()),
        b"".join(word.to_bytes(32, "big") for word in words),
    )
    node.mine([log])
    await watcher.scan()
    assert await out.sums(TENANT) == (100, 0), "seen, not confirmed"
    node.turn(1)
    node.mine()
    await watcher.scan()
    node.mine([log])
    await watcher.scan()
    assert await out.sums(TENANT) == (100, 0)
    node.mine()
    for _ in range(2):
        await watcher.scan()
    assert await out.sums(TENANT) == (100, 100)


async def test_a_claim_that_leaves_the_chain_is_booked_once(market: Market, out: Out, signer: Signer) -> None:
    """Goal: what the vault paid, and no more, is booked. Method: confirm a claim, turn its block away, and confirm a larger one
    that pays all of it at once.
    """
    await market.fund(TENANT, 1_000)
    await out.withdraw(TENANT, 300, "one")
    await out.anchor()
    node = TurningNode(signer)
    watcher = VaultWatcher(market.database, node, out.contracts, ASSET, confirmations=1)
    for _ in range(out.contracts.block + 1):
        node.mine()

    def claimed(amount: int, total: int) -> Log:
        topics = (CLAIMED_TOPIC, "0x" + id_to_word(TENANT).hex(), "0x" + "00" * 12 + PAYEE[2:].lower())
        return Log(0, "0x" + "11" * 32, topics, b"".join(word.to_bytes(32, "big") for word in (amount, total, 1)))

    node.mine([claimed(100, 100)])
    await watcher.scan()
    assert await out.sums(TENANT) == (300, 100)
    node.turn(1)
    node.mine()
    node.mine([claimed(300, 300)])
    for _ in range(2):
        await watcher.scan()
    assert await out.sums(TENANT) == (300, 300)
    node.turn(1)
    node.mine()
    node.mine([claimed(300, 300)])
    for _ in range(2):
        await watcher.scan()
    assert await out.sums(TENANT) == (300, 300)


async def test_the_database_keeps_withdrawals_as_they_are(market: Market, out: Out, database: Database) -> None:
    """Goal: what is owed cannot be rewritten. Method: change, move and delete a withdrawal by SQL."""
    await market.fund(TENANT, 1_000)
    await out.withdraw(TENANT, 100, "one")
    await out.anchor()
    for statement in (
        "UPDATE withdrawal SET amount = 1",
        "UPDATE withdrawal SET batch_number = NULL",
        "DELETE FROM withdrawal",
        "TRUNCATE withdrawal",
    ):
        with pytest.raises(Exception, match="withdrawal"):
            async with database.transaction() as unit:
                await unit.connection.execute(statement)
