"""The committed artifacts are what the sources give."""

import shutil
import subprocess
import sys
from pathlib import Path

from contracts import compile as compiling

ROOT = Path(compiling.__file__).resolve().parent.parent


def test_artifacts_are_reproduced_byte_for_byte() -> None:
    """Goal: anyone can check what is deployed. Method: compile the sources again and compare."""
    assert compiling.differences() == []
    assert {path.stem for path in compiling.ARTIFACTS.iterdir()} == set(compiling.CONTRACTS)


def test_the_check_sees_a_change(tmp_path: Path) -> None:
    """Goal: the check can fail, and does not depend on where the sources lie. Method: a copy elsewhere that first
    agrees, then differs in one byte, then misses a file, has one too many, and has another source.
    """
    shutil.copytree(ROOT / "contracts", tmp_path / "contracts", ignore=shutil.ignore_patterns("__pycache__"))
    artifacts = tmp_path / "services" / "settlement" / "fallow_settlement" / "contracts"

    def run(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, str(tmp_path / "contracts" / "compile.py"), *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
        return done.returncode, done.stderr

    assert run()[0] == 0
    for name in compiling.CONTRACTS:
        assert (artifacts / f"{name}.json").read_bytes() == (compiling.ARTIFACTS / f"{name}.json").read_bytes()
    assert run("--check") == (0, "")
    path = artifacts / "TestToken.json"
    text = path.read_text()
    path.write_text(text.replace("tUSDC", "xUSDC").replace('"0x61', '"0x62', 1))
    (artifacts / "Other.json").write_text("{}")
    (artifacts / "EscrowVault.json").unlink()
    status, said = run("--check")
    assert status == 1
    assert "TestToken.json is not what TestToken.vy compiles to" in said
    assert "EscrowVault.json is missing" in said
    assert "Other.json belongs to no contract" in said
