"""Gives development wallets what they need on the local chain: ether for fees, and test USDC, which anybody may mint."""

import json
from pathlib import Path

from eth_account import Account

from fallow_sdk.chain import ChainClient, call_data
from fallow_sdk.wallet import Wallet

ETHER_WEI = 10**18
# Enough for tens of thousands of transactions at the local chain's base fee.
FEE_MONEY_WEI = 10 * ETHER_WEI


class Faucet:
    """The local chain's funded development account."""

    def __init__(self, chain: ChainClient, development_account: Path) -> None:
        self._chain = chain
        self._giver = Wallet(Account.from_key(json.loads(development_account.read_text("utf-8"))["private_key"]))

    async def give_fee_money(self, address: str) -> None:
        """Fill up an address that holds less than half of the usual fee money."""
        held = int(await self._chain.rpc("eth_getBalance", address, "latest"), 16)
        if held < FEE_MONEY_WEI // 2:
            await self._chain.send(self._giver, address, value_wei=FEE_MONEY_WEI)

    async def fill_tokens(self, token: str, address: str, micros: int) -> None:
        """Mint test tokens until an address holds at least `micros`."""
        held = int(await self._chain.read(token, "balanceOf(address)", "uint256", address))
        if held < micros:
            await self._chain.send(self._giver, token, call_data("mint(address,uint256)", address, micros - held))
