"""Holds that SQL stands in sql/*.sql under a name, that every name is used, and that every used name exists."""

import ast
import re
from collections import defaultdict
from pathlib import PurePosixPath

from tests.tidy import source

HEADER = re.compile(r"^-- name: *(\S+) *$", re.MULTILINE)
IDENTIFIER = re.compile(r"[a-z][a-z0-9_]*")
STATEMENT = re.compile(r"^\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH)\s.+", re.IGNORECASE | re.DOTALL)
# Asks whether the server answers, and nothing else.
PING = "SELECT 1"


def package_of(name: str) -> str:
    """The folder of the top package that holds a file: `services/order/fallow_order`."""
    parts = PurePosixPath(name).parts
    index = next((number for number, part in enumerate(parts) if part.startswith("fallow_")), None)
    return "/".join(parts[: index + 1]) if index is not None else ""


def declared() -> dict[str, dict[str, str]]:
    """Query names by package, each with the file that declares it."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for name in source.tracked():
        if name.endswith(".sql") and PurePosixPath(name).parent.name == "sql":
            for query in HEADER.findall(source.text(name)):
                found[package_of(name)][query] = name
    return found


def asked(module: ast.Module) -> set[str]:
    """Names of queries that a module asks for: `queries.get("x")`, `self._queries["x"]`, `QUERIES.get("x")`."""
    found = set()
    for node in ast.walk(module):
        owner: ast.AST | None = None
        argument: ast.AST | None = None
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "get"
            and node.args
        ):
            owner, argument = node.func.value, node.args[0]
        elif isinstance(node, ast.Subscript):
            owner, argument = node.value, node.slice
        if owner is None or argument is None or "queries" not in source.dotted(owner).rpartition(".")[2].lower():
            continue
        # `queries.get("lock_row" if lock else "load_row")` asks for both.
        found |= {
            inner.value
            for inner in ast.walk(argument)
            if isinstance(inner, ast.Constant) and isinstance(inner.value, str)
        }
    return found


def asked_by_package() -> dict[str, set[str]]:
    """Names of queries that each package's code asks for."""
    found: dict[str, set[str]] = defaultdict(set)
    for name in source.python_files("libs/", "services/", "stack/"):
        found[package_of(name)] |= asked(source.tree(name))
    return found


def named_by_package() -> dict[str, set[str]]:
    """All strings of each package's code: a name may be chosen first and asked for later."""
    found: dict[str, set[str]] = defaultdict(set)
    for name in source.python_files("libs/", "services/", "stack/"):
        nodes = ast.walk(source.tree(name))
        found[package_of(name)] |= {
            node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
    return found


def inline_statements(name: str, module: ast.Module) -> list[str]:
    """String constants passed to a database call that are statements themselves."""
    findings = []
    for node in ast.walk(module):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
            continue
        first = node.args[0]
        if node.func.attr not in {"execute", "executemany", "fetch", "fetchrow", "fetchval", "cursor", "prepare"}:
            continue
        if not isinstance(first, ast.Constant) or not isinstance(first.value, str) or first.value == PING:
            continue
        if STATEMENT.match(first.value):
            findings.append(f"{name}:{node.lineno}: a statement in the code; name it in sql/")
    return findings


def test_every_query_is_used() -> None:
    """Goal: no dead SQL. Method: compare the names in sql/ with the strings in the package's code."""
    used = named_by_package()
    findings = [
        f"{file}: {query} is asked for by nobody"
        for package, queries in declared().items()
        for query, file in queries.items()
        if query not in used[package]
    ]
    assert not findings, source.report(findings)


def test_every_used_query_exists() -> None:
    """Goal: no query fails by its name at run time. Method: the other way round."""
    known = declared()
    findings = [
        f"{package}: {query} stands in no sql/ file"
        for package, queries in asked_by_package().items()
        for query in queries
        if query not in known[package]
    ]
    assert not findings, source.report(findings)


def test_query_names_are_identifiers() -> None:
    """Goal: names are words. Method: match each against lower snake case."""
    findings = [
        f"{file}: {query} is not lower_snake_case"
        for queries in declared().values()
        for query, file in queries.items()
        if not IDENTIFIER.fullmatch(query)
    ]
    assert not findings, source.report(findings)


def test_services_keep_sql_out_of_code() -> None:
    """Goal: all SQL of a service stands in one place. Method: look at what is passed to the database's calls."""
    findings = [
        line for name in source.python_files(*source.SERVICES) for line in inline_statements(name, source.tree(name))
    ]
    assert not findings, source.report(findings)


def test_the_readers_see() -> None:
    """Goal: the checks can fail. Method: samples of a declared, an asked and an inline query."""
    assert HEADER.findall("-- name: take_row\nSELECT 1;\n") == ["take_row"]
    assert asked(ast.parse('self._queries.get("take_row")\nx.get("y")')) == {"take_row"}
    assert inline_statements("x.py", ast.parse('connection.fetch("SELECT 1 FROM t")'))
    assert not inline_statements("x.py", ast.parse('connection.fetch(queries.get("take_row"))'))
