"""Money out: withdrawals, and what their owners need to claim them at the vault.

A withdrawal debits the ledger first: earnings, then the free balance, to the account's PAYABLE account, whose credits are
all that it was ever owed. The next batch takes it under its payout root. A claim on the chain pays what that total adds
to what was claimed before; the vault's log moves the sum on from PAYABLE to VAULT once it is confirmed.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf.message import Message

from fallow_chassis.errors import DomainError, FieldViolation
from fallow_chassis.idempotency import claim
from fallow_chassis.paging import TimePlace
from fallow_chassis.postgres import Connection, Database
from fallow_receipts import Header, Payout
from fallow_settlement import balances, chain_store, gaps, ledger_store, vetoes, withdrawal_store
from fallow_settlement.contracts_abi import anchored_at_call, challenge_seconds_call, claimed_call
from fallow_settlement.domain import moves
from fallow_settlement.domain.escrow import check_amount
from fallow_settlement.domain.ledger import AccountKind, account_id
from fallow_settlement.domain.reasons import (
    INSUFFICIENT_FUNDS,
    NOTHING_TO_CLAIM,
    WITHDRAWALS_HALTED,
)
from fallow_settlement.ledger_store import must_post
from fallow_settlement.payouts import check_payee, payout_tree
from fallow_settlement.ports import ChainNode
from fallow_settlement.settings import Contracts
from fallow_settlement.withdrawal_store import Withdrawal

CREATE_METHOD: Final = "fallow.settlement.v1.FundsService/CreateWithdrawal"
HALT_RETRY_MS: Final = 60_000
"""How long who wants to withdraw is asked to wait while withdrawals are halted."""
LOOKED_AT: Final = 20
"""How many batches with withdrawals of one account are looked at for one that can be claimed against now."""


@dataclass(frozen=True, slots=True)
class Claimable:
    """A payout under an anchored root; ``claimable_time`` is when the challenge window is over."""

    header: Header
    payout: Payout
    proof: tuple[bytes, ...]
    claimable_time: datetime


class Withdrawals:
    """The use-cases of money out."""

    def __init__(self, database: Database, node: ChainNode, contracts: Contracts, asset: str) -> None:
        """``asset`` is the one that the vault's token is."""
        self._database = database
        self._node = node
        self._contracts = contracts
        self._asset = asset

    async def create(
        self, account: str, asset: str, amount: int, payee: str, *, request_id: str, request: Message
    ) -> Withdrawal:
        """Debit an account for a payee; a repeat answers the withdrawal of the first call."""
        check_payee(payee, self._contracts, "withdrawal.payee")
        check_amount(amount, "withdrawal.amount.micros")
        async with self._database.transaction() as unit:
            identifier = unit.ids.new()
            taken = await claim(
                unit,
                caller=f"accounts/{account}",
                method=CREATE_METHOD,
                request_id=request_id,
                request=request,
                resource=f"accounts/{account}/withdrawals/{identifier}",
            )
            if not taken.first:
                known = await withdrawal_store.load_withdrawal(unit.connection, taken.resource.rpartition("/")[2])
                assert known is not None, "a request that was claimed left its withdrawal"
                return known
            if await is_halted(unit.connection):
                raise DomainError(WITHDRAWALS_HALTED, "withdrawals are halted", retry_after_ms=HALT_RETRY_MS)
            earnings, balance = (
                account_id(AccountKind.EARNINGS, account, asset),
                account_id(AccountKind.BALANCE, account, asset),
            )
            locked = await ledger_store.lock_accounts(unit.connection, [earnings, balance])
            earned, free = (locked[name].available if name in locked else 0 for name in (earnings, balance))
            if amount > earned + free:
                raise _insufficient(asset, amount, earned + free)
            withdrawal = Withdrawal(identifier, account, asset, amount, payee.lower(), unit.clock.now())
            move = moves.withdrawal(identifier, account, asset, from_earned=min(amount, earned), amount=amount)
            await must_post(unit.connection, move.accounts, move.transfers, unit.clock.now())
            await withdrawal_store.insert_withdrawal(unit.connection, withdrawal)
            return withdrawal

    async def list_of(self, account: str, before: TimePlace | None, limit: int) -> tuple[list[Withdrawal], int]:
        """Withdrawals of an account, newest first, and the micros that it has claimed."""
        async with self._database.read() as connection:
            return (
                await withdrawal_store.list_withdrawals(connection, account, before, limit),
                await self._claimed(connection, account),
            )

    async def claimable(self, account: str) -> Claimable:
        """What an account may claim: at the newest root whose window is over, else at the one that opens first.

        Raises NOTHING_TO_CLAIM where no anchored root adds to what was claimed.
        """
        # The vault itself says what it has paid: a claim that left the chain may be made again.
        claimed = await self._number(self._contracts.vault, claimed_call(account))
        async with self._database.read() as connection:
            numbers = await withdrawal_store.list_claimable_batches(connection, account, LOOKED_AT)
        now = self._database.clock.now()
        found: Claimable | None = None
        for number in numbers:
            candidate = await self._at(account, number)
            if candidate.payout.total_micros <= claimed:
                break
            found = candidate
            if candidate.claimable_time <= now:
                break
        if found is None:
            raise DomainError(
                NOTHING_TO_CLAIM,
                "no anchored payout root holds anything of the account's that is not claimed",
                metadata={"account": f"accounts/{account}"},
            )
        return found

    async def _at(self, account: str, number: int) -> Claimable:
        """The account's payout under the root of a batch that covers it."""
        async with self._database.read() as connection:
            batch = await chain_store.load_batch(connection, number)
            assert batch is not None, "the batch of a withdrawal is there"
            payouts = await withdrawal_store.load_payouts(connection, batch.payouts_through)
            held = await balances.load_balances(connection, batch.balances_of)
        tree = payout_tree(payouts, held, self._contracts)
        assert tree.root == batch.header.payout_root, "the payouts of a batch never change"
        index = next(index for index, payout in enumerate(payouts) if payout.account == account)
        window = await self._number(self._contracts.vault, challenge_seconds_call())
        anchored_at = await self._number(self._contracts.anchor, anchored_at_call(number))
        opens = datetime.fromtimestamp(anchored_at, UTC) + timedelta(seconds=window)
        return Claimable(batch.header, payouts[index], tree.proof(index), opens)

    async def _claimed(self, connection: Connection, account: str) -> int:
        """Micros of an account that the vault has paid, as far as the chain has confirmed."""
        payable = account_id(AccountKind.PAYABLE, account, self._asset)
        found = (await ledger_store.load_accounts(connection, [payable])).get(payable)
        return 0 if found is None else found.debits_posted

    async def _number(self, contract: str, call: bytes) -> int:
        """A number that a contract answers."""
        return int.from_bytes(await self._node.call(contract, call))


async def is_halted(connection: Connection) -> bool:
    """Whether nobody withdraws: a deposit left the chain, or a payout root was vetoed, and no operator has decided."""
    return await gaps.is_open(connection) or await vetoes.is_open(connection)


def _insufficient(asset: str, amount: int, free: int) -> DomainError:
    """The error for a withdrawal of more than is earned and free."""
    return DomainError(
        INSUFFICIENT_FUNDS,
        f"{free} micros of {asset} are earned or free, and {amount} were asked for",
        metadata={
            "asset": asset,
            "needed_micros": str(amount),
            "free_micros": str(free),
            "short_micros": str(amount - free),
        },
        violations=(FieldViolation("withdrawal.amount.micros", f"{amount - free} micros are short"),),
    )
