"""What makes a signed transaction acceptable before it is executed, in go-ethereum's order and words.

py-evm checks less than a node's pool does (it takes a typed transaction for another chain), so these checks come first.
"""

from typing import Final

import rlp
from eth.abc import SignedTransactionAPI, TransactionBuilderAPI
from eth_keys.exceptions import BadSignature
from eth_utils.exceptions import ValidationError

from fallow_stack.chain.errors import RpcError, refused

TRANSACTION_BYTES_MAX: Final = 128 * 1024
INITCODE_BYTES_MAX: Final = 49_152
TYPES: Final = (0, 1, 2)
SECP256K1_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
TRANSFER_GAS: Final = 21_000
FLOOR_GAS_PER_TOKEN: Final = 10
LEGACY_FIRST_BYTE: Final = 0xC0


def decode_transaction(raw: bytes, builder: type[TransactionBuilderAPI]) -> SignedTransactionAPI:
    """Read a transaction from its bytes; refuse what is no transaction or of a type that is not supported."""
    if not raw:
        raise refused("typed transaction too short")
    if len(raw) > TRANSACTION_BYTES_MAX:
        raise refused(f"oversized data: transaction size {len(raw)}, limit {TRANSACTION_BYTES_MAX}")
    if raw[0] < LEGACY_FIRST_BYTE and raw[0] not in TYPES[1:]:
        raise refused("transaction type not supported")
    try:
        return builder.decode(raw)
    except (rlp.RLPException, ValidationError, TypeError, ValueError) as error:
        raise refused(f"rlp: {error}") from error


def check_signer(transaction: SignedTransactionAPI, chain_id: int) -> None:
    """Refuse a transaction for another chain, for any chain, or without a valid signature."""
    if transaction.chain_id is None:
        raise refused("only replay-protected (EIP-155) transactions allowed over RPC")
    if transaction.chain_id != chain_id:
        raise refused(f"invalid chain id for signer: have {transaction.chain_id} want {chain_id}")
    if not 0 < transaction.s <= SECP256K1_ORDER // 2:
        raise refused("invalid sender: invalid transaction v, r, s values")
    try:
        transaction.check_signature_validity()
        assert len(transaction.sender) == 20
    except (ValidationError, BadSignature, ValueError) as error:
        raise refused("invalid sender: invalid transaction v, r, s values") from error


def check_gas(transaction: SignedTransactionAPI, gas_limit: int) -> None:
    """Refuse a transaction whose gas or fees make no sense."""
    if not transaction.to and len(transaction.data) > INITCODE_BYTES_MAX:
        raise refused(f"max initcode size exceeded: code size {len(transaction.data)}, limit {INITCODE_BYTES_MAX}")
    if transaction.gas > gas_limit:
        raise refused("exceeds block gas limit")
    if transaction.max_fee_per_gas < transaction.max_priority_fee_per_gas:
        raise refused(
            "max priority fee per gas higher than max fee per gas: "
            f"maxPriorityFeePerGas: {transaction.max_priority_fee_per_gas}, maxFeePerGas: {transaction.max_fee_per_gas}"
        )
    if transaction.gas < transaction.intrinsic_gas:
        raise refused(f"intrinsic gas too low: gas {transaction.gas}, minimum needed {transaction.intrinsic_gas}")
    floor = floor_gas(transaction.data)
    if transaction.gas < floor:
        raise refused(f"insufficient gas for floor data gas cost: gas {transaction.gas}, minimum needed {floor}")


def check_account(transaction: SignedTransactionAPI, *, nonce: int, balance: int) -> None:
    """Refuse a transaction whose nonce is used or whose sender cannot pay what it may cost."""
    if transaction.nonce < nonce:
        raise refused(f"nonce too low: next nonce {nonce}, tx nonce {transaction.nonce}")
    cost = transaction.gas * transaction.max_fee_per_gas + transaction.value
    if cost > balance:
        raise insufficient_funds(balance, cost)


def insufficient_funds(balance: int, cost: int) -> RpcError:
    """Return the refusal of a transaction that its sender cannot pay."""
    return refused(
        f"insufficient funds for gas * price + value: balance {balance}, tx cost {cost}, overshot {cost - balance}"
    )


def floor_gas(data: bytes) -> int:
    """Return the least gas that a transaction's data costs (EIP-7623)."""
    zeros = data.count(0)
    return TRANSFER_GAS + FLOOR_GAS_PER_TOKEN * (zeros + 4 * (len(data) - zeros))
