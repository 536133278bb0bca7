"""The development chain: py-evm under Prague rules, one block for each transaction, kept in SQLite.

Every block is written in one SQLite transaction together with its logs; a transaction's hash is answered after that
commit, so what was answered survives a kill. Timestamps follow the clock and never go back; several blocks may share a
second, because a chain that adds a second a block runs ahead of the world under load. Calls on the latest block run as
the next block would, with the time of now, so that what a call foretells is what a transaction would meet.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from eth.abc import BlockAPI, BlockHeaderAPI, ComputationAPI, ReceiptAPI, SignedTransactionAPI, StateAPI
from eth.chains.base import MiningChain
from eth.constants import BLANK_ROOT_HASH, POST_MERGE_DIFFICULTY, POST_MERGE_MIX_HASH, POST_MERGE_NONCE
from eth.exceptions import HeaderNotFound, Revert, TransactionNotFound, VMError
from eth.vm.chain_context import ChainContext
from eth.vm.forks.prague import PragueVM
from eth.vm.spoof import SpoofTransaction
from eth_keys.datatypes import PrivateKey
from eth_typing import Address
from eth_utils.exceptions import ValidationError

from fallow_chassis.clock import Clock
from fallow_stack.chain import rules
from fallow_stack.chain.encode import log_rows
from fallow_stack.chain.errors import REVERTED, RpcError, refused
from fallow_stack.chain.fields import BlockTag, CallRequest, hexadecimal
from fallow_stack.chain.pool import Pool
from fallow_stack.chain.store import ChainStore, LogFilter, LogRow

GAS_LIMIT: Final = 30_000_000
DEVELOPMENT_BALANCE_WEI: Final = 1_000_000 * 10**18
NOBODY: Final = bytes(20)
ESTIMATE_TOLERANCE: Final = 64  # an estimate is at most one part in this above what is needed
ERROR_SELECTOR: Final = bytes.fromhex("08c379a0")  # Error(string)
PANIC_SELECTOR: Final = bytes.fromhex("4e487b71")  # Panic(uint256)


class ChainMismatchError(Exception):
    """The data directory holds another chain than the one asked for."""


class DevelopmentVM(PragueVM):
    """Prague, but blocks of one second may follow each other."""

    @classmethod
    def validate_header(cls, header: BlockHeaderAPI, parent_header: BlockHeaderAPI) -> None:
        """Check a header as Prague does, with a timestamp that may equal the parent's."""
        if header.timestamp == parent_header.timestamp:
            parent_header = parent_header.copy(timestamp=header.timestamp - 1)
        super().validate_header(header, parent_header)


class DevelopmentChain(MiningChain):
    """py-evm's chain with our one rule set; `of` gives it an id."""

    vm_configuration = ((0, DevelopmentVM),)  # type: ignore[assignment]

    @classmethod
    def of(cls, chain_id: int) -> type["DevelopmentChain"]:
        """Return the chain class with that id."""
        return type(cls.__name__, (cls,), {"chain_id": chain_id})


