"""`fallow provider sign-attributes`: what is printed, and what is refused before anything is signed."""

import base64
import json
from pathlib import Path

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct
from typer.testing import CliRunner

from fallow_sdk.command import build

KEY = "ab" * 32


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """An auditor's key."""
    file = tmp_path / "auditor.key"
    file.write_text(f"0x{'12' * 32}\n", "utf-8")
    return file


def test_an_auditor_signs_offline(key_file: Path) -> None:
    """Goal: what is printed is a signature that a wallet would make of the contract's text. Method: recover the signer."""
    arguments = ["provider", "sign-attributes", KEY, "tier=gold", "note=a=b", "--key", str(key_file)]
    result = CliRunner().invoke(build("provider"), arguments)
    assert result.exit_code == 0, result.output
    printed = json.loads(result.output)
    assert printed["attributes"] == {"tier": "gold", "note": "a=b"}
    text = f"Fallow attribute audit v1\nprovider key {KEY}\nnote=a%3Db\ntier=gold"
    signer = Account.recover_message(encode_defunct(text=text), signature=base64.b64decode(printed["signature"]))
    assert signer == printed["auditor"] == Account.from_key("0x" + "12" * 32).address


@pytest.mark.parametrize(
    "arguments",
    [[KEY, "tier"], [KEY, "=gold"], ["abcd", "tier=gold"], ["zz" * 32, "tier=gold"], [KEY]],
)
def test_what_cannot_be_signed_is_refused(key_file: Path, arguments: list[str]) -> None:
    """Goal: a mistyped key or attribute is a usage error. Method: one of each."""
    result = CliRunner().invoke(build("provider"), ["provider", "sign-attributes", *arguments, "--key", str(key_file)])
    assert result.exit_code == 2, result.output
    assert not result.stdout


def test_a_missing_key_is_a_usage_error(tmp_path: Path) -> None:
    """Goal: no key, no signature, and no trace of Python. Method: a file that is not there."""
    arguments = ["provider", "sign-attributes", KEY, "a=b", "--key", str(tmp_path / "none")]
    result = CliRunner().invoke(build("provider"), arguments)
    assert result.exit_code == 2
    assert "holds no private key" in result.output


def test_a_file_without_a_signature_is_a_usage_error(tmp_path: Path) -> None:
    """Goal: a wrong file is told of before anybody is asked. Method: none, and one that holds something else."""
    other = tmp_path / "other.json"
    other.write_text('{"a": 1}', "utf-8")
    for file in (tmp_path / "none", other):
        result = CliRunner().invoke(build("provider"), ["provider", "add-signature", "providers/a", str(file)])
        assert result.exit_code == 2
        assert "holds no signature" in result.output
