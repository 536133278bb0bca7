"""Blocks, transactions, receipts and logs as the JSON objects of the Ethereum JSON-RPC specification."""

from typing import Any

import rlp
from eth.abc import BlockAPI, ReceiptAPI, SignedTransactionAPI
from eth.constants import BLANK_ROOT_HASH
from sha3 import keccak_256

from fallow_stack.chain.fields import hexadecimal, quantity
from fallow_stack.chain.store import LogRow

Json = dict[str, Any]


def contract_address(sender: bytes, nonce: int) -> bytes:
    """Return the address of the contract that a sender's transaction creates."""
    return bytes(keccak_256(rlp.encode([sender, nonce])).digest()[12:])


def effective_gas_price(transaction: SignedTransactionAPI, base_fee: int) -> int:
    """Return what a transaction pays per gas in a block of that base fee, in wei."""
    return min(transaction.max_fee_per_gas, base_fee + transaction.max_priority_fee_per_gas)


def encode_block(block: BlockAPI, *, full: bool) -> Json:
    """Return a block with its transactions, or with their hashes only."""
    header = block.header
    transactions: list[Any] = [
        encode_transaction(transaction, block, index) if full else hexadecimal(transaction.hash)
        for index, transaction in enumerate(block.transactions)
    ]
    return {
        "number": quantity(header.block_number),
        "hash": hexadecimal(header.hash),
        "parentHash": hexadecimal(header.parent_hash),
        "nonce": hexadecimal(header.nonce),
        "mixHash": hexadecimal(header.mix_hash),
        "sha3Uncles": hexadecimal(header.uncles_hash),
        "logsBloom": hexadecimal(header.bloom.to_bytes(256, "big")),
        "transactionsRoot": hexadecimal(header.transaction_root),
        "stateRoot": hexadecimal(header.state_root),
        "receiptsRoot": hexadecimal(header.receipt_root),
        "withdrawalsRoot": hexadecimal(header.withdrawals_root or BLANK_ROOT_HASH),
        "parentBeaconBlockRoot": hexadecimal(header.parent_beacon_block_root or BLANK_ROOT_HASH),
        "requestsHash": hexadecimal(header.requests_hash),  # type: ignore[attr-defined]
        "miner": hexadecimal(header.coinbase),
        "difficulty": quantity(header.difficulty),
        "extraData": hexadecimal(header.extra_data),
        "size": quantity(len(rlp.encode(block))),
        "gasLimit": quantity(header.gas_limit),
        "gasUsed": quantity(header.gas_used),
        "blobGasUsed": quantity(header.blob_gas_used),
        "excessBlobGas": quantity(header.excess_blob_gas),
        "baseFeePerGas": quantity(header.base_fee_per_gas or 0),
        "timestamp": quantity(header.timestamp),
        "transactions": transactions,
        "uncles": [],
        "withdrawals": [],
    }


def encode_transaction(transaction: SignedTransactionAPI, block: BlockAPI | None, index: int | None) -> Json:
    """Return a transaction; without a block it is one that waits."""
    kind = transaction.type_id or 0
    header = None if block is None else block.header
    plain: Json = {
        "type": quantity(kind),
        "hash": hexadecimal(transaction.hash),
        "nonce": quantity(transaction.nonce),
        "blockHash": None if header is None else hexadecimal(header.hash),
        "blockNumber": None if header is None else quantity(header.block_number),
        "transactionIndex": None if index is None else quantity(index),
        "from": hexadecimal(transaction.sender),
        "to": hexadecimal(transaction.to) if transaction.to else None,
        "value": quantity(transaction.value),
        "gas": quantity(transaction.gas),
        "input": hexadecimal(transaction.data),
        "r": quantity(transaction.r),
        "s": quantity(transaction.s),
    }
    if transaction.chain_id is not None:
        plain["chainId"] = quantity(transaction.chain_id)
    if kind == 0:
        plain["v"] = quantity(transaction.v)  # type: ignore[attr-defined]
        plain["gasPrice"] = quantity(transaction.gas_price)
        return plain
    plain["v"] = plain["yParity"] = quantity(transaction.y_parity)
    plain["accessList"] = [
        {"address": hexadecimal(account), "storageKeys": [hexadecimal(slot.to_bytes(32, "big")) for slot in slots]}
        for account, slots in transaction.access_list
    ]
    if kind == 1:
        plain["gasPrice"] = quantity(transaction.gas_price)
        return plain
    paid = (
        transaction.max_fee_per_gas
        if header is None
        else effective_gas_price(transaction, header.base_fee_per_gas or 0)
    )
    plain["gasPrice"] = quantity(paid)
    plain["maxFeePerGas"] = quantity(transaction.max_fee_per_gas)
    plain["maxPriorityFeePerGas"] = quantity(transaction.max_priority_fee_per_gas)
    return plain


def log_rows(block: BlockAPI, receipts: tuple[ReceiptAPI, ...]) -> list[LogRow]:
    """Return the logs of a block, numbered through the block."""
    rows: list[LogRow] = []
    for index, (transaction, receipt) in enumerate(zip(block.transactions, receipts, strict=True)):
        first = len(rows)
        rows.extend(
            LogRow(
                block_number=block.number,
                log_index=first + position,
                block_hash=hexadecimal(block.hash),
                transaction_hash=hexadecimal(transaction.hash),
                transaction_index=index,
                address=hexadecimal(log.address),
                topics=tuple(hexadecimal(topic.to_bytes(32, "big")) for topic in log.topics),
                data=hexadecimal(log.data),
            )
            for position, log in enumerate(receipt.logs)
        )
    return rows


def encode_log(row: LogRow) -> Json:
    """Return a log."""
    return {
        "address": row.address,
        "topics": list(row.topics),
        "data": row.data,
        "blockNumber": quantity(row.block_number),
        "blockHash": row.block_hash,
        "transactionHash": row.transaction_hash,
        "transactionIndex": quantity(row.transaction_index),
        "logIndex": quantity(row.log_index),
        "removed": False,
    }


def encode_receipt(block: BlockAPI, receipts: tuple[ReceiptAPI, ...], index: int) -> Json:
    """Return the receipt of the transaction at `index` of a block."""
    transaction, receipt = block.transactions[index], receipts[index]
    before = receipts[index - 1].gas_used if index else 0
    transaction_hash = hexadecimal(transaction.hash)
    creates = not transaction.to
    return {
        "type": quantity(transaction.type_id or 0),
        "status": quantity(1 if receipt.state_root == b"\x01" else 0),
        "transactionHash": transaction_hash,
        "transactionIndex": quantity(index),
        "blockHash": hexadecimal(block.hash),
        "blockNumber": quantity(block.number),
        "from": hexadecimal(transaction.sender),
        "to": None if creates else hexadecimal(transaction.to),
        "contractAddress": (hexadecimal(contract_address(transaction.sender, transaction.nonce)) if creates else None),
        "cumulativeGasUsed": quantity(receipt.gas_used),
        "gasUsed": quantity(receipt.gas_used - before),
        "effectiveGasPrice": quantity(effective_gas_price(transaction, block.header.base_fee_per_gas or 0)),
        "logs": [encode_log(row) for row in log_rows(block, receipts) if row.transaction_index == index],
        "logsBloom": hexadecimal(receipt.bloom.to_bytes(256, "big")),
    }
