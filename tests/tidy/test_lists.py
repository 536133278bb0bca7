"""Holds that all lists are paged in one way: by `fallow_chassis.paging`."""

import ast

from tests.tidy import source

BUILT_WITH = {"Page", "not_yet_available"}


def unpaged(name: str, module: ast.Module) -> list[str]:
    """Servicers' List methods that neither make a `Page` nor say that they are not built."""
    return [
        f"{name}:{node.lineno}: {node.name} is not paged by fallow_chassis.paging"
        for owner in ast.walk(module)
        if isinstance(owner, ast.ClassDef) and owner.name.endswith("Servicer")
        for node in owner.body
        if isinstance(node, ast.AsyncFunctionDef) and node.name.startswith("List")
        if not BUILT_WITH & {source.dotted(call.func) for call in ast.walk(node) if isinstance(call, ast.Call)}
    ]


def test_every_list_is_paged_in_one_way() -> None:
    """Goal: one rule for sizes and tokens. Method: look for `Page` in every List method of every servicer."""
    findings = [line for name in source.python_files(*source.SERVICES) for line in unpaged(name, source.tree(name))]
    assert not findings, source.report(findings)


def test_an_unpaged_list_is_found() -> None:
    """Goal: the check can fail. Method: a list that pages by hand, one that does not, and one that is not built."""
    sample = "class XServicer:\n    async def ListThings(self, request):\n        {}\n"
    assert unpaged("x.py", ast.parse(sample.format("return found[: request.page_size]")))
    assert not unpaged("x.py", ast.parse(sample.format("page = Page(request)")))
    assert not unpaged("x.py", ast.parse(sample.format("raise not_yet_available('things')")))
