"""The contracts as settlement speaks to them: artifacts, calls, logs."""

import json
from dataclasses import dataclass
from importlib import resources
from typing import Final

from eth_abi.abi import decode, encode

from fallow_receipts import Header, ReceiptError, id_from_word, id_to_word, keccak
from fallow_settlement.chain import Log

HEADER_TYPE: Final = "(uint256,bytes32,uint256,bytes32,bytes32,uint256,uint256,bytes32)"
DEPOSITED_TOPIC: Final = "0x" + keccak(b"Deposited(bytes32,address,uint256,uint256)").hex()
CLAIMED_TOPIC: Final = "0x" + keccak(b"Claimed(bytes32,address,uint256,uint256,uint256)").hex()
VETOED_TOPIC: Final = "0x" + keccak(b"Vetoed(uint256,uint256,uint256)").hex()


@dataclass(frozen=True, slots=True)
class Deposited:
    """What a log of the vault says; ``account_id`` is empty where the reference is no account's."""

    account_id: str
    sender: str
    amount: int


@dataclass(frozen=True, slots=True)
class Vetoed:
    """What a log of the anchor says of a veto: batches from the first to before ``next_batch`` count no more."""

    batch_number: int
    next_batch: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a log of the vault says of a payment; ``account_id`` is empty where the leaf was of no account's."""

    account_id: str
    payee: str
    amount: int
    total: int


def creation_code(contract: str, types: tuple[str, ...], arguments: tuple[object, ...]) -> bytes:
    """The init code of a contract with its constructor's arguments."""
    text = (resources.files("fallow_settlement") / "contracts" / f"{contract}.json").read_text("utf-8")
    artifact = json.loads(text)
    return bytes.fromhex(artifact["bytecode"].removeprefix("0x")) + bytes(encode(types, arguments))


def _selector(signature: str) -> bytes:
    """The first four bytes that name a method."""
    return keccak(signature.encode("ascii"))[:4]


def anchor_call(header: Header) -> bytes:
    """Calldata of SettlementAnchor.anchor; the contract answers False where the very header stands already."""
    return _selector(f"anchor({HEADER_TYPE})") + header.words()


def next_batch_call() -> bytes:
    """Calldata of SettlementAnchor.next_batch."""
    return _selector("next_batch()")


def commitment_call(batch_number: int) -> bytes:
    """Calldata of SettlementAnchor.commitments."""
    return _selector("commitments(uint256)") + bytes(encode(("uint256",), (batch_number,)))


def anchored_at_call(batch_number: int) -> bytes:
    """Calldata of SettlementAnchor.anchored_at."""
    return _selector("anchored_at(uint256)") + bytes(encode(("uint256",), (batch_number,)))


def claimed_call(account: str) -> bytes:
    """Calldata of EscrowVault.claimed."""
    return _selector("claimed(bytes32)") + id_to_word(account)


def challenge_seconds_call() -> bytes:
    """Calldata of EscrowVault.challenge_seconds."""
    return _selector("challenge_seconds()")


def escape_seconds_call() -> bytes:
    """Calldata of EscrowVault.escape_seconds."""
    return _selector("escape_seconds()")


def last_payable_at_call() -> bytes:
    """Calldata of SettlementAnchor.last_payable_at."""
    return _selector("last_payable_at()")


def read_claimed(log: Log) -> Claimed:
    """Read a Claimed log of the vault; its account may be anything, because a stolen key makes roots that pay too."""
    assert log.topics[0] == CLAIMED_TOPIC, "only such logs were asked for"
    amount, total, _batch = decode(("uint256", "uint256", "uint256"), log.data)
    return Claimed(_account_of(log.topics[1]), "0x" + log.topics[2][-40:], int(amount), int(total))


def read_vetoed(log: Log) -> Vetoed:
    """Read a Vetoed log of the anchor."""
    assert log.topics[0] == VETOED_TOPIC, "only such logs were asked for"
    next_batch, _parent = decode(("uint256", "uint256"), log.data)
    return Vetoed(int(log.topics[1], 16), int(next_batch))


def read_deposited(log: Log) -> Deposited:
    """Read a Deposited log of the vault."""
    assert log.topics[0] == DEPOSITED_TOPIC, "only such logs were asked for"
    amount, _total = decode(("uint256", "uint256"), log.data)
    return Deposited(_account_of(log.topics[1]), "0x" + log.topics[2][-40:], int(amount))


def _account_of(topic: str) -> str:
    """The account that a word names; empty where it names none."""
    try:
        return id_from_word(bytes.fromhex(topic.removeprefix("0x")))
    except ReceiptError:
        return ""
