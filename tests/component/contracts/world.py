"""Contracts on an in-process development chain: deploy, call, send, read events, expect a revert."""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from eth_abi.abi import decode, encode
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address

from contracts.compile import compile_contract
from fallow_chassis.testing.time import ManualClock
from fallow_receipts import (
    Header,
    MerkleTree,
    Payout,
    balance_leaf,
    genesis_commitment,
    header_commitment,
    keccak,
    payout_leaf,
)
from fallow_stack.chain.encode import Json, encode_receipt
from fallow_stack.chain.errors import RpcError
from fallow_stack.chain.fields import CallRequest
from fallow_stack.chain.node import Node
from fallow_stack.chain.store import ChainStore

CHAIN_ID = 31337
CHALLENGE_SECONDS = 3_600
ESCAPE_SECONDS = 7 * 86_400
TOKENS = Path(__file__).parent / "tokens"


@functools.cache
def artifact(name: str) -> dict[str, Any]:
    """A contract's committed artifact, or that of a token which only these tests have."""
    source = TOKENS / f"{name}.vy"
    if source.exists():
        return compile_contract(source)
    path = resources.files("fallow_settlement") / "contracts" / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def type_of(part: dict[str, Any]) -> str:
    """The ABI type of an input or output, tuples spelled out."""
    kind: str = part["type"]
    if not kind.startswith("tuple"):
        return kind
    return "(" + ",".join(type_of(item) for item in part["components"]) + ")" + kind[5:]


@dataclass
class Contract:
    """A deployed contract; `call` asks, `send` makes a transaction that must succeed."""

    world: "World"
    address: str
    abi: list[dict[str, Any]]

    def data(self, name: str, *values: Any) -> bytes:
        """Calldata of a function."""
        entry = next(item for item in self.abi if item.get("name") == name and item["type"] == "function")
        types = [type_of(part) for part in entry["inputs"]]
        selector = keccak(f"{name}({','.join(types)})".encode())[:4]
        return selector + encode(types, values)

    def call(self, name: str, *values: Any, sender: LocalAccount | None = None) -> Any:
        entry = next(item for item in self.abi if item.get("name") == name and item["type"] == "function")
        output = self.world.node.call(
            CallRequest(
                sender=bytes(20) if sender is None else bytes.fromhex(sender.address[2:]),
                to=bytes.fromhex(self.address[2:]),
                gas=None,
                value=0,
                data=self.data(name, *values),
            ),
            "latest",
        )
        results = decode([type_of(part) for part in entry["outputs"]], output)
        return results[0] if len(results) == 1 else results

    def send(self, name: str, *values: Any, sender: LocalAccount) -> Json:
        receipt = self.world.transact(self.data(name, *values), to=self.address, sender=sender)
        assert receipt["status"] == "0x1", f"{name} was reverted"
        return receipt

    def expect_revert(self, reason: str, name: str, *values: Any, sender: LocalAccount) -> None:
        """The call names the reason, and a transaction is mined as failed, without a log."""
        with pytest.raises(RpcError) as caught:
            self.call(name, *values, sender=sender)
        assert caught.value.message == ("execution reverted: " + reason if reason else "execution reverted")
        receipt = self.world.transact(self.data(name, *values), to=self.address, sender=sender)
        assert (receipt["status"], receipt["logs"]) == ("0x0", [])

    def events(self, name: str, receipt: Json) -> list[dict[str, Any]]:
        """The events of that name which this contract logged in a transaction."""
        entry = next(item for item in self.abi if item.get("name") == name and item["type"] == "event")
        topic = "0x" + keccak(f"{name}({','.join(type_of(part) for part in entry['inputs'])})".encode()).hex()
        found = []
        for log in receipt["logs"]:
            if log["address"] != self.address or log["topics"][0] != topic:
                continue
            indexed = [part for part in entry["inputs"] if part["indexed"]]
            plain = [part for part in entry["inputs"] if not part["indexed"]]
            values = dict(
                zip(
                    [part["name"] for part in plain],
                    decode([type_of(part) for part in plain], bytes.fromhex(log["data"][2:])),
                    strict=True,
                )
            )
            for part, word in zip(indexed, log["topics"][1:], strict=True):
                values[part["name"]] = decode([type_of(part)], bytes.fromhex(word[2:]))[0]
            found.append(values)
        return found


