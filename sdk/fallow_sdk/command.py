"""The `fallow` command: the tenant's commands, and those that other distributions add.

A distribution adds a command by an entry point in the group `fallow.commands`: a Typer app, mounted under the entry
point's name, or a plain function, added as one command.
"""

import sys
from importlib.metadata import entry_points

import typer
from rich.console import Console

from fallow_sdk.chain import ChainError
from fallow_sdk.commands import call, funds, logs, order, receipt, session
from fallow_sdk.errors import FallowError
from fallow_sdk.profile import ProfileError

GROUP = "fallow.commands"


def build() -> typer.Typer:
    """The whole command."""
    app = typer.Typer(
        name="fallow",
        help="An open marketplace for idle GPUs.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.command("login")(session.login)
    app.add_typer(order.app, name="order")
    app.add_typer(funds.app, name="funds")
    app.command("logs")(logs.logs)
    app.command("call")(call.call)
    app.add_typer(receipt.app, name="receipt")
    for point in sorted(entry_points(group=GROUP), key=lambda item: item.name):
        addition = point.load()
        if isinstance(addition, typer.Typer):
            app.add_typer(addition, name=point.name)
        else:
            app.command(point.name)(addition)
    return app


def main() -> None:
    """Run the command. Exit status: 0 done, 1 refused or failed, 2 wrong usage."""
    try:
        build()()
    except (FallowError, ProfileError, ChainError, TimeoutError) as error:
        text = str(error) or "no answer in time; look at `fallow status`, then try again"
        Console(stderr=True, highlight=False).print(f"error: {text}", style="red", markup=False)
        sys.exit(1)
