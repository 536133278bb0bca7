"""The gRPC door. Servicers read requests, ask commands or reads, and write answers; they raise domain errors only.

An account may name itself ``me``; it sees its own money, charges and deposits and nobody else's.
"""

from typing import Any, Final

from fallow.settlement.v1 import charge_pb2, ledger_pb2, settlement_service_pb2, settlement_service_pb2_grpc
from fallow_chassis.context import current_identity
from fallow_chassis.errors import DomainError, invalid_field
from fallow_chassis.group_commit import GroupCommit
from fallow_chassis.paging import Page
from fallow_chassis.status_details import to_status
from fallow_chassis.wire import resource_id, to_timestamp
from fallow_receipts import id_to_word
from fallow_settlement import convert
from fallow_settlement.adjusting import Adjusting
from fallow_settlement.balances import Balances
from fallow_settlement.commands import EscrowCommands
from fallow_settlement.domain.escrow import Escrow, Resize
from fallow_settlement.domain.reasons import ACCOUNT_NOT_FOUND, CHAIN_NOT_CONFIGURED
from fallow_settlement.opening import Opening
from fallow_settlement.queries import Reads
from fallow_settlement.settings import Contracts
from fallow_settlement.statements import Statements
from fallow_settlement.withdrawals import Withdrawals

ME: Final = "me"


def own_account() -> str:
    """The id of the account that calls."""
    return resource_id(current_identity().subject, "accounts")


def own_or_refused(account: str) -> str:
    """The id of an account that a request names: the caller or ``me``; ACCOUNT_NOT_FOUND for another's as for none."""
    caller = own_account()
    if account not in {ME, caller}:
        raise DomainError(ACCOUNT_NOT_FOUND, "there is no such account of yours", metadata={"account": account})
    return caller


class EscrowServicer(settlement_service_pb2_grpc.EscrowServiceServicer):
    """Escrows, asked for by the order service."""

    def __init__(self, opening: GroupCommit[Opening, Escrow], commands: EscrowCommands, reads: Reads) -> None:
        """Take the use-cases; openings of concurrent calls are committed together."""
        self._opening = opening
        self._commands = commands
        self._reads = reads

    async def OpenEscrow(self, request: settlement_service_pb2.OpenEscrowRequest, context: Any) -> charge_pb2.Escrow:
        """Hold funds for an order."""
        return convert.escrow_message(await self._opening.submit(_opening(request)))

    async def BatchOpenEscrows(
        self, request: settlement_service_pb2.BatchOpenEscrowsRequest, context: Any
    ) -> settlement_service_pb2.BatchOpenEscrowsResponse:
        """Hold funds for many orders, each with its own outcome."""
        outcomes = await self._opening.submit_many([_opening(one) for one in request.requests])
        response = settlement_service_pb2.BatchOpenEscrowsResponse()
        for outcome in outcomes:
            if isinstance(outcome, Escrow):
                response.results.add(escrow=convert.escrow_message(outcome))
            elif isinstance(outcome, DomainError):
                response.results.add(error=to_status(outcome))
            else:
                raise outcome
        return response

    async def TopUpEscrow(self, request: settlement_service_pb2.TopUpEscrowRequest, context: Any) -> charge_pb2.Escrow:
        """Add funds."""
        escrow = await self._commands.top_up(
            resource_id(request.name, "escrows"),
            request.amount.asset,
            request.amount.micros,
            caller=current_identity().subject,
            request_id=request.request_id,
            request=request,
        )
        return convert.escrow_message(escrow)

    async def ResizeEscrow(
        self, request: settlement_service_pb2.ResizeEscrowRequest, context: Any
    ) -> charge_pb2.Escrow:
        """Hold another sum from now on."""
        wanted = Resize(
            number=request.number,
            amount=request.amount.micros,
            budget=_budget(request),
            auto_top_up=request.auto_top_up,
        )
        escrow = await self._commands.resize(
            resource_id(request.name, "escrows"),
            request.amount.asset,
            wanted,
            caller=current_identity().subject,
            request_id=request.request_id,
            request=request,
        )
        return convert.escrow_message(escrow)

    async def ReleaseEscrow(
        self, request: settlement_service_pb2.ReleaseEscrowRequest, context: Any
    ) -> charge_pb2.Escrow:
        """Return the funds of an order that never opened."""
        return convert.escrow_message(await self._commands.release(resource_id(request.name, "escrows")))

    async def GetEscrow(self, request: settlement_service_pb2.GetEscrowRequest, context: Any) -> charge_pb2.Escrow:
        """Return an escrow."""
        escrow, runway_ms = await self._reads.escrow(resource_id(request.name, "escrows"), current_identity().subject)
        return convert.escrow_message(escrow, runway_ms)


