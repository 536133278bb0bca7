"""The `fallow` command. Every distribution adds its subcommands by entry points in the group `fallow.commands`.

An entry point is a Typer app, mounted under its name, or a plain function, added as one command. ``market.replay`` adds a
function to the app of ``market``. Only what is asked for is loaded, since some of them take long to import; help loads all.
"""

import errno
import os
import sys
from importlib.metadata import entry_points

import typer
from rich.console import Console

from fallow_sdk.errors import ChainError, FallowError
from fallow_sdk.profile import ProfileError

GROUP = "fallow.commands"
UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def build(wanted: str = "") -> typer.Typer:
    """The command with the subcommand that is wanted, or with all of them when there is none of that name."""
    app = typer.Typer(name="fallow", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)

    @app.callback()
    def fallow() -> None:
        """An open marketplace for idle GPUs."""

    points = sorted(entry_points(group=GROUP), key=lambda item: item.name)
    groups = {"": app}
    for point in [item for item in points if item.name.partition(".")[0] == wanted] or points:
        addition = point.load()
        parent, _, name = point.name.rpartition(".")
        if isinstance(addition, typer.Typer):
            groups[name] = addition
            app.add_typer(addition, name=name)
        else:
            groups[parent].command(name)(addition)
    return app


def main() -> None:
    """Run the command. Exit status: 0 done, 1 refused or failed, 2 wrong usage."""
    try:
        try:
            build(next(iter(sys.argv[1:]), ""))()
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        # What is still in the buffer would fail once more when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.stderr.write(f"error: the output cannot be written: {error.strerror}\n")
        sys.exit(1)
    except (FallowError, ProfileError, ChainError, TimeoutError) as error:
        text = str(error) or "no answer in time; look at `fallow status`, then try again"
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"error: {text}", style="red", markup=False)
        sys.exit(1)
