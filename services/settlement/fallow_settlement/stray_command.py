"""``python -m fallow_settlement deposits``: deposits whose reference is no account's, and whose an operator says they are.

Status 0 is done, 1 says that there is no such deposit, or none that the chain has confirmed, 2 that the service is set up wrongly.
"""

import argparse
import asyncio
import re
import sys
from collections.abc import Sequence

from fallow_chassis.clock import SystemClock
from fallow_chassis.ids import RandomIds
from fallow_chassis.postgres import Database, UnitOfWork
from fallow_settlement import chain_store
from fallow_settlement.domain import moves
from fallow_settlement.ledger_store import must_post
from fallow_settlement.settings import SettlementSettings

_ACCOUNT = re.compile(r"accounts/([0-9a-hjkmnp-tv-z]{26})")


def run(argv: Sequence[str]) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="fallow_settlement deposits", description=__doc__)
    parser.add_argument("deposit", nargs="?", help="the deposit, as the list names it; without it, list them")
    parser.add_argument("account", nargs="?", help="whose it is, accounts/{account}")
    options = parser.parse_args(argv)
    if (options.deposit is None) != (options.account is None):
        parser.error("a deposit is given to an account: name both")
    account = None if options.account is None else _ACCOUNT.fullmatch(options.account)
    if options.account is not None and account is None:
        parser.error("an account is named accounts/ and 26 characters")
    return asyncio.run(_run(SettlementSettings(), options.deposit, None if account is None else account[1]))


async def _run(settings: SettlementSettings, deposit_id: str | None, account: str | None) -> int:
    """List, or give one to an account."""
    clock = SystemClock()
    database = await Database.connect(
        settings.required("database_url"), pool_size=1, ids=RandomIds(clock), clock=clock, source="services/settlement"
    )
    try:
        if deposit_id is None or account is None:
            async with database.read() as connection:
                strays = await chain_store.list_strays(connection)
            for stray in strays:
                sys.stdout.write(
                    f"{stray.id}  {stray.amount} micros of {stray.asset} from {stray.sender}  "
                    f"block {stray.block_number}  {stray.transaction_hash}\n"
                )
            return 0
        async with database.transaction() as unit:
            given = await give(unit, deposit_id, account, settings.chain_confirmations)
        told = f"is accounts/{account}'s now" if given else "is no confirmed deposit of nobody's; run without arguments"
        sys.stdout.write(f"{deposit_id} {told}\n")
        return 0 if given else 1
    finally:
        await database.close()


async def give(unit: UnitOfWork, deposit_id: str, account: str, confirmations: int) -> bool:
    """Credit a confirmed deposit of nobody's to an account; False where there is none."""
    stray = await chain_store.lock_stray(unit.connection, deposit_id)
    newest = await chain_store.last_scanned(unit.connection)
    if stray is None or newest is None or newest[0] - stray.block_number + 1 < confirmations:
        return False
    for move in (
        moves.deposit_seen(stray.id, account, stray.asset, stray.amount),
        moves.deposit_confirmed(stray.id, account, stray.asset, stray.amount),
    ):
        await must_post(unit.connection, move.accounts, move.transfers, unit.clock.now())
    await chain_store.assign_deposit(unit.connection, stray.id, account)
    return True
