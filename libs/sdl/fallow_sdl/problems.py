"""What is wrong in a file, and where.

Every stage adds to one list, so that one run shows all problems of that stage. A problem names its line (from 1), the
path of the field (``services.web.expose[0].port``) and a reason in words. Reasons never repeat values of the file that
may be secrets (environment, credentials, commands).
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong: ``line`` from 1, ``path`` of the field (empty for the whole file), ``reason``."""

    line: int
    path: str
    reason: str

    def __str__(self) -> str:
        """``line: path: reason``, as a compiler would print it after the file's name."""
        return f"{self.line}: {self.path}: {self.reason}" if self.path else f"{self.line}: {self.reason}"


class SdlError(Exception):
    """A file cannot be converted; ``problems`` holds at least one reason, in the order of their lines."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Keep the problems, sorted."""
        assert problems, "an error has a reason"
        self.problems: tuple[Problem, ...] = tuple(sorted(problems))
        super().__init__("; ".join(str(problem) for problem in self.problems))


def child(path: str, key: str) -> str:
    """The path of a field of a mapping."""
    return f"{path}.{key}" if path else key


def item(path: str, index: int) -> str:
    """The path of an item of a list."""
    return f"{path}[{index}]"
