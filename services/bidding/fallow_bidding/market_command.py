"""``fallow market replay FILE``: decide again what the market decided, without a server."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console

from fallow_bidding.records import RECORD, plain, replay

_errors = Console(stderr=True, highlight=False)


def replay_files(
    files: Annotated[list[Path], typer.Argument(help="Files that the market wrote into FALLOW_DECISIONS_FOLDER.")],
) -> None:
    """Decide again what the market decided. Needs no server; exit status 1 where a decision differs or a file is none."""
    outcomes = [_replay(path) for path in files]
    if not all(outcomes):
        raise typer.Exit(1)


def _replay(path: Path) -> bool:
    """One file; whether it holds."""
    try:
        record = RECORD.validate_json(path.read_bytes())
    except OSError as error:
        _errors.print(f"{path}: cannot be read: {error.strerror}", style="red", markup=False)
        return False
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"]) or "the file"
        _errors.print(
            f"{path}: is no decision of the market: {place}: {error.errors()[0]['msg']}", style="red", markup=False
        )
        return False
    again = replay(record)
    if plain(again) != plain(record.decision):
        _errors.print(f"{path}: decides otherwise now", style="red", markup=False)
        for name, decision in (("then", record.decision), ("now", again)):
            _errors.print(f"  {name}: {_told(plain(decision))}", markup=False)
        return False
    typer.echo(f"{path}: the same: {_told(plain(record.decision))}")
    return True


def _told(decision: dict[str, object]) -> str:
    """The matches of a decision in one line."""
    matches = decision["matches"]
    assert isinstance(matches, list), "a decision has a list of matches"
    return (
        "; ".join(
            f"group {match['group_index']} to {match['provider_id']} at {match['price_micros']} micros an hour on "
            + ", ".join(sorted({placement["node_id"] for placement in match["placements"]}))
            for match in matches
        )
        or "no match"
    )