@dataclass
class World:
    """A chain with a clock that is moved by hand and accounts that can pay."""

    store: ChainStore
    node: Node
    clock: ManualClock
    accounts: dict[str, LocalAccount] = field(default_factory=dict)

    @classmethod
    def make(cls, directory: Path) -> "World":
        clock = ManualClock()
        store = ChainStore(directory / "chain.sqlite")
        return cls(store, Node(store, chain_id=CHAIN_ID, clock=clock), clock)

    @property
    def bank(self) -> LocalAccount:
        account: LocalAccount = Account.from_key(self.node.development_key.to_bytes())
        return account

    def account(self, name: str) -> LocalAccount:
        """An account of that name, with ether for gas."""
        if name not in self.accounts:
            account: LocalAccount = Account.from_key(keccak(name.encode()))
            self.accounts[name] = account
            receipt = self.transact(b"", to=account.address, sender=self.bank, value=10**18)
            assert receipt["status"] == "0x1"
        return self.accounts[name]

    def transact(self, data: bytes, *, to: str | None, sender: LocalAccount, value: int = 0) -> Json:
        """The receipt of a transaction, failed or not."""
        transaction: dict[str, Any] = {
            "type": 2,
            "chainId": CHAIN_ID,
            "nonce": self.node.next_nonce(bytes.fromhex(sender.address[2:]), "latest"),
            "value": value,
            "data": data,
            "gas": 6_000_000,
            "maxFeePerGas": 10 * 10**9,
            "maxPriorityFeePerGas": 10**9,
        }
        if to is not None:
            transaction["to"] = to_checksum_address(to)
        raw = bytes(sender.sign_transaction(transaction).raw_transaction)
        found = self.node.find_transaction(self.node.send(raw))
        assert found is not None, "the transaction waits"
        block, index = found
        return encode_receipt(block, self.node.receipts(block), index)

    def deploy(self, name: str, *values: Any, sender: LocalAccount | None = None) -> Contract:
        made = artifact(name)
        inputs = [part for item in made["abi"] if item["type"] == "constructor" for part in item["inputs"]]
        arguments = encode([type_of(part) for part in inputs], values)
        receipt = self.transact(bytes.fromhex(made["bytecode"][2:]) + arguments, to=None, sender=sender or self.bank)
        assert receipt["status"] == "0x1", f"{name} was not deployed"
        return Contract(self, receipt["contractAddress"], made["abi"])


@dataclass
class House:
    """Token, anchor and vault as they are deployed together, and headers that follow each other."""

    world: World
    token: Contract
    anchor: Contract
    vault: Contract
    owner: LocalAccount
    anchorer: LocalAccount
    guardian: LocalAccount
    headers: list[Header] = field(default_factory=list)

    @classmethod
    def make(cls, world: World, *, token: str = "TestToken", daily_limit: int = 10**12) -> "House":
        owner, anchorer, guardian = (world.account(name) for name in ("owner", "anchorer", "guardian"))
        deployed = world.deploy(token)
        anchor = world.deploy("SettlementAnchor", owner.address, anchorer.address, guardian.address)
        vault = world.deploy(
            "EscrowVault",
            deployed.address,
            anchor.address,
            CHALLENGE_SECONDS,
            ESCAPE_SECONDS,
            daily_limit,
            owner.address,
            guardian.address,
        )
        return cls(world, deployed, anchor, vault, owner, anchorer, guardian)

    def next_header(
        self,
        *,
        settlement_root: bytes = b"\x01" * 32,
        payouts: MerkleTree | None = None,
        payout_total: int = 0,
        payout_parent: int | None = None,
    ) -> Header:
        number = len(self.headers) + 1
        parent = self.anchor.call("payout_parent") if payout_parent is None else payout_parent
        prev = (
            header_commitment(self.headers[-1])
            if self.headers
            else genesis_commitment(chain_id=CHAIN_ID, anchor=self.anchor.address)
        )
        return Header(
            batch_id=number,
            prev=prev,
            payout_parent=parent,
            settlement_root=settlement_root,
            payout_root=MerkleTree([]).root if payouts is None else payouts.root,
            count=3,
            payout_total=payout_total,
            totals_hash=keccak(b"totals"),
        )

    def append(self, header: Header) -> Json:
        """Anchor the next header and remember it."""
        receipt = self.anchor.send("anchor", header_values(header), sender=self.anchorer)
        self.headers.append(header)
        return receipt

    def settle(
        self,
        payouts: list[Payout],
        balances: Sequence[Payout] = (),
        *,
        payout_total: int | None = None,
        payout_parent: int | None = None,
    ) -> tuple[Header, MerkleTree]:
        """Anchor a header over cumulative payouts, and balances behind them."""
        tree = self.tree(payouts, balances)
        total = sum(payout.total_micros for payout in payouts) if payout_total is None else payout_total
        header = self.next_header(payouts=tree, payout_total=total, payout_parent=payout_parent)
        self.append(header)
        return header, tree

    def tree(self, payouts: list[Payout], balances: Sequence[Payout] = ()) -> MerkleTree:
        where: dict[str, Any] = {"chain_id": CHAIN_ID, "vault": self.vault.address}
        leaves = [payout_leaf(payout, **where) for payout in payouts]
        return MerkleTree([*leaves, *(balance_leaf(balance, **where) for balance in balances)])

    def fund(self, amount: int, account_ref: bytes = b"\x00" * 31 + b"\x09") -> Json:
        """Deposit for an account out of freshly minted tokens."""
        tenant = self.world.account("tenant")
        self.token.send("mint", tenant.address, amount, sender=tenant)
        if any(item.get("name") == "approve" for item in self.token.abi):
            self.token.send("approve", self.vault.address, amount, sender=tenant)
        return self.vault.send("deposit", amount, account_ref, sender=tenant)


def header_values(header: Header) -> tuple[Any, ...]:
    """A header as the ABI's tuple."""
    return (
        header.batch_id,
        header.prev,
        header.payout_parent,
        header.settlement_root,
        header.payout_root,
        header.count,
        header.payout_total,
        header.totals_hash,
    )
