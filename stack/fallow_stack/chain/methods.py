"""The table of JSON-RPC methods and what each answers."""

from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, Final

from eth.abc import BlockAPI

from fallow_stack.chain import encode
from fallow_stack.chain.errors import INVALID_PARAMS, LIMIT_EXCEEDED, RpcError, refused
from fallow_stack.chain.fields import (
    BlockTag,
    hexadecimal,
    optional_parameter,
    parameter,
    quantity,
    read_block,
    read_block_count,
    read_call,
    read_data,
    read_flag,
    read_log_query,
    read_quantity,
)
from fallow_stack.chain.node import Node
from fallow_stack.chain.store import LOGS_MAX

Params = Sequence[object]
Method = Callable[[Params], Any]

PRIORITY_FEE_WEI: Final = 10**9
FEE_HISTORY_BLOCKS_MAX: Final = 1024


class Methods:
    """The methods over one node; `table` maps their names."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.table: dict[str, Method] = {
            "web3_clientVersion": self._client_version,
            "net_version": lambda _: str(node.chain_id),
            "eth_chainId": lambda _: quantity(node.chain_id),
            "eth_syncing": lambda _: False,
            "eth_accounts": lambda _: [],
            "eth_blockNumber": lambda _: quantity(node.head.block_number),
            "eth_getBlockByNumber": self._block_by_number,
            "eth_getBlockByHash": self._block_by_hash,
            "eth_getBalance": self._balance,
            "eth_getTransactionCount": self._transaction_count,
            "eth_getCode": self._code,
            "eth_getStorageAt": self._storage,
            "eth_call": self._call,
            "eth_estimateGas": self._estimate_gas,
            "eth_gasPrice": lambda _: quantity(node.next_base_fee + PRIORITY_FEE_WEI),
            "eth_maxPriorityFeePerGas": lambda _: quantity(PRIORITY_FEE_WEI),
            "eth_feeHistory": self._fee_history,
            "eth_sendRawTransaction": lambda params: hexadecimal(node.send(read_data(parameter(params, 0), 0))),
            "eth_getTransactionByHash": self._transaction,
            "eth_getTransactionReceipt": self._receipt,
            "eth_getLogs": self._logs,
            "evm_mine": self._mine,
        }

    def _client_version(self, _: Params) -> str:
        return f"FallowDevelopmentChain/{version('fallow-stack')}/py-evm-{version('py-evm')}"

    def _block_by_number(self, params: Params) -> encode.Json | None:
        block = self._node.block_by_number(self._node.number_of(read_block(parameter(params, 0), 0)))
        return self._encoded_block(block, params)

    def _block_by_hash(self, params: Params) -> encode.Json | None:
        return self._encoded_block(self._node.block_by_hash(read_data(parameter(params, 0), 0, size=32)), params)

    def _encoded_block(self, block: BlockAPI | None, params: Params) -> encode.Json | None:
        full = read_flag(optional_parameter(params, 1), 1)
        return None if block is None else encode.encode_block(block, full=full)

    def _account(self, params: Params, tag_index: int = 1) -> tuple[Any, BlockTag]:
        address = read_data(parameter(params, 0), 0, size=20)
        return address, read_block(optional_parameter(params, tag_index), tag_index)

    def _balance(self, params: Params) -> str:
        address, tag = self._account(params)
        return quantity(self._node.state(tag).get_balance(address))

    def _transaction_count(self, params: Params) -> str:
        address, tag = self._account(params)
        return quantity(self._node.next_nonce(address, tag))

    def _code(self, params: Params) -> str:
        address, tag = self._account(params)
        return hexadecimal(self._node.state(tag).get_code(address))

    def _storage(self, params: Params) -> str:
        address, tag = self._account(params, tag_index=2)
        slot = read_quantity(parameter(params, 1), 1)
        return hexadecimal(self._node.state(tag).get_storage(address, slot).to_bytes(32, "big"))

    def _call(self, params: Params) -> str:
        request = read_call(parameter(params, 0), 0)
        return hexadecimal(self._node.call(request, read_block(optional_parameter(params, 1), 1)))

    def _estimate_gas(self, params: Params) -> str:
        request = read_call(parameter(params, 0), 0)
        return quantity(self._node.estimate_gas(request, read_block(optional_parameter(params, 1), 1)))

    def _fee_history(self, params: Params) -> encode.Json:
        wanted = parameter(params, 0)
        count = min(wanted if type(wanted) is int else read_quantity(wanted, 0), FEE_HISTORY_BLOCKS_MAX)
        newest = self._node.number_of(read_block(parameter(params, 1), 1))
        if newest > self._node.head.block_number:
            raise refused("request beyond head block")
        percentiles = _read_percentiles(optional_parameter(params, 2), 2)
        blocks = [
            block
            for number in range(max(newest - count + 1, 0), newest + 1)
            if (block := self._node.block_by_number(number)) is not None
        ]
        following = self._node.block_by_number(newest + 1)
        next_fee = self._node.next_base_fee if following is None else following.header.base_fee_per_gas or 0
        answer: encode.Json = {
            "oldestBlock": quantity(blocks[0].number if blocks else newest),
            "baseFeePerGas": [quantity(block.header.base_fee_per_gas or 0) for block in blocks] + [quantity(next_fee)],
            "gasUsedRatio": [block.header.gas_used / block.header.gas_limit for block in blocks],
        }
        if percentiles:
            answer["reward"] = [self._rewards(block, percentiles) for block in blocks]
        return answer

    def _rewards(self, block: BlockAPI, percentiles: Sequence[float]) -> list[str]:
        """Return the tips at percentiles of a block's gas, in wei; zeros for an empty block."""
        base_fee = block.header.base_fee_per_gas or 0
        rows = []
        before = 0
        for transaction, receipt in zip(block.transactions, self._node.receipts(block), strict=True):
            rows.append((encode.effective_gas_price(transaction, base_fee) - base_fee, receipt.gas_used - before))
            before = receipt.gas_used
        rows.sort()
        rewards = []
        for percentile in percentiles:
            threshold = block.header.gas_used * percentile / 100
            reached = 0
            tip = 0
            for tip, gas in rows:  # noqa: B007 - the tip at which the threshold is reached, or the highest
                reached += gas
                if reached >= threshold:
                    break
            rewards.append(quantity(tip))
        return rewards

    def _transaction(self, params: Params) -> encode.Json | None:
        transaction_hash = read_data(parameter(params, 0), 0, size=32)
        found = self._node.find_transaction(transaction_hash)
        if found is not None:
            block, index = found
            return encode.encode_transaction(block.transactions[index], block, index)
        waiting = self._node.waiting(transaction_hash)
        return None if waiting is None else encode.encode_transaction(waiting, None, None)

    def _receipt(self, params: Params) -> encode.Json | None:
        found = self._node.find_transaction(read_data(parameter(params, 0), 0, size=32))
        if found is None:
            return None
        block, index = found
        return encode.encode_receipt(block, self._node.receipts(block), index)

    def _logs(self, params: Params) -> list[encode.Json]:
        query = read_log_query(parameter(params, 0), 0)
        if query.block_hash is not None:
            block = self._node.block_by_hash(query.block_hash)
            if block is None:
                raise refused("unknown block")
            wanted = query.between(block.number, block.number)
        else:
            first, last = self._node.number_of(query.first_block), self._node.number_of(query.last_block)
            if first > last:
                raise RpcError(INVALID_PARAMS, "invalid block range params")
            wanted = query.between(first, last)
        rows = self._node.logs(wanted)
        if len(rows) > LOGS_MAX:
            raise RpcError(LIMIT_EXCEEDED, f"query returned more than {LOGS_MAX} results")
        return [encode.encode_log(row) for row in rows]

    def _mine(self, params: Params) -> str:
        self._node.mine(read_block_count(optional_parameter(params, 0), 0))
        return "0x0"


def _read_percentiles(value: object, index: int) -> list[float]:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > 100:
        raise RpcError(INVALID_PARAMS, f"invalid argument {index}: must be a list of percentiles")
    for item in value:
        if type(item) not in {int, float} or not 0 <= item <= 100:
            raise RpcError(INVALID_PARAMS, f"invalid argument {index}: invalid reward percentile")
    if value != sorted(value):
        raise RpcError(INVALID_PARAMS, f"invalid argument {index}: reward percentiles must rise")
    return [float(item) for item in value]
