"""``python -m fallow_settlement deploy-contracts``: puts the contracts on a chain and writes where they stand.

A second run with the file present and the contracts on the chain does nothing. A run that was cut off wrote no file, and
the next one deploys afresh: contracts that nobody names hold nothing.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from fallow_chassis.retry import keep_trying
from fallow_chassis.settings import SettingsError
from fallow_settlement.chain import ChainUnavailableError, JsonRpcNode, NodeError
from fallow_settlement.contracts_abi import creation_code
from fallow_settlement.domain.transaction import market_fees
from fallow_settlement.settings import Contracts
from fallow_settlement.signer import Signer

MINE_SECONDS: Final = 300.0
"""How long one contract may take to be mined."""
START_SECONDS: Final = 30.0
"""How long a chain may take to answer: it may have been started a moment ago."""
POLL_SECONDS: Final = 0.2
DEFAULT_CHALLENGE_SECONDS: Final = 86_400
DEFAULT_ESCAPE_SECONDS: Final = 14 * 86_400
DEFAULT_DAILY_LIMIT: Final = 100_000_000_000
"""100,000 units of a token with 6 decimals."""
FEE_CAP: Final = 500_000_000_000


class DeploymentError(Exception):
    """A contract could not be created."""


def run(argv: Sequence[str]) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="fallow_settlement deploy-contracts", description=__doc__)
    parser.add_argument("--rpc-url", required=True, help="JSON-RPC address of the chain")
    parser.add_argument("--key-file", required=True, type=Path, help="key that pays, owns the contracts and anchors")
    parser.add_argument("--output", required=True, type=Path, help="file that gets the addresses")
    token = parser.add_mutually_exclusive_group(required=True)
    token.add_argument("--token", help="address of the ERC-20 token that the vault takes")
    token.add_argument("--test-token", action="store_true", help="deploy a token without value that anybody may mint")
    parser.add_argument("--owner", default="", help="owner of the contracts; the key's own by default")
    parser.add_argument("--guardian", default="", help="who may pause the vault and veto payouts; the owner by default")
    parser.add_argument("--challenge-seconds", type=int, default=DEFAULT_CHALLENGE_SECONDS, help="the veto window")
    parser.add_argument(
        "--escape-seconds",
        type=int,
        default=DEFAULT_ESCAPE_SECONDS,
        help="how long the anchorer is silent before anyone may wind the vault down by its last root",
    )
    parser.add_argument(
        "--daily-limit", type=int, default=DEFAULT_DAILY_LIMIT, help="most that the vault pays in a day, in micros"
    )
    options = parser.parse_args(argv)
    try:
        asyncio.run(deploy(options))
    except (DeploymentError, SettingsError, ChainUnavailableError, NodeError) as error:
        sys.stderr.write(f"deploy-contracts: {error}\n")
        return 1
    return 0


async def deploy(options: argparse.Namespace) -> None:
    """Deploy what is not there; ``options`` as ``run`` parses them."""
    async with JsonRpcNode(options.rpc_url) as node:
        try:
            async with asyncio.timeout(START_SECONDS):
                chain_id = await keep_trying("deployment", node.chain_id)
        except TimeoutError as error:
            raise DeploymentError(f"no chain answers after {START_SECONDS:.0f} s") from error
        if options.output.exists() and await _stands(node, Contracts.load(options.output), chain_id):
            sys.stdout.write(f"the contracts of {options.output} stand on chain {chain_id}\n")
            return
        signer = Signer.load(options.key_file, chain_id)
        owner = options.owner or signer.address
        guardian = options.guardian or owner
        block = await node.head() + 1
        token = await _create(node, signer, "TestToken", (), ()) if options.test_token else options.token
        anchor = await _create(
            node, signer, "SettlementAnchor", ("address", "address", "address"), (owner, signer.address, guardian)
        )
        vault = await _create(
            node,
            signer,
            "EscrowVault",
            ("address", "address", "uint256", "uint256", "uint256", "address", "address"),
            (token, anchor, options.challenge_seconds, options.escape_seconds, options.daily_limit, owner, guardian),
        )
        Contracts(chain_id, anchor, vault, token, block).save(options.output)
    sys.stdout.write(f"SettlementAnchor {anchor}\nEscrowVault {vault}\ntoken {token}\n")


async def _stands(node: JsonRpcNode, contracts: Contracts, chain_id: int) -> bool:
    """Whether all contracts of a file have code on this chain."""
    if contracts.chain_id != chain_id:
        raise DeploymentError(f"the file names chain {contracts.chain_id}, the node speaks for {chain_id}")
    for address in (contracts.anchor, contracts.vault, contracts.token):
        if not await node.code(address):
            return False
    return True


async def _create(
    node: JsonRpcNode, signer: Signer, contract: str, types: tuple[str, ...], arguments: tuple[object, ...]
) -> str:
    """Create one contract and wait until it is mined; its address, lower case."""
    data = creation_code(contract, types, arguments)
    head = await node.block(await node.head())
    assert head is not None, "the newest block is there"
    signed = signer.sign(
        nonce=await node.transaction_count(signer.address),
        to="",
        data=data,
        gas_limit=await node.estimate_gas(signer.address, data) * 5 // 4,
        fees=market_fees(head.base_fee, await node.priority_fee(), FEE_CAP),
    )
    await node.send(signed.raw)
    try:
        async with asyncio.timeout(MINE_SECONDS):
            while (receipt := await node.receipt(signed.transaction_hash)) is None:
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError as error:
        raise DeploymentError(f"{contract}: not mined after {MINE_SECONDS:.0f} s") from error
    if not receipt.succeeded or not await node.code(receipt.contract_address):
        raise DeploymentError(f"{contract}: its creation failed in {signed.transaction_hash}")
    return receipt.contract_address.lower()
