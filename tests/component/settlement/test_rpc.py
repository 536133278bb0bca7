"""The gRPC door: who may call what, what bad input is told, how lists go on."""

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from fallow.settlement.v1 import charge_pb2, ledger_pb2
from fallow.settlement.v1 import settlement_service_pb2 as messages
from fallow.settlement.v1 import settlement_service_pb2_grpc as doors
from fallow.type.v1 import money_pb2
from fallow_chassis.group_commit import GroupCommit
from fallow_chassis.grpc_client import RemoteError, channel
from fallow_chassis.testing import ServedService, TestIdentity, in_background, serving
from fallow_receipts import id_to_word
from fallow_settlement.adjusting import Adjusting
from fallow_settlement.domain.escrow import Escrow
from fallow_settlement.opening import Opening
from fallow_settlement.queries import Reads
from fallow_settlement.rpc import EscrowServicer, FundsServicer, LedgerServicer, ReceiptServicer
from fallow_settlement.settings import Contracts
from fallow_settlement.statements import Statements
from tests.component.settlement.market import ASSET, OWNER, RULES, TENANT, Market, identifier

PACKAGE = "fallow.settlement.v1"
ORDER = identifier(1)
LEASE = identifier(2)
CONTRACTS = Contracts(31_337, "0x" + "aa" * 20, "0x" + "bb" * 20, "0x" + "cc" * 20, 1)


@pytest.fixture
async def address(market: Market, identity: TestIdentity) -> AsyncIterator[str]:
    """All services of settlement behind one address."""
    reads = Reads(market.database, RULES)
    opening_group = GroupCommit[Opening, Escrow]("open_escrows", market.opening.open_escrows)
    services = (
        ServedService(
            doors.add_EscrowServiceServicer_to_server,
            EscrowServicer(opening_group, market.commands, reads),
            f"{PACKAGE}.EscrowService",
        ),
        ServedService(
            doors.add_FundsServiceServicer_to_server,
            FundsServicer(reads, None, None, CONTRACTS, ASSET, 3, "http://node"),
            f"{PACKAGE}.FundsService",
        ),
        ServedService(
            doors.add_ReceiptServiceServicer_to_server,
            ReceiptServicer(reads, Statements(market.database)),
            f"{PACKAGE}.ReceiptService",
        ),
        ServedService(
            doors.add_LedgerServiceServicer_to_server,
            LedgerServicer(reads, Adjusting(market.database, RULES)),
            f"{PACKAGE}.LedgerService",
        ),
    )
    async with in_background(opening_group.run), serving(*services, verifier=identity.verifier) as bound:
        yield bound


@asynccontextmanager
async def account(
    address: str, identity: TestIdentity, *scopes: str, name: str = TENANT
) -> AsyncIterator[grpc.aio.Channel]:
    """A signed-in account."""
    async with channel(address, identity.as_account(f"accounts/{name}", scopes)) as opened:
        yield opened


@asynccontextmanager
async def order_service(address: str, identity: TestIdentity) -> AsyncIterator["doors.EscrowServiceAsyncStub"]:
    """The order service."""
    async with channel(address, identity.as_service("order")) as opened:
        yield doors.EscrowServiceStub(opened)


def opening(**fields: Any) -> messages.OpenEscrowRequest:
    """A good request but for some fields."""
    values: dict[str, Any] = {
        "name": f"escrows/{ORDER}",
        "account": f"accounts/{TENANT}",
        "amount": money_pb2.Amount(asset=ASSET, micros=500),
        "request_id": "r",
    }
    return messages.OpenEscrowRequest(**{**values, **fields})


async def charged(market: Market, charges: int) -> None:
    """An order with some charges of a second each."""
    await market.fund(TENANT, 1_000_000)
    await market.open(ORDER, 100_000)
    await market.state(market.lease_created(ORDER, LEASE, price=3_600_000), market.lease_running(ORDER, LEASE))
    for number in range(1, charges + 1):
        await market.run_for(ORDER, LEASE, 1, first=number, start_ms=(number - 1) * 1_000)
        await market.charging.charge_due()


