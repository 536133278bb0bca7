"""The JSON-RPC door over real HTTP: framing, lookups, execution, refusals in go-ethereum's words."""

import dataclasses
import json
import time
from importlib import resources
from typing import Any

import pytest
from eth_abi.abi import encode
from eth_account import Account
from eth_account.signers.local import LocalAccount

from fallow_receipts import keccak
from tests.component.chain.process import ChainProcess, RemoteError, signed

NOBODY = "0x" + "11" * 20


def refusal(chain: ChainProcess, method: str, *params: Any) -> RemoteError:
    """The error that a call is answered with."""
    with pytest.raises(RemoteError) as caught:
        chain.client.rpc(method, *params)
    return caught.value


def next_nonce(chain: ChainProcess, account: LocalAccount | None = None) -> int:
    return chain.client.number("eth_getTransactionCount", (account or chain.bank).address, "latest")


def send(chain: ChainProcess, account: LocalAccount | None = None, **changes: Any) -> dict[str, Any]:
    """Send a transaction that is mined at once and return its receipt."""
    sender = account or chain.bank
    transaction_hash = chain.client.rpc("eth_sendRawTransaction", signed(sender, next_nonce(chain, sender), **changes))
    receipt: dict[str, Any] = chain.client.rpc("eth_getTransactionReceipt", transaction_hash)
    assert receipt["transactionHash"] == transaction_hash
    return receipt


@dataclasses.dataclass
class Token:
    """A deployed test token."""

    address: str

    @staticmethod
    def data(name: str, types: str, *values: Any) -> str:
        selector = keccak(f"{name}({types})".encode())[:4]
        return "0x" + (selector + encode(types.split(",") if types else [], values)).hex()


@pytest.fixture(scope="module")
def token(chain: ChainProcess) -> Token:
    """A test token on the shared chain."""
    path = resources.files("fallow_settlement") / "contracts" / "TestToken.json"
    bytecode = json.loads(path.read_text())["bytecode"]
    receipt = send(chain, to=None, value=0, gas=2_000_000, data=bytecode)
    assert receipt["status"] == "0x1"
    return Token(receipt["contractAddress"])


class TestFraming:
    """What goes over the wire."""

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            (b"{", -32700),
            (b"\xff", -32700),
            (b"[]", -32600),
            (b"7", -32600),
            (b'{"id": 1, "method": "eth_chainId"}', -32600),
            (b'{"jsonrpc": "2.0", "id": 1, "method": 7}', -32600),
            (b'{"jsonrpc": "2.0", "id": {}, "method": "eth_chainId"}', -32600),
            (b'{"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": {}}', -32600),
            (b'{"jsonrpc": "2.0", "id": 1, "method": "eth_nothing"}', -32601),
            (b'{"jsonrpc": "2.0", "id": 1, "method": "eth_getBalance"}', -32602),
            (b'{"jsonrpc": "2.0", "id": 1, "method": "eth_getBalance", "params": ["0x12"]}', -32602),
            (b'{"jsonrpc": "2.0", "id": 1, "method": "eth_getBlockByNumber", "params": ["1", true]}', -32602),
            (b'{"jsonrpc": "2.0", "id": 1, "method": "eth_call", "params": ["x"]}', -32602),
            (b'{"jsonrpc": "2.0", "id": 1, "method": "eth_getLogs", "params": [{"topics": "x"}]}', -32602),
            (b'{"jsonrpc": "2.0", "id": 1, "method": "evm_mine", "params": [{"blocks": 0}]}', -32602),
        ],
    )
    def test_bad_requests_have_their_codes(self, chain: ChainProcess, body: bytes, code: int) -> None:
        """Goal: a client's mistake is named, never a lost answer. Method: one of each kind."""
        status, answer = chain.client.post(body)
        assert status == 200
        assert answer["error"]["code"] == code
        assert "result" not in answer

    def test_a_batch_is_answered_in_order(self, chain: ChainProcess) -> None:
        """Goal: one request, many calls. Method: good, bad and silent ones together."""
        calls = [
            {"jsonrpc": "2.0", "id": "a", "method": "eth_chainId"},
            {"jsonrpc": "2.0", "method": "eth_chainId"},
            {"jsonrpc": "2.0", "id": 2, "method": "eth_nothing"},
            {"jsonrpc": "2.0", "id": 3, "method": "net_version", "params": []},
        ]
        status, answers = chain.client.post(json.dumps(calls).encode())
        assert status == 200
        assert [answer["id"] for answer in answers] == ["a", 2, 3]
        assert answers[0]["result"] == "0x7a69"
        assert answers[1]["error"]["message"] == "the method eth_nothing does not exist/is not available"
        assert answers[2]["result"] == "31337"

    def test_a_notification_is_not_answered(self, chain: ChainProcess) -> None:
        """Goal: no id, no answer. Method: alone, and a batch of them."""
        call = {"jsonrpc": "2.0", "method": "eth_chainId"}
        assert chain.client.post(json.dumps(call).encode()) == (204, None)
        assert chain.client.post(json.dumps([call, call]).encode()) == (204, None)

    def test_too_large_a_batch_is_refused(self, chain: ChainProcess) -> None:
        """Goal: work per request is bounded. Method: one call too many."""
        call = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"}
        _, answer = chain.client.post(json.dumps([call] * 1001).encode())
        assert (answer["error"]["code"], answer["error"]["message"]) == (-32600, "batch too large")


