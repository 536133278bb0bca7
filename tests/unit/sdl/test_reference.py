"""docs/api/sdl.md: its files and commands are run, and what it lists is what the code knows."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fallow_sdl.commands import app

PAGE = (Path(__file__).parents[3] / "docs" / "api" / "sdl.md").read_text("utf-8")
FENCES = re.findall(r"^```(yaml|console)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_every_command_prints_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the page is true. Method: write its files, run its commands one after another, compare all they print."""
    monkeypatch.chdir(tmp_path)
    ran = 0
    for kind, body in FENCES:
        if kind == "yaml":
            Path(body.splitlines()[0].removeprefix("# ")).write_text(body, "utf-8")
            continue
        for command in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
            line, _, expected = command.partition("\n")
            arguments = shlex.split(line)
            assert arguments[:2] == ["fallow", "sdl"]
            assert CliRunner().invoke(app, arguments[2:]).output == expected, line
            ran += 1
    assert ran == 5
