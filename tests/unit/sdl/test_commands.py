"""``fallow sdl``: what it prints, and its exit status."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fallow_sdl.commands import app

FOLDER = Path(__file__).parents[2] / "data" / "sdl"
GOOD = str(FOLDER / "fastchat-deploy.yaml")
RUNNER = CliRunner()


def _price(*arguments: str) -> int:
    """The price limit that ``convert`` prints for the good file."""
    result = RUNNER.invoke(app, ["convert", GOOD, *arguments])
    assert result.exit_code == 0, result.output
    return int(json.loads(result.stdout)["groups"][0]["price_limit"]["micros_per_hour"])


def test_all_samples_check() -> None:
    """Goal: one line a file, status 0. Method: all samples at once."""
    files = sorted(str(path) for path in FOLDER.glob("*.yaml"))
    result = RUNNER.invoke(app, ["check", *files])
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [f"{path}: ok" for path in files]
    assert "(warning)" in result.stderr


def test_a_bad_file_is_told_with_line_path_and_reason(tmp_path: Path) -> None:
    """Goal: one line a file on standard output, the rest beside it; the good file is still told. Method: one of each."""
    bad = tmp_path / "bad.yaml"
    text = Path(GOOD).read_text("utf-8").replace("units: 1\n", "unit: 1\n", 1).replace("count: 1", "count: 0")
    bad.write_text(text, "utf-8")
    result = RUNNER.invoke(app, ["check", str(bad), GOOD])
    assert result.exit_code == 1
    first, last = result.stdout.splitlines()
    assert first == f"{bad}:15: profiles.compute.gpu-app.resources.cpu.units: is missing"
    assert last == f"{GOOD}: ok"
    number = text.splitlines().index("      count: 0") + 1
    assert result.stderr.splitlines() == [
        f"{bad}:16: profiles.compute.gpu-app.resources.cpu.unit: is an unknown field",
        f"{bad}:{number}: deployment.gpu-app.westcoast.count: must be from 1 to 1000",
    ]


def test_json_tells_all_of_each_file(tmp_path: Path) -> None:
    """Goal: programs need not parse text. Method: a good, a bad and a missing file."""
    bad = tmp_path / "bad.yaml"
    bad.write_text("version: 3\n", "utf-8")
    result = RUNNER.invoke(app, ["check", "--json", GOOD, str(bad), str(tmp_path / "none.yaml")])
    assert result.exit_code == 1
    good, told, missing = (json.loads(line) for line in result.stdout.splitlines())
    assert good == {"file": GOOD, "ok": True, "problems": [], "warnings": []}
    assert (told["ok"], told["problems"][0]["line"]) == (False, 1)
    assert {"line": 1, "path": "version", "reason": "must be 2.0 or 2.1"} in told["problems"]
    assert "cannot be read" in missing["problems"][0]["reason"]
    assert result.stderr == ""


def test_a_file_converts_into_json() -> None:
    """Goal: the order as the API takes it. Method: one sample."""
    result = RUNNER.invoke(app, ["convert", GOOD])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["groups"][0]["group_id"] == "westcoast"


def test_standard_input_is_a_file_too() -> None:
    """Goal: pipes work. Method: a sample through ``-``, good for one command, bad for the other."""
    text = Path(GOOD).read_bytes()
    assert RUNNER.invoke(app, ["check", "-"], input=text).stdout == "-: ok\n"
    assert RUNNER.invoke(app, ["convert", "-"], input=text).stdout == RUNNER.invoke(app, ["convert", GOOD]).stdout
    result = RUNNER.invoke(app, ["convert", "-"], input=b"version: '2.0'\n")
    assert result.exit_code == 1
    assert result.stdout == "-:1: deployment: is missing\n"


def test_prices_follow_the_options() -> None:
    """Goal: block time and rates can be set. Method: the good file's 10,000 uact (or uakt) per block, by hand."""
    text = Path(GOOD).read_text("utf-8")
    amount = int(text.split("amount:")[1].split()[0])
    assert "denom: uact" in text
    assert _price() == -(-amount * 3_600_000 // 6_098)
    assert _price("--block-milliseconds", "1000") == amount * 3_600
    assert _price("--rate", "uact=2000000", "--block-milliseconds", "1000") == amount * 7_200
    assert _price("--rate", "uakt=5", "--rate", "uact=500000", "--block-milliseconds", "1000") == amount * 1_800
    result = RUNNER.invoke(app, ["convert", GOOD, "--asset", "akt"])
    assert json.loads(result.stdout)["groups"][0]["price_limit"]["asset"] == "akt"


def test_the_class_of_persistent_volumes_follows_the_option(tmp_path: Path) -> None:
    """Goal: a platform's own class. Method: a volume that names none."""
    file = tmp_path / "deploy.yaml"
    text = Path(GOOD).read_text("utf-8").replace("    image:", "    params: {storage: {data: {mount: /d}}}\n    image:")
    before, after = text.split("        storage:", 1)
    volume = "        storage: [{name: data, size: 1Gi, attributes: {persistent: true}}]\n"
    file.write_text(before + volume + after.split("\n", 2)[2], "utf-8")
    result = RUNNER.invoke(app, ["convert", str(file), "--persistent-class", "beta3"])
    assert result.exit_code == 0, result.output
    storage = json.loads(result.stdout)["groups"][0]["workload"]["containers"][0]["resources"]["storage"]
    assert [volume["storage_class"] for volume in storage] == ["beta3"]


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["convert", "nothing.yaml"], 1),
        (["check", str(FOLDER)], 1),
        (["check"], 2),
        (["convert"], 2),
        (["convert", GOOD, GOOD], 2),
        (["hello"], 2),
        (["check", "--loud", GOOD], 2),
        (["check", "--block-milliseconds", "0", GOOD], 2),
        (["check", "--rate", "uakt", GOOD], 2),
        (["check", "--rate", "uakt=0", GOOD], 2),
        (["check", "--rate", "=5", GOOD], 2),
        (["check", "--asset", "US Dollar", GOOD], 2),
        (["check", "--persistent-class", "x" * 33, GOOD], 2),
    ],
)
def test_what_cannot_be_done_has_its_status(arguments: list[str], status: int) -> None:
    """Goal: scripts can tell. Method: a missing file, a folder, no argument, no such command, bad options."""
    assert RUNNER.invoke(app, arguments).exit_code == status


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_text_of_windows_programs_is_read(tmp_path: Path, encoding: str) -> None:
    """Goal: files saved on Windows work. Method: a byte order mark, sixteen bits a character, and line ends of theirs."""
    file = tmp_path / "deploy.yaml"
    file.write_bytes(Path(GOOD).read_text("utf-8").replace("\n", "\r\n").encode(encoding))
    assert RUNNER.invoke(app, ["check", str(file)]).stdout == f"{file}: ok\n"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\xff\xfe\x00", "1: is not UTF-8 text"),
        (b"version: '2.0'\nname: \xe9\n", "2: is not UTF-8 text"),
        (b"#" * 5_000_000, "1: the text is longer than 1048576 characters"),
        (b"", "1: the text is empty"),
    ],
)
def test_a_file_that_is_no_text_is_told(tmp_path: Path, data: bytes, problem: str) -> None:
    """Goal: no trace of ours on a strange file. Method: bytes that are no text, or too many."""
    strange = tmp_path / "strange.yaml"
    strange.write_bytes(data)
    result = RUNNER.invoke(app, ["check", str(strange)])
    assert result.exit_code == 1
    assert result.stdout == f"{strange}:{problem}\n"