class TestChain:
    """Blocks, transactions, receipts."""

    def test_who_it_is(self, chain: ChainProcess) -> None:
        """Goal: clients know what they talk to. Method: the simple questions."""
        client = chain.client
        assert client.rpc("web3_clientVersion").startswith("FallowDevelopmentChain/")
        assert client.rpc("eth_chainId") == "0x7a69"
        assert client.rpc("eth_syncing") is False
        assert client.rpc("eth_accounts") == []
        assert client.number("eth_gasPrice") > client.number("eth_maxPriorityFeePerGas") > 0

    def test_the_development_account_is_marked_and_private(self, chain: ChainProcess) -> None:
        """Goal: nobody takes that key for a real one. Method: what its file says and who may read it."""
        path = chain.directory / "development-account.json"
        assert "development only" in json.loads(path.read_text())["purpose"]
        assert path.stat().st_mode & 0o777 == 0o600
        assert chain.client.number("eth_getBalance", chain.bank.address, "earliest") == 10**24

    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"type": 1, "maxFeePerGas": None, "maxPriorityFeePerGas": None, "gasPrice": 5 * 10**9, "accessList": []},
            {"type": None, "maxFeePerGas": None, "maxPriorityFeePerGas": None, "gasPrice": 5 * 10**9},
        ],
        ids=["dynamic", "access-list", "legacy"],
    )
    def test_a_transfer_is_mined_at_once(self, chain: ChainProcess, changes: dict[str, Any]) -> None:
        """Goal: a transaction is a block. Method: one of each type, looked up in every way."""
        client = chain.client
        before, had = client.number("eth_blockNumber"), client.number("eth_getBalance", NOBODY, "latest")
        receipt = send(chain, value=77, **changes)
        assert int(receipt["blockNumber"], 16) == client.number("eth_blockNumber") == before + 1
        assert (receipt["status"], receipt["gasUsed"], receipt["logs"]) == ("0x1", "0x5208", [])
        assert client.number("eth_getBalance", NOBODY, "latest") == had + 77
        assert client.number("eth_getBalance", NOBODY, hex(before)) == had
        transaction = client.rpc("eth_getTransactionByHash", receipt["transactionHash"])
        assert transaction["from"] == receipt["from"] == chain.bank.address.lower()
        assert transaction["type"] == receipt["type"] == hex(changes.get("type", 2) or 0)
        assert transaction["value"] == hex(77)
        assert transaction["chainId"] == "0x7a69"
        block = client.rpc("eth_getBlockByNumber", receipt["blockNumber"], True)
        assert block["transactions"] == [transaction]
        assert block["hash"] == receipt["blockHash"]
        assert client.rpc("eth_getBlockByHash", block["hash"], False)["transactions"] == [transaction["hash"]]
        parent = client.rpc("eth_getBlockByNumber", hex(before), False)
        assert block["parentHash"] == parent["hash"]
        paid = min(int(transaction.get("maxFeePerGas", "0x12a05f200"), 16), int(receipt["effectiveGasPrice"], 16))
        assert int(receipt["effectiveGasPrice"], 16) == paid >= int(block["baseFeePerGas"], 16)

    def test_what_is_not_there_is_null(self, chain: ChainProcess) -> None:
        """Goal: not found is an answer. Method: hashes and numbers that do not exist."""
        client = chain.client
        nothing = "0x" + "ab" * 32
        assert client.rpc("eth_getTransactionReceipt", nothing) is None
        assert client.rpc("eth_getTransactionByHash", nothing) is None
        assert client.rpc("eth_getBlockByHash", nothing, False) is None
        assert client.rpc("eth_getBlockByNumber", "0xffffff", False) is None
        assert refusal(chain, "eth_getBalance", NOBODY, "0xffffff").message == "header not found"

    def test_time_is_the_worlds(self, chain: ChainProcess) -> None:
        """Goal: block times follow the real clock, also under load. Method: thirty blocks, then compare with now."""
        for _ in range(30):
            send(chain)
        block = chain.client.rpc("eth_getBlockByNumber", "latest", False)
        assert abs(int(block["timestamp"], 16) - time.time()) < 3

    def test_mining_by_hand(self, chain: ChainProcess) -> None:
        """Goal: confirmations can be made. Method: one block, then five."""
        before = chain.client.number("eth_blockNumber")
        chain.client.rpc("evm_mine")
        chain.client.rpc("evm_mine", {"blocks": 5})
        assert chain.client.number("eth_blockNumber") == before + 6
        assert chain.client.rpc("eth_getBlockByNumber", "latest", True)["transactions"] == []

    def test_fee_history(self, chain: ChainProcess) -> None:
        """Goal: clients can price a transaction. Method: two blocks, the second with a tip of two gwei."""
        chain.client.rpc("evm_mine")
        receipt = send(chain, maxPriorityFeePerGas=2 * 10**9)
        history = chain.client.rpc("eth_feeHistory", "0x2", "latest", [50])
        assert int(history["oldestBlock"], 16) == int(receipt["blockNumber"], 16) - 1
        assert len(history["baseFeePerGas"]) == 3
        assert history["gasUsedRatio"] == [0.0, 21_000 / 30_000_000]
        assert [int(row[0], 16) for row in history["reward"]] == [0, 2 * 10**9]


