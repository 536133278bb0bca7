"""``fallow sdl check`` and ``fallow sdl convert``: files without a server.

Standard output is for programs: one line a file. Standard error is for people: the other problems, and warnings. Exit
status: 0 all good, 1 a file is bad or cannot be read, 2 wrong usage.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer
from google.protobuf import json_format

import fallow_sdl
from fallow.order.v1 import order_pb2
from fallow_sdl.document import MAX_BYTES
from fallow_sdl.problems import Problem
from fallow_sdl.settings import DEFAULTS, parse_rates

STANDARD_INPUT: Final = Path("-")

app = typer.Typer(help="Check and convert Stack Definition Language files; needs no server.", no_args_is_help=True)

_Problems = tuple[Problem, ...]
_Files = Annotated[list[Path], typer.Argument(help="SDL files; - is standard input.", metavar="FILE…")]
_File = Annotated[Path, typer.Argument(help="An SDL file; - is standard input.", metavar="FILE")]
_Json = Annotated[bool, typer.Option("--json", help="Print a JSON object a file, with all problems and warnings.")]
_Asset = Annotated[str, typer.Option(help="Asset that price limits are stated in.")]
_Block = Annotated[int, typer.Option(min=1, help="Time of a block in milliseconds, for prices per block.")]
_Rates = Annotated[
    list[str] | None,
    typer.Option(
        "--rate",
        metavar="DENOM=MICROS",
        help="What a million of the denomination is worth in micros of the asset; may be given for several. "
        "uakt is at 500000 unless you say otherwise; uact and USDC are at 1000000.",
    ),
]
_Class = Annotated[str, typer.Option(help="Storage class of a persistent volume that names none.")]


@app.command()
def check(
    files: _Files,
    as_json: _Json = False,
    asset: _Asset = DEFAULTS.asset,
    block_milliseconds: _Block = DEFAULTS.block_milliseconds,
    rate: _Rates = None,
    persistent_class: _Class = DEFAULTS.persistent_class,
) -> None:
    """Print one line a file: `FILE: ok`, or its first problem as `FILE:line: path: reason`; the others on standard error."""
    settings = _settings(asset, block_milliseconds, rate, persistent_class)
    outcomes = [_check(path, settings, as_json=as_json) for path in files]
    if not all(outcomes):
        raise typer.Exit(1)


@app.command()
def convert(
    file: _File,
    asset: _Asset = DEFAULTS.asset,
    block_milliseconds: _Block = DEFAULTS.block_milliseconds,
    rate: _Rates = None,
    persistent_class: _Class = DEFAULTS.persistent_class,
) -> None:
    """Print the order that a file asks for, as JSON. It shows the workload: environment and credentials, too."""
    settings = _settings(asset, block_milliseconds, rate, persistent_class)
    problems, warnings, order = _read(file, settings)
    _warn(file, warnings)
    if order is None:
        _tell(file, problems)
        raise typer.Exit(1)
    typer.echo(json_format.MessageToJson(order, preserving_proto_field_name=True))


def _settings(
    asset: str, block_milliseconds: int, rate: list[str] | None, persistent_class: str
) -> fallow_sdl.SdlSettings:
    """How prices are read."""
    try:
        return fallow_sdl.SdlSettings(asset, block_milliseconds, parse_rates(",".join(rate or ())), persistent_class)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _check(path: Path, settings: fallow_sdl.SdlSettings, *, as_json: bool) -> bool:
    """Whether a file converts; says so."""
    problems, warnings, _ = _read(path, settings)
    if as_json:
        told = [[asdict(problem) for problem in listed] for listed in (problems, warnings)]
        typer.echo(json.dumps({"file": _name(path), "ok": not problems, "problems": told[0], "warnings": told[1]}))
        return not problems
    _warn(path, warnings)
    if problems:
        _tell(path, problems)
    else:
        typer.echo(f"{_name(path)}: ok")
    return not problems


def _read(path: Path, settings: fallow_sdl.SdlSettings) -> tuple[_Problems, _Problems, order_pb2.Order | None]:
    """What is wrong with a file, what is odd in it, and the order that it converts into where nothing is wrong."""
    try:
        conversion = fallow_sdl.convert(fallow_sdl.read_text(_bytes(path)), settings)
    except fallow_sdl.SdlError as error:
        return error.problems, error.warnings, None
    except OSError as error:
        return (Problem(1, "", f"cannot be read: {error.strerror or type(error).__name__}"),), (), None
    return (), conversion.warnings, conversion.order


def _bytes(path: Path) -> bytes:
    """A file's bytes, no more than can be right."""
    if path == STANDARD_INPUT:
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _tell(path: Path, problems: _Problems) -> None:
    """The first problem on standard output, the others apart from it."""
    for number, problem in enumerate(problems):
        typer.echo(f"{_name(path)}:{problem}", err=number > 0)


def _warn(path: Path, warnings: _Problems) -> None:
    """Say what has no effect, apart from the answer."""
    for warning in warnings:
        typer.echo(f"{_name(path)}:{warning} (warning)", err=True)


def _name(path: Path) -> str:
    """A file's name in any terminal, though it were no text."""
    return str(path).encode("utf-8", "replace").decode("utf-8")
