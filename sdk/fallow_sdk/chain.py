"""The few calls to an EVM node that a client needs: pay into the vault, read what the anchor says.

JSON-RPC over HTTP with one connection pool; each call has a deadline. Nothing here is trusted for receipts: a root
that a node reports is only as good as the node (see `fallow receipt verify`).
"""

import asyncio
from typing import Any, Self

import aiohttp
from eth_abi.abi import decode, encode
from eth_utils.crypto import keccak

from fallow.settlement.v1 import settlement_service_pb2
from fallow_sdk.errors import ChainError
from fallow_sdk.wallet import Wallet

CALL_SECONDS = 10.0
RECEIPT_SECONDS = 60.0
RECEIPT_POLL_SECONDS = 0.2
# Room above the estimate: state may move between the estimate and the block.
GAS_MARGIN_PERCENT = 125
# Above any price of a development chain; the base fee decides what is really paid.
PRIORITY_FEE_WEI = 1_000_000_000


CLAIM_TYPES = "((uint256,bytes32,uint256,bytes32,bytes32,uint256,uint256,bytes32),(bytes32,address,uint256),bytes32[])"


def _claim_values(claim: settlement_service_pb2.Claim) -> tuple[object, ...]:
    """Header, leaf and proof as the vault takes them."""
    header = claim.header
    return (
        (
            header.batch_id,
            _word(header.parent_commitment),
            header.payout_parent,
            _word(header.settlement_root),
            _word(header.payout_root),
            header.charge_count,
            header.payout_total_micros,
            _word(header.totals_hash),
        ),
        (_word(claim.account_reference), claim.payee, claim.cumulative_micros),
        [_word(sibling) for sibling in claim.proof],
    )


def call_data(signature: str, *values: object) -> str:
    """Calldata of a function such as `deposit(uint256,bytes32)`."""
    return "0x" + (keccak(text=signature)[:4] + encode(_types(signature), values)).hex()


def _types(signature: str) -> list[str]:
    """The types of a function's arguments; a tuple is one."""
    types, depth = [""], 0
    for character in signature[signature.index("(") + 1 : -1]:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            types.append("")
        else:
            types[-1] += character
    return [item for item in types if item]


