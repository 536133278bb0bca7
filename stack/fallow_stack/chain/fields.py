"""Reading parameters of JSON-RPC and spelling results: quantities, data, hashes, addresses, block tags, call objects.

Each reader takes the parameter's index, which go-ethereum names in its errors.
"""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from fallow_stack.chain.errors import INVALID_PARAMS, RpcError, invalid_argument
from fallow_stack.chain.store import LogFilter

BlockTag = int | Literal["latest", "pending"]

_HEXADECIMAL: Final = frozenset(string.hexdigits)
_TAGS: Final = ("latest", "pending", "safe", "finalized", "earliest")
LOG_CHOICES_MAX: Final = 1000
TOPICS_MAX: Final = 4


def quantity(value: int) -> str:
    """Spell an integer: 0x and hexadecimal digits without leading zeros."""
    return hex(value)


def hexadecimal(data: bytes) -> str:
    """Spell bytes: 0x and two hexadecimal digits each."""
    return "0x" + data.hex()


def read_quantity(value: object, index: int) -> int:
    """Read an integer spelled as a quantity."""
    if not isinstance(value, str) or not value.startswith("0x"):
        raise invalid_argument(index, "hex string without 0x prefix")
    digits = value[2:]
    if not digits:
        raise invalid_argument(index, 'hex string "0x"')
    if not _HEXADECIMAL.issuperset(digits) or len(digits) > 64:
        raise invalid_argument(index, "invalid hex string")
    return int(digits, 16)


def read_data(value: object, index: int, *, size: int | None = None) -> bytes:
    """Read bytes; of a fixed size if one is given."""
    if not isinstance(value, str) or not value.startswith("0x"):
        raise invalid_argument(index, "hex string without 0x prefix")
    digits = value[2:]
    if len(digits) % 2:
        raise invalid_argument(index, "hex string of odd length")
    if not _HEXADECIMAL.issuperset(digits):
        raise invalid_argument(index, "invalid hex string")
    if size is not None and len(digits) != 2 * size:
        raise invalid_argument(index, f"hex string has length {len(digits)}, want {2 * size}")
    return bytes.fromhex(digits)


def parameter(params: Sequence[object], index: int) -> object:
    """Return a parameter that must be there."""
    if index >= len(params) or params[index] is None:
        raise RpcError(INVALID_PARAMS, f"missing value for required argument {index}")
    return params[index]


def optional_parameter(params: Sequence[object], index: int) -> object:
    """Return a parameter, or None."""
    return params[index] if index < len(params) else None


def read_flag(value: object, index: int) -> bool:
    """Read a boolean; None is false."""
    if value is None:
        return False
    if not isinstance(value, bool):
        raise invalid_argument(index, "must be a boolean")
    return value


def read_block(value: object, index: int) -> BlockTag:
    """Read a block tag or number; None is the latest block. Nothing is ever taken back here: safe is final is latest."""
    if value is None or value in {"safe", "finalized"}:
        return "latest"
    if value == "earliest":
        return 0
    if value == "latest":
        return "latest"
    if value == "pending":
        return "pending"
    if isinstance(value, dict) and "blockNumber" in value:
        return read_quantity(value["blockNumber"], index)
    if isinstance(value, str) and not value.startswith("0x"):
        raise invalid_argument(index, f"hex string without 0x prefix, or none of {', '.join(_TAGS)}")
    return read_quantity(value, index)


@dataclass(frozen=True, slots=True)
class CallRequest:
    """What eth_call and eth_estimateGas are asked to execute."""

    sender: bytes
    to: bytes
    gas: int | None
    value: int
    data: bytes


def read_call(value: object, index: int) -> CallRequest:
    """Read a call object; fees and nonce are taken as given and not charged, other members are ignored."""
    if not isinstance(value, dict):
        raise invalid_argument(index, "must be an object")
    data, given = value.get("data"), value.get("input")
    if data is not None and given is not None and data != given:
        raise invalid_argument(index, 'both "data" and "input" are set and not equal')
    payload = given if given is not None else data
    to = value.get("to")
    sender = value.get("from")
    gas = value.get("gas")
    amount = value.get("value")
    return CallRequest(
        sender=bytes(20) if sender is None else read_data(sender, index, size=20),
        to=b"" if to is None else read_data(to, index, size=20),
        gas=None if gas is None else read_quantity(gas, index),
        value=0 if amount is None else read_quantity(amount, index),
        data=b"" if payload is None else read_data(payload, index),
    )


@dataclass(frozen=True, slots=True)
class LogQuery:
    """A log filter as it was asked for: a range of tags, or one block by its hash."""

    first_block: BlockTag
    last_block: BlockTag
    block_hash: bytes | None
    addresses: tuple[str, ...] | None
    topics: tuple[tuple[str, ...] | None, ...]

    def between(self, first_block: int, last_block: int) -> LogFilter:
        """Return the filter over blocks that have been looked up."""
        return LogFilter(first_block, last_block, self.addresses, self.topics)


def read_log_query(value: object, index: int) -> LogQuery:
    """Read the filter object of eth_getLogs."""
    if not isinstance(value, dict):
        raise invalid_argument(index, "must be an object")
    block_hash = value.get("blockHash")
    if block_hash is not None and ("fromBlock" in value or "toBlock" in value):
        raise invalid_argument(index, "cannot specify both BlockHash and FromBlock/ToBlock, choose one or the other")
    topics = value.get("topics") or []
    if not isinstance(topics, list) or len(topics) > TOPICS_MAX:
        raise invalid_argument(index, "exceed max topics")
    return LogQuery(
        first_block=read_block(value.get("fromBlock"), index),
        last_block=read_block(value.get("toBlock"), index),
        block_hash=None if block_hash is None else read_data(block_hash, index, size=32),
        addresses=_choices(value.get("address"), index, 20),
        topics=tuple(_choices(topic, index, 32) for topic in topics),
    )


def _choices(value: object, index: int, size: int) -> tuple[str, ...] | None:
    """Read one value or a list of them as lower-case digits; nothing, or an empty list, allows any."""
    if value is None or value == []:
        return None
    values = value if isinstance(value, list) else [value]
    if len(values) > LOG_CHOICES_MAX:
        raise invalid_argument(index, f"more than {LOG_CHOICES_MAX} choices")
    if any(item is None for item in values):
        return None
    return tuple(hexadecimal(read_data(item, index, size=size)) for item in values)


def read_block_count(value: object, index: int) -> int:
    """Read how many blocks evm_mine shall mine: nothing for one, {"blocks": n}."""
    if value is None:
        return 1
    if not isinstance(value, Mapping) or set(value) - {"blocks"}:
        raise invalid_argument(index, 'must be {"blocks": number}')
    blocks = value.get("blocks", 1)
    if isinstance(blocks, str):
        blocks = read_quantity(blocks, index)
    if type(blocks) is not int or not 1 <= blocks <= 1000:
        raise invalid_argument(index, "blocks must be within 1 and 1000")
    return blocks