class TestRefusals:
    """go-ethereum's words, which clients match."""

    def test_nonce_too_low(self, chain: ChainProcess) -> None:
        """Goal: a used nonce is told, also for the very same bytes. Method: send a mined transaction again."""
        nonce = next_nonce(chain)
        raw = signed(chain.bank, nonce)
        chain.client.rpc("eth_sendRawTransaction", raw)
        error = refusal(chain, "eth_sendRawTransaction", raw)
        assert (error.code, error.message) == (-32000, f"nonce too low: next nonce {nonce + 1}, tx nonce {nonce}")

    def test_a_gap_waits_and_is_filled(self, chain: ChainProcess) -> None:
        """Goal: transactions sent out of order are all mined in order. Method: the second before the first, again,
        a poor and a good replacement, then the first.
        """
        client, bank = chain.client, chain.bank
        nonce = next_nonce(chain)
        early = client.rpc("eth_sendRawTransaction", signed(bank, nonce + 1))
        assert client.rpc("eth_getTransactionReceipt", early) is None
        waiting = client.rpc("eth_getTransactionByHash", early)
        assert (waiting["blockHash"], waiting["nonce"]) == (None, hex(nonce + 1))
        assert refusal(chain, "eth_sendRawTransaction", signed(bank, nonce + 1)).message == "already known"
        poor = signed(bank, nonce + 1, maxFeePerGas=5_400_000_000, maxPriorityFeePerGas=1_090_000_000)
        assert refusal(chain, "eth_sendRawTransaction", poor).message == "replacement transaction underpriced"
        better = signed(bank, nonce + 1, maxFeePerGas=5_500_000_000, maxPriorityFeePerGas=1_100_000_000)
        late = client.rpc("eth_sendRawTransaction", better)
        assert client.rpc("eth_getTransactionByHash", early) is None
        assert client.number("eth_getTransactionCount", bank.address, "pending") == nonce
        client.rpc("eth_sendRawTransaction", signed(bank, nonce))
        assert client.rpc("eth_getTransactionReceipt", late)["status"] == "0x1"
        assert next_nonce(chain) == nonce + 2

    def test_a_cap_below_the_base_fee_waits(self, chain: ChainProcess) -> None:
        """Goal: an underpriced transaction waits and can be replaced. Method: a cap of one wei, then a real one."""
        nonce = next_nonce(chain)
        cheap = chain.client.rpc(
            "eth_sendRawTransaction", signed(chain.bank, nonce, maxFeePerGas=1, maxPriorityFeePerGas=1)
        )
        assert chain.client.rpc("eth_getTransactionReceipt", cheap) is None
        assert chain.client.number("eth_getTransactionCount", chain.bank.address, "pending") == nonce + 1
        dear = chain.client.rpc("eth_sendRawTransaction", signed(chain.bank, nonce))
        assert chain.client.rpc("eth_getTransactionReceipt", dear)["status"] == "0x1"
        assert chain.client.rpc("eth_getTransactionByHash", cheap) is None

    def test_insufficient_funds(self, chain: ChainProcess) -> None:
        """Goal: an empty account is told. Method: a fresh key, then one that owns a little less than it needs."""
        poor: LocalAccount = Account.create()
        error = refusal(chain, "eth_sendRawTransaction", signed(poor, 0))
        assert error.code == -32000
        assert error.message.startswith("insufficient funds for gas * price + value: balance 0, tx cost")
        send(chain, to=poor.address, value=21_000 * 5 * 10**9)
        assert refusal(chain, "eth_sendRawTransaction", signed(poor, 0)).message.endswith("overshot 1")
        send(chain, poor, value=0)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"gas": 20_999}, "intrinsic gas too low: gas 20999, minimum needed 21000"),
            ({"gas": 21_040, "data": "0x" + "ff" * 2, "value": 0}, "insufficient gas for floor data gas cost: gas 21040, minimum needed 21080"),
            ({"gas": 30_000_001}, "exceeds block gas limit"),
            ({"chainId": 1}, "invalid chain id for signer: have 1 want 31337"),
            ({"maxPriorityFeePerGas": 6 * 10**9}, "max priority fee per gas higher than max fee per gas"),
            ({"type": None, "chainId": None, "maxFeePerGas": None, "maxPriorityFeePerGas": None, "gasPrice": 10**9},
             "only replay-protected (EIP-155) transactions allowed over RPC"),
            ({"gas": 3_000_000, "to": None, "data": "0x" + "00" * 49_153}, "max initcode size exceeded: code size 49153, limit 49152"),
            ({"gas": 30_000_000, "data": "0x" + "00" * 131_072}, "oversized data"),
        ],
    )  # fmt: skip
    def test_senseless_transactions(self, chain: ChainProcess, changes: dict[str, Any], message: str) -> None:
        """Goal: each rule has its words and nothing is mined. Method: break one rule at a time."""
        before = chain.client.number("eth_blockNumber")
        error = refusal(chain, "eth_sendRawTransaction", signed(chain.bank, next_nonce(chain), **changes))
        assert (error.code, error.message[: len(message)]) == (-32000, message)
        assert chain.client.number("eth_blockNumber") == before

    @pytest.mark.parametrize("raw", ["0x", "0x02", "0x03c0", "0x04c0", "0x02c0", "0xc0", "0xf86c", "0x" + "ff" * 100])
    def test_garbage(self, chain: ChainProcess, raw: str) -> None:
        """Goal: any bytes are answered by a refusal. Method: truncated, unknown, empty."""
        error = refusal(chain, "eth_sendRawTransaction", raw)
        assert error.code == -32000
        assert "internal error" not in error.message

    def test_a_changed_signature_is_another_sender(self, chain: ChainProcess) -> None:
        """Goal: nobody spends another's money. Method: one bit of a signed value."""
        raw = bytearray.fromhex(signed(chain.bank, next_nonce(chain))[2:])
        raw[30] ^= 1
        error = refusal(chain, "eth_sendRawTransaction", "0x" + raw.hex())
        assert error.code == -32000
        assert "insufficient funds" in error.message or "invalid" in error.message or "gas" in error.message