class Node:
    """A chain and its pool; synchronous, for one thread. Refusals are RpcError with go-ethereum's words."""

    def __init__(self, store: ChainStore, *, chain_id: int, clock: Clock) -> None:
        self.chain_id = chain_id
        self._store = store
        self._clock = clock
        self._pool: Pool[Any] = Pool()
        chain_class = DevelopmentChain.of(chain_id)
        if store.setting("chain_id") is None:
            self._make_genesis(chain_class)
        stored = store.setting("chain_id")
        if stored != str(chain_id):
            raise ChainMismatchError(f"the chain in this directory has id {stored}, not {chain_id}")
        self._chain = chain_class(store)

    def _make_genesis(self, chain_class: type[DevelopmentChain]) -> None:
        """Write block 0 with a fresh development key that owns all the money there is."""
        key = PrivateKey(os.urandom(32))
        parameters: dict[str, Any] = {
            "coinbase": NOBODY,
            "difficulty": POST_MERGE_DIFFICULTY,
            "extra_data": b"fallow development",
            "gas_limit": GAS_LIMIT,
            "mix_hash": POST_MERGE_MIX_HASH,
            "nonce": POST_MERGE_NONCE,
            "receipt_root": BLANK_ROOT_HASH,
            "timestamp": self._now(),
            "transaction_root": BLANK_ROOT_HASH,
        }
        account: Any = {"balance": DEVELOPMENT_BALANCE_WEI, "nonce": 0, "code": b"", "storage": {}}
        with self._store.transaction():
            chain_class.from_genesis(self._store, parameters, {Address(key.public_key.to_canonical_address()): account})
            self._store.make_setting("chain_id", str(self.chain_id))
            self._store.make_setting("development_key", hexadecimal(key.to_bytes()))

    # What stands

    @property
    def development_key(self) -> PrivateKey:
        """The key of the account that was given money at genesis."""
        stored = self._store.setting("development_key")
        assert stored is not None, "the key is made with the genesis block"
        return PrivateKey(bytes.fromhex(stored[2:]))

    @property
    def head(self) -> BlockHeaderAPI:
        """The header of the latest block."""
        return self._chain.get_canonical_head()

    @property
    def next_base_fee(self) -> int:
        """The base fee of the next block, in wei per gas."""
        return self._next_header().base_fee_per_gas or 0

    def number_of(self, tag: BlockTag) -> int:
        """Return the number of the block that a tag means; it may lie ahead of the head."""
        return self.head.block_number if tag in {"latest", "pending"} else int(tag)

    def block_by_number(self, number: int) -> BlockAPI | None:
        """Return a block, or None where there is none yet."""
        if number > self.head.block_number:
            return None
        return self._chain.get_canonical_block_by_number(number)  # type: ignore[arg-type]

    def block_by_hash(self, block_hash: bytes) -> BlockAPI | None:
        """Return a block, or None where there is none of that hash."""
        try:
            return self._chain.get_block_by_hash(block_hash)  # type: ignore[arg-type]
        except HeaderNotFound:
            return None

    def receipts(self, block: BlockAPI) -> tuple[ReceiptAPI, ...]:
        """Return the receipts of a block's transactions."""
        return block.get_receipts(self._chain.chaindb)

    def find_transaction(self, transaction_hash: bytes) -> tuple[BlockAPI, int] | None:
        """Return the block of a mined transaction and its place there."""
        try:
            number, index = self._chain.get_canonical_transaction_index(transaction_hash)  # type: ignore[arg-type]
        except TransactionNotFound:
            return None
        return self._chain.get_canonical_block_by_number(number), index

    def waiting(self, transaction_hash: bytes) -> SignedTransactionAPI | None:
        """Return a transaction that waits in the pool."""
        found: SignedTransactionAPI | None = self._pool.find(transaction_hash)
        return found

    def logs(self, wanted: LogFilter) -> list[LogRow]:
        """Return the logs that a filter lets through."""
        return self._store.find_logs(wanted)

    def state(self, tag: BlockTag) -> StateAPI:
        """Return the state after a block, to read from."""
        header = self._header(tag)
        return DevelopmentVM.build_state(self._store, header, ChainContext(self.chain_id))

    def next_nonce(self, account: bytes, tag: BlockTag) -> int:
        """Return an account's next nonce; "pending" counts what waits without a gap."""
        nonce = self.state(tag).get_nonce(account)  # type: ignore[arg-type]
        return self._pool.nonce_after(account, nonce) if tag == "pending" else nonce

    # What changes it

    def send(self, raw: bytes) -> bytes:
        """Take a signed transaction, mine it if its turn has come, and return its hash."""
        transaction: Any = rules.decode_transaction(raw, DevelopmentVM.get_transaction_builder())
        if self._pool.find(transaction.hash) is not None:
            raise refused("already known")
        rules.check_signer(transaction, self.chain_id)
        rules.check_gas(transaction, self.head.gas_limit)
        state = self.state("latest")
        rules.check_account(
            transaction, nonce=state.get_nonce(transaction.sender), balance=state.get_balance(transaction.sender)
        )
        self._pool.add(transaction)
        why = self._mine_ready().get(transaction.hash)
        if why is not None:
            raise refused(why)
        return bytes(transaction.hash)

    def mine(self, blocks: int = 1) -> None:
        """Mine empty blocks, and what waits for the base fee that they lower."""
        for _ in range(blocks):
            self._mine_block(())
            self._mine_ready()

    def _mine_ready(self) -> dict[bytes, str]:
        """Mine every waiting transaction whose turn has come, each in a block of its own.

        Return those that were let go instead, because their account can no longer pay, with the reason.
        """
        dropped: dict[bytes, str] = {}
        while (transaction := self._next_ready()) is not None:
            self._pool.remove(transaction)
            try:
                self._mine_block((transaction,))
            except ValidationError as error:
                # The account changed since it was let in: what it had was spent by an earlier one.
                dropped[transaction.hash] = f"insufficient funds for gas * price + value: {error}"
                continue
            sender = transaction.sender
            for stale in tuple(self._pool.stale(sender, transaction.nonce + 1)):
                self._pool.remove(stale)
        return dropped

    def _next_ready(self) -> SignedTransactionAPI | None:
        base_fee = self.next_base_fee
        state = self.state("latest")
        for sender in self._pool.senders():
            found: SignedTransactionAPI | None = self._pool.at(sender, state.get_nonce(sender))  # type: ignore[arg-type]
            if found is not None and found.max_fee_per_gas >= base_fee:
                return found
        return None

    def _mine_block(self, transactions: tuple[SignedTransactionAPI, ...]) -> None:
        self._chain.header = self._next_header().copy(mix_hash=os.urandom(32))
        with self._store.transaction():
            result, receipts, _ = self._chain.mine_all(transactions)
            self._store.add_logs(log_rows(result.imported_block, receipts))

    # What only asks

    def call(self, request: CallRequest, tag: BlockTag) -> bytes:
        """Execute without a trace and return the output; a revert is RpcError with the contract's reason."""
        gas = min(request.gas or GAS_LIMIT, GAS_LIMIT)
        with self._execution(request, tag) as execute:
            computation = execute(gas)
        raise_if_failed(computation)
        return computation.output

    def estimate_gas(self, request: CallRequest, tag: BlockTag) -> int:
        """Return a gas limit with which the call succeeds, little above the least."""
        highest = min(request.gas or GAS_LIMIT, GAS_LIMIT)
        with self._execution(request, tag) as execute:
            raise_if_failed(execute(highest))
            lowest = rules.TRANSFER_GAS
            if _enough(execute, lowest):
                highest = lowest
            while highest - lowest > max(lowest // ESTIMATE_TOLERANCE, 1):
                # Most calls need little: looking low first is quicker than halving the limit of a block.
                middle = min((lowest + highest) // 2, 2 * lowest)
                if _enough(execute, middle):
                    highest = middle
                else:
                    lowest = middle
        return max(highest, rules.floor_gas(request.data))

    @contextmanager
    def _execution(self, request: CallRequest, tag: BlockTag) -> Iterator[Callable[[int], ComputationAPI]]:
        """Yield a function that executes the request with a gas limit; nothing it does stays."""
        header = self._next_header() if tag in {"latest", "pending"} else self._header(tag)
        # Gas is not charged in a call, so that any sender may ask; value is, as everywhere.
        free = header.copy(base_fee_per_gas=0)
        parent = DevelopmentVM.get_prev_hashes(header.parent_hash, self._chain.chaindb)
        state = DevelopmentVM.build_state(self._store, free, ChainContext(self.chain_id), parent or ())
        sender: Any = request.sender
        nonce, balance = state.get_nonce(sender), state.get_balance(sender)
        if balance < request.value:
            raise rules.insufficient_funds(balance, request.value)

        def execute(gas: int) -> ComputationAPI:
            snapshot = state.snapshot()
            unsigned = DevelopmentVM.create_unsigned_transaction(
                nonce=nonce,
                gas_price=0,
                gas=gas,
                to=request.to,  # type: ignore[arg-type]
                value=request.value,
                data=request.data,
            )
            transaction: Any = SpoofTransaction(unsigned, from_=sender)
            if gas < transaction.intrinsic_gas:
                raise refused(f"intrinsic gas too low: gas {gas}, minimum needed {transaction.intrinsic_gas}")
            try:
                return state.apply_transaction(transaction)
            except ValidationError as error:
                raise refused(str(error)) from error
            finally:
                state.revert(snapshot)

        yield execute

    # Headers

    def _now(self) -> int:
        return int(self._clock.now().timestamp())

    def _next_header(self) -> BlockHeaderAPI:
        parent = self.head
        return self._chain.create_header_from_parent(
            parent,
            timestamp=max(self._now(), parent.timestamp),
            gas_limit=parent.gas_limit,
            coinbase=NOBODY,
        )

    def _header(self, tag: BlockTag) -> BlockHeaderAPI:
        if tag in {"latest", "pending"}:
            return self.head
        number = int(tag)
        if number > self.head.block_number:
            raise refused("header not found")
        return self._chain.get_canonical_block_header_by_number(number)  # type: ignore[arg-type]


def _enough(execute: Callable[[int], ComputationAPI], gas: int) -> bool:
    """Tell whether a call succeeds with that gas."""
    try:
        return not execute(gas).is_error
    except RpcError:
        return False


def raise_if_failed(computation: ComputationAPI) -> None:
    """Raise what go-ethereum answers where a call failed."""
    if not computation.is_error:
        return
    error = computation.error
    if isinstance(error, Revert):
        output = computation.output
        reason = revert_reason(output)
        raise RpcError(
            REVERTED, f"execution reverted: {reason}" if reason else "execution reverted", data=hexadecimal(output)
        )
    raise refused(_failure_words(error))


def _failure_words(error: VMError) -> str:
    words = {
        "OutOfGas": "out of gas",
        "InvalidInstruction": "invalid opcode",
        "InvalidJumpDestination": "invalid jump destination",
        "InsufficientStack": "stack underflow",
        "FullStack": "stack limit reached 1024",
        "InsufficientFunds": "insufficient balance for transfer",
        "StackDepthLimit": "max call depth exceeded",
        "ContractCreationCollision": "contract address collision",
        "WriteProtection": "write protection",
        "OutOfBoundsRead": "return data out of bounds",
    }
    return words.get(type(error).__name__, f"execution failed: {error}")


def revert_reason(output: bytes) -> str:
    """Return the text of Error(string) or Panic(uint256); nothing for other data."""
    if output[:4] == ERROR_SELECTOR and len(output) >= 68:
        length = int.from_bytes(output[36:68], "big")
        return output[68 : 68 + length].decode("utf-8", "replace") if length <= len(output) else ""
    if output[:4] == PANIC_SELECTOR and len(output) == 36:
        return f"panic code {hex(int.from_bytes(output[4:], 'big'))}"
    return ""
