"""A process that seals and anchors until nothing waits, to be killed at any moment: DATABASE_URL RPC_URL CONTRACTS KEY."""

import asyncio
import sys
from datetime import timedelta
from pathlib import Path

from fallow_chassis.clock import SystemClock
from fallow_chassis.ids import RandomIds
from fallow_chassis.postgres import Database
from fallow_settlement import chain_store
from fallow_settlement.anchoring import Anchoring, AnchoringRule
from fallow_settlement.chain import JsonRpcNode
from fallow_settlement.domain.transaction import TransactionState
from fallow_settlement.sealing import Sealing, SealingRule
from fallow_settlement.settings import Contracts
from fallow_settlement.signer import Signer


async def main(url: str, rpc_url: str, contracts_file: str, key_file: str) -> None:
    """Seal what waits, and anchor until the last batch is final."""
    contracts = Contracts.load(Path(contracts_file))
    clock = SystemClock()
    database = await Database.connect(url, pool_size=2, ids=RandomIds(clock), clock=clock, source="services/settlement")
    async with JsonRpcNode(rpc_url, contracts.chain_id) as node:
        rule = AnchoringRule(confirmations=1, bump_after_ms=60_000, fee_cap=200 * 10**9)
        signer = Signer.load(Path(key_file), contracts.chain_id)
        await Sealing(database, contracts, "usdc", SealingRule(1, timedelta(), timedelta(days=1))).seal_due()
        anchoring = Anchoring(database, node, signer, contracts, rule)
        while True:
            await anchoring.advance()
            async with database.read() as connection:
                last = await chain_store.load_last_batch(connection)
            if last is None or last.state is TransactionState.FINAL:
                break
            await asyncio.sleep(0.05)
    await database.close()


asyncio.run(main(*sys.argv[1:]))