def _opening(request: settlement_service_pb2.OpenEscrowRequest) -> Opening:
    """What a request opens."""
    return Opening(
        order_id=resource_id(request.name, "escrows"),
        account_id=resource_id(request.account, "accounts", field="account"),
        asset=request.amount.asset,
        amount=request.amount.micros,
        budget=_budget(request),
        auto_top_up=request.auto_top_up,
    )


def _budget(request: settlement_service_pb2.OpenEscrowRequest | settlement_service_pb2.ResizeEscrowRequest) -> int:
    """The budget in micros, of the amount's asset and not less than the amount; 0 for none."""
    if not request.HasField("budget"):
        return 0
    if request.budget.asset != request.amount.asset:
        raise invalid_field("budget.asset", "must be the asset of the amount")
    if request.budget.micros < request.amount.micros:
        raise invalid_field("budget.micros", "must not be less than the amount")
    return request.budget.micros


class FundsServicer(settlement_service_pb2_grpc.FundsServiceServicer):
    """Accounts' money."""

    def __init__(
        self,
        reads: Reads,
        withdrawals: Withdrawals | None,
        balances: Balances | None,
        contracts: Contracts | None,
        asset: str,
        confirmations: int,
        rpc_url: str,
    ) -> None:
        """``withdrawals``, ``balances`` and ``contracts`` are None where there is no chain."""
        self._reads = reads
        self._withdrawals = withdrawals
        self._balances = balances
        self._contracts = contracts
        self._asset = asset
        self._confirmations = confirmations
        self._rpc_url = rpc_url

    async def GetBalance(self, request: settlement_service_pb2.GetBalanceRequest, context: Any) -> ledger_pb2.Balance:
        """Return a balance."""
        _, named, _, asset = request.name.split("/")
        account = own_or_refused(named)
        money = await self._reads.money(account, asset)
        return convert.balance_message(
            account, asset, free=money.free, held=money.held, earned=money.earned, pending=money.pending
        )

    async def GetDepositInstructions(
        self, request: settlement_service_pb2.GetDepositInstructionsRequest, context: Any
    ) -> settlement_service_pb2.DepositInstructions:
        """Say where and how to deposit."""
        account = own_account()
        if self._contracts is None:
            raise DomainError(CHAIN_NOT_CONFIGURED, "there is no chain to deposit on")
        if request.asset != self._asset:
            raise invalid_field("asset", f"only {self._asset} is deposited on the chain")
        return convert.instructions_message(
            chain_id=self._contracts.chain_id,
            vault=self._contracts.vault,
            token=self._contracts.token,
            account_reference=id_to_word(account),
            confirmations=self._confirmations,
            rpc_url=self._rpc_url,
        )

    async def ListDeposits(
        self, request: settlement_service_pb2.ListDepositsRequest, context: Any
    ) -> settlement_service_pb2.ListDepositsResponse:
        """List deposits."""
        account = own_or_refused(resource_id(request.parent, "accounts", field="parent"))
        page = Page(request)
        found, head = await self._reads.deposits(account, page.after_time(), page.limit)
        shown, token = page.cut(found, lambda deposit: (deposit.create_time, deposit.id))
        return settlement_service_pb2.ListDepositsResponse(
            deposits=[convert.deposit_message(deposit, head, self._confirmations) for deposit in shown],
            next_page_token=token,
        )

    async def CreateWithdrawal(
        self, request: settlement_service_pb2.CreateWithdrawalRequest, context: Any
    ) -> ledger_pb2.Withdrawal:
        """Debit the caller and put the sum into the next payout root."""
        account = own_or_refused(resource_id(request.parent, "accounts", field="parent"))
        wanted = request.withdrawal
        if wanted.amount.asset != self._asset:
            raise invalid_field("withdrawal.amount.asset", f"only {self._asset} is withdrawn to the chain")
        made = await self._out().create(
            account,
            wanted.amount.asset,
            wanted.amount.micros,
            wanted.payee,
            request_id=request.request_id,
            request=request,
        )
        return convert.withdrawal_message(made, claimed=0)

    async def ListWithdrawals(
        self, request: settlement_service_pb2.ListWithdrawalsRequest, context: Any
    ) -> settlement_service_pb2.ListWithdrawalsResponse:
        """List withdrawals."""
        account = own_or_refused(resource_id(request.parent, "accounts", field="parent"))
        page = Page(request)
        found, claimed = await self._out().list_of(account, page.after_time(), page.limit)
        shown, token = page.cut(found, lambda withdrawal: (withdrawal.create_time, withdrawal.id))
        return settlement_service_pb2.ListWithdrawalsResponse(
            withdrawals=[convert.withdrawal_message(withdrawal, claimed=claimed) for withdrawal in shown],
            next_page_token=token,
        )

    async def GetClaim(
        self, request: settlement_service_pb2.GetClaimRequest, context: Any
    ) -> settlement_service_pb2.Claim:
        """Return what a claim on the chain needs."""
        account = own_or_refused(resource_id(request.parent, "accounts", field="parent"))
        claimable = await self._out().claimable(account)
        assert self._contracts is not None, "withdrawals have their contracts"
        return convert.claim_message(claimable, self._contracts, self._rpc_url)

    async def SetBalancePayee(
        self, request: settlement_service_pb2.SetBalancePayeeRequest, context: Any
    ) -> settlement_service_pb2.SetBalancePayeeResponse:
        """Name who gets the balance if the operator falls silent."""
        account = own_or_refused(resource_id(request.parent, "accounts", field="parent"))
        named = await self._kept().set_payee(account, request.payee, keeps=request.keep)
        return settlement_service_pb2.SetBalancePayeeResponse(payee=named)

    async def GetBalanceClaim(
        self, request: settlement_service_pb2.GetBalanceClaimRequest, context: Any
    ) -> settlement_service_pb2.BalanceClaim:
        """Return what a claim of the balance needs."""
        account = own_or_refused(resource_id(request.parent, "accounts", field="parent"))
        claim = await self._kept().claimable(account)
        assert self._contracts is not None, "balances have their contracts"
        message = convert.balance_claim_message(claim, self._contracts, self._rpc_url)
        return settlement_service_pb2.BalanceClaim(claim=message)

    def _kept(self) -> Balances:
        """The balances under payout roots; CHAIN_NOT_CONFIGURED where there is no chain."""
        if self._balances is None:
            raise DomainError(CHAIN_NOT_CONFIGURED, "there is no chain that holds balances")
        return self._balances

    def _out(self) -> Withdrawals:
        """The way out; CHAIN_NOT_CONFIGURED where there is none."""
        if self._withdrawals is None:
            raise DomainError(CHAIN_NOT_CONFIGURED, "there is no chain to withdraw to")
        return self._withdrawals


