"""Holds that a test says what it is for and can fail: a docstring and an assertion in each."""

import ast
from collections.abc import Iterator

from tests.tidy import source

Function = ast.FunctionDef | ast.AsyncFunctionDef
ASSERTING = ("assert_", "expect_", "check_", "refuse", "require_")


def functions(module: ast.Module) -> Iterator[Function]:
    """The test functions of a module and the test methods of its classes."""
    for node in ast.walk(module):
        if isinstance(node, Function) and node.name.startswith("test_"):
            yield node


def asserts(function: Function) -> bool:
    """Whether a test holds an assertion: assert, pytest.raises or .fail, or a call of a function named for one."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            called = source.dotted(node.func)
            short = called.rpartition(".")[2]
            if called in {"pytest.raises", "pytest.fail", "pytest.warns"} or short.startswith(ASSERTING):
                return True
            if isinstance(node.func, ast.Attribute) and node.func.attr.startswith(ASSERTING):
                return True
    return False


def findings(name: str, module: ast.Module) -> list[str]:
    """Tests without an assertion or a docstring."""
    found = []
    for function in functions(module):
        if not asserts(function):
            found.append(f"{name}:{function.lineno}: {function.name} asserts nothing")
        if not ast.get_docstring(function):
            found.append(f"{name}:{function.lineno}: {function.name} says neither goal nor method")
    return found


def test_every_test_can_fail_and_says_what_for() -> None:
    """Goal: a test is worth its time. Method: look for an assertion and a docstring in each."""
    found = [
        line
        for name in source.python_files("tests/", "libs/", "services/", "contracts/")
        for line in findings(name, source.tree(name))
    ]
    assert not found, source.report(found)


def test_the_check_sees() -> None:
    """Goal: the check can fail. Method: a test with nothing, and one with all."""
    assert len(findings("x.py", ast.parse("def test_x():\n    f()"))) == 2
    assert not findings("x.py", ast.parse('def test_x():\n    """Goal."""\n    with pytest.raises(E):\n        f()'))
