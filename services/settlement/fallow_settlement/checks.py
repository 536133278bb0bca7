"""What `check` tries beyond the chassis's own checks: the rules about money, and the chain with the contracts on it."""

from pathlib import Path

from fallow_chassis.settings import SettingsError
from fallow_settlement.chain import JsonRpcNode
from fallow_settlement.settings import Contracts, SettlementSettings
from fallow_settlement.signer import Signer


async def check_money(settings: SettlementSettings) -> str:
    """Which assets are taken; SettingsError where a take makes no sense."""
    return f"takes {', '.join(sorted(settings.rules().take_basis_points))}"


async def check_chain(settings: SettlementSettings) -> str:
    """Whether the chain answers, is the one that the contracts stand on, and holds them; the anchorer's key reads."""
    if not settings.chain_rpc_url:
        return "none is set: no deposits, no receipts"
    contracts = Contracts.load(Path(settings.required("contracts_file")))
    signer = Signer.load(Path(settings.required("chain_key_file")), contracts.chain_id)
    async with JsonRpcNode(settings.chain_rpc_url, contracts.chain_id) as node:
        head = await node.head()
        for address in (contracts.anchor, contracts.vault, contracts.token):
            if not await node.code(address):
                raise SettingsError(f"no contract stands at {address}; run deploy-contracts")
    return f"chain {contracts.chain_id} answers at block {head}; {signer.address} anchors"
