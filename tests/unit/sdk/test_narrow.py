"""Tables on terminals that are narrower than their lines."""

import io

import pytest
from rich.console import Console
from rich.table import Table

from fallow_sdk.commands import connection

NAME = "charges/01m8ag0bx1ekk9zdcxctrvcpga"


@pytest.mark.parametrize(
    ("width", "output_to", "expected"),
    [
        (100, "terminal", ["CHARGE", "ORDER", NAME, NAME]),
        (64, "terminal", [f"CHARGE: {NAME}", f"ORDER: {NAME}"]),
        (64, "pipe", ["CHARGE", "ORDER", NAME, NAME]),
    ],
)
def test_names_are_whole_on_any_terminal(
    monkeypatch: pytest.MonkeyPatch, width: int, output_to: str, expected: list[str]
) -> None:
    """Goal: what is to be copied is never broken. Method: two names a row, terminals wide, narrow, and none at all."""
    output = io.StringIO()
    monkeypatch.setattr(connection, "terminal", Console(width=width, force_terminal=output_to == "terminal"))
    monkeypatch.setattr(connection, "console", Console(file=output, width=200, soft_wrap=True))
    table = Table("CHARGE", "ORDER", box=None)
    table.add_row(NAME, NAME)
    connection.show_rows(table)
    lines = [line.rstrip() for line in output.getvalue().splitlines() if line.strip()]
    if expected[0].startswith("CHARGE:"):
        assert lines == expected
    else:
        assert [word for line in lines for word in line.split()] == expected