BAD = [
    ("INVALID_FIELD", "name", opening(name="escrows/nope")),
    ("INVALID_FIELD", "account", opening(account=f"orders/{TENANT}")),
    ("INVALID_FIELD", "amount", opening(amount=None)),
    ("INVALID_FIELD", "amount.asset", opening(amount=money_pb2.Amount(asset="USDC", micros=1))),
    ("INVALID_FIELD", "request_id", opening(request_id="")),
    ("INVALID_FIELD", "budget.asset", opening(budget=money_pb2.Amount(asset="eurx", micros=900))),
    ("INVALID_FIELD", "budget.micros", opening(budget=money_pb2.Amount(asset=ASSET, micros=499))),
    ("ASSET_UNKNOWN", "amount.asset", opening(amount=money_pb2.Amount(asset="doge", micros=1))),
    ("AMOUNT_INVALID", "amount.micros", opening(amount=money_pb2.Amount(asset=ASSET, micros=-5))),
    ("INSUFFICIENT_FUNDS", f"accounts/{TENANT}/balances/{ASSET}", opening()),
]


@pytest.mark.parametrize(("reason", "field", "request_"), BAD)
async def test_a_bad_opening_is_told_what_is_wrong(
    address: str, identity: TestIdentity, market: Market, reason: str, field: str, request_: messages.OpenEscrowRequest
) -> None:
    """Goal: a reason and a path for each fault, nothing stored. Method: one fault a row."""
    async with order_service(address, identity) as escrows:
        with pytest.raises(RemoteError) as refusal:
            await escrows.OpenEscrow(request_)
    assert refusal.value.reason.reason == reason
    assert [violation.field for violation in refusal.value.violations] == ([field] if field else [])
    async with market.database.read() as connection:
        assert await connection.fetchval("SELECT count(*) FROM escrow") == 0
        assert await connection.fetchval("SELECT count(*) FROM transfer") == 0


async def test_only_the_order_service_opens_escrows(address: str, identity: TestIdentity) -> None:
    """Goal: nobody holds another's money. Method: call as an account and as another service."""
    async with account(address, identity, "funds.write") as tenant:
        with pytest.raises(RemoteError) as as_account:
            await doors.EscrowServiceStub(tenant).OpenEscrow(opening())
    async with channel(address, identity.as_service("bidding")) as bidding:
        with pytest.raises(RemoteError) as as_bidding:
            await doors.EscrowServiceStub(bidding).OpenEscrow(opening())
    assert [as_account.value.code, as_bidding.value.code] == ["PERMISSION_DENIED", "PERMISSION_DENIED"]


def resizing(**fields: Any) -> messages.ResizeEscrowRequest:
    """A good request but for some fields."""
    values: dict[str, Any] = {
        "name": f"escrows/{ORDER}",
        "amount": money_pb2.Amount(asset=ASSET, micros=200_000),
        "number": 1,
        "request_id": "r",
    }
    return messages.ResizeEscrowRequest(**{**values, **fields})


BAD_RESIZES = [
    ("INVALID_FIELD", "name", resizing(name="escrows/nope")),
    ("INVALID_FIELD", "amount", resizing(amount=None)),
    ("INVALID_FIELD", "number", resizing(number=0)),
    ("INVALID_FIELD", "request_id", resizing(request_id="")),
    ("INVALID_FIELD", "budget.asset", resizing(budget=money_pb2.Amount(asset="eurx", micros=900_000))),
    ("INVALID_FIELD", "budget.micros", resizing(budget=money_pb2.Amount(asset=ASSET, micros=199_999))),
    ("ASSET_UNKNOWN", "amount.asset", resizing(amount=money_pb2.Amount(asset="doge", micros=1))),
]


