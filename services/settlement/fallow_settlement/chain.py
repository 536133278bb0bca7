"""A client of an Ethereum JSON-RPC node: a few calls, each with a deadline, and nothing else.

No library stands between: the calls are few, and a cancelled one must leave the client whole (each request is one POST of
its own). Where several nodes are named, one that cannot be reached gives way to the next, and that one is asked from then
on. When none can be reached ``ChainUnavailableError`` is raised, which jobs wait out; a node that answers an error raises
``NodeError`` with its code and text, and nobody else is asked: what one node refuses, another may have done.
"""

import asyncio
import itertools
import json
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

CALL_SECONDS: Final = 10.0
"""The longest that one call may take."""
HTTP_OK: Final = 200

_ALREADY_THERE: Final = ("already known", "already imported", "known transaction", "nonce too low")
"""What nodes say to bytes that they have, or that are mined: neither is a failure of sending."""


class ChainUnavailableError(ConnectionError):
    """The node cannot be reached, or gave no answer in time; the same call may succeed later."""


class WrongChainError(Exception):
    """The node speaks for another chain than the contracts stand on."""


class NodeError(Exception):
    """The node answered with an error."""

    def __init__(self, method: str, code: int, message: str) -> None:
        """Keep the parts."""
        super().__init__(f"{method}: {code} {message}")
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Block:
    """A block's place in the chain."""

    number: int
    hash: str
    parent_hash: str
    base_fee: int


@dataclass(frozen=True, slots=True)
class TransactionReceipt:
    """What became of a transaction that is in a block."""

    block_number: int
    block_hash: str
    succeeded: bool
    contract_address: str


@dataclass(frozen=True, slots=True)
class Log:
    """One log of a contract."""

    index: int
    transaction_hash: str
    topics: tuple[str, ...]
    data: bytes


class JsonRpcNode:
    """Nodes of one chain. ``chain_id`` is the chain that each must speak for; checked before its first answer counts."""

    def __init__(self, urls: str, chain_id: int | None = None) -> None:
        """``urls`` are addresses with commas between them. Nothing is connected before the first call."""
        self._urls = [url.strip() for url in urls.split(",")]
        self._chain_id = chain_id
        self._current = 0
        self._checked: set[str] = set()
        self._session: aiohttp.ClientSession | None = None
        self._numbers = itertools.count(1)

    async def __aenter__(self) -> Self:
        """Use it as a context to have it closed."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        await self.close()

    async def close(self) -> None:
        """Let go of the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def chain_id(self) -> int:
        """The id of the chain."""
        return int(await self._call("eth_chainId"), 16)

    async def head(self) -> int:
        """The number of the newest block."""
        return int(await self._call("eth_blockNumber"), 16)

    async def block(self, number: int) -> Block | None:
        """The canonical block of a number, or None."""
        answer = await self._call("eth_getBlockByNumber", hex(number), False)
        if answer is None:
            return None
        return Block(
            number=int(answer["number"], 16),
            hash=answer["hash"],
            parent_hash=answer["parentHash"],
            base_fee=int(answer.get("baseFeePerGas") or "0x0", 16),
        )

    async def receipt(self, transaction_hash: str) -> TransactionReceipt | None:
        """What became of a transaction; None while it is in no block."""
        answer = await self._call("eth_getTransactionReceipt", transaction_hash)
        if answer is None:
            return None
        return TransactionReceipt(
            block_number=int(answer["blockNumber"], 16),
            block_hash=answer["blockHash"],
            succeeded=int(answer["status"], 16) == 1,
            contract_address=answer.get("contractAddress") or "",
        )

    async def transaction_count(self, address: str) -> int:
        """How many transactions of an address are mined: its next nonce."""
        return int(await self._call("eth_getTransactionCount", address, "latest"), 16)

    async def priority_fee(self) -> int:
        """The tip that the node suggests, in wei."""
        return int(await self._call("eth_maxPriorityFeePerGas"), 16)

    async def call(self, to: str, data: bytes, sender: str = "") -> bytes:
        """The answer of a contract, at the newest block; NodeError where it reverts."""
        request = {"to": to, "data": "0x" + data.hex()}
        if sender:
            request["from"] = sender
        return _bytes(await self._call("eth_call", request, "latest"))

    async def code(self, address: str) -> bytes:
        """The code at an address; empty where there is no contract."""
        return _bytes(await self._call("eth_getCode", address, "latest"))

    async def estimate_gas(self, sender: str, data: bytes) -> int:
        """The gas that a contract's creation takes."""
        return int(await self._call("eth_estimateGas", {"from": sender, "data": "0x" + data.hex()}), 16)

    async def send(self, raw: bytes) -> None:
        """Send signed bytes; fine where the node has them already. NodeError where it refuses them."""
        try:
            await self._call("eth_sendRawTransaction", "0x" + raw.hex())
        except NodeError as error:
            if not any(text in error.message.lower() for text in _ALREADY_THERE):
                raise

    async def logs(self, block_hash: str, address: str, topic: str) -> list[Log]:
        """Logs of a contract in one block, by its hash: a node that left that branch answers an error, not others."""
        answer = await self._call("eth_getLogs", {"blockHash": block_hash, "address": address, "topics": [topic]})
        return [
            Log(
                index=int(entry["logIndex"], 16),
                transaction_hash=entry["transactionHash"],
                topics=tuple(entry["topics"]),
                data=_bytes(entry["data"]),
            )
            for entry in answer
        ]

    async def _call(self, method: str, *parameters: object) -> Any:
        """One call, at the node that answered last or the next one that can be reached."""
        failure: ChainUnavailableError | None = None
        for _ in self._urls:
            url = self._urls[self._current]
            try:
                await self._check_chain(url)
                return await self._ask(url, method, *parameters)
            except ChainUnavailableError as error:
                failure = error
                self._current = (self._current + 1) % len(self._urls)
        assert failure is not None, "there is a node to ask"
        raise failure

    async def _check_chain(self, url: str) -> None:
        """Refuse a node of another chain, once."""
        if self._chain_id is None or url in self._checked:
            return
        found = int(await self._ask(url, "eth_chainId"), 16)
        if found != self._chain_id:
            raise WrongChainError(f"the node's chain is {found}, the contracts stand on {self._chain_id}")
        self._checked.add(url)

    async def _ask(self, url: str, method: str, *parameters: object) -> Any:
        """One call to one node."""
        if self._session is None:
            self._session = aiohttp.ClientSession()
        payload = {"jsonrpc": "2.0", "id": next(self._numbers), "method": method, "params": list(parameters)}
        try:
            async with (
                asyncio.timeout(CALL_SECONDS),
                self._session.post(url, json=payload) as response,
            ):
                if response.status != HTTP_OK:
                    raise ChainUnavailableError(f"{method}: HTTP {response.status}")
                answer = json.loads(await response.read())
                if not isinstance(answer, dict) or not ("result" in answer or "error" in answer):
                    raise ChainUnavailableError(f"{method}: the answer is no JSON-RPC")
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ChainUnavailableError(f"{method}: {type(error).__name__}") from error
        if "error" in answer:
            failure = answer["error"]
            raise NodeError(method, int(failure.get("code", 0)), str(failure.get("message", "")))
        return answer["result"]


def _bytes(text: str) -> bytes:
    """Bytes of 0x and hexadecimal digits."""
    return bytes.fromhex(text.removeprefix("0x"))