class TestExecution:
    """Calls, estimates, events."""

    def test_a_revert_gives_its_reason_and_data(self, chain: ChainProcess, token: Token) -> None:
        """Goal: a client sees why. Method: a transfer above the balance, called, estimated and sent."""
        # More than all other tests together mint to the bank, in whatever order they run.
        data = token.data("transfer", "address,uint256", NOBODY, 10**30)
        call = {"from": chain.bank.address, "to": token.address, "data": data}
        for method in ("eth_call", "eth_estimateGas"):
            error = refusal(chain, method, call)
            assert (error.code, error.message) == (3, "execution reverted: token: above balance")
            assert error.data is not None
            assert error.data.startswith("0x08c379a0")
        receipt = send(chain, to=token.address, value=0, gas=100_000, data=data)
        assert (receipt["status"], receipt["logs"]) == ("0x0", [])

    def test_running_out_of_gas(self, chain: ChainProcess, token: Token) -> None:
        """Goal: too little gas is not a revert. Method: a call with hardly any."""
        call = {"to": token.address, "data": token.data("mint", "address,uint256", NOBODY, 5), "gas": hex(22_500)}
        error = refusal(chain, "eth_call", call)
        assert (error.code, error.message) == (-32000, "out of gas")

    def test_a_call_changes_nothing(self, chain: ChainProcess, token: Token) -> None:
        """Goal: asking is free of consequences. Method: call a mint, then read the supply and the block number."""
        client = chain.client
        supply = {"to": token.address, "data": token.data("totalSupply", "")}
        before = client.rpc("eth_call", supply, "latest"), client.number("eth_blockNumber")
        mint = {"to": token.address, "input": token.data("mint", "address,uint256", NOBODY, 5)}
        assert client.rpc("eth_call", mint, "latest") == "0x"
        assert (client.rpc("eth_call", supply, "latest"), client.number("eth_blockNumber")) == before

    def test_an_estimate_suffices_and_is_close(self, chain: ChainProcess, token: Token) -> None:
        """Goal: an estimate can be used as it is. Method: send with it, compare with what was used."""
        data = token.data("mint", "address,uint256", chain.bank.address, 5)
        gas = chain.client.number("eth_estimateGas", {"from": chain.bank.address, "to": token.address, "data": data})
        receipt = send(chain, to=token.address, value=0, gas=gas, data=data)
        assert receipt["status"] == "0x1"
        assert int(receipt["gasUsed"], 16) <= gas <= int(receipt["gasUsed"], 16) * 1.1
        assert (
            chain.client.number("eth_estimateGas", {"from": chain.bank.address, "to": NOBODY, "value": "0x1"}) == 21_000
        )

    def test_a_call_sees_the_present_time(self, chain: ChainProcess) -> None:
        """Goal: a call foretells what a transaction would meet. Method: code that returns the time, long after the
        last block. The code: TIMESTAMP, PUSH0, MSTORE, PUSH1 32, PUSH0, RETURN, as init code of a call.
        """
        answer = chain.client.rpc("eth_call", {"data": "0x425f5260205ff3"}, "latest")
        assert abs(int(answer, 16) - time.time()) < 3

    def test_code_and_storage(self, chain: ChainProcess, token: Token) -> None:
        """Goal: a client can see what is deployed. Method: code, an empty account's, one storage word."""
        assert len(chain.client.rpc("eth_getCode", token.address, "latest")) > 100
        assert chain.client.rpc("eth_getCode", NOBODY, "latest") == "0x"
        assert len(chain.client.rpc("eth_getStorageAt", token.address, "0x0", "latest")) == 66

    def test_logs_are_found_by_filter(self, chain: ChainProcess, token: Token) -> None:
        """Goal: events can be followed. Method: three mints, then filters by range, address, topics, block."""
        client = chain.client
        holders = ["0x" + f"{number:040x}" for number in (0xA1, 0xA2, 0xA3)]
        receipts = [
            send(chain, to=token.address, value=0, gas=100_000,
                 data=token.data("mint", "address,uint256", holder, 5))
            for holder in holders
        ]  # fmt: skip
        first, last = receipts[0]["blockNumber"], receipts[-1]["blockNumber"]
        transfer = "0x" + keccak(b"Transfer(address,address,uint256)").hex()
        words = ["0x" + holder[2:].rjust(64, "0") for holder in holders]
        every = {"fromBlock": first, "toBlock": "latest", "address": token.address}
        rows = client.rpc("eth_getLogs", every)
        assert rows == [receipt["logs"][0] for receipt in receipts]
        assert [row["topics"][2] for row in rows] == words
        assert client.rpc("eth_getLogs", {**every, "topics": [transfer]}) == rows
        assert client.rpc("eth_getLogs", {**every, "topics": [None, None, words[1]]}) == rows[1:2]
        assert client.rpc("eth_getLogs", {**every, "topics": [[transfer, words[0]], [], words[:2]]}) == rows[:2]
        assert client.rpc("eth_getLogs", {**every, "topics": [words[0]]}) == []
        assert client.rpc("eth_getLogs", {**every, "topics": [None, None, None, None]}) == []
        assert (
            client.rpc("eth_getLogs", {**every, "address": [NOBODY, token.address.upper().replace("X", "x")]}) == rows
        )
        assert client.rpc("eth_getLogs", {**every, "address": NOBODY}) == []
        assert client.rpc("eth_getLogs", {**every, "fromBlock": last}) == rows[2:]
        assert client.rpc("eth_getLogs", {"blockHash": receipts[1]["blockHash"]}) == rows[1:2]
        assert refusal(chain, "eth_getLogs", {"blockHash": "0x" + "00" * 32}).message == "unknown block"
        assert refusal(chain, "eth_getLogs", {"fromBlock": last, "toBlock": first}).code == -32602