@pytest.mark.parametrize(("reason", "field", "request_"), BAD_RESIZES)
async def test_a_bad_resize_is_told_what_is_wrong(
    address: str,
    identity: TestIdentity,
    market: Market,
    reason: str,
    field: str,
    request_: messages.ResizeEscrowRequest,
) -> None:
    """Goal: a reason and a path for each fault, nothing moved. Method: one fault a row, on an open escrow."""
    await charged(market, 0)
    async with order_service(address, identity) as escrows:
        with pytest.raises(RemoteError) as refusal:
            await escrows.ResizeEscrow(request_)
        escrow = await escrows.GetEscrow(messages.GetEscrowRequest(name=f"escrows/{ORDER}"))
    assert refusal.value.reason.reason == reason
    assert [violation.field for violation in refusal.value.violations] == ([field] if field else [])
    assert escrow.held.micros == 100_000


async def test_only_the_order_service_resizes_escrows(address: str, identity: TestIdentity, market: Market) -> None:
    """Goal: an order's money is changed by its service alone. Method: as its tenant, as another service, as the order's."""
    await charged(market, 0)
    async with account(address, identity, "funds.write") as tenant:
        with pytest.raises(RemoteError) as as_account:
            await doors.EscrowServiceStub(tenant).ResizeEscrow(resizing())
    async with channel(address, identity.as_service("bidding")) as bidding:
        with pytest.raises(RemoteError) as as_bidding:
            await doors.EscrowServiceStub(bidding).ResizeEscrow(resizing())
    assert [as_account.value.code, as_bidding.value.code] == ["PERMISSION_DENIED", "PERMISSION_DENIED"]
    async with order_service(address, identity) as escrows:
        assert (await escrows.ResizeEscrow(resizing())).held.micros == 200_000


async def test_escrows_are_seen_by_their_own_tenant(address: str, identity: TestIdentity, market: Market) -> None:
    """Goal: an account sees its own escrow, a service any. Method: ask as the tenant, a stranger, a service."""
    await charged(market, 1)
    asked = messages.GetEscrowRequest(name=f"escrows/{ORDER}")
    async with account(address, identity, "funds.read") as tenant:
        escrow = await doors.EscrowServiceStub(tenant).GetEscrow(asked)
    assert (escrow.held.micros, escrow.charged.micros, escrow.runway.seconds) == (99_000, 1_000, 99)
    assert escrow.state == charge_pb2.ESCROW_STATE_OPEN
    async with account(address, identity, "funds.read", name=OWNER) as stranger:
        with pytest.raises(RemoteError) as refusal:
            await doors.EscrowServiceStub(stranger).GetEscrow(asked)
    assert refusal.value.reason.reason == "ESCROW_NOT_FOUND"
    async with order_service(address, identity) as escrows:
        assert (await escrows.GetEscrow(asked)).account == f"accounts/{TENANT}"


async def test_charges_go_on_page_by_page(address: str, identity: TestIdentity, market: Market) -> None:
    """Goal: every charge once, newest first, for payer and payee. Method: five charges by pages of two."""
    await charged(market, 5)
    for name in (TENANT, OWNER):
        async with account(address, identity, "funds.read", name=name) as caller:
            receipts = doors.ReceiptServiceStub(caller)
            starts: list[int] = []
            token = ""
            while True:
                request = messages.ListChargesRequest(page_size=2, page_token=token, order=f"orders/{ORDER}")
                page = await receipts.ListCharges(request)
                assert len(page.charges) <= 2
                starts += [charge.from_running_ms for charge in page.charges]
                token = page.next_page_token
                if not token:
                    break
            with pytest.raises(RemoteError) as refusal:
                await receipts.ListCharges(messages.ListChargesRequest(page_token="e30"))
        assert starts == [4_000, 3_000, 2_000, 1_000, 0]
        assert refusal.value.reason.reason == "PAGE_TOKEN_INVALID"


