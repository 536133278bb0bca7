"""What is wrong in a file, and where.

Every stage adds to one list, so that one run shows all problems of that stage, up to a bound. A problem names its line
(from 1), the path of the field (``services.web.expose[0].port``) and a reason in words. Reasons never repeat values of
the file that may be secrets (environment, credentials, commands), and names of the file are made printable, so that a
problem is always one line of text.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fallow_sdl.model import Place

MAX_PROBLEMS: Final = 100
MAX_NAME_CHARACTERS: Final = 80
_PLAIN: Final = re.compile(rf"[A-Za-z0-9_./*-]{{1,{MAX_NAME_CHARACTERS}}}")


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
    """A file cannot be converted; ``problems`` holds at least one reason, in the order of their lines.

    ``warnings`` are what else was seen until then: a misspelt field is told there, where its proper name is missing.
    """

    def __init__(self, problems: Sequence[Problem], warnings: Sequence[Problem] = ()) -> None:
        """Keep the problems and warnings, sorted."""
        assert problems, "an error has a reason"
        self.problems: tuple[Problem, ...] = tuple(sorted(problems))
        self.warnings: tuple[Problem, ...] = tuple(sorted(warnings))
        super().__init__("; ".join(str(problem) for problem in self.problems))


class Notes:
    """What was found so far: problems refuse the file, warnings do not. Each list stops at its bound."""

    def __init__(self) -> None:
        """Start with none."""
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []

    def refuse(self, place: Place, reason: str) -> None:
        """Note a problem."""
        _add(self.problems, place, reason)

    def warn(self, place: Place, reason: str) -> None:
        """Note something that is accepted but has no effect, or another one than on Akash."""
        _add(self.warnings, place, reason)

    def settle(self) -> None:
        """End a stage: raise SdlError if there are problems."""
        if self.problems:
            raise SdlError(self.problems, self.warnings)


def child(path: str, key: str) -> str:
    """The path of a field of a mapping; a name that is long or odd is quoted and cut."""
    name = printable(key)
    return f"{path}.{name}" if path else name


def item(path: str, index: int) -> str:
    """The path of an item of a list."""
    return f"{path}[{index}]"


def printable(name: str) -> str:
    """A name of the file as it may stand in one line of text."""
    return name if _PLAIN.fullmatch(name) else ascii(name[:MAX_NAME_CHARACTERS])


def _add(problems: list[Problem], place: Place, reason: str) -> None:
    """Add to a list that has room; its last entry says that it was full."""
    assert "\n" not in reason, "a problem is one line"
    if len(problems) < MAX_PROBLEMS:
        problems.append(Problem(place.line, place.path, reason))
    elif len(problems) == MAX_PROBLEMS:
        problems.append(Problem(place.line, "", f"and more: only the first {MAX_PROBLEMS} are told"))
