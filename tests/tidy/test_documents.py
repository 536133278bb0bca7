"""Holds that documents agree with the tree: links lead somewhere, every reason is declared, documented, registered."""

import ast
import re
import tomllib
from pathlib import PurePosixPath

from tests.tidy import source

LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)(?: \"[^\"]*\")?\)")
CODES = {
    "CANCELLED", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED",
}  # fmt: skip


def broken_links(name: str, content: str) -> list[str]:
    """Links of a Markdown file to files that do not exist; code blocks are left out."""
    prose = re.sub(r"```.*?```", "", content, flags=re.DOTALL)
    folder = (source.ROOT / name).parent
    return [
        f"{name}: {target} leads nowhere"
        for target in LINK.findall(prose)
        if "://" not in target
        and not target.startswith(("#", "mailto:"))
        and not (folder / target.partition("#")[0]).exists()
    ]


def declared_reasons(module: ast.Module) -> dict[str, ast.Call]:
    """Module constants made by ErrorReason(...), by name."""
    found = {}
    for node in module.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if isinstance(target, ast.Name) and isinstance(value, ast.Call) and source.dotted(value.func) == "ErrorReason":
            found[target.id] = value
    return found


def reason_fields(call: ast.Call) -> list[str]:
    """The four texts of a reason: reason, code, summary, action; those that are not constants are empty."""
    order = ("reason", "code", "summary", "action")
    values: dict[str, ast.AST] = dict(zip(order, call.args, strict=False))
    values.update({keyword.arg: keyword.value for keyword in call.keywords if keyword.arg})
    constants = [values.get(field) for field in order]
    return [item.value if isinstance(item, ast.Constant) and isinstance(item.value, str) else "" for item in constants]


def listed_reasons(module: ast.Module) -> set[str]:
    """Names in the module's REASONS tuple."""
    for node in module.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == "REASONS":
            value = getattr(node, "value", None)
            return {inner.id for inner in ast.walk(value) if isinstance(inner, ast.Name)} if value else set()
    return set()


def reason_findings(name: str, module: ast.Module) -> list[str]:
    """What is wrong with the reasons of a module."""
    found = []
    listed = listed_reasons(module)
    for constant, call in declared_reasons(module).items():
        reason, code, summary, action = reason_fields(call)
        if reason != constant:
            found.append(f"{name}:{call.lineno}: {constant} says {reason!r}")
        if code not in CODES:
            found.append(f"{name}:{call.lineno}: {constant} has no gRPC status but {code!r}")
        if not summary or not action:
            found.append(f"{name}:{call.lineno}: {constant} does not say what it means and what to do")
        if constant not in listed:
            found.append(f"{name}:{call.lineno}: {constant} is not in REASONS")
    return found


def test_links_lead_somewhere() -> None:
    """Goal: no dead link inside the repository. Method: follow each link of each Markdown file."""
    findings = [
        line
        for name in source.tracked()
        if name.endswith(".md") and "/data/" not in name
        for line in broken_links(name, source.text(name))
    ]
    assert not findings, source.report(findings)


def test_reasons_are_complete_and_listed() -> None:
    """Goal: each error tells what to do. Method: read each ErrorReason constant where it is declared."""
    findings = [
        line for name in source.python_files("libs/", "services/") for line in reason_findings(name, source.tree(name))
    ]
    assert not findings, source.report(findings)


def test_reasons_are_registered_and_documented() -> None:
    """Goal: docs/errors.md has every reason. Method: entry points in the distributions, then the page's text."""
    page = source.text("docs/errors.md") if "docs/errors.md" in source.tracked() else ""
    findings = []
    for name in source.python_files("libs/", "services/"):
        reasons = declared_reasons(source.tree(name))
        if not reasons:
            continue
        parts = PurePosixPath(name).parts
        top = next(number for number, part in enumerate(parts) if part.startswith("fallow_"))
        project = tomllib.loads(source.text("/".join((*parts[:top], "pyproject.toml"))))["project"]
        module = ".".join(parts[top:]).removesuffix(".py")
        registered = project.get("entry-points", {}).get("fallow.error_reasons", {}).values()
        if f"{module}:REASONS" not in registered:
            findings.append(f"{name}: {module}:REASONS is not registered under fallow.error_reasons")
        findings += [f"{name}: {reason} is not in docs/errors.md" for reason in reasons if f"`{reason}`" not in page]
    assert not findings, source.report(findings)


def test_the_checks_see() -> None:
    """Goal: the checks can fail. Method: a dead link, a reason that lies, one that is sound."""
    assert broken_links("README.md", "[x](docs/there_is_no_such_page.md)")
    assert not broken_links("README.md", "[x](LICENSE) and [y](https://example.org) and ```[z](nowhere)```")
    wrong = 'A = ErrorReason("B", "NO_CODE", "", "")\nREASONS = ()'
    assert len(reason_findings("x.py", ast.parse(wrong))) == 4
    sound = 'A = ErrorReason("A", "NOT_FOUND", "It is gone.", "Make it again.")\nREASONS = (A,)'
    assert not reason_findings("x.py", ast.parse(sound))