async def test_a_charge_is_hidden_from_others(address: str, identity: TestIdentity, market: Market) -> None:
    """Goal: payer and payee see a charge, nobody else. Method: ask as each for the charge, its receipt and the list."""
    await charged(market, 1)
    async with account(address, identity, "funds.read") as tenant:
        name = (await doors.ReceiptServiceStub(tenant).ListCharges(messages.ListChargesRequest())).charges[0].name
    async with account(address, identity, "funds.read", name=OWNER) as owner:
        charge = await doors.ReceiptServiceStub(owner).GetCharge(messages.GetChargeRequest(name=name))
    assert charge.tenant == f"accounts/{TENANT}"
    async with account(address, identity, "funds.read", name=identifier(9)) as stranger:
        receipts = doors.ReceiptServiceStub(stranger)
        with pytest.raises(RemoteError) as refusal:
            await receipts.GetCharge(messages.GetChargeRequest(name=name))
        with pytest.raises(RemoteError) as unproven:
            await receipts.GetReceipt(messages.GetReceiptRequest(charge=name))
        assert not (await receipts.ListCharges(messages.ListChargesRequest())).charges
    assert [refusal.value.reason.reason, unproven.value.reason.reason] == ["CHARGE_NOT_FOUND", "CHARGE_NOT_FOUND"]


async def test_the_ledger_is_for_auditors(address: str, identity: TestIdentity, market: Market) -> None:
    """Goal: the ledger shows itself to its scope only, and adds up. Method: ask without and with `ledger.audit`."""
    await charged(market, 2)
    async with account(address, identity, "funds.read") as tenant:
        with pytest.raises(RemoteError) as refusal:
            await doors.LedgerServiceStub(tenant).ListLedgerAccounts(messages.ListLedgerAccountsRequest())
    assert refusal.value.code == "PERMISSION_DENIED"
    async with account(address, identity, "ledger.audit") as auditor:
        ledger = doors.LedgerServiceStub(auditor)
        accounts: list[ledger_pb2.LedgerAccount] = []
        token = ""
        while True:
            page = await ledger.ListLedgerAccounts(messages.ListLedgerAccountsRequest(page_size=2, page_token=token))
            accounts += page.ledger_accounts
            token = page.next_page_token
            if not token:
                break
        one = await ledger.GetLedgerAccount(messages.GetLedgerAccountRequest(name=accounts[0].name))
        earnings = next(item for item in accounts if item.kind == ledger_pb2.LEDGER_ACCOUNT_KIND_EARNINGS)
        moved = await ledger.ListTransfers(messages.ListTransfersRequest(ledger_account=earnings.name))
    assert one == accounts[0]
    assert sum(item.debits_posted_micros - item.credits_posted_micros for item in accounts) == 0
    assert [transfer.amount.micros for transfer in moved.transfers] == [800, 800]
    assert earnings.owner == f"accounts/{OWNER}"
    assert sum(transfer.amount.micros for transfer in moved.transfers) == earnings.credits_posted_micros


async def test_deposit_instructions_name_the_callers_reference(address: str, identity: TestIdentity) -> None:
    """Goal: a tenant pays for itself. Method: ask, and for an asset that the chain does not take."""
    async with account(address, identity, "funds.read") as tenant:
        funds = doors.FundsServiceStub(tenant)
        told = await funds.GetDepositInstructions(messages.GetDepositInstructionsRequest(asset=ASSET))
        with pytest.raises(RemoteError) as refusal:
            await funds.GetDepositInstructions(messages.GetDepositInstructionsRequest(asset="doge"))
    assert told.account_reference == "0x" + id_to_word(TENANT).hex()
    assert (told.chain_id, told.vault_address, told.confirmations) == (31_337, CONTRACTS.vault, 3)
    assert [violation.field for violation in refusal.value.violations] == ["asset"]


