"""Compile the contracts, or check that the committed artifacts are what the sources give.

    python contracts/compile.py            write the artifacts
    python contracts/compile.py --check    compare byte for byte, exit 1 at a difference

The artifacts (ABI, init code, runtime code) are package data of fallow_settlement, so that nothing compiles at run
time. Compiler and EVM version are pinned here and named in each artifact. The EVM version is Cancun, older than what
the development chain runs, because more networks know it. Nothing of an artifact depends on where the sources lie.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Final

from vyper import __version__ as vyper_version
from vyper.compiler import CompilerData
from vyper.compiler.input_bundle import FileInput, FilesystemInputBundle
from vyper.compiler.output import build_abi_output
from vyper.compiler.settings import Settings

SOURCES: Final = Path(__file__).resolve().parent
ARTIFACTS: Final = SOURCES.parent / "services" / "settlement" / "fallow_settlement" / "contracts"
CONTRACTS: Final = ("SettlementAnchor", "EscrowVault", "TestToken")
VYPER_VERSION: Final = "0.4.3"
EVM_VERSION: Final = "cancun"


def compile_contract(path: Path) -> dict[str, object]:
    """Return the artifact of one Vyper source, whose imports lie beside it or among our sources."""
    bundle = FilesystemInputBundle([SOURCES, path.parent])
    source = bundle.load_file(path.name)
    assert isinstance(source, FileInput), path
    data = CompilerData(source, bundle, settings=Settings(evm_version=EVM_VERSION))
    return {
        "contract": path.stem,
        "compiler": f"vyper {VYPER_VERSION}",
        "evm_version": EVM_VERSION,
        "abi": build_abi_output(data),
        "bytecode": "0x" + data.bytecode.hex(),
        "runtime_bytecode": "0x" + data.bytecode_runtime.hex(),
    }


def artifact_text(name: str) -> str:
    """Return the JSON text of a contract's artifact."""
    return json.dumps(compile_contract(SOURCES / f"{name}.vy"), indent=1) + "\n"


def differences() -> list[str]:
    """Return a sentence for each artifact that is missing, unexpected or not what its source gives."""
    found = []
    for name in CONTRACTS:
        path = ARTIFACTS / f"{name}.json"
        if not path.exists():
            found.append(f"{path.name} is missing")
        elif path.read_bytes() != artifact_text(name).encode("utf-8"):
            found.append(f"{path.name} is not what {name}.vy compiles to")
    found.extend(
        f"{path.name} belongs to no contract" for path in ARTIFACTS.glob("*.json") if path.stem not in CONTRACTS
    )
    return found


def main(arguments: list[str] | None = None) -> int:
    """Write or check the artifacts; return the exit status."""
    parser = argparse.ArgumentParser(description="Compile the contracts into fallow_settlement's package data.")
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 at a difference")
    options = parser.parse_args(arguments)
    if vyper_version.split("+")[0] != VYPER_VERSION:
        print(f"the artifacts are made with vyper {VYPER_VERSION}, not {vyper_version}", file=sys.stderr)
        return 1
    if options.check:
        found = differences()
        for sentence in found:
            print(sentence, file=sys.stderr)
        return 1 if found else 0
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    for name in CONTRACTS:
        (ARTIFACTS / f"{name}.json").write_text(artifact_text(name), encoding="utf-8")
        print(f"wrote {name}.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
