"""Between settlement's domain and its protobuf messages; with ``rpc`` the only modules that know both."""

from datetime import datetime

from fallow.settlement.v1 import charge_pb2, ledger_pb2, settlement_service_pb2
from fallow.type.v1 import lease_pb2, money_pb2
from fallow_chassis.errors import invalid_field
from fallow_chassis.wire import from_duration, resource_id, to_duration, to_timestamp
from fallow_receipts import Header, id_to_word
from fallow_settlement.adjusting import OWN
from fallow_settlement.balances import BalanceClaim
from fallow_settlement.chain_store import Batch, Deposit
from fallow_settlement.domain.charge import Charge
from fallow_settlement.domain.escrow import Escrow, EscrowState
from fallow_settlement.domain.ledger import Account, Phase, Transfer, TransferReason
from fallow_settlement.domain.transaction import ANCHORED
from fallow_settlement.settings import Contracts
from fallow_settlement.statements import Movement, Parts
from fallow_settlement.withdrawal_store import Withdrawal
from fallow_settlement.withdrawals import Claimable


def amount(asset: str, micros: int) -> money_pb2.Amount:
    """A sum."""
    return money_pb2.Amount(asset=asset, micros=micros)


def escrow_message(escrow: Escrow, runway_ms: int | None = None) -> charge_pb2.Escrow:
    """An escrow; the sums of a tombstone are left out, because it has no asset."""
    message = charge_pb2.Escrow(
        name=f"escrows/{escrow.order_id}",
        state=charge_pb2.EscrowState.Value(f"ESCROW_STATE_{escrow.state.value}"),
        create_time=to_timestamp(escrow.create_time),
    )
    if escrow.close_time is not None:
        message.close_time.CopyFrom(to_timestamp(escrow.close_time))
    if escrow.state is EscrowState.TOMBSTONE:
        return message
    message.account = f"accounts/{escrow.account_id}"
    message.deposited.CopyFrom(amount(escrow.asset, escrow.deposited))
    message.charged.CopyFrom(amount(escrow.asset, escrow.charged))
    message.held.CopyFrom(amount(escrow.asset, escrow.held))
    message.refunded.CopyFrom(amount(escrow.asset, escrow.refunded))
    if runway_ms is not None:
        message.runway.CopyFrom(to_duration(runway_ms))
    if escrow.top_up:
        message.top_up.CopyFrom(amount(escrow.asset, escrow.top_up))
    if escrow.grace_end_time is not None and escrow.state is EscrowState.SUSPENDED:
        message.grace_end_time.CopyFrom(to_timestamp(escrow.grace_end_time))
    return message


def charge_message(charge: Charge) -> charge_pb2.Charge:
    """A charge."""
    return charge_pb2.Charge(
        name=f"charges/{charge.id}",
        key=lease_pb2.GenerationKey(
            order=f"orders/{charge.order_id}", group=charge.group, generation=charge.generation
        ),
        lease=f"leases/{charge.lease_id}",
        sequence=charge.sequence,
        tenant=f"accounts/{charge.tenant_id}",
        provider_account=f"accounts/{charge.provider_account_id}",
        from_running_ms=charge.from_running_ms,
        to_running_ms=charge.to_running_ms,
        price=money_pb2.Price(asset=charge.asset, micros_per_hour=charge.price_micros_per_hour),
        amount=amount(charge.asset, charge.amount),
        fee=amount(charge.asset, charge.fee),
        pool=amount(charge.asset, charge.pool),
        proof_level=lease_pb2.ProofLevel.Value(f"PROOF_LEVEL_{charge.proof_level}"),
        create_time=to_timestamp(charge.create_time),
        batch=f"batches/{charge.batch_number}" if charge.batch_number else "",
    )


def header_message(header: Header) -> charge_pb2.BatchHeader:
    """A batch's header."""
    return charge_pb2.BatchHeader(
        batch_id=header.batch_id,
        parent_commitment=hexadecimal(header.prev),
        payout_parent=header.payout_parent,
        settlement_root=hexadecimal(header.settlement_root),
        payout_root=hexadecimal(header.payout_root),
        charge_count=header.count,
        payout_total_micros=header.payout_total,
        totals_hash=hexadecimal(header.totals_hash),
    )


