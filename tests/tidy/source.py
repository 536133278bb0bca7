"""The files that the tidy programs read: what git tracks, or would track, below the root.

Python files are parsed once a run. Findings are strings `path:line: what is wrong`, so that a failing test
shows a list that an editor can follow.
"""

import ast
import functools
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GENERATED = "libs/api/fallow/"
PRODUCT = ("libs/", "sdk/", "stack/", "services/", "contracts/", "tools/")
SERVICES = ("services/",)


@functools.cache
def tracked() -> tuple[str, ...]:
    """Paths of all files that are tracked or would be, relative to the root, sorted."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return tuple(sorted(name for name in set(listing.split("\0")) if name and (ROOT / name).is_file()))


def python_files(*prefixes: str) -> Iterator[str]:
    """Python files of ours below any of the prefixes, generated code left out."""
    for name in tracked():
        if name.endswith(".py") and not name.startswith(GENERATED) and name.startswith(prefixes):
            yield name


@functools.cache
def text(name: str) -> str:
    """Text of a file, relative to the root."""
    return (ROOT / name).read_text("utf-8")


@functools.cache
def tree(name: str) -> ast.Module:
    """Syntax tree of a Python file."""
    return ast.parse(text(name), filename=name)


def dotted(node: ast.AST) -> str:
    """`a.b.c` for a name or an attribute of a name; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        head = dotted(node.value)
        return f"{head}.{node.attr}" if head else ""
    return ""


def imported(module: ast.Module) -> Iterator[tuple[str, int]]:
    """Absolute names of modules that a module imports, with their lines."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module, node.lineno


def report(findings: Iterable[str]) -> str:
    """What an assertion shows: one finding a line, after a line break."""
    return "\n" + "\n".join(findings)