async def test_without_a_chain_there_is_no_way_out(address: str, identity: TestIdentity) -> None:
    """Goal: a clear reason. Method: each call about withdrawals to a service without a chain, and another asset."""
    withdrawal = ledger_pb2.Withdrawal(amount=money_pb2.Amount(asset=ASSET, micros=1), payee="0x" + "11" * 20)
    other = ledger_pb2.Withdrawal(amount=money_pb2.Amount(asset="doge", micros=1), payee="0x" + "11" * 20)
    async with account(address, identity, "funds.read", "funds.write") as tenant:
        funds = doors.FundsServiceStub(tenant)
        create = messages.CreateWithdrawalRequest
        calls: list[Awaitable[Any]] = [
            funds.CreateWithdrawal(create(parent="accounts/me", withdrawal=withdrawal, request_id="r")),
            funds.ListWithdrawals(messages.ListWithdrawalsRequest(parent="accounts/me")),
            funds.GetClaim(messages.GetClaimRequest(parent="accounts/me")),
        ]
        for call in calls:
            with pytest.raises(RemoteError) as refusal:
                await call
            assert refusal.value.reason.reason == "CHAIN_NOT_CONFIGURED"
        with pytest.raises(RemoteError) as refusal:
            await funds.CreateWithdrawal(create(parent="accounts/me", withdrawal=other, request_id="r"))
    assert [violation.field for violation in refusal.value.violations] == ["withdrawal.amount.asset"]


async def test_unknown_names_are_not_found(address: str, identity: TestIdentity) -> None:
    """Goal: each resource has its own word for what is not there. Method: ask for what nobody made."""
    nothing = identifier(9)
    async with account(address, identity, "funds.read", "ledger.audit") as tenant:
        receipts, ledger = doors.ReceiptServiceStub(tenant), doors.LedgerServiceStub(tenant)
        calls: dict[str, Awaitable[Any]] = {
            "CHARGE_NOT_FOUND": receipts.GetCharge(messages.GetChargeRequest(name=f"charges/{nothing}")),
            "BATCH_NOT_FOUND": receipts.GetBatch(messages.GetBatchRequest(name="batches/7")),
            "LEDGER_ACCOUNT_NOT_FOUND": ledger.GetLedgerAccount(
                messages.GetLedgerAccountRequest(name="ledgerAccounts/x")
            ),
        }
        for reason, call in calls.items():
            with pytest.raises(RemoteError) as refusal:
                await call
            assert (refusal.value.reason.reason, refusal.value.code) == (reason, "NOT_FOUND")
        assert not (await receipts.ListBatches(messages.ListBatchesRequest())).batches
        deposits = await doors.FundsServiceStub(tenant).ListDeposits(messages.ListDepositsRequest(parent="accounts/me"))
        assert not deposits.deposits


def own_transfer(name: str, micros: int, **fields: Any) -> ledger_pb2.Transfer:
    """An operator's transfer from the tenant to the owner."""
    made = ledger_pb2.Transfer(
        name=f"transfers/{name}",
        debit_account=f"ledgerAccounts/balance-{TENANT}-{ASSET}",
        credit_account=f"ledgerAccounts/balance-{OWNER}-{ASSET}",
        amount=money_pb2.Amount(asset=ASSET, micros=micros),
    )
    for field, value in fields.items():
        setattr(made, field, value)
    return made


async def results(stub: "doors.LedgerServiceAsyncStub", *transfers: ledger_pb2.Transfer) -> list[str]:
    """What became of transfers."""
    answer = await stub.BatchCreateTransfers(messages.BatchCreateTransfersRequest(transfers=transfers))
    return [ledger_pb2.TransferResult.Name(one).removeprefix("TRANSFER_RESULT_") for one in answer.results]


