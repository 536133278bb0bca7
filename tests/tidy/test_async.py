"""Holds structured concurrency: no task without an owner, no time limit without a scope, no swallowed cancellation."""

import ast

from tests.tidy import source

BANNED_CALLS = {
    "create_task": "use asyncio.TaskGroup.create_task",
    "ensure_future": "use asyncio.TaskGroup",
    "gather": "use asyncio.TaskGroup",
    "wait_for": "use asyncio.timeout",
    "run_coroutine_threadsafe": "keep to one loop",
}


def bare_tasks(name: str, module: ast.Module) -> list[str]:
    """Calls of asyncio that start work which nobody owns; a method of a task group is fine."""
    from_asyncio = {
        alias.asname or alias.name
        for node in ast.walk(module)
        if isinstance(node, ast.ImportFrom) and node.module == "asyncio"
        for alias in node.names
    }
    findings = []
    for node in ast.walk(module):
        if not isinstance(node, ast.Call):
            continue
        called = source.dotted(node.func)
        short = called.rpartition(".")[2]
        owner = called.rpartition(".")[0]
        direct = not owner and called in from_asyncio
        if short == "gather" and name.startswith("tests/"):
            # A test may collect the failures of callers that race: gather(..., return_exceptions=True).
            continue
        if short in BANNED_CALLS and (direct or owner == "asyncio" or owner.endswith("loop")):
            findings.append(f"{name}:{node.lineno}: {called}: {BANNED_CALLS[short]}")
    return findings


def swallowed(name: str, module: ast.Module) -> list[str]:
    """Handlers in coroutines that catch CancelledError or BaseException and raise nothing."""
    findings = []
    coroutines = [node for node in ast.walk(module) if isinstance(node, ast.AsyncFunctionDef)]
    for node in {inner for coroutine in coroutines for inner in ast.walk(coroutine)}:
        if not isinstance(node, ast.ExceptHandler) or node.type is None:
            continue
        kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        caught = {source.dotted(kind).rpartition(".")[2] for kind in kinds}
        raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
        if caught & {"CancelledError", "BaseException"} and not raises:
            findings.append(f"{name}:{node.lineno}: swallows {', '.join(sorted(caught))}")
    return findings


def test_every_task_has_an_owner() -> None:
    """Goal: a task that fails ends its owner. Method: look for calls that start a task without one."""
    findings = [
        line
        for name in source.python_files(*source.PRODUCT, "tests/", "benchmarks/")
        for line in bare_tasks(name, source.tree(name))
    ]
    assert not findings, source.report(findings)


def test_cancellation_is_never_swallowed() -> None:
    """Goal: whoever is cancelled stops. Method: look for handlers of CancelledError that raise nothing."""
    findings = [line for name in source.python_files(*source.PRODUCT) for line in swallowed(name, source.tree(name))]
    assert not findings, source.report(findings)


def test_a_bare_task_is_found() -> None:
    """Goal: the check can fail. Method: the ways to start an unowned task, and the one that is right."""
    assert bare_tasks("x.py", ast.parse("asyncio.create_task(f())"))
    assert bare_tasks("x.py", ast.parse("from asyncio import create_task as go\ncreate_task(f())")) == []
    assert bare_tasks("x.py", ast.parse("from asyncio import create_task\ncreate_task(f())"))
    assert bare_tasks("x.py", ast.parse("asyncio.get_event_loop()\nloop.create_task(f())"))
    assert not bare_tasks("x.py", ast.parse("group.create_task(f())"))


def test_a_swallowed_cancellation_is_found() -> None:
    """Goal: the check can fail. Method: a handler that only passes, and one that raises again."""
    assert swallowed("x.py", ast.parse("async def g():\n try:\n  f()\n except asyncio.CancelledError:\n  pass"))
    assert not swallowed("x.py", ast.parse("async def g():\n try:\n  f()\n except asyncio.CancelledError:\n  raise"))
