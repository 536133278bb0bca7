"""What settlement's `check` says of the chain and the rules about money."""

from dataclasses import replace
from pathlib import Path

import pytest

from fallow_chassis.settings import SettingsError
from fallow_settlement.chain import ChainUnavailableError, WrongChainError
from fallow_settlement.checks import check_chain, check_money
from fallow_settlement.settings import Contracts, SettlementSettings
from tests.component.settlement.chain import LocalChain

NOBODY = "0x00000000000000000000000000000000000000aa"


def settings(local_chain: LocalChain, contracts: Contracts, folder: Path, url: str = "") -> SettlementSettings:
    """Settings that name a chain and contracts."""
    contracts.save(folder / "checked.json")
    return SettlementSettings(
        chain_rpc_url=url or local_chain.url,
        contracts_file=str(folder / "checked.json"),
        chain_key_file=str(local_chain.development_account),
    )


async def test_a_chain_with_its_contracts_passes(local_chain: LocalChain, contracts: Contracts, tmp_path: Path) -> None:
    """Goal: `check` names what it found. Method: the local chain, and none at all."""
    found = await check_chain(settings(local_chain, contracts, tmp_path))
    assert found.startswith(f"chain {contracts.chain_id} answers at block ")
    assert await check_chain(SettlementSettings()) == "none is set: no deposits, no receipts"


async def test_what_serving_would_wait_for_fails(local_chain: LocalChain, contracts: Contracts, tmp_path: Path) -> None:
    """Goal: no green `check` on a dead chain. Method: nobody there, another chain, an address with no contract, no file."""
    with pytest.raises(ChainUnavailableError):
        await check_chain(settings(local_chain, contracts, tmp_path, "http://127.0.0.1:1"))
    with pytest.raises(WrongChainError):
        await check_chain(settings(local_chain, replace(contracts, chain_id=1), tmp_path))
    with pytest.raises(SettingsError, match=f"no contract stands at {NOBODY}"):
        await check_chain(settings(local_chain, replace(contracts, vault=NOBODY), tmp_path))
    with pytest.raises(SettingsError, match="FALLOW_CONTRACTS_FILE"):
        await check_chain(SettlementSettings(chain_rpc_url=local_chain.url))


async def test_a_take_that_makes_no_sense_fails() -> None:
    """Goal: the same refusal as serving's. Method: a take above the whole."""
    assert await check_money(SettlementSettings()) == "takes fallow, usdc"
    with pytest.raises(SettingsError, match="FALLOW_TAKE_BASIS_POINTS"):
        await check_money(SettlementSettings(take_basis_points={"usdc": 10_001}))
