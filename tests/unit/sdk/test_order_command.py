"""`fallow order create`: how it reads its file."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from fallow_sdk.commands.order import read_sdl

TEXT = """\
version: "2.0"
services: {web: {image: nginx, restart: always}}
profiles:
  compute: {web: {resources: {cpu: {units: 1}, memory: {size: 1Gi}, storage: {size: 1Gi}}}}
  placement: {here: {pricing: {web: {denom: uact, amount: 100}}}}
deployment: {web: {here: {profile: web, count: 1}}}
"""


def test_what_has_no_effect_is_told_before_the_order_is_placed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Goal: nothing is dropped in silence. Method: a good file and a bad one, each with a field that Akash reads past."""
    file = tmp_path / "deploy.yaml"
    for text in (TEXT, TEXT.replace("count: 1", "count: 0")):
        file.write_text(text, "utf-8")
        assert read_sdl(file) == text
        captured = capsys.readouterr()
        assert captured.err == f"{file}:2: services.web.restart: is an unknown field and has no effect (warning)\n"
        assert captured.out == ""


def test_a_file_that_is_no_text_is_wrong_usage(tmp_path: Path) -> None:
    """Goal: no trace of ours on a strange file. Method: bytes that are no text."""
    file = tmp_path / "deploy.yaml"
    file.write_bytes(b"version: \xff\n")
    with pytest.raises(typer.BadParameter, match="is not UTF-8 text"):
        read_sdl(file)


def test_output_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    """Goal: no traceback, and no success. Method: a check whose output goes to a device that is full."""
    file = tmp_path / "deploy.yaml"
    file.write_text(TEXT.replace(", restart: always", ""), "utf-8")
    program = "from fallow_sdk.command import main; main()"
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-c", program, "sdl", "check", str(file)],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "error: the output cannot be written: No space left on device\n")
