"""Generate libs/api/fallow from proto/: messages, gRPC stubs, and types for both.

The compiler and Google's own protos come from installed wheels, so nothing is fetched. The output depends on
the inputs alone. With `--check` nothing is written: the status is 1 when the committed code differs from what
would be generated. Packages get an `__init__.py`, the top one a `py.typed`.
"""

import argparse
import filecmp
import importlib.resources
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "proto"
TARGET = ROOT / "libs" / "api" / "fallow"
VENV_BIN = Path(sys.executable).parent


def include_paths() -> list[str]:
    """The folders that imports of our protos are looked up in: ours, protobuf's own, Google's APIs."""
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    google_apis = importlib.resources.files("google.rpc") / ".." / ".."
    return [str(SOURCE), str(well_known), os.path.normpath(str(google_apis))]


def sources() -> list[str]:
    """Our proto files, relative to proto/, sorted."""
    return sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.proto"))


def protoc(*options: str) -> None:
    """Run the compiler over all our protos; its own messages tell what is wrong."""
    includes = [f"-I{path}" for path in include_paths()]
    command = [sys.executable, "-m", "grpc_tools.protoc", *includes, *options, *sources()]
    result = subprocess.run(command, cwd=ROOT, check=False)
    if result.returncode != 0:
        sys.exit(result.returncode)


def write_descriptors(path: Path) -> None:
    """Write the descriptor set of all our protos, with imports and comments, to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    protoc("--include_imports", "--include_source_info", f"--descriptor_set_out={path}")


def generate(folder: Path) -> None:
    """Fill `folder` with the package `fallow`."""
    protoc(
        f"--python_out={folder}",
        f"--grpc_python_out={folder}",
        f"--plugin=protoc-gen-mypy={VENV_BIN / 'protoc-gen-mypy'}",
        f"--mypy_out=quiet:{folder}",
        f"--plugin=protoc-gen-mypy_grpc={VENV_BIN / 'protoc-gen-mypy_grpc'}",
        f"--mypy_grpc_out=quiet:{folder}",
    )
    package = folder / "fallow"
    for directory in [package, *(path for path in package.rglob("*") if path.is_dir())]:
        name = ".".join(directory.relative_to(folder).parts)
        (directory / "__init__.py").write_text(f'"""Generated code of the protobuf package {name}."""\n', "utf-8")
    (package / "py.typed").touch()
    # A file of messages alone still gets an empty module of stubs, which only misleads.
    for stub in package.rglob("*_pb2_grpc.py"):
        if "class " not in stub.read_text("utf-8"):
            stub.unlink()
            stub.with_suffix(".pyi").unlink(missing_ok=True)


def differences(left: Path, right: Path) -> list[str]:
    """The files that are not the same in both trees, as paths relative to them."""

    def listing(folder: Path) -> set[str]:
        return {
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }

    names_left, names_right = listing(left), listing(right)
    changed = {name for name in names_left & names_right if not filecmp.cmp(left / name, right / name, shallow=False)}
    return sorted(changed | (names_left ^ names_right))


def replace(source: Path, target: Path) -> None:
    """Make `target` equal `source`, touching only files that differ."""
    target.mkdir(parents=True, exist_ok=True)
    for name in differences(source, target):
        if (source / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target / name)
        else:
            (target / name).unlink()


def main() -> int:
    """Generate, check, or write the descriptor set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the committed code is not current")
    parser.add_argument(
        "--descriptors", type=Path, help="write the descriptor set with comments to this file, and stop"
    )
    arguments = parser.parse_args()
    if arguments.descriptors:
        write_descriptors(arguments.descriptors)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        changed = differences(Path(folder) / "fallow", TARGET)
        if not arguments.check:
            replace(Path(folder) / "fallow", TARGET)
            print(f"proto: {len(changed)} files written to {TARGET.relative_to(ROOT)}")
            return 0
    for name in changed:
        print(f"proto: {name} differs from what proto/ generates; run make proto", file=sys.stderr)
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