async def test_an_operators_transfers(market: Market, identity: TestIdentity, address: str) -> None:
    """Goal: the treasury moves the platform's own money, with a result each. Method: a chain that stands, one that falls,
    repeats, bad sums and accounts, a pending one with its post.
    """
    await market.fund(TENANT, 1_000)
    await market.fund(OWNER, 1)
    async with account(address, identity, "ledger.write", "ledger.audit") as treasury:
        stub = doors.LedgerServiceStub(treasury)
        chain = (own_transfer("a", 5, linked=True), own_transfer("b", 6))
        assert await results(stub, *chain) == ["OK", "OK"]
        assert await results(stub, chain[1]) == ["EXISTS"]
        assert await results(stub, own_transfer("b", 7)) == ["EXISTS_WITH_DIFFERENT_INPUT"]
        fallen = (own_transfer("c", 5, linked=True), own_transfer("d", 10_000))
        assert await results(stub, *fallen) == ["LINKED_TRANSFER_FAILED", "EXCEEDS_CREDITS"]
        bad = (
            own_transfer("e", 0),
            own_transfer("f", -1),
            own_transfer("g", 1, credit_account="ledgerAccounts/balance-nobody-usdc"),
            own_transfer("h", 2**63 - 1, debit_account=f"ledgerAccounts/vault-{ASSET}"),
        )
        wanted = ["AMOUNT_NOT_POSITIVE", "AMOUNT_NOT_POSITIVE", "CREDIT_ACCOUNT_NOT_FOUND", "OVERFLOWS"]
        assert await results(stub, *bad) == wanted
        pending = own_transfer("p", 100, phase=ledger_pb2.TRANSFER_PHASE_PENDING)
        pending.timeout.FromSeconds(60)
        posting = own_transfer("q", 100, phase=ledger_pb2.TRANSFER_PHASE_POST_PENDING, pending_transfer="transfers/p")
        assert await results(stub, pending, posting, posting) == ["OK", "OK", "EXISTS"]
        listed = await stub.ListTransfers(messages.ListTransfersRequest(page_size=2))
        assert {one.name for one in listed.transfers} == {"transfers/own-p", "transfers/own-q"}
        assert {one.timeout.seconds for one in listed.transfers} == {0, 60}
    assert (await Reads(market.database, RULES).money(OWNER, ASSET)).free == 112


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"debit_account": f"ledgerAccounts/escrow-{ORDER}-{ASSET}"}, "debit_account"),
        ({"credit_account": f"ledgerAccounts/payable-{TENANT}-{ASSET}"}, "credit_account"),
        ({"phase": ledger_pb2.TRANSFER_PHASE_EXPIRE_PENDING}, "phase"),
        ({"reason": ledger_pb2.TRANSFER_REASON_CHARGE}, "reason"),
        ({"pending_transfer": "orders/x"}, "pending_transfer"),
    ],
)
async def test_what_an_operator_does_not_move(
    market: Market, identity: TestIdentity, address: str, fields: dict[str, Any], path: str
) -> None:
    """Goal: a clear refusal that stores nothing. Method: escrows, what is owed on the chain, and fields that are not his."""
    await market.fund(TENANT, 1_000)
    async with account(address, identity, "ledger.write") as treasury:
        with pytest.raises(RemoteError) as refusal:
            await results(doors.LedgerServiceStub(treasury), own_transfer("ok", 1), own_transfer("x", 1, **fields))
    assert (refusal.value.reason.reason, refusal.value.violations[0].field) == (
        "INVALID_FIELD",
        f"transfers[1].{path}",
    )
    assert (await Reads(market.database, RULES).money(TENANT, ASSET)).free == 1_000


async def test_only_the_treasury_makes_transfers(market: Market, identity: TestIdentity, address: str) -> None:
    """Goal: reading is not writing. Method: an auditor, and a tenant with all that is its own."""
    async with account(address, identity, "ledger.audit", "funds.write") as auditor:
        with pytest.raises(RemoteError) as denied:
            await results(doors.LedgerServiceStub(auditor), own_transfer("z", 1))
    assert denied.value.reason.reason == "PERMISSION_DENIED"
