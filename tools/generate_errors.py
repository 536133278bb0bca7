"""Generate docs/errors.md: every reason that a Fallow error can carry, with its code and what to do about it.

Each distribution names its reasons in the entry point group `fallow.error_reasons`, a tuple of
`fallow_chassis.errors.ErrorReason`. With `--check` nothing is written; the status is 1 when the file differs.
"""

import argparse
import importlib.metadata
import sys
from collections.abc import Iterable
from pathlib import Path

from fallow_chassis.errors import ErrorReason

OUTPUT = Path(__file__).resolve().parent.parent / "docs" / "errors.md"
HEAD = """# Errors

Every error with which a service answers is a `google.rpc.Status` with an `ErrorInfo` whose `reason` is one of these; its
`domain` is `fallow`. Programs decide by the reason, never by the message, which is for people and may change.
`BadRequest` names the fields at fault, `PreconditionFailure` the resources that stand in the way, `RetryInfo` says how
long to wait. `make errors` writes this page.

What gRPC itself refuses before a service sees it carries the code alone, with no `ErrorInfo`: a message over 4 MiB
(`RESOURCE_EXHAUSTED`), bytes that are no message of the method (`INTERNAL`), a connection that fails (`UNAVAILABLE`).
"""


def registered() -> dict[str, list[ErrorReason]]:
    """The reasons by the name under which their package registers them, names sorted."""
    points = importlib.metadata.entry_points(group="fallow.error_reasons")
    return {point.name: sorted(point.load(), key=lambda reason: reason.reason) for point in sorted(points)}


def table(reasons: Iterable[ErrorReason]) -> str:
    """One table of reasons in Markdown."""
    rows = [
        f"| `{reason.reason}` | `{reason.code}` | {reason.summary} | {reason.action} |".replace("\n", " ")
        for reason in reasons
    ]
    return "\n".join(["| reason | code | what it means | what to do |", "|---|---|---|---|", *rows])


def page() -> str:
    """The whole page."""
    sections = [f"## {name}\n\n{table(reasons)}\n" for name, reasons in registered().items()]
    return "\n".join([HEAD, *sections])


def main() -> int:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if docs/errors.md is not current")
    arguments = parser.parse_args()
    text = page()
    if not arguments.check:
        OUTPUT.parent.mkdir(parents=True, exist_ok=True)
        OUTPUT.write_text(text, "utf-8")
        return 0
    if not OUTPUT.exists() or OUTPUT.read_text("utf-8") != text:
        print("errors: docs/errors.md is not what the packages register; run make errors", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
