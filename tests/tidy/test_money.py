"""Holds that money is counted in integers: nothing named in micros meets a float or a true division."""

import ast
import re

from tests.tidy import source

MONEY = re.compile(r"(^|_)(micros|micros_per_hour)$|_micros_")
# Modules that do nothing but money: there a float has no place at all.
MONEY_MODULES = (
    "services/settlement/fallow_settlement/domain/",
    "libs/receipts/fallow_receipts/",
)


def mentions_money(node: ast.AST) -> bool:
    """Whether a name, an attribute or an argument below the node is named in micros."""
    names = [getattr(inner, field, None) for inner in ast.walk(node) for field in ("id", "attr", "arg")]
    return any(isinstance(name, str) and MONEY.search(name) for name in names)


def is_float(annotation: ast.AST | None) -> bool:
    """Whether an annotation names float."""
    return annotation is not None and any(
        isinstance(inner, ast.Name) and inner.id == "float" for inner in ast.walk(annotation)
    )


def float_money(name: str, module: ast.Module) -> list[str]:
    """Places where something named in micros is divided, turned into a float, mixed with one, or declared as one."""
    findings = []
    for node in ast.walk(module):
        wrong = ""
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and mentions_money(node):
            wrong = "true division of micros; use // and say who gains"
        elif isinstance(node, ast.BinOp) and mentions_money(node):
            sides = (node.left, node.right)
            if any(isinstance(side, ast.Constant) and isinstance(side.value, float) for side in sides):
                wrong = "micros beside a float"
        elif isinstance(node, ast.Call) and source.dotted(node.func) == "float" and mentions_money(node):
            wrong = "micros turned into a float"
        elif isinstance(node, ast.AnnAssign) and mentions_money(node.target) and is_float(node.annotation):
            wrong = "micros declared as a float"
        elif isinstance(node, ast.arg) and MONEY.search(node.arg) and is_float(node.annotation):
            wrong = "micros taken as a float"
        elif isinstance(node, ast.FunctionDef) and MONEY.search(node.name) and is_float(node.returns):
            wrong = "micros returned as a float"
        if wrong:
            findings.append(f"{name}:{getattr(node, 'lineno', 0)}: {wrong}")
    return findings


def any_float(name: str, module: ast.Module) -> list[str]:
    """Every float in a module of money: constants, the name itself, true division."""
    findings = []
    for node in ast.walk(module):
        constant = isinstance(node, ast.Constant) and isinstance(node.value, float)
        named = isinstance(node, ast.Name) and node.id == "float"
        divided = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)
        if constant or named or divided:
            findings.append(f"{name}:{getattr(node, 'lineno', 0)}: a float in a module of money")
    return findings


def test_nothing_in_micros_meets_a_float() -> None:
    """Goal: no rounding that nobody chose. Method: look at every expression over names in micros."""
    findings = [line for name in source.python_files(*source.PRODUCT) for line in float_money(name, source.tree(name))]
    assert not findings, source.report(findings)


def test_modules_of_money_hold_no_float() -> None:
    """Goal: the ledger and receipts are integers throughout. Method: look for any float there."""
    findings = [line for name in source.python_files(*MONEY_MODULES) for line in any_float(name, source.tree(name))]
    assert not findings, source.report(findings)


def test_floats_are_found() -> None:
    """Goal: the checks can fail. Method: one sample of each mistake, and sound integer code."""
    mistakes = (
        "x = price_micros / 2",
        "x = row.price_micros_per_hour / hours",
        "x = 0.2 * fee_micros",
        "x = float(amount.micros)",
        "fee_micros: float = 1",
        "def f(fee_micros: float): ...",
        "def fee_micros() -> float: ...",
    )
    for mistake in mistakes:
        assert float_money("x.py", ast.parse(mistake)), mistake
    assert not float_money("x.py", ast.parse("x = price_micros * running_ms // 3_600_000\ny = seconds / 2"))
    assert any_float("x.py", ast.parse("x = 0.5"))
    assert any_float("x.py", ast.parse("x = a / b"))
    assert not any_float("x.py", ast.parse("x = a // b"))
