"""Holds that the product calls what it declares: a function that only tests call is dead weight with a test on it.

A name counts as called where non-test code says it anywhere, so what this finds has no caller for certain. What somebody
else's code calls is left out: methods of servicers and of classes with bases of other packages, and whatever is
registered by a decorator (a command of the command line, a validator).
"""

import ast
import re
from collections.abc import Iterator

from tests.tidy import source

ENTRY_POINT = re.compile(r'^"?[a-z.-]+"? = "fallow_[a-z_.]+:([a-z_]+)"$', re.MULTILINE)
DECLARED_IN = ("libs/", "sdk/", "stack/", "services/")
CALLED_FROM = (*source.PRODUCT, "benchmarks/")
# What these modules hold is there for tests.
FOR_TESTS = ("/testing", "/mock.py")
# Decorators that register nothing.
PLAIN_DECORATORS = {
    "asynccontextmanager",
    "cached_property",
    "classmethod",
    "contextmanager",
    "property",
    "staticmethod",
}
CALLED_BY_OTHERS = {
    "has_reason": "how whoever calls a service tells refusals apart",
    "halted_keys": "for the operator's command that the chassis's README names as not there yet",
    "retry_parked": "for the same command",
    "atomic_batch": "a method of py-evm's store, whose base class leaves it out",
}

Declared = tuple[ast.FunctionDef | ast.AsyncFunctionDef, ast.ClassDef | None]


def functions(module: ast.Module) -> Iterator[Declared]:
    """Functions of a module and methods of its classes, with their class."""
    for node in module.body:
        if isinstance(node, ast.ClassDef):
            yield from (
                (inner, node) for inner in node.body if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)
            )
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node, None


def foreign_names(module: ast.Module) -> set[str]:
    """Names that a module imports from packages that are not ours, or from the generated API."""
    return {
        alias.asname or alias.name
        for node in ast.walk(module)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if not (node.module if isinstance(node, ast.ImportFrom) and node.module else alias.name).startswith("fallow_")
    }


def is_called_by_others(declared: Declared, foreign: set[str]) -> bool:
    """Whether somebody else's code calls a function: Python, gRPC, a library that it is registered with."""
    function, owner = declared
    decorators = [node.func if isinstance(node, ast.Call) else node for node in function.decorator_list]
    return (
        function.name.startswith("__")
        or any(source.dotted(node).rpartition(".")[2] not in PLAIN_DECORATORS for node in decorators)
        or (owner is not None and any(source.dotted(base).partition(".")[0] in foreign for base in owner.bases))
    )


def said(module: ast.Module) -> Iterator[str]:
    """Names that a module says: variables, attributes, and strings, since some are looked up."""
    for node in ast.walk(module):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def said_anywhere() -> set[str]:
    """Names that non-test code says, and the entry points of distributions."""
    names = {word for name in source.python_files(*CALLED_FROM) for word in said(source.tree(name))}
    for name in source.tracked():
        if name.endswith("pyproject.toml"):
            names |= set(ENTRY_POINT.findall(source.text(name)))
    return names


def uncalled(name: str, module: ast.Module, names: set[str]) -> list[str]:
    """Functions of a file that nobody says the name of."""
    foreign = foreign_names(module)
    return [
        f"{name}:{function.lineno}: {function.name} is called by no code of the product"
        for function, owner in functions(module)
        if not is_called_by_others((function, owner), foreign)
        if function.name not in names and function.name not in CALLED_BY_OTHERS
    ]


def test_everything_has_a_caller() -> None:
    """Goal: no function lives by its tests alone. Method: compare what is declared with all names that are said."""
    names = said_anywhere()
    findings = [
        line
        for name in source.python_files(*DECLARED_IN)
        if not any(part in name for part in FOR_TESTS)
        for line in uncalled(name, source.tree(name), names)
    ]
    assert not findings, source.report(findings)


def test_the_list_of_exceptions_is_current() -> None:
    """Goal: an exception goes with its reason. Method: each is still declared, and still called by nobody."""
    trees = [source.tree(name) for name in source.python_files(*DECLARED_IN)]
    declared = {function.name for tree in trees for function, _ in functions(tree)}
    names = said_anywhere()
    assert set(CALLED_BY_OTHERS) <= declared - names


def test_an_uncalled_function_is_found() -> None:
    """Goal: the check can fail. Method: functions and methods with and without a caller, and what others call."""
    sample = (
        "def used(): pass\n"
        "def unused(): pass\n"
        "@app.command()\ndef command(): pass\n"
        "class Thing:\n"
        "    def __enter__(self): pass\n"
        "    @property\n    def size(self): return used()\n"
        "from x import api_pb2_grpc\n"
        "class Door(api_pb2_grpc.ThingServicer):\n"
        "    async def GetThing(self): pass\n"
    )
    module = ast.parse(sample)
    found = [line.split(": ")[1].split()[0] for line in uncalled("x.py", module, set(said(module)))]
    assert found == ["unused", "size"]
