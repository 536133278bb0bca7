"""`fallow receipt verify`: exit status and words for good, tampered and unreadable files."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fallow.order.v1 import order_pb2
from fallow_receipts import Charge, Header, MerkleTree, Receipt, charge_leaf, due_micros, genesis_commitment, keccak
from fallow_sdk.command import build
from fallow_sdk.commands.connection import console
from fallow_sdk.commands.order_tables import orders_table

ID = "0123456789abcdefghjkmnpqrs"
ANCHOR = "0x" + "11" * 20


def make_receipt() -> Receipt:
    """A receipt of the second of three charges."""
    charges = [
        Charge(
            charge_id=ID, order_id=ID, group=0, generation=1, sequence=number, tenant=ID, provider=ID, asset="usdc",
            from_running_ms=(number - 1) * 60_000, to_running_ms=number * 60_000, price_micros_per_hour=1_800_000,
            amount_micros=due_micros(1_800_000, (number - 1) * 60_000, number * 60_000), fee_micros=6_000,
            pool_micros=0, evidence="ATTESTED",
        )
        for number in (1, 2, 3)
    ]  # fmt: skip
    tree = MerkleTree([charge_leaf(charge, batch_id=1, index=index) for index, charge in enumerate(charges)])
    header = Header(
        batch_id=1, prev=genesis_commitment(chain_id=31337, anchor=ANCHOR), payout_parent=0,
        settlement_root=tree.root, payout_root=MerkleTree([]).root, count=3, payout_total=0, totals_hash=keccak(b""),
    )  # fmt: skip
    return Receipt(charge=charges[1], index=1, proof=tree.proof(1), header=header, anchor=None)


@pytest.fixture
def receipt(tmp_path: Path) -> Path:
    """The receipt's file."""
    file = tmp_path / "receipt.json"
    file.write_text(make_receipt().to_json(), "utf-8")
    return file


def root_of(file: Path) -> str:
    """The settlement root that the receipt's header names."""
    return str(json.loads(file.read_text("utf-8"))["header"]["settlement_root"])


def test_a_good_receipt_is_good(receipt: Path) -> None:
    """Goal: status 0 and the facts in words. Method: verify against its root."""
    result = CliRunner().invoke(build(), ["receipt", "verify", str(receipt), "--root", root_of(receipt)])
    assert result.exit_code == 0, result.output
    assert "leaf 1 of batch 1" in result.output
    assert "0.030000 USDC" in result.output


@pytest.mark.parametrize("field", ["amount_micros", "fee_micros", "to_running_ms", "price_micros_per_hour", "sequence"])
def test_a_tampered_receipt_is_refused(receipt: Path, field: str) -> None:
    """Goal: status 1 whatever was changed. Method: raise one number by one."""
    root = root_of(receipt)
    content = json.loads(receipt.read_text("utf-8"))
    content["charge"][field] = str(int(content["charge"][field]) + 1)
    receipt.write_text(json.dumps(content), "utf-8")
    result = CliRunner().invoke(build(), ["receipt", "verify", str(receipt), "--root", root])
    assert result.exit_code == 1
    assert "refused: " in result.output


def test_a_receipt_alone_proves_nothing(receipt: Path) -> None:
    """Goal: no root that the receipt names itself is trusted. Method: verify without one; with a wrong one."""
    alone = CliRunner().invoke(build(), ["receipt", "verify", str(receipt)])
    assert (alone.exit_code, "TRUST_MISSING" in alone.output) == (1, True)
    other = CliRunner().invoke(build(), ["receipt", "verify", str(receipt), "--root", "0x" + "00" * 32])
    assert other.exit_code == 1


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": "other"}'])
def test_a_file_that_is_no_receipt_is_refused(tmp_path: Path, text: str) -> None:
    """Goal: status 1 and a reason, no traceback. Method: a table of broken files."""
    file = tmp_path / "receipt.json"
    file.write_text(text, "utf-8")
    result = CliRunner().invoke(build(), ["receipt", "verify", str(file), "--root", "0x" + "00" * 32])
    assert result.exit_code == 1
    assert "refused: " in result.output


def test_a_wrong_root_is_a_usage_error(receipt: Path) -> None:
    """Goal: status 2 for what cannot be a hash. Method: too short."""
    assert CliRunner().invoke(build(), ["receipt", "verify", str(receipt), "--root", "0x12"]).exit_code == 2


def test_names_are_never_cut() -> None:
    """Goal: a name that is shown can be copied. Method: an order's table as it is printed where the terminal is narrow."""
    order = order_pb2.Order(name=f"orders/{ID}", state=order_pb2.ORDER_STATE_RUNNING, groups=[order_pb2.Group()])
    with console.capture() as printed:
        console.print(orders_table([order]))
    assert f"orders/{ID}" in printed.get()
