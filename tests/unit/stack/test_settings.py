"""What `fallow up` and `fallow demo` are told: what makes no sense is refused before anything starts."""

from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from fallow_stack.commands import up
from fallow_stack.demo import demo

APP = Typer()
APP.command()(up)
APP.command()(demo)


@pytest.mark.parametrize(
    ("arguments", "variables", "told"),
    [
        (
            ["up", "--event-stream", "xkafkax"],
            {},
            "--event-stream is 'xkafkax': input should be 'jetstream' or 'kafka'",
        ),
        (["up", "--event-stream", "rabbit"], {}, "--event-stream is 'rabbit': input should be 'jetstream' or 'kafka'"),
        (
            ["demo", "--runtime", "execdocker"],
            {},
            "--runtime is 'execdocker': input should be 'auto', 'docker' or 'exec'",
        ),
        (["up"], {"FALLOW_PROVIDERS": "0"}, "FALLOW_PROVIDERS is '0': input should be greater than or equal to 1"),
        (
            ["up", "--runtime", "docker"],
            {"FALLOW_PROVIDERS": "x"},
            "FALLOW_PROVIDERS is 'x': input should be a valid int",
        ),
        (["demo"], {"FALLOW_RUNTIME": "dockers"}, "FALLOW_RUNTIME is 'dockers': input should be 'auto', 'docker' or"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    tmp_path: Path, arguments: list[str], variables: dict[str, str], told: str
) -> None:
    """Goal: no default taken silently, no trace. Method: each bad option and variable; status 2, a line, no folder."""
    home = tmp_path / "home"
    result = CliRunner().invoke(APP, [*arguments, "--home", str(home)], env=variables)
    assert result.exit_code == 2
    assert told in result.output.replace("\n", " ")
    assert len(result.output.strip().splitlines()) <= 2
    assert not home.exists()