class ReceiptServicer(settlement_service_pb2_grpc.ReceiptServiceServicer):
    """Charges, receipts, batches, statements."""

    def __init__(self, reads: Reads, statements: Statements) -> None:
        """Take the reads."""
        self._reads = reads
        self._statements = statements

    async def GetCharge(self, request: settlement_service_pb2.GetChargeRequest, context: Any) -> charge_pb2.Charge:
        """Return a charge."""
        return convert.charge_message(await self._reads.charge(resource_id(request.name, "charges"), own_account()))

    async def ListCharges(
        self, request: settlement_service_pb2.ListChargesRequest, context: Any
    ) -> settlement_service_pb2.ListChargesResponse:
        """List charges."""
        order_id = resource_id(request.order, "orders", field="order") if request.order else ""
        page = Page(request)
        found = await self._reads.charges(own_account(), order_id, page.after_time(), page.limit)
        shown, token = page.cut(found, lambda charge: (charge.create_time, charge.id))
        return settlement_service_pb2.ListChargesResponse(
            charges=[convert.charge_message(charge) for charge in shown], next_page_token=token
        )

    async def GetReceipt(self, request: settlement_service_pb2.GetReceiptRequest, context: Any) -> charge_pb2.Receipt:
        """Return a charge with its proof."""
        charge_id = resource_id(request.charge, "charges", field="charge")
        charge, batch, receipt = await self._reads.receipt(charge_id, own_account())
        return charge_pb2.Receipt(
            charge=convert.charge_message(charge),
            batch=convert.batch_message(batch),
            leaf_index=receipt.index,
            proof=[convert.hexadecimal(sibling) for sibling in receipt.proof],
            json=receipt.to_json(),
        )

    async def GetBatch(self, request: settlement_service_pb2.GetBatchRequest, context: Any) -> charge_pb2.Batch:
        """Return a batch."""
        return convert.batch_message(await self._reads.batch(int(resource_id(request.name, "batches"))))

    async def ListBatches(
        self, request: settlement_service_pb2.ListBatchesRequest, context: Any
    ) -> settlement_service_pb2.ListBatchesResponse:
        """List batches."""
        page = Page(request)
        found = await self._reads.batches(page.after_number(), page.limit)
        shown, token = page.cut(found, lambda batch: batch.number)
        return settlement_service_pb2.ListBatchesResponse(
            batches=[convert.batch_message(batch) for batch in shown], next_page_token=token
        )

    async def GetStatement(
        self, request: settlement_service_pb2.GetStatementRequest, context: Any
    ) -> settlement_service_pb2.Statement:
        """Return an account's statement of one month."""
        _, named, _, month = request.name.split("/")
        account = own_or_refused(named)
        page = Page(request)
        statement = await self._statements.of(account, month, page.after_time(), page.limit)
        shown, token = page.cut(statement.movements, lambda movement: (movement.time, movement.transfer_id))
        return settlement_service_pb2.Statement(
            name=f"accounts/{account}/statements/{month}",
            opening=[convert.parts_message(parts) for parts in statement.opening],
            closing=[convert.parts_message(parts) for parts in statement.closing],
            movements=[convert.movement_message(movement) for movement in shown],
            next_page_token=token,
        )


