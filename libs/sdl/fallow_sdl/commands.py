"""``fallow sdl check`` and ``fallow sdl convert``: files without a server.

Exit status: 0 all good, 1 a file is bad or cannot be read, 2 wrong usage.
"""

from pathlib import Path
from typing import Annotated

import typer
from google.protobuf import json_format

import fallow_sdl

app = typer.Typer(help="Check and convert Stack Definition Language files; needs no server.", no_args_is_help=True)

_Files = Annotated[list[Path], typer.Argument(help="SDL files.", metavar="FILE…")]
_File = Annotated[Path, typer.Argument(help="An SDL file.", metavar="FILE")]


@app.command()
def check(files: _Files) -> None:
    """Print a line for each file: `FILE: ok`, or each problem as `FILE:line: path: reason`."""
    outcomes = [_check(path) for path in files]
    if not all(outcomes):
        raise typer.Exit(1)


@app.command()
def convert(file: _File) -> None:
    """Print the order that a file asks for, as JSON. It shows the workload: environment and credentials, too."""
    conversion = _read(file)
    if conversion is None:
        raise typer.Exit(1)
    _warn(file, conversion)
    typer.echo(json_format.MessageToJson(conversion.order, preserving_proto_field_name=True))


def _check(path: Path) -> bool:
    """Whether a file converts; says so."""
    conversion = _read(path)
    if conversion is None:
        return False
    _warn(path, conversion)
    typer.echo(f"{path}: ok")
    return True


def _read(path: Path) -> fallow_sdl.Conversion | None:
    """What a file converts into; its problems are printed, and None given, where it does not."""
    try:
        return fallow_sdl.convert(path.read_text("utf-8"))
    except fallow_sdl.SdlError as error:
        for problem in error.problems:
            typer.echo(f"{path}:{problem}")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        typer.echo(f"{path}: {reason or type(error).__name__}")
    return None


def _warn(path: Path, conversion: fallow_sdl.Conversion) -> None:
    """Say what has no effect, apart from the answer."""
    for warning in conversion.warnings:
        typer.echo(f"{path}:{warning} (warning)", err=True)