def batch_message(batch: Batch) -> charge_pb2.Batch:
    """A batch."""
    return charge_pb2.Batch(
        name=f"batches/{batch.number}",
        header=header_message(batch.header),
        commitment=hexadecimal(batch.commitment),
        state=charge_pb2.BatchState.Value(f"BATCH_STATE_{batch.state.value}"),
        chain_id=batch.chain_id,
        anchor_address=batch.anchor_address,
        transaction_hash=batch.transaction_hash,
        block_number=batch.block_number,
        create_time=to_timestamp(batch.create_time),
    )


def deposit_message(deposit: Deposit, head: int, confirmations_needed: int) -> ledger_pb2.Deposit:
    """A deposit; ``head`` is the newest block that was scanned."""
    return ledger_pb2.Deposit(
        name=f"accounts/{deposit.account_id}/deposits/{deposit.id}",
        amount=amount(deposit.asset, deposit.amount),
        state=ledger_pb2.DepositState.Value(f"DEPOSIT_STATE_{deposit.state}"),
        transaction_hash=deposit.transaction_hash,
        block_number=deposit.block_number,
        confirmations=min(max(0, head - deposit.block_number + 1), confirmations_needed),
        confirmations_needed=confirmations_needed,
        create_time=to_timestamp(deposit.create_time),
    )


def withdrawal_message(withdrawal: Withdrawal, *, claimed: int) -> ledger_pb2.Withdrawal:
    """A withdrawal; ``claimed`` is what its account has claimed in all, in micros."""
    if withdrawal.batch_state not in ANCHORED:
        state = ledger_pb2.WITHDRAWAL_STATE_PENDING
    elif withdrawal.through <= claimed:
        state = ledger_pb2.WITHDRAWAL_STATE_CLAIMED
    else:
        state = ledger_pb2.WITHDRAWAL_STATE_CLAIMABLE
    return ledger_pb2.Withdrawal(
        name=f"accounts/{withdrawal.account_id}/withdrawals/{withdrawal.id}",
        amount=amount(withdrawal.asset, withdrawal.amount),
        payee=withdrawal.payee,
        state=state,
        batch=f"batches/{withdrawal.batch_number}" if withdrawal.batch_number else "",
        create_time=to_timestamp(withdrawal.create_time),
    )


def claim_message(claimable: Claimable, contracts: Contracts, rpc_url: str) -> settlement_service_pb2.Claim:
    """What a claim on the chain needs."""
    payout = claimable.payout
    return _claim(
        claimable.header,
        payout.account,
        payout.payee,
        payout.total_micros,
        claimable.proof,
        claimable.claimable_time,
        contracts,
        rpc_url,
    )


def balance_claim_message(claim: BalanceClaim, contracts: Contracts, rpc_url: str) -> settlement_service_pb2.Claim:
    """What a claim of a balance needs."""
    held = claim.balance
    return _claim(
        claim.header,
        held.account,
        held.payee,
        held.total_micros,
        claim.proof,
        claim.escape_time,
        contracts,
        rpc_url,
    )


def _claim(
    header: Header,
    account: str,
    payee: str,
    micros: int,
    proof: tuple[bytes, ...],
    time: datetime,
    contracts: Contracts,
    rpc_url: str,
) -> settlement_service_pb2.Claim:
    """A leaf of a payout tree with its proof."""
    return settlement_service_pb2.Claim(
        header=header_message(header),
        payee=payee,
        cumulative_micros=micros,
        proof=[hexadecimal(sibling) for sibling in proof],
        claimable_time=to_timestamp(time),
        account_reference=hexadecimal(id_to_word(account)),
        chain_id=contracts.chain_id,
        vault_address=contracts.vault,
        rpc_url=rpc_url,
    )


def parts_message(parts: Parts) -> settlement_service_pb2.MoneyParts:
    """An account's money in one asset."""
    return settlement_service_pb2.MoneyParts(
        asset=parts.asset,
        free_micros=parts.free,
        held_micros=parts.held,
        earned_micros=parts.earned,
        owed_micros=parts.owed,
    )


def movement_message(movement: Movement) -> settlement_service_pb2.Movement:
    """A transfer as an account sees it."""
    return settlement_service_pb2.Movement(
        transfer=f"transfers/{movement.transfer_id}",
        create_time=to_timestamp(movement.time),
        reason=ledger_pb2.TransferReason.Value(f"TRANSFER_REASON_{movement.reason.value}"),
        subject=movement.subject,
        change=parts_message(movement.change),
    )


