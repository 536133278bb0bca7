"""Holds where code touches the world: the environment in settings, no prints in services, a pure domain."""

import ast
from pathlib import PurePosixPath

from tests.tidy import source

IMPURE = {
    "aiodocker", "aiohttp", "aiokafka", "asyncio", "asyncpg", "fallow", "google", "grpc", "http", "io", "json.tool",
    "logging", "multiprocessing", "nats", "opentelemetry", "os", "pathlib", "pydantic_settings", "random", "secrets",
    "select", "shutil", "signal", "socket", "sqlite3", "ssl", "structlog", "subprocess", "sys", "tempfile", "threading",
    "time", "urllib", "uuid",
}  # fmt: skip
# What of the chassis is pure, or a Protocol only.
PURE_CHASSIS = {"fallow_chassis.errors", "fallow_chassis.clock", "fallow_chassis.ids", "fallow_chassis.gpu_models"}
# The one module of each distribution that reads the environment. The SDK has no settings but where its profile lies.
READERS = {"settings.py", "profile.py"}


def environment_reads(name: str, module: ast.Module) -> list[str]:
    """Places that read the environment."""
    return [
        f"{name}:{node.lineno}: reads the environment; only settings.py does"
        for node in ast.walk(module)
        if isinstance(node, ast.Attribute) and source.dotted(node) in {"os.environ", "os.getenv", "os.environb"}
    ] + [
        f"{name}:{node.lineno}: reads the environment; only settings.py does"
        for node in ast.walk(module)
        if isinstance(node, ast.ImportFrom)
        and node.module == "os"
        and any(alias.name in {"environ", "getenv"} for alias in node.names)
    ]


def prints(name: str, module: ast.Module) -> list[str]:
    """Calls of print."""
    return [
        f"{name}:{node.lineno}: print; log it, or write it in a command of the SDK"
        for node in ast.walk(module)
        if isinstance(node, ast.Call) and source.dotted(node.func) == "print"
    ]


def impure_imports(name: str, module: ast.Module) -> list[str]:
    """Imports that a domain must not have: I/O, clocks, randomness, protobuf, asyncio, other layers."""
    package = next(part for part in PurePosixPath(name).parts if part.startswith("fallow_"))
    findings = []
    for target, line in source.imported(module):
        top = target.partition(".")[0]
        ours = top.startswith("fallow_")
        foreign = ours and target not in PURE_CHASSIS and not f"{target}.".startswith(f"{package}.domain.")
        if top in IMPURE or foreign:
            findings.append(f"{name}:{line}: the domain imports {target}")
    return findings


def test_the_environment_is_read_in_settings_alone() -> None:
    """Goal: one list of what can be set. Method: look for reads of the environment in every other module."""
    findings = [
        line
        for name in source.python_files("libs/", "sdk/", "stack/", "services/")
        if PurePosixPath(name).name not in READERS and "/testing/" not in name
        for line in environment_reads(name, source.tree(name))
    ]
    assert not findings, source.report(findings)


def test_services_print_nothing() -> None:
    """Goal: what a service says is a log event. Method: look for print in services and the chassis."""
    findings = [line for name in source.python_files("services/", "libs/") for line in prints(name, source.tree(name))]
    assert not findings, source.report(findings)


def test_domains_are_pure() -> None:
    """Goal: decisions can be replayed. Method: look at what every module below a domain/ imports."""
    findings = [
        line
        for name in source.python_files("services/", "libs/")
        if "domain" in PurePosixPath(name).parts
        for line in impure_imports(name, source.tree(name))
    ]
    assert not findings, source.report(findings)


def test_the_checks_see() -> None:
    """Goal: the checks can fail. Method: a sample of each mistake beside one of sound code."""
    assert environment_reads("x.py", ast.parse("import os\nos.environ['A']"))
    assert environment_reads("x.py", ast.parse("from os import getenv"))
    assert not environment_reads("x.py", ast.parse("import os\nos.path"))
    assert prints("x.py", ast.parse("print(1)"))
    path = "services/order/fallow_order/domain/order.py"
    for mistake in ("import asyncio", "from fallow.order.v1 import order_pb2", "from fallow_order import store"):
        assert impure_imports(path, ast.parse(mistake)), mistake
    sound = "import dataclasses\nfrom fallow_chassis.errors import DomainError\nfrom fallow_order.domain.money import Amount"
    assert not impure_imports(path, ast.parse(sound))