class ChainClient:
    """One EVM node. Use as `async with`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session: aiohttp.ClientSession | None = None
        self._identifier = 0

    async def __aenter__(self) -> Self:
        """Open the connection pool."""
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=CALL_SECONDS))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connection pool."""
        assert self._session is not None
        await self._session.close()

    async def rpc(self, method: str, *parameters: object) -> Any:  # JSON is whatever the node says
        """One JSON-RPC call. Raises ChainError with the node's own words."""
        assert self._session is not None, "use `async with ChainClient(...)`"
        self._identifier += 1
        body = {"jsonrpc": "2.0", "id": self._identifier, "method": method, "params": parameters}
        try:
            async with self._session.post(self._url, json=body) as response:
                answer = await response.json()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ChainError(f"{method}: the node at {self._url} does not answer ({error})") from error
        if "error" in answer:
            raise ChainError(f"{method}: {answer['error'].get('message', answer['error'])}")
        return answer["result"]

    async def read(self, address: str, signature: str, output: str, *values: object) -> Any:
        """The single value of type `output` that a view function returns."""
        data = call_data(signature, *values)
        result = await self.rpc("eth_call", {"to": address, "data": data}, "latest")
        return decode([output], bytes.fromhex(result[2:]))[0]

    async def send(self, wallet: Wallet, target: str, data: str = "0x", *, value_wei: int = 0) -> str:
        """Sign, send and await one transaction; its hash. Raises ChainError when it reverts or stays out."""
        sender = wallet.address
        request = {"from": sender, "to": target, "data": data, "value": hex(value_wei)}
        gas = int(await self.rpc("eth_estimateGas", request), 16) * GAS_MARGIN_PERCENT // 100
        block = await self.rpc("eth_getBlockByNumber", "latest", False)
        signed = wallet.account.sign_transaction(
            {
                "chainId": int(await self.rpc("eth_chainId"), 16),
                "nonce": int(await self.rpc("eth_getTransactionCount", sender, "pending"), 16),
                "to": bytes.fromhex(target[2:]),
                "data": bytes.fromhex(data[2:]),
                "value": value_wei,
                "gas": gas,
                "maxFeePerGas": 2 * int(block["baseFeePerGas"], 16) + PRIORITY_FEE_WEI,
                "maxPriorityFeePerGas": PRIORITY_FEE_WEI,
            }
        )
        transaction = str(await self.rpc("eth_sendRawTransaction", "0x" + signed.raw_transaction.hex()))
        await self._mined(transaction)
        return transaction

    async def _mined(self, transaction: str) -> None:
        try:
            async with asyncio.timeout(RECEIPT_SECONDS):
                while True:
                    receipt = await self.rpc("eth_getTransactionReceipt", transaction)
                    if receipt is not None:
                        break
                    await asyncio.sleep(RECEIPT_POLL_SECONDS)
        except TimeoutError:
            raise ChainError(f"transaction {transaction} was not mined within {RECEIPT_SECONDS:.0f} s") from None
        if int(receipt["status"], 16) != 1:
            raise ChainError(f"transaction {transaction} was reverted")

    async def deposit(self, wallet: Wallet, *, token: str, vault: str, account_reference: str, micros: int) -> str:
        """Pay tokens into the vault for an account; the hash of the deposit's transaction."""
        assert micros > 0
        allowance = "approve(address,uint256)"
        await self.send(wallet, token, call_data(allowance, vault, micros))
        reference = bytes.fromhex(account_reference.removeprefix("0x"))
        return await self.send(wallet, vault, call_data("deposit(uint256,bytes32)", micros, reference))

    async def claim(self, wallet: Wallet, claim: settlement_service_pb2.Claim) -> str:
        """Have the vault pay what a claim holds to its payee; the hash of the transaction, which any wallet may send."""
        return await self.send(wallet, claim.vault_address, call_data(f"claim{CLAIM_TYPES}", *_claim_values(claim)))

    async def escape(self, wallet: Wallet, claim: settlement_service_pb2.Claim) -> str:
        """Have the vault pay a balance, after winding it down where that has not happened; the hash of the last transaction.

        Raises ChainError while the operator is not silent for long enough.
        """
        if not await self.read(claim.vault_address, "escaped()", "uint256"):
            await self.send(wallet, claim.vault_address, call_data("escape()"))
        data = call_data(f"claim_balance{CLAIM_TYPES}", *_claim_values(claim))
        return await self.send(wallet, claim.vault_address, data)

    async def anchored_commitment(self, anchor: str, batch: int) -> str:
        """What the anchor on the chain holds for a batch: 0x and 64 digits; all zero when there is none."""
        value: bytes = await self.read(anchor, "commitments(uint256)", "bytes32", batch)
        return "0x" + value.hex()

    async def anchored_root(self, anchor: str, batch: int) -> str:
        """The settlement root that the anchor announced for a batch. Raises ChainError when it has none."""
        topics = [
            "0x" + keccak(text="Anchored(uint256,bytes32,bytes32,bytes32,uint256)").hex(),
            "0x" + batch.to_bytes(32, "big").hex(),
        ]
        query = {"address": anchor, "topics": topics, "fromBlock": "0x0", "toBlock": "latest"}
        logs = await self.rpc("eth_getLogs", query)
        if not logs:
            raise ChainError(f"the anchor {anchor} has no batch {batch}")
        return "0x" + str(logs[0]["data"])[2:66]


def _word(text: str) -> bytes:
    """The bytes of 0x and hexadecimal digits."""
    return bytes.fromhex(text.removeprefix("0x"))