def ledger_account_message(account: Account) -> ledger_pb2.LedgerAccount:
    """An account of the ledger."""
    collection = "orders" if account.kind.value == "ESCROW" else "accounts"
    return ledger_pb2.LedgerAccount(
        name=f"ledgerAccounts/{account.id}",
        kind=ledger_pb2.LedgerAccountKind.Value(f"LEDGER_ACCOUNT_KIND_{account.kind.value}"),
        owner=f"{collection}/{account.owner}" if account.owner else "",
        asset=account.asset,
        debits_posted_micros=account.debits_posted,
        credits_posted_micros=account.credits_posted,
        debits_pending_micros=account.debits_pending,
        credits_pending_micros=account.credits_pending,
        debits_must_not_exceed_credits=account.debits_must_not_exceed_credits,
        closed=account.closed,
    )


def transfer_message(transfer: Transfer) -> ledger_pb2.Transfer:
    """A transfer, without its time."""
    message = ledger_pb2.Transfer(
        name=f"transfers/{transfer.id}",
        debit_account=f"ledgerAccounts/{transfer.debit_account}",
        credit_account=f"ledgerAccounts/{transfer.credit_account}",
        amount=amount(transfer.asset, transfer.amount),
        phase=ledger_pb2.TransferPhase.Value(f"TRANSFER_PHASE_{transfer.phase.value}"),
        pending_transfer=f"transfers/{transfer.pending_id}" if transfer.pending_id else "",
        reason=ledger_pb2.TransferReason.Value(f"TRANSFER_REASON_{transfer.reason.value}"),
        subject=transfer.subject,
        linked=transfer.linked,
    )
    if transfer.timeout_ms:
        message.timeout.CopyFrom(to_duration(transfer.timeout_ms))
    return message


def transfer_of(message: ledger_pb2.Transfer, path: str) -> Transfer:
    """An operator's transfer as it was asked for; ``path`` is where it stands in the request. INVALID_FIELD."""
    if message.reason or message.HasField("create_time"):
        raise invalid_field(f"{path}.reason", "reason and time of an operator's transfer are the ledger's to say")
    phase = ledger_pb2.TransferPhase.Name(message.phase).removeprefix("TRANSFER_PHASE_")
    if phase == "EXPIRE_PENDING":
        raise invalid_field(f"{path}.phase", "only the ledger lets a transfer expire")
    pending = message.pending_transfer
    return Transfer(
        id=f"{OWN}{resource_id(message.name, 'transfers', field=f'{path}.name')}",
        debit_account=resource_id(message.debit_account, "ledgerAccounts", field=f"{path}.debit_account"),
        credit_account=resource_id(message.credit_account, "ledgerAccounts", field=f"{path}.credit_account"),
        asset=message.amount.asset,
        amount=message.amount.micros,
        reason=TransferReason.ADJUSTMENT,
        subject=message.subject,
        phase=Phase.POSTED if phase == "UNSPECIFIED" else Phase(phase),
        pending_id=f"{OWN}{resource_id(pending, 'transfers', field=f'{path}.pending_transfer')}" if pending else "",
        linked=message.linked,
        timeout_ms=from_duration(message.timeout),
    )


def balance_message(
    account_id: str, asset: str, *, free: int, held: int, earned: int, pending: int
) -> ledger_pb2.Balance:
    """An account's money in one asset."""
    return ledger_pb2.Balance(
        name=f"accounts/{account_id}/balances/{asset}",
        free=amount(asset, free),
        held=amount(asset, held),
        earned=amount(asset, earned),
        pending_deposits=amount(asset, pending),
    )


def instructions_message(
    *, chain_id: int, vault: str, token: str, account_reference: bytes, confirmations: int, rpc_url: str
) -> settlement_service_pb2.DepositInstructions:
    """Where and how to deposit."""
    return settlement_service_pb2.DepositInstructions(
        chain_id=chain_id,
        vault_address=vault,
        token_address=token,
        account_reference=hexadecimal(account_reference),
        confirmations=confirmations,
        rpc_url=rpc_url,
    )


def hexadecimal(value: bytes) -> str:
    """0x and lower-case hexadecimal digits."""
    return "0x" + value.hex()
