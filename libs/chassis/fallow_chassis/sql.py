"""Named SQL queries from a package's ``sql/*.sql``.

A file holds any number of queries, each under a header line ``-- name: query_name``. SQL stands in files so that an
editor, a linter and ``PREPARE`` see it as SQL; a test prepares every query on a migrated database.
"""

import re
from collections.abc import Iterator, Mapping
from importlib import resources
from types import MappingProxyType
from typing import Final

_HEADER: Final = re.compile(r"^--\s*name:\s*(\S*)\s*$")
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")


class QueryError(Exception):
    """A query file is malformed, a name stands twice, or a query that is asked for does not exist."""


class Queries:
    """The queries of one package by name."""

    def __init__(self, package: str, texts: Mapping[str, str]) -> None:
        """Keep the texts; ``load`` reads them from the package's files."""
        self.package = package
        self._texts = MappingProxyType(dict(texts))

    @classmethod
    def load(cls, package: str) -> "Queries":
        """Read ``sql/*.sql`` of an importable package; raises QueryError where they are malformed or name one twice."""
        texts: dict[str, str] = {}
        folder = resources.files(package) / "sql"
        for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if not file.name.endswith(".sql"):
                continue
            for name, text in parse_queries(file.read_text(encoding="utf-8"), f"{package}/sql/{file.name}"):
                if name in texts:
                    raise QueryError(f"{package}/sql/{file.name}: the name {name} stands twice")
                texts[name] = text
        return cls(package, texts)

    def get(self, name: str) -> str:
        """The text of a query; QueryError if there is none of that name."""
        text = self._texts.get(name)
        if text is None:
            raise QueryError(f"{self.package} has no query named {name}")
        return text

    def names(self) -> tuple[str, ...]:
        """The names of all queries, sorted."""
        return tuple(sorted(self._texts))


def parse_queries(text: str, where: str) -> Iterator[tuple[str, str]]:
    """The queries of one file, as (name, text); ``where`` names the file in errors."""
    name: str | None = None
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        header = _HEADER.match(line)
        if header is None:
            if name is None and line.strip() and not line.lstrip().startswith("--"):
                raise QueryError(f"{where}:{number}: SQL before the first '-- name:' header")
            lines.append(line)
            continue
        if name is not None:
            yield name, _body(lines, name, where)
        name, lines = header.group(1), []
        if not _NAME.fullmatch(name):
            raise QueryError(f"{where}:{number}: {name!r} is no name of a query")
    if name is not None:
        yield name, _body(lines, name, where)


def _body(lines: list[str], name: str, where: str) -> str:
    """The text of one query without its last semicolon; QueryError if nothing is left."""
    body = "\n".join(lines).strip().removesuffix(";").rstrip()
    if not body:
        raise QueryError(f"{where}: the query {name} is empty")
    return body