class LedgerServicer(settlement_service_pb2_grpc.LedgerServiceServicer):
    """The ledger itself, for audits, and for an operator's own transfers."""

    def __init__(self, reads: Reads, adjusting: Adjusting) -> None:
        """Take the reads and the use-case."""
        self._reads = reads
        self._adjusting = adjusting

    async def GetLedgerAccount(
        self, request: settlement_service_pb2.GetLedgerAccountRequest, context: Any
    ) -> ledger_pb2.LedgerAccount:
        """Return an account of the ledger."""
        account = await self._reads.ledger_account(resource_id(request.name, "ledgerAccounts"))
        return convert.ledger_account_message(account)

    async def ListLedgerAccounts(
        self, request: settlement_service_pb2.ListLedgerAccountsRequest, context: Any
    ) -> settlement_service_pb2.ListLedgerAccountsResponse:
        """List accounts of the ledger."""
        page = Page(request)
        found = await self._reads.ledger_accounts(page.after_text(), page.limit)
        shown, token = page.cut(found, lambda account: account.id)
        return settlement_service_pb2.ListLedgerAccountsResponse(
            ledger_accounts=[convert.ledger_account_message(account) for account in shown], next_page_token=token
        )

    async def ListTransfers(
        self, request: settlement_service_pb2.ListTransfersRequest, context: Any
    ) -> settlement_service_pb2.ListTransfersResponse:
        """List transfers."""
        identifier = ""
        if request.ledger_account:
            identifier = resource_id(request.ledger_account, "ledgerAccounts", field="ledger_account")
        page = Page(request)
        found = await self._reads.transfers(identifier, page.after_time(), page.limit)
        shown, token = page.cut(found, lambda entry: (entry[1], entry[0].id))
        answer = settlement_service_pb2.ListTransfersResponse(next_page_token=token)
        for transfer, time in shown:
            message = convert.transfer_message(transfer)
            message.create_time.CopyFrom(to_timestamp(time))
            answer.transfers.append(message)
        return answer

    async def BatchCreateTransfers(
        self, request: settlement_service_pb2.BatchCreateTransfersRequest, context: Any
    ) -> settlement_service_pb2.BatchCreateTransfersResponse:
        """Make an operator's own transfers."""
        transfers = [
            convert.transfer_of(message, f"transfers[{index}]") for index, message in enumerate(request.transfers)
        ]
        results = await self._adjusting.post(transfers)
        return settlement_service_pb2.BatchCreateTransfersResponse(
            results=[ledger_pb2.TransferResult.Value(f"TRANSFER_RESULT_{result.value}") for result in results]
        )
