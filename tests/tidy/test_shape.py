"""Holds the size and the names of our code: short functions, short modules, names that say what is inside."""

import ast
from pathlib import PurePosixPath

from tests.tidy import source

FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 700
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "managers", "misc", "stuff"}
EVERYWHERE = (*source.PRODUCT, "tests/", "benchmarks/")


def long_functions(name: str, module: ast.Module) -> list[str]:
    """Functions of more lines than allowed, decorators not counted."""
    return [
        f"{name}:{node.lineno}: {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(module)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > FUNCTION_LINES_MAX
    ]


def empty_name(name: str) -> bool:
    """Whether a module or a package on the path has a name that says nothing."""
    return any(part in EMPTY_NAMES for part in PurePosixPath(name).with_suffix("").parts)


def test_functions_are_short() -> None:
    """Goal: a function fits a screen. Method: measure every function of every file of ours."""
    findings = [line for name in source.python_files(*EVERYWHERE) for line in long_functions(name, source.tree(name))]
    assert not findings, source.report(findings)


def test_modules_are_short() -> None:
    """Goal: a module is read in one sitting. Method: count the lines of every file of ours."""
    findings = [
        f"{name}:1: {lines} lines"
        for name in source.python_files(*EVERYWHERE)
        if (lines := len(source.text(name).splitlines())) > MODULE_LINES_MAX
    ]
    assert not findings, source.report(findings)


def test_modules_are_named_for_what_they_hold() -> None:
    """Goal: no drawer for odds and ends. Method: look for names that say nothing in every path."""
    findings = [
        f"{name}: says nothing of what it holds" for name in source.python_files(*EVERYWHERE) if empty_name(name)
    ]
    assert not findings, source.report(findings)


def test_a_long_function_is_found() -> None:
    """Goal: the measure can fail. Method: give it a function one line too long and one that just fits."""
    body = "\n".join("    pass" for _ in range(FUNCTION_LINES_MAX))
    assert long_functions("x.py", ast.parse(f"def f():\n{body}"))
    assert not long_functions("x.py", ast.parse("def f():\n" + "\n".join("    pass" for _ in range(69))))


def test_an_empty_name_is_found() -> None:
    """Goal: the check of names can fail. Method: a path that it must refuse and one that it must take."""
    assert empty_name("libs/x/utils.py")
    assert not empty_name("libs/x/clock.py")
