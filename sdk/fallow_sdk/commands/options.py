"""Options that several commands have, and how spans of time and named values are written in all of them."""

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
LONGEST = timedelta(days=36_500)
"""Far beyond what any order or key may last, and far from the end of the calendar."""
_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_span(text: str, option: str) -> timedelta:
    """`500ms`, `30s`, `10m`, `12h` or `30d`, at most a century. Raises a usage error."""
    match = re.fullmatch(r"([1-9][0-9]{0,8})(ms|s|m|h|d)", text)
    if match is None:
        raise typer.BadParameter("must be a number of ms, s, m, h or d, such as 30s", param_hint=option)
    span = timedelta(**{_UNITS[match[2]]: int(match[1])})
    if span > LONGEST:
        raise typer.BadParameter(f"must be at most {LONGEST.days}d", param_hint=option)
    return span


def parse_pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    """`key=value` each. Raises a usage error for anything else, and for one key twice."""
    pairs: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{text!r}: write key=value", param_hint=option)
        if key in pairs:
            raise typer.BadParameter(f"{key!r} stands twice, and has one value", param_hint=option)
        pairs[key] = value
    return pairs
