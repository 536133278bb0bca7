"""``fallow sdl``: what it prints, and its exit status."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fallow_sdl.commands import app

FOLDER = Path(__file__).parents[2] / "data" / "sdl"
GOOD = str(FOLDER / "fastchat-deploy.yaml")
RUNNER = CliRunner()


def test_all_samples_check() -> None:
    """Goal: one line a file, status 0. Method: all samples at once."""
    files = sorted(str(path) for path in FOLDER.glob("*.yaml"))
    result = RUNNER.invoke(app, ["check", *files])
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [f"{path}: ok" for path in files]
    assert "(warning)" in result.stderr


def test_a_bad_file_is_told_with_line_path_and_reason(tmp_path: Path) -> None:
    """Goal: status 1 and where to look; the good file beside it is still told. Method: one of each."""
    bad = tmp_path / "bad.yaml"
    bad.write_text(Path(GOOD).read_text("utf-8").replace("units: 1\n", "unit: 1\n", 1), "utf-8")
    result = RUNNER.invoke(app, ["check", str(bad), GOOD])
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert f"{bad}:16: profiles.compute.gpu-app.resources.cpu.unit: is an unknown field" in lines
    assert lines[-1] == f"{GOOD}: ok"


def test_a_file_converts_into_json() -> None:
    """Goal: the order as the API takes it. Method: one sample."""
    result = RUNNER.invoke(app, ["convert", GOOD])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["groups"][0]["group_id"] == "westcoast"


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["convert", "nothing.yaml"], 1), (["check", str(FOLDER)], 1), (["check"], 2), (["convert"], 2), (["hello"], 2)],
)
def test_what_cannot_be_done_has_its_status(arguments: list[str], status: int) -> None:
    """Goal: scripts can tell. Method: a missing file, a folder, no argument, no such command."""
    assert RUNNER.invoke(app, arguments).exit_code == status


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    """Goal: no trace of ours on a strange file. Method: bytes that are not UTF-8."""
    strange = tmp_path / "strange.yaml"
    strange.write_bytes(b"\xff\xfe\x00")
    result = RUNNER.invoke(app, ["check", str(strange)])
    assert result.exit_code == 1
    assert result.stdout == f"{strange}: is not UTF-8 text\n"
